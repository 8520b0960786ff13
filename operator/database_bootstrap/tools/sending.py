"""Sending SQL text as it is, and finding the place in it that the server refused."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

import psycopg
from psycopg import generators, pq

from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.sqlstates import server_words
from database_bootstrap.tools.scripts import Script, column_of, line_of
from database_bootstrap.tools.sql_text import CONCURRENT_INDEX, Piece, pieces

_LIFT = """
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
    WHERE name = 'lock_timeout' AND setting = reset_val
"""


@dataclass(eq=False, kw_only=True)
class Failure(Exception):
    """The server refused something that a script says, or went away."""

    error: psycopg.Error
    line: int | None = None
    column: int | None = None
    done: int = 0
    """How many statements had succeeded."""
    has_committed: bool = False
    """One of them ended the transaction that they were sent in: what ran before that has stayed."""

    @property
    def state(self) -> str:
        """The SQLSTATE, or nothing."""
        return self.error.sqlstate or ""

    @property
    def words(self) -> str:
        """The server's words without DETAIL, which holds row data."""
        suffix = f" (SQLSTATE {self.state})" if self.state else ""
        return f"{server_words(self.error)}{suffix}"

    @property
    def place(self) -> str:
        """` line 12 column 5`, as far as it is known."""
        if self.line is None:
            return ""
        return f" line {self.line}" if self.column is None else f" line {self.line} column {self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One simple query: statements of a script, with one of ours before them."""

    script: Script
    text: str
    start: int
    """Where the text begins in the script."""
    before: str = ""
    """Our statements, each with its semicolon."""
    before_count: int = 0


def whole(script: Script, before: str = "", before_count: int = 0) -> Message:
    """Return the message that sends a whole script."""
    return Message(script=script, text=script.text, start=0, before=before, before_count=before_count)


def single(script: Script, piece: Piece) -> Message:
    """Return the message that sends one statement of a script."""
    return Message(script=script, text=script.text[piece.start : piece.end], start=piece.start)


def ours(script: Script, statements: str) -> Message:
    """Return the message that sends statements of ours, for a script that comes behind them."""
    return Message(script=script, text="", start=0, before=statements, before_count=statements.count(";"))


async def send(connection: Connection, message: Message) -> list[pq.abc.PGresult]:
    """Send a message and return its results; raise `Failure` with the place of what the server refused.

    psycopg's `execute` would do, were it not that it forgets how many statements succeeded before the one that did
    not: for an error without a position, all that is known of its place.
    """
    try:
        query = (message.before + message.text).encode(connection.info.encoding)
    except UnicodeEncodeError as error:
        place = message.start + error.start - len(message.before)
        what = psycopg.DataError(
            f"the encoding that the script sets has no character U+{ord(error.object[error.start]):04X}"
        )
        raise Failure(error=what, line=line_of(message.script.text, place)) from None
    async with connection.lock:
        try:
            connection.pgconn.send_query(query)
            results: list[pq.abc.PGresult] = await connection.wait(generators.execute(connection.pgconn))
        except psycopg.Error as error:
            raise Failure(error=error) from error
    if results and results[-1].status == pq.ExecStatus.FATAL_ERROR:
        refusal = psycopg.errors.error_from_result(results[-1], encoding=connection.info.encoding)
        failure = _failure_at(refusal, message, len(results) - 1 - message.before_count)
        raise replace(failure, has_committed=has_committed(results[message.before_count :]))
    return results


def has_committed(results: Iterable[pq.abc.PGresult]) -> bool:
    """Whether one of these statements has ended the transaction that was open."""
    tags = {result.command_status for result in results}
    return not tags.isdisjoint((b"COMMIT", b"PREPARE TRANSACTION")) or {b"ROLLBACK", b"BEGIN"} <= tags


async def send_patiently(connection: Connection, message: Message) -> None:
    """Send a statement, and one that builds or drops an index concurrently without our limit on waiting for locks.

    It waits for every older transaction, and keeps nobody else waiting; when it gives up, the index is INVALID and the
    migration half-applied. A limit that the script has set itself is left as it is.
    """
    if not CONCURRENT_INDEX.match(message.text):
        await send(connection, message)
        return
    lifted = await (await connection.execute(_LIFT)).fetchone()
    await send(connection, message)
    if lifted:
        await connection.execute("RESET lock_timeout")


def _failure_at(error: psycopg.Error, message: Message, done: int) -> Failure:
    text = message.script.text
    if error.diag.statement_position is not None:
        # Characters, counted from 1, of the whole message.
        place = max(0, message.start + int(error.diag.statement_position) - 1 - len(message.before))
        return Failure(error=error, line=line_of(text, place), column=column_of(text, place), done=max(0, done))
    # Below zero: the server took offence at the message before it began with the first statement.
    refused = next(islice(pieces(message.text), done, None), None) if done >= 0 else None
    line = line_of(text, message.start + refused.start) if refused else None
    return Failure(error=error, line=line, done=max(0, done))
