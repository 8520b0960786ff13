"""Apply and plan: every resource of the files in turn, and one exit code for all."""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

from database_bootstrap.api.outcomes import Outcome, Reason, Verdict
from database_bootstrap.api.status import Status
from database_bootstrap.api.v1alpha1 import DeletionPolicy, Tool
from database_bootstrap.postgres.outage import Outage
from database_bootstrap.reconcile import Engine
from database_bootstrap.stages.subject import Facts, Report
from database_bootstrap.standalone import console, documents, kept
from database_bootstrap.standalone.collection import CLUSTER, Collection, Key, Resource, collect
from database_bootstrap.standalone.console import Console
from database_bootstrap.standalone.documents import InputError
from database_bootstrap.standalone.keeper import DEFAULT_FOLDER, Keeper
from database_bootstrap.standalone.kept import Memory
from database_bootstrap.standalone.surroundings import FileSurroundings

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0


class Exit(IntEnum):
    """What a run tells whoever started it."""

    DONE = 0
    STALLED = 1
    """Needs a person."""
    BAD_INPUT = 2
    CHANGES = 2
    """A plan that was asked to tell, and that has something to do; bad input is 1 then."""
    TRY_AGAIN = 75
    """EX_TEMPFAIL: the same command may well succeed later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run goes about it."""

    sources: Sequence[str]
    secret_dir: Path | None = None
    """None: `.dbbootstrap` beside each file."""
    keep: bool = True
    """Whether anything is kept between runs at all."""
    writes: bool = True
    """Whether there will be something to keep; a plan has nothing."""
    wait_seconds: float = 0.0
    cluster_id: str = CLUSTER
    """Whose the databases are marked to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One resource with all that a visit needs."""

    resource: Resource
    keeper: Keeper | None
    memory: Memory
    surroundings: FileSurroundings

    @property
    def is_suspended(self) -> bool:
        """Whether it is to be left alone."""
        return self.resource.spec.suspend

    @property
    def uses_alembic(self) -> bool:
        """Whether there is code of others to run."""
        wanted = self.resource.spec.migrations
        return wanted is not None and wanted.tool is Tool.ALEMBIC


def prepare(options: Options) -> list[Work]:
    """Read all that is needed and check what can be checked before anything is touched; raise `InputError`."""
    collection = collect(documents.read(options.sources), options.cluster_id)
    for text in collection.notes:
        console.note(text)
    if not collection.resources:
        raise InputError("There is no DatabaseBootstrap in what was given")
    keepers = _keepers(collection.resources.values(), options)
    work = [_work(resource, collection, keepers.get(key)) for key, resource in collection.resources.items()]
    if options.writes:
        for keeper in {one.keeper.folder: one.keeper for one in work if one.keeper and not one.is_suspended}.values():
            keeper.check_writable()
    return work


async def apply(engine: Engine, work: Iterable[Work], options: Options, out: Console) -> Exit:
    """Make every resource true, in order; one that fails does not keep the next one from its turn."""
    todo = _active(work)
    _say_what_is_kept(todo)
    _say_what_stays(todo)
    ends = [(one.resource, await _Visit(engine, one, out).apply(options.wait_seconds)) for one in todo]
    out.finish([(resource, status) for resource, (status, _) in ends])
    return _exit(verdict for _, (_, verdict) in ends)


async def plan(engine: Engine, work: Iterable[Work], out: Console, *, tell_changes: bool) -> Exit:
    """Say what `apply` would do, and change nothing."""
    verdicts, changes = [], 0
    for one in _active(work):
        out.begin(one.resource)
        report = await engine.plan(one.resource.subject(one.memory.status), one.surroundings)
        for outcome in filter(console.is_worth_saying, report.outcomes):
            out.outcome(one.resource.owner, outcome)
        out.planned(one.resource.owner, report)
        verdicts.append(_verdict(report))
        changes += len(report.changes)
    return _exit(verdicts) or (Exit.CHANGES if changes and tell_changes else Exit.DONE)


