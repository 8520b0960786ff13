"""What stands between a visit and a migration tool: options, sessions' settings, the history, a run."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import psycopg

from database_bootstrap.api import v1alpha1
from database_bootstrap.api.outcomes import StageName
from database_bootstrap.postgres import locks
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages.visit import Visit
from database_bootstrap.tools.tool import History, Options, Run, Tool


def options_of(spec: v1alpha1.MigrationsSpec) -> Options:
    """Return how the migrations are to run."""
    return Options(
        schema=spec.schema_name,
        lock_timeout=spec.lock_timeout_seconds,
        statement_timeout=spec.statement_timeout_seconds,
        timeout=spec.timeout_seconds,
        allow_out_of_order=frozenset(spec.allow_out_of_order),
        baseline=spec.baseline,
        refuse_destructive=spec.on_destructive is v1alpha1.OnDestructive.REFUSE,
        allow_destructive=frozenset(spec.allow_destructive),
    )


async def read(tool: Tool[Any], view: Connection, options: Options) -> History:
    """Return the tool's own history."""
    try:
        return await tool.read(view, options)
    except psycopg.Error as error:
        raise error_of(error, f"read the history of {tool.name}") from None


def doing(tool: Tool[Any], pending: Sequence[str], through: Sequence[str] = ()) -> str:
    """Return what is being applied, for people; Alembic tells of its revisions when all are through."""
    ahead = [name for name in pending if name not in through]
    if tool.name == v1alpha1.Tool.ALEMBIC.value or not ahead:
        return f"Applying {len(pending)} of Alembic's revisions: {some(pending)}" if ahead else ""
    return f"Applying migration {len(pending) - len(ahead) + 1} of {len(pending)}: {ahead[0]}"


def some(things: Sequence[str]) -> str:
    """Return the first ones of a list, for people."""
    return ", ".join(things[:10]) + (f" and {len(things) - 10} more" if len(things) > 10 else "")


async def run_of(
    visit: Visit,
    connection: Connection,
    options: Options,
    tool: Tool[Any],
    pending: Sequence[str] = (),
    baseline: tuple[str, ...] = (),
) -> Run:
    """Return what a tool needs to apply migrations over this session; what it does is noted as this visit's changes."""
    login = await visit.credentials.role()
    assert login is not None

    through: list[str] = []

    async def applied(name: str) -> None:
        through.append(name)
        visit.show(doing(tool, pending, through))
        visit.changed(StageName.MIGRATIONS, f"apply migration {name}", audited=True)

    async def baselined() -> None:
        visit.changed(StageName.MIGRATIONS, baseline_in_words(baseline), audited=True)

    return Run(
        connection=connection,
        login=login,
        options=options,
        actor=str(visit.subject.owner),
        verify_lock=partial(locks.verify, connection),
        applied=applied,
        baseline=baseline,
        baselined=baselined,
    )


def baseline_in_words(names: tuple[str, ...]) -> str:
    """Return the change that a baseline is."""
    if len(names) == 1:
        return f"record migration {names[0]} as applied, and run nothing of it (baseline)"
    return f"record {len(names)} migrations up to {names[-1]} as applied, and run nothing of them (baseline)"


async def settle(connection: Connection) -> None:
    """Put the session back to the settings that it began with; a script made by pg_dump leaves `search_path` empty."""
    await connection.execute("RESET SESSION AUTHORIZATION; RESET ALL")
