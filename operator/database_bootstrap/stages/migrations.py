"""Migrations: all that are pending applied, in order, under the database's lock; nothing else."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api import names, v1alpha1
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.bundles.bundle import DATA, SCRIPTS, Bundle
from database_bootstrap.bundles.sources import bundle_of_inline
from database_bootstrap.postgres import locks, session
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.login import Settings
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages import baseline, contents, gate, histories, leftovers, owner_permits, tooling
from database_bootstrap.stages.leftovers import Leftover
from database_bootstrap.stages.risks import Risk
from database_bootstrap.stages.risks import check as check_risks
from database_bootstrap.stages.stage import NOTED, Action, Conclusion, Refusal, Stage
from database_bootstrap.stages.visit import Visit
from database_bootstrap.tools import resolution
from database_bootstrap.tools.resolution import Word
from database_bootstrap.tools.tool import Comparison, History, Options, Run, Tool

_CHILD_GRACE_SECONDS = 15
"""Alembic's child ends itself at the deadline; this much later it is ended with everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The tool's history against the source."""

    source: Any
    """What the tool made of the bundle."""
    options: Options
    word: Word | None
    """A person's word on a migration that stopped in the middle, to be carried out."""
    comparison: Comparison | None
    """As it will be once the word is carried out; None where even then nothing can follow."""
    strangers: tuple[str, ...]
    """Tables that no migration has made, where none has run yet."""
    risks: tuple[Risk, ...] = ()
    """What the pending ones would destroy."""
    absent: tuple[str, ...] = ()
    """Tables that those up to the baseline make, and that are not there."""
    remark: str | None
    """On an annotation that does nothing."""
    leftovers: tuple[Leftover, ...]
    """What keeps later migrations from working."""


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
    tool, options = visit.tools[spec.tool.value], tooling.options_of(spec)
    bundle = await load(visit, StageName.MIGRATIONS, spec.source)
    source = await visit.sources.load(tool, bundle)
    view = visit.sessions.as_role if visit.database_exists else None
    history = await tooling.read(tool, view, options) if view else History(table_exists=False)
    strangers = await _strangers(view, history) if view else ()
    if view and strangers:
        # Another operator may have committed between the two looks: strange they are only while the history is empty.
        history = await tooling.read(tool, view, options)
        strangers = () if history.rows else strangers
    if options.baseline and not history.rows:
        tool.upto(source, options.baseline)
    if not strangers:
        options = replace(options, baseline=None)  # There is nothing that somebody else could have made.
    histories.note_standing(visit, tool, source, history, bundle.digest)
    visit.history_tables = history.tables
    said = visit.subject.annotations.get(names.ANNOTATION_RESOLVE)
    word = resolution.due(said, history)
    comparison = histories.compare(visit, tool, source, history, options, word)
    pending = comparison.pending if comparison else ()
    question = gate.Question(tool=tool, source=source, options=options, history=history, pending=pending)
    return Found(
        source=source,
        options=options,
        word=word,
        comparison=comparison,
        strangers=strangers,
        risks=await gate.look(visit, view, question) if view and (options.baseline or not strangers) else (),
        absent=await baseline.missing(visit, view, tool, source, comparison.baseline) if view and comparison else (),
        remark=resolution.remark(said, history),
        leftovers=await leftovers.look(view) if view and visit.has_changed else visit.leftovers,
    )


async def _strangers(view: Connection, history: History) -> tuple[str, ...]:
    """Return the tables that nobody accounts for, where no migration has run yet."""
    if history.rows:
        return ()
    tables = [".".join(table) for table in await contents.user_tables(view)]
    return tuple(table for table in tables if table not in history.tables)


def compare(visit: Visit, found: Found | None) -> Sequence[Action]:
    """Return the run that applies what is pending; raise `SchemaHasOtherOwner` where somebody else makes tables."""
    if found is None:
        return ()
    actions: list[Action] = []
    if found.word:
        actions.append(histories.Resolve(source=found.source, options=found.options, word=found.word))
    comparison = found.comparison
    if comparison is None or not (comparison.pending or comparison.baseline):
        return actions
    if found.strangers and not comparison.baseline:
        span = " to ".join(dict.fromkeys((comparison.pending[0], comparison.pending[-1])))
        raise errors.SchemaHasOtherOwner(
            f"No migration was applied yet, and there are tables already: {tooling.some(found.strangers)}. "
            "Somebody else made them (init SQL, another tool), and two owners lose data. Nothing was touched. "
            "Stop the other owner; then either keep the tables and name, in `migrations.baseline`, the last migration "
            f"whose changes are all there ({span}): all up to that one is recorded as applied and not run; or move the "
            "tables out of this database, and the migrations make them"
        )
    baseline.check(visit, comparison.baseline, found.absent)
    check_risks(found.risks, found.options)
    assert visit.spec.migrations is not None
    apply = ApplyMigrations(
        source=found.source,
        options=found.options,
        names=comparison.pending,
        baseline=comparison.baseline,
        are_unread=visit.spec.migrations.tool is v1alpha1.Tool.ALEMBIC,
    )
    return [*actions, apply]


