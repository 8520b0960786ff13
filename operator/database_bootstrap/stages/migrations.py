"""Migrations: all that are pending applied, in order, under the database's lock; nothing else."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api import status, v1alpha1
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.bundles.bundle import DATA, SCRIPTS, Bundle
from database_bootstrap.bundles.sources import bundle_of_inline
from database_bootstrap.postgres import locks, session
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.login import Settings
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages import catalogue, gate
from database_bootstrap.stages.stage import NOTED, Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit
from database_bootstrap.tools.tool import Comparison, History, Options, Run, Tool

_CHILD_GRACE_SECONDS = 15
"""Alembic's child ends itself at the deadline; this much later it is ended with everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The tool's history against the source."""

    source: Any
    """What the tool made of the bundle."""
    history: History
    comparison: Comparison
    strangers: tuple[str, ...]
    """Tables that no migration has made, where none has run yet."""
    risks: tuple[gate.Risk, ...] = ()
    """What the pending ones would destroy."""


async def load(visit: Visit, stage: StageName, source: v1alpha1.SourceSpec) -> Bundle:
    """Return the files of a stage's source; a visit keeps to what it found first."""
    if stage in visit.bundles:
        return visit.bundles[stage]
    if source.inline:
        bundle = bundle_of_inline((file.path, file.content) for file in source.inline)
    else:
        names = tuple(reference.name for reference in source.config_map_refs)
        bundle = await visit.surroundings.bundle(names, DATA if stage is StageName.SEED else SCRIPTS)
    visit.bundles[stage] = bundle
    return bundle


async def observe(visit: Visit) -> Found | None:
    """Read the tool's own history, and compare it with the source."""
    spec = visit.spec.migrations
    if spec is None:
        return None
    tool, options = visit.tools[spec.tool.value], options_of(spec)
    bundle = await load(visit, StageName.MIGRATIONS, spec.source)
    source = visit.sources.load(tool, bundle)
    view = visit.sessions.as_role if visit.database_exists else None
    history = await _read(tool, view, options) if view else History(table_exists=False)
    strangers = await _strangers(view, history) if view else ()
    if view and strangers:
        # Another operator may have committed between the two looks: strange they are only while the history is empty.
        history = await _read(tool, view, options)
        strangers = () if history.rows else strangers
    comparison = tool.compare(source, history, options)
    visit.facts.migrations = status.MigrationsStatus(
        tool=spec.tool.value,
        current=comparison.current,
        applied=comparison.applied,
        pending=len(comparison.pending),
        bundle_digest=bundle.digest,
    )
    question = gate.Question(tool=tool, source=source, options=options, history=history, pending=comparison.pending)
    return Found(
        source=source,
        history=history,
        comparison=comparison,
        strangers=strangers if comparison.pending else (),
        risks=await gate.look(visit, view, question) if view and not strangers else (),
    )


async def _strangers(view: Connection, history: History) -> tuple[str, ...]:
    """Return the tables that nobody accounts for, where no migration has run yet."""
    if history.rows:
        return ()
    names = [".".join(table) for table in await catalogue.user_tables(view)]
    return tuple(name for name in names if name not in history.tables)


async def _read(tool: Tool[Any], view: Connection, options: Options) -> History:
    try:
        return await tool.read(view, options)
    except psycopg.Error as error:
        raise error_of(error, f"read the history of {tool.name}") from None


def options_of(spec: v1alpha1.MigrationsSpec) -> Options:
    """Return how the migrations are to run."""
    return Options(
        schema=spec.schema_name,
        lock_timeout=spec.lock_timeout_seconds,
        statement_timeout=spec.statement_timeout_seconds,
        timeout=spec.timeout_seconds,
        allow_out_of_order=frozenset(spec.allow_out_of_order),
        refuse_destructive=spec.on_destructive is v1alpha1.OnDestructive.REFUSE,
        allow_destructive=frozenset(spec.allow_destructive),
    )


