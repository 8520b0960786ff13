"""Seed: the first-run data, in one transaction with its marker, once in the life of a database."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from database_bootstrap import errors
from database_bootstrap.api import status
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.api.v1alpha1 import SeedPolicy, SeedSpec
from database_bootstrap.bundles.bundle import Bundle
from database_bootstrap.postgres import locks
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.stages import loading, seeding
from database_bootstrap.stages.migrations import load
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.stage import NOTED, Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit

_MARKER = """
    SELECT state, pg_catalog.left(checksum, 200), rows,
           CASE WHEN pg_catalog.length(detail) <= 100000 THEN detail END, time
    FROM dbbootstrap.seed WHERE name = 'seed'
    ORDER BY state = 'seeded' DESC, seq DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The ledger's word on the seed: one row that came with the data."""

    state: str
    """seeded or adopted."""
    checksum: str
    rows: int
    detail: str | None
    """Of an adopted one: why, and with which question."""
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is to be put in, and what is there."""

    bundle: Bundle
    marker: Marker | None
    occupied: str | None
    """A table with a row, where that was asked."""
    history_tables: tuple[str, ...]


def is_requested(seed: SeedSpec | None) -> bool:
    """Whether there is anything to do at all."""
    return seed is not None and seed.policy is not SeedPolicy.NEVER


async def observe(visit: Visit) -> Found | None:
    """Read the marker; only where there is none, ask whether the database is empty."""
    seed = visit.spec.seed
    if seed is None or not is_requested(seed):
        visit.facts.seed = status.SeedStatus(state=status.SeedState.NOT_REQUESTED)
        return None
    bundle = await load(visit, StageName.SEED, seed.source)
    view = visit.sessions.as_role if visit.ledger_exists else None
    marker = await _marker(view) if view else None
    if not _is_settled(seed, marker):
        loading.check(bundle, visit.spec)
    occupied = None
    tables: tuple[str, ...] = ()
    if view and not _is_settled(seed, marker) and seed.policy is SeedPolicy.IF_EMPTY:
        tables = await seeding.history_tables(visit)
        occupied = await seeding.find_row(view, seeding.ignored(seed, tables))
        if occupied:
            # Another visit may have seeded between the two looks; its rows and its marker became visible together.
            marker = await _marker(view)
    visit.facts.seed = _fact(bundle, marker)
    return Found(bundle=bundle, marker=marker, occupied=occupied, history_tables=tables)


async def _marker(connection: Connection) -> Marker | None:
    found = await rows(connection, _MARKER, doing="read the seed's marker")
    if not found:
        return None
    state, checksum, count, detail, time = found[0]
    return Marker(state=state, checksum=checksum, rows=count, detail=detail, time=time)


def _is_settled(seed: SeedSpec, marker: Marker | None) -> bool:
    """Whether the marker answers the question for good: seeded, or found occupied by the very same question."""
    if marker is None:
        return False
    return marker.state == "seeded" or question(seed) == _question_of(marker)


def question(seed: SeedSpec) -> list[str]:
    """Return what was asked when the database was found occupied; another question is asked anew."""
    return [seed.policy.value, *sorted(seed.ignore_tables)]


def _question_of(marker: Marker) -> object:
    return json.loads(marker.detail)["question"] if marker.detail else None


def _fact(bundle: Bundle, marker: Marker | None) -> status.SeedStatus:
    if marker is None:
        return status.SeedStatus(state=status.SeedState.PENDING, digest=bundle.digest)
    state = status.SeedState.SEEDED if marker.state == "seeded" else status.SeedState.ADOPTED
    return status.SeedStatus(state=state, digest=marker.checksum, completed_time=marker.time)


def compare(visit: Visit, found: Found | None) -> Sequence[Action]:
    """Return the one run that seeds or notes that rows were there already, unless the marker says that it was done."""
    seed = visit.spec.seed
    if found is None or seed is None or _is_settled(seed, found.marker):
        return ()
    if found.occupied:
        return (Adopt(table=found.occupied, bundle=found.bundle, question=tuple(question(seed))),)
    return (RunSeed(bundle=found.bundle, ignored=seeding.ignored(seed, found.history_tables)),)


def conclude(visit: Visit, found: Found | None) -> Conclusion:
    """Say whether the data came from here."""
    if found is None:
        return Conclusion(reason=Reason.NOT_REQUESTED, message="No seed is asked for")
    assert found.marker is not None
    if found.marker.state == "adopted":
        table = json.loads(found.marker.detail or "{}").get("table")
        return Conclusion(
            reason=Reason.SEED_NOT_NEEDED, message=f"Rows were there already, in {table}; nothing was put in"
        )
    changed = found.marker.checksum != found.bundle.digest
    return Conclusion(
        reason=Reason.DATABASE_SEEDED,
        message=f"Seeded with {found.marker.rows} rows, once and for all",
        warnings=("The seed's files have changed since; they are not put in again",) if changed else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeed:
    """Put the data in, unless the database turns out not to be empty once its tables are locked."""

    bundle: Bundle
    ignored: frozenset[str]

    def __str__(self) -> str:
        return f"seed the database with {', '.join(file.path for file in self.bundle.in_order[:5])}"

    async def run(self, visit: Visit) -> bool | None:
        await visit.tell_progress()
        connection = await visit.sessions.owner()
        assert visit.spec.seed is not None
        if await _settled_meanwhile(connection, visit.spec.seed):
            return NOTED
        occupied = await self._put_in(visit, connection, visit.spec.seed)
        if occupied:
            await Adopt(table=occupied, bundle=self.bundle, question=tuple(question(visit.spec.seed))).run(visit)
            visit.changed(StageName.SEED, f"note that {occupied} has rows already, and seed nothing")
        await visit.sessions.another()
        return NOTED if occupied else None

    async def _put_in(self, visit: Visit, connection: Connection, seed: SeedSpec) -> str | None:
        size = self.bundle.size
        meter = loading.Meter(total=size, show=visit.show)
        meter.begin(self.bundle.in_order[0])
        wanted = seeding.Seed(bundle=self.bundle, spec=visit.spec, meter=meter)
        try:
            async with asyncio.timeout(seed.timeout_seconds), visit.telling(at_once=size >= loading.LARGE):
                return await seeding.run(
                    connection, wanted, self.ignored if seed.policy is SeedPolicy.IF_EMPTY else None
                )
        except TimeoutError:
            stayed = f"Nothing of it stayed; it was {meter.said}"
            if meter.is_ending:
                stayed = (
                    "All was in, and it was being committed: as far as is known nothing stayed; the next look tells"
                )
            raise errors.SeedFailed(
                f"The seed was stopped after {seed.timeout_seconds} seconds (seed.timeoutSeconds). {stayed}. Raise the "
                "limit, or make the seed smaller"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Note that rows were there already, and put nothing in."""

    table: str
    bundle: Bundle
    question: tuple[str, ...]

    def __str__(self) -> str:
        return f"note that {self.table} has rows already, and seed nothing"

    async def run(self, visit: Visit) -> bool | None:
        connection = await visit.sessions.owner()
        assert visit.spec.seed is not None
        if await _settled_meanwhile(connection, visit.spec.seed):
            return NOTED
        detail = json.dumps({"table": self.table, "question": self.question})
        await seeding.mark(connection, self.bundle, "adopted", 0, detail)
        return None


async def _settled_meanwhile(connection: Connection, seed: SeedSpec) -> bool:
    """Take the database's lock, and return whether another visit was faster."""
    await locks.acquire(connection)
    return _is_settled(seed, await _marker(connection))


STAGE = Stage(name=StageName.SEED, observe=observe, compare=compare, conclude=conclude)