async def permit(visit: Visit, found: Found | None, planned: Sequence[Action]) -> Refusal | None:
    """Refuse what would fail at its first statement."""
    return await owner_permits.to_migrate(visit)


def conclude(visit: Visit, found: Found | None) -> Conclusion:
    """Say how far the migrations are."""
    if found is None:
        return Conclusion(reason=Reason.NOT_REQUESTED, message="No migrations are asked for")
    comparison = found.comparison
    assert comparison is not None
    return Conclusion(
        reason=Reason.MIGRATIONS_UP_TO_DATE,
        message=f"{comparison.applied} applied, none pending; the newest is {comparison.current}",
        warnings=(
            *comparison.warnings,
            *((found.remark,) if found.remark else ()),
            *leftovers.warnings(found.leftovers, visit.spec.role.name),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyMigrations:
    """Apply what is pending; it is looked at again under the lock, since somebody may have been faster."""

    source: Any
    options: Options
    names: tuple[str, ...]
    are_unread: bool
    """They are code: what they destroy shows only while they run."""
    baseline: tuple[str, ...] = ()
    """What is recorded as applied before that, as its tables are there."""

    def __str__(self) -> str:
        parts = [tooling.baseline_in_words(self.baseline)] if self.baseline else []
        if self.names:
            word = "migration" if len(self.names) == 1 else f"{len(self.names)} migrations"
            parts.append(f"apply {word}: {tooling.some(self.names)}")
        if self.names and self.are_unread:
            parts.append("whether rows would be lost shows when they run, before they are")
        return "; ".join(parts)

    async def run(self, visit: Visit) -> bool:
        assert visit.spec.migrations is not None
        tool = visit.tools[visit.spec.migrations.tool.value]
        await visit.tell_progress()
        connection = await visit.sessions.owner()
        await locks.acquire(connection)
        history = await tooling.read(tool, connection, self.options)
        found = tool.compare(self.source, history, self.options)
        question = gate.Question(
            tool=tool, source=self.source, options=self.options, history=history, pending=found.pending
        )
        passed = await gate.pass_through(visit, connection, question)
        visit.show(tooling.doing(tool, found.pending))
        run = await tooling.run_of(visit, connection, self.options, tool, found.pending, found.baseline)
        async with visit.telling():
            await _apply(visit, tool, self.source, found.pending, replace(run, gate=passed))
        await gate.settle(visit, connection)
        # What a session of its own sees is committed: one that an env.py led astray would see its own work.
        await visit.sessions.another()
        return NOTED


async def _apply(visit: Visit, tool: Tool[Any], source: Any, pending: tuple[str, ...], run: Run) -> None:
    alembic = tool.name == v1alpha1.Tool.ALEMBIC.value
    before = visit.count_changes()
    try:
        async with asyncio.timeout(run.options.timeout + (_CHILD_GRACE_SECONDS if alembic else 0)):
            await tool.apply(source, pending, run)
    except TimeoutError:
        done = visit.count_changes() - before
        at = f", at {pending[done]}" if done < len(pending) and not run.baseline else ""
        raise errors.MigrationTimedOut(
            f"The migrations were stopped after {run.options.timeout} seconds (migrations.timeoutSeconds){at}; what "
            "was in a transaction is rolled back, and those before it stay. Raise the limit, or split the migration"
        ) from None
    except errors.MigrationFailed as failure:
        done = visit.count_changes() - before
        # A baseline is one change, whatever it records, and the first one.
        histories.note_failure(visit, failure, done + len(run.baseline) - 1 if done and run.baseline else done)
        if remark := await owner_permits.remark_on(visit, failure):
            raise failure.with_remark(remark) from None
        raise
    except psycopg.Error as error:
        raise error_of(error, "apply the migrations") from None


def owner_settings(spec: v1alpha1.MigrationsSpec | None) -> Settings:
    """Return the settings of the owner's session: the role's ordinary ones, with the limits and the tool's schema."""
    settings = dict(session.OWNER)
    if spec is None:
        return settings
    options = tooling.options_of(spec)
    settings["lock_timeout"] = f"{options.lock_timeout}s"
    settings["statement_timeout"] = f"{options.statement_timeout}s"
    if options.schema != "public":
        settings["search_path"] = sql.Identifier(options.schema).as_string()
    return settings


STAGE = Stage(name=StageName.MIGRATIONS, observe=observe, compare=compare, conclude=conclude, permit=permit)
