"""Running a script: in one transaction with its records, or statement by statement, and never twice by guess."""

import asyncio
import random
from dataclasses import replace

import psycopg
from psycopg import pq, sql

from database_bootstrap import errors
from database_bootstrap.postgres import ledger, locks
from database_bootstrap.postgres.bounds import TooLarge
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ledger import MigrationRow
from database_bootstrap.postgres.sqlstates import TRANSIENT
from database_bootstrap.tools import resolution
from database_bootstrap.tools.aftermath import half_applied, invalid_indexes, of_records, torn, undone
from database_bootstrap.tools.job import Job, Sql
from database_bootstrap.tools.scripts import Mode, line_of
from database_bootstrap.tools.sending import Failure, ours, send, send_patiently, single, whole
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
_BEGIN = f"{locks.HELD.as_string()}; BEGIN; "
_BEGIN_COUNT = 2
_SETTLE = sql.SQL("RESET SESSION AUTHORIZATION; RESET ALL; ")
"""Before our records: a script made by pg_dump leaves search_path empty, another one a different role."""


async def run_script(run: Run, job: Job) -> None:
    """Apply one script and record it; raise what a `Tool.apply` may raise."""
    try:
        if job.script.mode is Mode.TRANSACTION:
            await _run_in_transaction(run, job)
        else:
            await _run_in_open(run, job)
    except psycopg.Error as error:
        raise of_records(error, job) from error


async def _run_in_transaction(run: Run, job: Job) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await _attempt(run, job)
        except errors.BootstrapError:
            await _roll_back(run.connection)
            raise
        except Failure as failure:
            await _roll_back(run.connection)
            if not await _may_send_again(run, job, failure, is_last=attempt == ATTEMPTS):
                return
        else:
            await run.applied(job.row.name)
            return
        await asyncio.sleep(random.uniform(0.2, 1) * _PAUSE * attempt)  # noqa: S311 jitter
        if await _exists(run.connection, job.is_applied):
            await run.applied(job.row.name)
            return


async def _may_send_again(run: Run, job: Job, failure: Failure, *, is_last: bool) -> bool:
    """Say what a failed script means: raise it, or send the script in another way, or let it be sent as it was."""
    if failure.has_committed:
        raise await _let_go(run, job, failure) from failure.error
    if failure.state in _NOT_IN_TRANSACTION:
        if job.script.needs_one_transaction():
            raise torn(job, failure) from failure.error
        await _run_in_open(run, replace(job, script=replace(job.script, mode=Mode.STATEMENT)))
        return False
    if failure.state not in TRANSIENT or is_last:
        raise undone(run, job, failure) from failure.error
    return True


async def _attempt(run: Run, job: Job) -> None:
    """Send two messages: hundreds of migrations take as long as their round trips."""
    connection, script = run.connection, job.script
    begin = "" if await _begin_locked(run, job) else _BEGIN
    tally = await send(connection, whole(script, begin, _BEGIN_COUNT if begin else 0))
    if begin and not tally.held:
        raise locks.lost()
    is_open = connection.info.transaction_status == pq.TransactionStatus.INTRANS
    if not is_open or tally.has_committed:
        what = psycopg.OperationalError("the script ended the transaction that it was run in")
        raise Failure(error=what, done=max(0, script.count - 1), has_committed=True)
    row = replace(job.row, state="applied", mode=script.mode, statements=script.count)
    records = ledger.migration_statement(row, run.actor) + job.records.whole
    try:
        await connection.execute(_SETTLE + records + sql.SQL("COMMIT"))
    except TooLarge as error:
        # Nobody knows whether it was committed: not what a script has done wrong, but a connection that broke off.
        raise Failure(error=psycopg.OperationalError(str(error)), done=script.count) from error
    except psycopg.Error as error:
        # Constraints that are deferred speak up only now.
        raise Failure(error=error, done=script.count) from error


async def _begin_locked(run: Run, job: Job) -> bool:
    """Where the gate let a script through since its tables held no row: begin, lock these, and count once more.

    What an application wrote since the first count is seen, and from here on it waits until the transaction is over.
    Nothing that takes a snapshot stands before the locks: under REPEATABLE READ, which a database or a role may have as
    its default, the count would see no row of those that the locks waited for.
    """
    recount = run.gate.recounts.get(job.row.name)
    if recount is None:
        return False
    tally = await send(run.connection, ours(job.script, f"BEGIN; {await recount.locks()}{locks.HELD.as_string()};"))
    if not tally.held:
        raise locks.lost()
    await recount.check()
    return True


async def _let_go(run: Run, job: Job, failure: Failure) -> errors.BootstrapError:
    """Record as half-applied what has ended our transaction, in a way that nobody could read in its text."""
    await _record(run, job.records.begin, replace(job.row, state="running", mode=job.script.mode))
    return await _stuck(run, replace(job, row=replace(job.row, losses=())), failure)


async def _run_in_open(run: Run, job: Job) -> None:
    """Record that it began, run it outside any transaction of ours, and record how it ended."""
    await locks.verify(run.connection)
    if recount := run.gate.recounts.get(job.row.name):
        await recount.check()
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
        invalid = await invalid_indexes(run.connection)
        if invalid:
            words += f"; INVALID indexes: {', '.join(invalid)}"
        await _record(run, job.records.fail(words), replace(row, error=words))
    except psycopg.Error:
        if stop is None:
            # What a person has to say of it stands in the row that began it. The next look comes soon, and reads that.
            return errors.MigrationInterrupted(f"{job.script.path} stopped at {words}; the connection then broke off")
        words += "; the connection then broke off"
    return half_applied(job.script.path, words, job.next_step(stop), name=job.row.name)
