"""A history that is not plain: how far it is where nothing can follow, and a person's word on what stopped."""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from database_bootstrap import errors
from database_bootstrap.api import names, status
from database_bootstrap.api.outcomes import StageName
from database_bootstrap.postgres import locks
from database_bootstrap.stages import tooling
from database_bootstrap.stages.stage import NOTED
from database_bootstrap.stages.visit import Visit
from database_bootstrap.tools import resolution
from database_bootstrap.tools.resolution import How, Word
from database_bootstrap.tools.tool import Comparison, History, Options, Tool


def note_standing(visit: Visit, tool: Tool[Any], source: Any, history: History, digest: str) -> None:
    """Put into the status how far the database is, whatever a comparison will say."""
    standing = tool.standing(source, history)
    visit.facts.migrations = status.MigrationsStatus(
        tool=tool.name,
        current=standing.current,
        applied=standing.applied,
        pending=standing.pending,
        bundle_digest=digest,
    )


def compare(
    visit: Visit, tool: Tool[Any], source: Any, history: History, options: Options, word: Word | None
) -> Comparison | None:
    """Return what is pending, once the word is carried out; None where even then nothing can follow.

    Raises what the tool raises where there is no word; the status then names the migration that stopped.
    """
    if word is not None:
        with suppress(errors.Stalled):
            return tool.compare(source, tool.assume(source, history, word), options)
        return None
    try:
        return tool.compare(source, history, options)
    except errors.MigrationFailed as failure:
        if remark := resolution.remark(visit.subject.annotations.get(names.ANNOTATION_RESOLVE), history):
            failure = failure.with_remark(remark)
        note_failure(visit, failure, 0)
        raise failure from None


def note_failure(visit: Visit, failure: errors.MigrationFailed, done: int) -> None:
    """Put into the status which migration stopped, after so many that this run has applied."""
    known = visit.facts.migrations
    assert known is not None
    visit.facts.migrations = known.model_copy(
        update={
            "applied": None if known.applied is None else known.applied + done,
            "pending": None if known.pending is None else max(0, known.pending - done),
            "failed": status.FailedMigration(
                name=failure.name, sql_state=failure.sql_state, message=failure.detail or None, line=failure.line
            ),
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """Write down a person's word on a migration that stopped in the middle; once, under the lock."""

    source: Any
    options: Options
    word: Word

    def __str__(self) -> str:
        how = "applied" if self.word.how is How.APPLIED else "rolled back"
        return f"record migration {self.word.name} as {how}, as a person said"

    async def run(self, visit: Visit) -> bool:
        assert visit.spec.migrations is not None
        tool = visit.tools[visit.spec.migrations.tool.value]
        connection = await visit.sessions.owner()
        await locks.acquire(connection)
        run = await tooling.run_of(visit, connection, replace(self.options, baseline=None), tool)
        if await tool.resolve(self.source, self.word, run):
            visit.changed(StageName.MIGRATIONS, str(self), audited=True)
        await visit.sessions.another()
        return NOTED
