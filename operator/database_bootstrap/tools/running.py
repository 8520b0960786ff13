"""Running a script: in one transaction with its records, or statement by statement, and never twice by guess."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import generators, pq, sql

from database_bootstrap import errors
from database_bootstrap.postgres import ledger, locks
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ledger import MigrationRow
from database_bootstrap.postgres.sqlstates import TRANSIENT, error_of, is_transient, server_words
from database_bootstrap.tools.scripts import Mode, Script, column_of, line_of
from database_bootstrap.tools.statements import Statement
from database_bootstrap.tools.tool import Run

ATTEMPTS = 3
_PAUSE = 0.5
"""Seconds before the second attempt, at most; jittered, so that two who deadlock do not meet again."""
_NOT_IN_TRANSACTION = frozenset(
    {
        "25001",  # active_sql_transaction: a statement that refuses to run in one
        "55P04",  # unsafe_new_enum_value_usage: a value that ALTER TYPE has added just before
        "2D000",  # invalid_transaction_termination: a procedure or DO block that commits
    }
)
SETTLE = sql.SQL("RESET SESSION AUTHORIZATION; RESET ALL;")
"""Comes before our records: a script made by pg_dump leaves search_path empty, another one a different role."""
_NOTHING = sql.SQL("")
_PASSING_CLASSES = ("53", "58", "25006")
"""Out of disk, memory or connections, an input/output error, a server that became read-only: not the script's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One migration to be applied, and how its tool records it."""

    script: Script
    row: MigrationRow
    """What the ledger's rows have in common; the state is filled in."""
    is_applied: sql.Composed
    """A query that gives a row when somebody has applied it meanwhile."""
    next_step: str
    """What a person does when it stopped half-way."""
    begin: sql.Composed | sql.SQL = field(default_factory=lambda: _NOTHING)
    """Opens the tool's own record; with a semicolon at its end."""
    finish: sql.Composed | sql.SQL = field(default_factory=lambda: _NOTHING)
    """Closes it."""
    fail: Callable[[str], sql.Composed | sql.SQL] = lambda _: _NOTHING
    """Leaves it open, with the words that say why."""
    alone: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Around statements that run alone: what must not be held meanwhile is put down."""


@dataclass(eq=False, kw_only=True)
class _Failure(Exception):
    """The server refused something that a script says."""

    error: psycopg.Error
    line: int | None = None
    column: int | None = None
    done: int = 0
    """How many statements had succeeded."""

    @property
    def state(self) -> str | None:
        return self.error.sqlstate

    @property
    def words(self) -> str:
        """The server's words without DETAIL, which holds row data."""
        suffix = f" (SQLSTATE {self.state})" if self.state else ""
        return f"{server_words(self.error)}{suffix}"

    @property
    def place(self) -> str:
        if self.line is None:
            return ""
        return f" line {self.line}" if self.column is None else f" line {self.line} column {self.column}"


async def run_script(run: Run, job: Job) -> None:
    """Apply one script and record it; raise what a `Tool.apply` may raise."""
    try:
        if job.script.mode is Mode.TRANSACTION:
            await _run_in_transaction(run, job)
        else:
            await _run_in_open(run, job)
    except psycopg.Error as error:
        raise _of_ours(error, job) from error
    await run.applied(job.row.name)


async def _run_in_transaction(run: Run, job: Job) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await _attempt(run, job)
        except _Failure as failure:
            await _roll_back(run.connection)
            if failure.state in _NOT_IN_TRANSACTION:
                await _run_in_open(run, replace(job, script=replace(job.script, mode=Mode.STATEMENT)))
                return
            if failure.state not in TRANSIENT or attempt == ATTEMPTS:
                raise _undone(run, job, failure) from failure.error
        else:
            return
        await asyncio.sleep(random.uniform(0.2, 1) * _PAUSE * attempt)  # noqa: S311 jitter
        if await _exists(run.connection, job.is_applied):
            return