def compare(visit: Visit, found: Found | None) -> Sequence[Action]:
    """Return the run that applies what is pending; raise `SchemaHasOtherOwner` where somebody else makes tables."""
    if found is None or not found.comparison.pending:
        return ()
    if found.strangers:
        raise errors.SchemaHasOtherOwner(
            f"No migration was applied yet, and there are tables already: {_some(found.strangers)}. Somebody else "
            "makes them (init SQL, another tool), and two owners lose data. Nothing was touched; let one go, or "
            "move the tables"
        )
    assert visit.spec.migrations is not None
    gate.check(found.risks, options_of(visit.spec.migrations))
    unread = visit.spec.migrations.tool is v1alpha1.Tool.ALEMBIC
    return (ApplyMigrations(source=found.source, names=found.comparison.pending, are_unread=unread),)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def conclude(visit: Visit, found: Found | None) -> Conclusion:
    """Say how far the migrations are."""
    if found is None:
        return Conclusion(reason=Reason.NOT_REQUESTED, message="No migrations are asked for")
    comparison = found.comparison
    return Conclusion(
        reason=Reason.MIGRATIONS_UP_TO_DATE,
        message=f"{comparison.applied} applied, none pending; the newest is {comparison.current}",
        warnings=comparison.warnings,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyMigrations:
    """Apply what is pending; it is looked at again under the lock, since somebody may have been faster."""

    source: Any
    names: tuple[str, ...]
    are_unread: bool
    """They are code: what they destroy shows only while they run."""

    def __str__(self) -> str:
        word = "migration" if len(self.names) == 1 else f"{len(self.names)} migrations"
        unread = "; whether rows would be lost shows when they run, before they are" if self.are_unread else ""
        return f"apply {word}: {_some(self.names)}{unread}"

    async def run(self, visit: Visit) -> bool:
        assert visit.spec.migrations is not None
        tool, options = visit.tools[visit.spec.migrations.tool.value], options_of(visit.spec.migrations)
        await visit.tell_progress()
        connection = await visit.sessions.owner()
        await locks.acquire(connection)
        history = await _read(tool, connection, options)
        pending = tool.compare(self.source, history, options).pending
        question = gate.Question(tool=tool, source=self.source, options=options, history=history, pending=pending)
        passed = await gate.pass_through(visit, connection, question)
        visit.show(_doing(tool, pending))
        async with visit.telling():
            run = await _run_of(visit, connection, options, tool, pending)
            await _apply(visit, tool, self.source, pending, replace(run, gate=passed))
        await gate.settle(visit, connection)
        # What a session of its own sees is committed: one that an env.py led astray would see its own work.
        await visit.sessions.another()
        return NOTED


def _doing(tool: Tool[Any], pending: Sequence[str], through: Sequence[str] = ()) -> str:
    """Return what is being applied, for people; Alembic tells of its revisions when all are through."""
    ahead = [name for name in pending if name not in through]
    if tool.name == v1alpha1.Tool.ALEMBIC.value or not ahead:
        return f"Applying {len(pending)} of Alembic's revisions: {_some(pending)}" if ahead else ""
    return f"Applying migration {len(pending) - len(ahead) + 1} of {len(pending)}: {ahead[0]}"


async def _run_of(
    visit: Visit, connection: Connection, options: Options, tool: Tool[Any], pending: Sequence[str]
) -> Run:
    login = await visit.credentials.role()
    assert login is not None

    through: list[str] = []

    async def applied(name: str) -> None:
        through.append(name)
        visit.show(_doing(tool, pending, through))
        visit.changed(StageName.MIGRATIONS, f"apply migration {name}", audited=True)

    return Run(
        connection=connection,
        login=login,
        options=options,
        actor=str(visit.subject.owner),
        verify_lock=partial(locks.verify, connection),
        applied=applied,
    )


async def settle(connection: Connection) -> None:
    """Put the session back to the settings that it began with; a script made by pg_dump leaves `search_path` empty."""
    await connection.execute("RESET SESSION AUTHORIZATION; RESET ALL")


async def _apply(visit: Visit, tool: Tool[Any], source: Any, pending: tuple[str, ...], run: Run) -> None:
    alembic = tool.name == v1alpha1.Tool.ALEMBIC.value
    try:
        async with asyncio.timeout(run.options.timeout + (_CHILD_GRACE_SECONDS if alembic else 0)):
            await tool.apply(source, pending, run)
    except TimeoutError:
        raise errors.MigrationTimedOut(
            f"The migrations were stopped after {run.options.timeout} seconds (migrations.timeoutSeconds); what was in "
            "a transaction is rolled back, and those before it stay"
        ) from None
    except errors.MigrationFailed as failure:
        _note_failure(visit, failure)
        raise
    except psycopg.Error as error:
        raise error_of(error, "apply the migrations") from None


def _note_failure(visit: Visit, failure: errors.MigrationFailed) -> None:
    known = visit.facts.migrations
    assert known is not None
    done = visit.count_changes()
    visit.facts.migrations = known.model_copy(
        update={
            "applied": (known.applied or 0) + done,
            "pending": max(0, (known.pending or 0) - done),
            "failed": status.FailedMigration(
                name=failure.name, sql_state=failure.sql_state, message=failure.detail or None, line=failure.line
            ),
        }
    )


def owner_settings(spec: v1alpha1.MigrationsSpec | None) -> Settings:
    """Return the settings of the owner's session: the role's ordinary ones, with the limits and the tool's schema."""
    settings = dict(session.OWNER)
    if spec is None:
        return settings
    options = options_of(spec)
    settings["lock_timeout"] = f"{options.lock_timeout}s"
    settings["statement_timeout"] = f"{options.statement_timeout}s"
    if options.schema != "public":
        settings["search_path"] = sql.Identifier(options.schema).as_string()
    return settings


STAGE = Stage(name=StageName.MIGRATIONS, observe=observe, compare=compare, conclude=conclude)
