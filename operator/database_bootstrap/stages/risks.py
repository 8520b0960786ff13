"""Risks: what a migration would destroy, what is said of it, and the second look just before it runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import psycopg

from database_bootstrap import errors
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.tools import stakes
from database_bootstrap.tools.batch import Judged, Suspicion, suspicions_of
from database_bootstrap.tools.calls import Asking
from database_bootstrap.tools.effects import Code, Doubt, Finding, Kind, Name
from database_bootstrap.tools.stakes import SOME, Ground, Stake
from database_bootstrap.tools.tool import Options

Answer = TypeVar("Answer")
_SHOWN = 5
_NEVER_DONE = (
    ". The migrations were never through; rows count all the same, since an application that has the password of "
    "role.passwordSecretRef may have written them already"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """What one migration would destroy."""

    migration: Judged
    stakes: tuple[Stake, ...]
    never_done: bool = False
    """The migrations were never through, and an application that knows its password may have written all the same."""

    def __str__(self) -> str:
        shown = "; ".join(f"line {stake.finding.line}: {stake}" for stake in self.stakes[:_SHOWN])
        more = f"; and {len(self.stakes) - _SHOWN} statements more" if len(self.stakes) > _SHOWN else ""
        return f"{self.migration.path} {shown}{more}"


async def ask(connection: Connection, asking: Asking[Answer]) -> Answer:
    """Return the answer to queries that know no session."""
    try:
        query = next(asking)
        while True:
            cursor = await connection.execute(query.encode())
            query = asking.send(await cursor.fetchall())
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    except psycopg.Error as error:
        raise error_of(error, "count what the pending migrations would destroy") from None


def check(risks: Sequence[Risk], options: Options, so: str = "so nothing of what is pending was run") -> None:
    """Raise `DestructiveMigration` for what nobody has allowed; `so` says what follows."""
    stopped = [risk for risk in risks if risk.migration.name not in options.allow_destructive]
    if not stopped or not options.refuse_destructive:
        return
    names = ", ".join(risk.migration.name for risk in stopped)
    more = f"; and {len(stopped) - _SHOWN} migrations more" if len(stopped) > _SHOWN else ""
    what = "; ".join(map(str, stopped[:_SHOWN]))
    raise errors.DestructiveMigration(
        f"Rows would be lost, {so}. {what}{more}. If that is wanted, set "
        f"migrations.allowDestructive: [{names}] (or onDestructive: Allow, for all that will ever come); if not, take "
        f"the statements out{_NEVER_DONE if any(risk.never_done for risk in stopped) else ''}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recount:
    """The second look at one migration, which was let through since what it destroys held no row."""

    connection: Connection
    options: Options
    migration: Judged
    findings: tuple[Finding, ...]
    """What it was suspected of, with the names of the moment just before it runs."""
    ground: Ground

    async def locks(self) -> str:
        return await ask(self.connection, stakes.locks(self.findings, self.ground))

    async def check(self) -> None:
        lost = await self._lost("some table")
        if any(each.rows == SOME for stake in lost for each in stake.lost):
            lost = await self._lost(await ask(self.connection, stakes.occupied(self.ground)))
        if lost:
            so = "so the run was stopped before this migration: they came while it was under way"
            check([Risk(migration=self.migration, stakes=lost)], self.options, so)

    async def _lost(self, row: str | None) -> tuple[Stake, ...]:
        """Return what would be lost; `row` is a table that has one, as far as that is known."""
        found = await ask(self.connection, stakes.at_stake(self.findings, self.ground, row))
        return tuple(stake for stake in found if stake.lost)


def recounts_of(
    suspicions: Sequence[Suspicion], connection: Connection, options: Options, path: Sequence[str], ground: Ground
) -> dict[str, Recount]:
    """Return, by name, the second looks at those migrations that are suspected and were not allowed by name."""
    of: dict[str, list[Suspicion]] = {}
    for one in suspicions:
        if one.migration.name not in options.allow_destructive:
            of.setdefault(one.migration.name, []).append(one)
    return {name: _recount(found, connection, options, path, ground) for name, found in of.items()}


def _recount(
    suspected: Sequence[Suspicion], connection: Connection, options: Options, path: Sequence[str], ground: Ground
) -> Recount:
    migration = suspected[0].migration
    # Judged by itself, its names are those of now; what is the batch's own was not there before, or was no suspect.
    alone = suspicions_of([migration], path[0] if path else options.schema)
    known = {_place(one.finding) for one in suspected}
    # What code does that the migrations before it have made, only the batch knows.
    code = [one.finding for one in suspected if one.finding.code.is_opaque]
    told = {one.line for one in code if one.kind is Kind.ANYTHING}
    findings = [
        replace(one.finding, doubt=Doubt.NONE)
        for one in alone.found
        if _place(one.finding) in known and not (one.finding.code.is_opaque and one.finding.line in told)
    ]
    findings += [one for one in code if one not in findings]
    return Recount(
        connection=connection,
        options=options,
        migration=migration,
        findings=tuple(findings),
        ground=replace(ground, path=None if alone.moves_path else path),
    )


def _place(finding: Finding) -> tuple[int | None, Code, Name | None]:
    # Code that nobody can read has no name of its own.
    return finding.line, finding.code, None if finding.code.is_opaque else finding.written or finding.name
