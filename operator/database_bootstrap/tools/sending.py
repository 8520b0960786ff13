"""Sending SQL text as it is, and finding the place in it that the server refused."""

from dataclasses import dataclass, field, replace
from itertools import islice

import psycopg

from database_bootstrap.postgres.bounds import NotTaken, TooLarge
from database_bootstrap.postgres.connection import Connection, Done
from database_bootstrap.postgres.sqlstates import server_words
from database_bootstrap.tools.scripts import Script, column_of, line_of
from database_bootstrap.tools.sql_text import CONCURRENT_INDEX, Piece, pieces

_LIFT = """
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
    WHERE name = 'lock_timeout' AND setting = reset_val
"""

_PUTS = (b"INSERT", b"COPY", b"MERGE")
_ENDS = frozenset({b"BEGIN", b"COMMIT", b"PREPARE TRANSACTION", b"ROLLBACK"})


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
    def said(self) -> str:
        """The server's words without DETAIL, which holds row data."""
        hint = "; nobody gets what a script selects, so let it select less" if isinstance(self.error, TooLarge) else ""
        return f"{server_words(self.error)}{hint}"

    @property
    def words(self) -> str:
        """The same with the SQLSTATE."""
        return f"{self.said} (SQLSTATE {self.state})" if self.state else self.said

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


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of the statements of a message, whose rows nobody keeps."""

    ours: int
    """How many statements of ours are still to come before the script's."""
    held: bool = False
    """One of ours has returned a row."""
    done: int = 0
    """How many of the script's went through."""
    put: int = 0
    """How many rows they have put in."""
    ends: set[bytes] = field(default_factory=set)
    """Those among them that begin or end a transaction."""

    def take(self, one: Done) -> None:
        """Count one statement that went through."""
        if self.ours:
            self.ours -= 1
            self.held = self.held or one.rows > 0
            return
        self.done += 1
        self.put += one.rows if one.tag.startswith(_PUTS) else 0
        if one.tag in _ENDS:
            self.ends.add(one.tag)

    @property
    def has_committed(self) -> bool:
        """Whether a statement of the script has ended the transaction that was open."""
        return not self.ends.isdisjoint((b"COMMIT", b"PREPARE TRANSACTION")) or {b"ROLLBACK", b"BEGIN"} <= self.ends


async def send(connection: Connection, message: Message) -> Tally:
    """Send a message and return what came of it; raise `Failure` with the place of what the server refused.

    psycopg's `execute` would keep all rows that a script selects, and forget how many statements succeeded before the
    one that did not: for an error without a position, all that is known of its place.
    """
    try:
        query = (message.before + message.text).encode(connection.info.encoding)
    except UnicodeEncodeError as error:
        place = message.start + error.start - len(message.before)
        what = psycopg.DataError(
            f"the encoding that the script sets has no character U+{ord(error.object[error.start]):04X}"
        )
        raise Failure(error=what, line=line_of(message.script.text, place)) from None
    tally = Tally(ours=message.before_count)
    try:
        refused = await connection.run(query, tally.take)
    except psycopg.Error as error:
        failure = _failure_at(error, message, tally) if isinstance(error, NotTaken) else Failure(error=error)
        raise replace(failure, has_committed=tally.has_committed) from error
    if refused is not None:
        refusal = psycopg.errors.error_from_result(refused, encoding=connection.info.encoding)
        raise replace(_failure_at(refusal, message, tally), has_committed=tally.has_committed)
    return tally


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


def _failure_at(error: psycopg.Error, message: Message, tally: Tally) -> Failure:
    text, done = message.script.text, tally.done
    if error.diag.statement_position is not None:
        # Characters, counted from 1, of the whole message.
        place = max(0, message.start + int(error.diag.statement_position) - 1 - len(message.before))
        return Failure(error=error, line=line_of(text, place), column=column_of(text, place), done=done)
    # With one of ours still to come the server took offence at the message as a whole.
    refused = None if tally.ours else next(islice(pieces(message.text), done, None), None)
    line = line_of(text, message.start + refused.start) if refused else None
    return Failure(error=error, line=line, done=done)
