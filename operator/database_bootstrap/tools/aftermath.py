"""Aftermath: what to say of a script that did not end well, so that a person can act on it."""

import re

import psycopg

from database_bootstrap import errors
from database_bootstrap.postgres.bounds import NotTaken
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.sqlstates import TRANSIENT, error_of, is_transient, server_words
from database_bootstrap.tools.job import Job
from database_bootstrap.tools.sending import Failure
from database_bootstrap.tools.tool import Run

_PASSING = ("08", "53", "57P0", "58", "25006", "25P03", *TRANSIENT)
"""What is not the script's fault: a lost connection, no disk or memory left, an input or output error, a server that
became read-only, and what a lock or a concurrent transaction does."""
_LINE = re.compile(r"statement \d+ of \d+ line (\d+)")
_STATE = re.compile(r"\(SQLSTATE ([0-9A-Z]{5})\)")
"""In the words that `_stuck` writes down: a tool's own table has no other place for them."""


def undone(run: Run, job: Job, failure: Failure) -> errors.BootstrapError:
    """Return what to say of a transaction that was rolled back."""
    what = f"{job.script.path}{failure.place}: {failure.words}"
    if run.connection.closed and not isinstance(failure.error, NotTaken):
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


def torn(job: Job, failure: Failure) -> errors.MigrationFailed:
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


async def invalid_indexes(connection: Connection) -> list[str]:
    """Return those that a CREATE INDEX CONCURRENTLY has left unfinished."""
    cursor = await connection.execute(
        "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)"
        " FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        # An index of a partitioned table is invalid until each partition has its own: nothing failed there.
        " WHERE NOT i.indisvalid AND c.relkind = 'i' ORDER BY 1 LIMIT 20"
    )
    return [name for (name,) in await cursor.fetchall()]


def of_records(error: psycopg.Error, job: Job) -> errors.BootstrapError:
    """Return the error for one of our own statements around the script."""
    if is_transient(error):
        return errors.MigrationInterrupted(f"{job.script.path} could not be recorded: {server_words(error)}")
    return error_of(error, f"record the migration {job.row.name}")