class _Visit:
    """One resource's turn, with as many tries as there is time for."""

    def __init__(self, engine: Engine, work: Work, out: Console) -> None:
        self._engine = engine
        self._work = work
        self._out = out
        self._owner = work.resource.owner
        self._memory = work.memory
        self._said: set[Outcome] = set()

    async def apply(self, wait_seconds: float) -> tuple[Status, Verdict]:
        self._out.begin(self._work.resource)
        deadline = time.monotonic() + wait_seconds
        changes = 0
        for pause in _pauses():
            report = await self._try()
            changes += len(report.changes)
            trouble = report.trouble
            if trouble is None or _verdict(report) is Verdict.STALLED or time.monotonic() + pause > deadline:
                break
            self._out.waiting(self._owner, trouble, pause)
            await _sleep(pause, report.outage)
        self._out.end(self._owner, changes, self._memory.status)
        return self._memory.status, _verdict(report)

    async def _try(self) -> Report:
        report = await self._engine.reconcile(
            self._work.resource.subject(self._memory.status), self._work.surroundings, self._progress
        )
        before = self._memory
        self._remember(before, report)
        try:
            if self._work.keeper:
                kept.keep(self._work.resource, self._work.keeper, self._memory)
        except InputError as error:
            report = _unkept(report, error)
            self._remember(before, report)
        self._say(report.outcomes)
        return report

    def _remember(self, before: Memory, report: Report) -> None:
        status = report.over(before.status, generation=before.generation, now=datetime.now(UTC))
        self._memory = Memory(status=status, generation=before.generation)

    async def _progress(self, outcomes: Sequence[Outcome], facts: Facts) -> None:
        self._say(outcomes)
        if facts.doing:
            self._out.progress(self._owner, facts.doing)

    def _say(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in filter(console.is_worth_saying, outcomes):
            if outcome not in self._said:
                self._said.add(outcome)
                self._out.outcome(self._owner, outcome)


def _keepers(resources: Iterable[Resource], options: Options) -> dict[Key, Keeper]:
    if not options.keep:
        return {}
    shared: dict[Path, Keeper] = {}
    keepers = {}
    for resource in resources:
        folder = options.secret_dir or resource.folder / DEFAULT_FOLDER
        keepers[resource.owner.namespace, resource.owner.name] = shared.setdefault(folder, Keeper(folder))
    for keeper in shared.values():
        keeper.check_private()
    return keepers


def _work(resource: Resource, collection: Collection, keeper: Keeper | None) -> Work:
    if keeper is None and resource.spec.role.password_secret_ref is None:
        raise InputError(
            f"{resource.origin}: where nothing is kept, role.passwordSecretRef must name a Secret; "
            "a generated password would be lost"
        )
    surroundings = FileSurroundings(resource=resource, collection=collection, keeper=keeper)
    return Work(resource=resource, keeper=keeper, memory=kept.recall(resource, keeper), surroundings=surroundings)


def _active(work: Iterable[Work]) -> list[Work]:
    every = list(work)
    for one in every:
        if one.is_suspended:
            console.note(f"{one.resource.owner.namespace}/{one.resource.owner.name}: left alone, spec.suspend is true")
    return [one for one in every if not one.is_suspended]


def _say_what_is_kept(work: Iterable[Work]) -> None:
    every = list(work)
    if any(one.keeper is None for one in every):
        console.note(
            "Nothing is kept between runs, so a database that has lost its data cannot be told from a new one."
        )
    for folder in sorted({one.keeper.folder for one in every if one.keeper and one.keeper.is_new}):
        console.note(
            f"Generated passwords and the identity of databases are kept in {folder}. Where that folder is not kept "
            "between runs, name a role.passwordSecretRef; and lost data cannot be noticed."
        )


def _say_what_stays(work: Iterable[Work]) -> None:
    for one in work:
        if one.resource.spec.deletion_policy is DeletionPolicy.DELETE:
            owner = one.resource.owner
            console.note(
                f"{owner.namespace}/{owner.name}: deletionPolicy has no effect without a cluster; nothing is ever "
                "dropped here."
            )


async def _sleep(seconds: float, outage: Outage | None) -> None:
    """Sleep, and wake up early where the server is of use again."""
    over = asyncio.Event()
    if outage is not None:
        outage.when_over(over, over.set)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)
    if outage is not None:
        outage.leave(over)


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.8, 1.2)  # noqa: S311 several that wait for one server should not knock at once
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _unkept(report: Report, error: InputError) -> Report:
    """Return the report of a visit whose end the next run would not know of: that needs a person."""
    *others, last = report.outcomes
    told = replace(
        last,
        verdict=Verdict.STALLED,
        reason=Reason.REFERENCE_REJECTED,
        message=f"The status could not be kept: {error}",
    )
    return replace(report, outcomes=(*others, told))


def _verdict(report: Report) -> Verdict:
    found = {outcome.verdict for outcome in report.outcomes}
    return next((verdict for verdict in (Verdict.STALLED, Verdict.RETRY) if verdict in found), Verdict.DONE)


def _exit(verdicts: Iterable[Verdict]) -> Exit:
    found = set(verdicts)
    if Verdict.STALLED in found:
        return Exit.STALLED
    return Exit.TRY_AGAIN if Verdict.RETRY in found else Exit.DONE