async def _attempt(run: Run, job: Job) -> None:
    """Send three messages: hundreds of migrations take as long as their round trips."""
    connection, script = run.connection, job.script
    await _begin(connection, job.begin)
    await _send(connection, script, 0, script.text, script.statements)
    if connection.info.transaction_status != pq.TransactionStatus.INTRANS:
        raise errors.MigrationHalfApplied(
            f"{script.path} ended the transaction that it was run in, so it is not recorded. {job.next_step}"
        )
    row = replace(job.row, state="applied", mode=script.mode, statements=len(script.statements))
    try:
        await connection.execute(SETTLE + ledger.migration_statement(row, run.actor) + job.finish + sql.SQL("COMMIT"))
    except psycopg.Error as error:
        # Constraints that are deferred speak up only now.
        raise _Failure(error=error, done=len(script.statements)) from error


async def _begin(connection: Connection, own: sql.Composed | sql.SQL) -> None:
    """Begin a transaction and the tool's own record, if this session still holds the lock."""
    cursor = await connection.execute(locks.HELD + sql.SQL("; BEGIN;") + own)
    if await cursor.fetchone() is None:
        await _roll_back(connection)
        raise locks.lost()


async def _run_in_open(run: Run, job: Job) -> None:
    """Record that it began, run it outside any transaction of ours, and record how it ended."""
    connection, script = run.connection, job.script
    await _begin(connection, job.begin)
    row = replace(job.row, state="running", mode=script.mode)
    await connection.execute(ledger.migration_statement(row, run.actor) + sql.SQL("COMMIT"))
    try:
        async with job.alone() if script.mode is Mode.STATEMENT else nullcontext():
            if script.mode is Mode.STATEMENT:
                await _send_one_by_one(run, job)
            else:
                await _send(connection, script, 0, script.text, script.statements)
            await _end_transaction(connection)
    except _Failure as failure:
        raise await _stuck(run, job, failure) from failure.error
    done = len(script.statements)
    await _record(run, SETTLE + job.finish, replace(job.row, state="applied", mode=script.mode, statements=done))


async def _send_one_by_one(run: Run, job: Job) -> None:
    for index, statement in enumerate(job.script.statements):
        try:
            await _send(run.connection, job.script, statement.start, statement.text, (statement,))
        except _Failure as failure:
            raise replace(failure, done=index) from failure.error
        except asyncio.CancelledError:
            why = psycopg.OperationalError("stopped by the operator, whose time was over or who was told to end")
            await _stuck(run, job, _Failure(error=why, line=statement.line, done=index))
            raise


async def _end_transaction(connection: Connection) -> None:
    """Roll back what a script began and did not end; its statements were counted, but other texts may do it too."""
    if connection.info.transaction_status != pq.TransactionStatus.IDLE:
        await _roll_back(connection)
        raise _Failure(error=psycopg.OperationalError("the script left a transaction open, which was rolled back"))


async def _send(
    connection: Connection, script: Script, offset: int, text: str, statements: tuple[Statement, ...]
) -> None:
    """Send one simple query; raise `_Failure` with the place of what the server refused.

    psycopg's `execute` would do, were it not that it forgets how many statements succeeded before the one that did
    not, which is all that is known of the place of an error that carries no position.
    """
    try:
        message = text.encode(connection.info.encoding)
    except UnicodeEncodeError as error:
        place = offset + error.start
        raise _Failure(
            error=psycopg.DataError(f"the database's encoding has no character U+{ord(text[error.start]):04X}"),
            line=line_of(script.text, place),
        ) from None
    async with connection.lock:
        try:
            connection.pgconn.send_query(message)
            results = await connection.wait(generators.execute(connection.pgconn))
        except psycopg.Error as error:
            raise _Failure(error=error) from error
    last = results[-1] if results else None
    if last is not None and last.status == pq.ExecStatus.FATAL_ERROR:
        refusal = psycopg.errors.error_from_result(last, encoding=connection.info.encoding)
        raise _failure_at(refusal, script, offset, statements, len(results) - 1)


