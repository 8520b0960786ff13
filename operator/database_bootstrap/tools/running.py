"""Running a script: in one transaction with its records, or statement by statement, and never twice by guess."""

import asyncio
import random
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import pq, sql

from database_bootstrap import errors
from database_bootstrap.postgres import ledger, locks
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ledger import MigrationRow
from database_bootstrap.postgres.sqlstates import TRANSIENT, error_of, is_transient, server_words
from database_bootstrap.tools import resolution
from database_bootstrap.tools.scripts import Mode, Script, line_of
from database_bootstrap.tools.sending import Failure, send, send_patiently, single, whole
from database_bootstrap.tools.tool import Run

Sql = sql.SQL | sql.Composed

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
_PASSING = ("08", "53", "57P0", "58", "25006", "25P03", *TRANSIENT)
"""What is not the script's fault: a lost connection, no disk or memory left, an input or output error, a server that
became read-only, and what a lock or a concurrent transaction does."""
_BEGIN = f"{locks.HELD.as_string()}; BEGIN; "
_SETTLE = sql.SQL("RESET SESSION AUTHORIZATION; RESET ALL; ")
"""Before our records: a script made by pg_dump leaves search_path empty, another one a different role."""
_NOTHING = sql.SQL("")
_LINE = re.compile(r"statement \d+ of \d+ line (\d+)")
_STATE = re.compile(r"\(SQLSTATE ([0-9A-Z]{5})\)")
"""In the words that `_stuck` writes down: a tool's own table has no other place for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What a tool writes into a table of its own, each with a semicolon at its end; nothing, where the ledger is it."""

    whole: Sql = field(default_factory=lambda: _NOTHING)
    """In the transaction of the script, after it."""
    begin: Sql = field(default_factory=lambda: _NOTHING)
    """Where there is no such transaction, before the script."""
    finish: Sql = field(default_factory=lambda: _NOTHING)
    """Then, after it."""
    fail: Callable[[str], Sql] = lambda _: _NOTHING
    """Or, when it failed, with the words that say why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One migration to be applied, and how it is recorded."""

    script: Script
    row: MigrationRow
    """What the ledger's rows have in common; the state is filled in."""
    records: Records = field(default_factory=Records)
    is_applied: sql.Composed
    """A query that gives a row when somebody has applied it meanwhile."""
    next_step: Callable[[str | None], str]
    """What a person does when it stopped half-way, with what names this stop."""
    stop: str | None = None
    """What would name it; None: it is the ledger that says so."""
    alone: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Around statements that run alone: what must not be held meanwhile is put down."""


async def run_script(run: Run, job: Job) -> None:
    """Apply one script and record it; raise what a `Tool.apply` may raise."""
    await run.gate.again(job.row.name)
    try:
        if job.script.mode is Mode.TRANSACTION:
            await _run_in_transaction(run, job)
        else:
            await _run_in_open(run, job)
    except psycopg.Error as error:
        raise _of_records(error, job) from error


async def _run_in_transaction(run: Run, job: Job) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await _attempt(run, job)
        except Failure as failure:
            await _roll_back(run.connection)
            if failure.state in _NOT_IN_TRANSACTION:
                if job.script.needs_one_transaction():
                    raise _torn(job, failure) from failure.error
                await _run_in_open(run, replace(job, script=replace(job.script, mode=Mode.STATEMENT)))
                return
            if failure.state not in TRANSIENT or attempt == ATTEMPTS:
                raise _undone(run, job, failure) from failure.error
        else:
            await run.applied(job.row.name)
            return
        await asyncio.sleep(random.uniform(0.2, 1) * _PAUSE * attempt)  # noqa: S311 jitter
        if await _exists(run.connection, job.is_applied):
            await run.applied(job.row.name)
            return


async def _attempt(run: Run, job: Job) -> None:
    """Send two messages: hundreds of migrations take as long as their round trips."""
    connection, script = run.connection, job.script
    results = await send(connection, whole(script, _BEGIN, 2))
    if results[0].ntuples == 0:
        await _roll_back(connection)
        raise locks.lost()
    if connection.info.transaction_status != pq.TransactionStatus.INTRANS:
        raise errors.MigrationHalfApplied(
            f"{script.path} ended the transaction that it was run in, so it is not recorded. {job.next_step(None)}",
            name=job.row.name,
        )
    row = replace(job.row, state="applied", mode=script.mode, statements=script.count)
    records = ledger.migration_statement(row, run.actor) + job.records.whole
    try:
        await connection.execute(_SETTLE + records + sql.SQL("COMMIT"))
    except psycopg.Error as error:
        # Constraints that are deferred speak up only now.
        raise Failure(error=error, done=script.count) from error


async def _run_in_open(run: Run, job: Job) -> None:
    """Record that it began, run it outside any transaction of ours, and record how it ended."""
    await locks.verify(run.connection)
    await _record(run, job.records.begin, replace(job.row, state="running", mode=job.script.mode))
    job = replace(job, row=replace(job.row, losses=()))
    try:
        if job.script.mode is Mode.STATEMENT:
            async with job.alone():
                await _send_one_by_one(run, job)
                await _finish(run, job)
        else:
            await send(run.connection, whole(job.script))
            await _finish(run, job)
    except Failure as failure:
        raise await _stuck(run, job, failure) from failure.error


async def _finish(run: Run, job: Job) -> None:
    """Record that it is applied, before anything else can go wrong: without that it would be half-applied for ever."""
    await _end_transaction(run.connection)
    row = replace(job.row, state="applied", mode=job.script.mode, statements=job.script.count)
    recording = asyncio.ensure_future(_record(run, _SETTLE + job.records.finish, row))
    try:
        await asyncio.shield(recording)
    except asyncio.CancelledError:
        await recording
        raise
    await run.applied(job.row.name)


async def _send_one_by_one(run: Run, job: Job) -> None:
    script = job.script
    for index, piece in enumerate(script.pieces()):
        try:
            await send_patiently(run.connection, single(script, piece))
        except Failure as failure:
            raise replace(failure, done=index) from failure.error
        except asyncio.CancelledError:
            why = psycopg.OperationalError("stopped by the operator, whose time was over or who was told to end")
            await _stuck(run, job, Failure(error=why, line=line_of(script.text, piece.start), done=index))
            raise


async def _end_transaction(connection: Connection) -> None:
    """Roll back what a script began and did not end: its text was checked for that, but functions have texts too."""
    if connection.info.transaction_status != pq.TransactionStatus.IDLE:
        await _roll_back(connection)
        raise Failure(error=psycopg.OperationalError("the script left a transaction open, which was rolled back"))


async def _record(run: Run, own: Sql, row: MigrationRow) -> None:
    """Write the tool's record and the ledger's; one message is one transaction."""
    await run.connection.execute(own + ledger.migration_statement(row, run.actor))


async def _exists(connection: Connection, query: sql.Composed) -> bool:
    cursor = await connection.execute(query)
    return await cursor.fetchone() is not None


async def _roll_back(connection: Connection) -> None:
    """End a transaction that failed; a connection that broke has none."""
    if connection.info.transaction_status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
        await connection.execute("ROLLBACK")


def _undone(run: Run, job: Job, failure: Failure) -> errors.BootstrapError:
    """Return what to say of a transaction that was rolled back."""
    what = f"{job.script.path}{failure.place}: {failure.words}"
    if run.connection.closed:
        return errors.MigrationInterrupted(f"{what}. The next visit looks whether the server had committed it.")
    if failure.state.startswith(_PASSING):
        return errors.MigrationInterrupted(f"{what}. Nothing of it stayed, and it will be tried again.")
    if failure.state == "57014":
        limit = run.options.statement_timeout
        what += f"; statementTimeoutSeconds is {limit}" if limit else "; somebody cancelled it"
    return errors.MigrationFailed(
        f"{what}. Nothing of it stayed; fix the file and apply again.",
        name=job.row.name,
        sql_state=failure.state or None,
        detail=failure.words,
        line=failure.line,
    )


def _torn(job: Job, failure: Failure) -> errors.MigrationFailed:
    """Return what to say where only running it statement by statement would do, and the script forbids that."""
    what = (
        "has BEGIN and COMMIT around it"
        if job.script.wrapped
        else "holds what only one transaction gives (SET LOCAL, LOCK, SAVEPOINT, ON COMMIT)"
    )
    return errors.MigrationFailed(
        f"{job.script.path}{failure.place}: {failure.words}. The server refuses that in a transaction, and the script "
        f"{what}, so it is not run statement by statement. Nothing of it stayed; move that statement into a "
        "file of its own, which begins with `-- dbbootstrap: transaction=off`",
        name=job.row.name,
        sql_state=failure.state,
        detail=failure.words,
        line=failure.line,
    )


async def _stuck(run: Run, job: Job, failure: Failure) -> errors.BootstrapError:
    """Record that a script stopped half-way, as far as the connection still allows, and return what to say of it."""
    number, total = failure.done + 1, job.script.count
    words = f"statement {number} of {total}{failure.place}: {failure.words}"
    row = replace(
        job.row, state="failed", mode=job.script.mode, statements=failure.done, sql_state=failure.state or None
    )
    stop = job.stop
    try:
        await _roll_back(run.connection)
        await run.connection.execute(_SETTLE)
        stop = stop or await resolution.last_stop(run.connection, job.row.tool, job.row.name)
        invalid = await _invalid_indexes(run.connection)
        if invalid:
            words += f"; INVALID indexes: {', '.join(invalid)}"
        await _record(run, job.records.fail(words), replace(row, error=words))
    except psycopg.Error:
        if stop is None:
            # What a person has to say of it stands in the row that began it. The next look comes soon, and reads that.
            return errors.MigrationInterrupted(f"{job.script.path} stopped at {words}; the connection then broke off")
        words += "; the connection then broke off"
    return half_applied(job.script.path, words, job.next_step(stop), name=job.row.name)


def half_applied(path: str, words: str, next_step: str, *, name: str) -> errors.MigrationHalfApplied:
    """Return the error for a migration that stopped in the middle: the same words now and on every later visit."""
    line, state = _LINE.match(words), _STATE.search(words)
    return errors.MigrationHalfApplied(
        f"{path} stopped in the middle, at {words}. What ran before that may have stayed. {next_step}",
        name=name,
        sql_state=state[1] if state else None,
        detail=words,
        line=int(line[1]) if line else None,
    )


async def _invalid_indexes(connection: Connection) -> list[str]:
    cursor = await connection.execute(
        "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)"
        " FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        # An index of a partitioned table is invalid until each partition has its own: nothing failed there.
        " WHERE NOT i.indisvalid AND c.relkind = 'i' ORDER BY 1 LIMIT 20"
    )
    return [name for (name,) in await cursor.fetchall()]


def _of_records(error: psycopg.Error, job: Job) -> errors.BootstrapError:
    """Return the error for one of our own statements around the script."""
    if is_transient(error):
        return errors.MigrationInterrupted(f"{job.script.path} could not be recorded: {server_words(error)}")
    return error_of(error, f"record the migration {job.row.name}")