def _failure_at(
    error: psycopg.Error, script: Script, offset: int, statements: tuple[Statement, ...], done: int
) -> _Failure:
    position = error.diag.statement_position
    if position is not None:
        place = offset + int(position) - 1
        return _Failure(error=error, line=line_of(script.text, place), column=column_of(script.text, place), done=done)
    return _Failure(error=error, line=statements[done].line if done < len(statements) else None, done=done)


async def _record(run: Run, own: sql.Composed | sql.SQL, row: MigrationRow) -> None:
    await run.connection.execute(own + ledger.migration_statement(row, run.actor))


async def _exists(connection: Connection, query: sql.Composed) -> bool:
    cursor = await connection.execute(query)
    return await cursor.fetchone() is not None


async def _roll_back(connection: Connection) -> None:
    """End a transaction that failed; a connection that broke has none."""
    if connection.info.transaction_status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
        await connection.execute("ROLLBACK")


def _undone(run: Run, job: Job, failure: _Failure) -> errors.BootstrapError:
    """Return what to say of a transaction that was rolled back."""
    what = f"{job.script.path}{failure.place}: {failure.words}"
    state = failure.state or ""
    if is_transient(failure.error) or state.startswith(_PASSING_CLASSES):
        return errors.MigrationInterrupted(f"{what}. {_lost(run.connection)}")
    if state == "57014":
        limit = run.options.statement_timeout
        why = f"statementTimeoutSeconds is {limit}" if limit else "somebody cancelled it"
        what = f"{what}; {why}"
    return errors.MigrationFailed(
        f"{what}. Nothing of it stayed; fix the file and apply again.",
        name=job.row.name,
        sql_state=failure.state,
        detail=failure.words,
        line=failure.line,
    )


def _lost(connection: Connection) -> str:
    if connection.closed:
        return "The next visit looks whether the server had committed it."
    return "Nothing of it stayed, and it will be tried again."


async def _stuck(run: Run, job: Job, failure: _Failure) -> errors.BootstrapError:
    """Record that a script stopped half-way, as far as the connection still allows, and return what to say of it."""
    total = len(job.script.statements)
    words = f"statement {failure.done + 1} of {total}{failure.place}: {failure.words}"
    try:
        await _roll_back(run.connection)
        await run.connection.execute(SETTLE)
        invalid = await _invalid_indexes(run.connection)
        if invalid:
            words += f"; INVALID indexes: {', '.join(invalid)}"
        row = replace(
            job.row,
            state="failed",
            mode=job.script.mode,
            statements=failure.done,
            sql_state=failure.state,
            error=words,
        )
        await _record(run, job.fail(words), row)
    except psycopg.Error:
        words += "; the connection then broke off"
    return half_applied(job.script.path, words, job.next_step)


def half_applied(path: str, words: str, next_step: str) -> errors.MigrationHalfApplied:
    """Return the error for a migration that stopped in the middle: the same words now and on every later visit."""
    return errors.MigrationHalfApplied(f"{path} stopped in the middle, at {words}. {next_step}")


async def _invalid_indexes(connection: Connection) -> list[str]:
    cursor = await connection.execute(
        "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)"
        " FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        # An index of a partitioned table is invalid until each partition has its own: nothing failed there.
        " WHERE NOT i.indisvalid AND c.relkind = 'i' ORDER BY 1 LIMIT 20"
    )
    return [name for (name,) in await cursor.fetchall()]


def _of_ours(error: psycopg.Error, job: Job) -> errors.BootstrapError:
    """Return the error for one of our own statements around the script."""
    if is_transient(error):
        return errors.MigrationInterrupted(f"{job.script.path} could not be recorded: {server_words(error)}")
    return error_of(error, f"record the migration {job.row.name}")
