"""One visit's context: what is wanted, with which sessions, and what has been done so far."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.v1alpha1 import Spec
from database_bootstrap.bundles.bundle import Bundle
from database_bootstrap.postgres import ledger
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ownership import Mark
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages.credentials import Credentials
from database_bootstrap.stages.identity import Pin
from database_bootstrap.stages.leftovers import Leftover
from database_bootstrap.stages.sessions import Sessions
from database_bootstrap.stages.subject import Facts, Progress, Subject, Turn
from database_bootstrap.stages.surroundings import Surroundings
from database_bootstrap.tools.tool import Tool


class Sources:
    """What the tools made of the bundles that they saw last: hundreds of files need not be parsed at every visit."""

    _LIMIT = 128
    _BYTES_LIMIT = 64 * 1024 * 1024
    """Of the bundles, which what is made of them refers to; the last one is kept however large it is."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    async def load(self, tool: Tool[Any], bundle: Bundle) -> Any:
        """Return the migrations of a bundle; raise `BundleRejected` for what is none.

        A tenant's files can take seconds to read, which happens beside all else.
        """
        key = (tool.name, bundle.digest)
        if key not in self._loaded:
            loaded = await asyncio.to_thread(tool.load, bundle)
            self._keep(key, loaded, bundle.size)
            return loaded
        self._loaded.move_to_end(key)
        return self._loaded[key][0]

    def _keep(self, key: tuple[str, str], loaded: Any, size: int) -> None:
        _, before = self._loaded.pop(key, (None, 0))
        self._loaded[key] = (loaded, size)
        self._bytes += size - before
        while len(self._loaded) > 1 and (len(self._loaded) > self._LIMIT or self._bytes > self._BYTES_LIMIT):
            _, (_, freed) = self._loaded.popitem(last=False)
            self._bytes -= freed


@dataclass(slots=True, kw_only=True)
class Visit:
    """Everything that the stages share."""

    subject: Subject
    surroundings: Surroundings
    credentials: Credentials
    sessions: Sessions
    tools: Mapping[str, Tool[Any]]
    sources: Sources
    progress: Progress
    pace_seconds: float
    """Between two words on how far a long work is."""
    bundles: dict[StageName, Bundle] = field(default_factory=dict)
    """The files of the sources, as they were when this visit first asked."""
    planning: bool = False
    """Look and compare only."""
    facts: Facts = field(default_factory=Facts)
    outcomes: list[Outcome] = field(default_factory=list)
    """Of the stages that are through."""
    turn: Turn = field(default_factory=Turn)
    pin: Pin | None = None
    """What an earlier complete success has pinned."""
    noted: set[str] = field(default_factory=set)
    """What was worth an event in this visit, once."""
    role_mark: Mark | None = None
    """What the role's comment says, once it was read."""
    adopting: str | None = None
    """What is announced of a role without a mark that is about to be adopted, and of its database."""
    may_mark_role: bool = True
    """The administrator may comment on the role; asked where it carries no mark."""
    role_is_new: bool = False
    """The role was made by this visit: its password is known to be right, and there is no database to log in to yet."""
    database_exists: bool = False
    is_unseen: bool = False
    """Only a plan has this: what lets the role in is planned, and what its database holds is not known yet."""
    leftovers: tuple[Leftover, ...] = ()
    """What was found in the database that keeps later migrations from working."""
    history_tables: tuple[str, ...] | None = None
    """The migration tool's own, once its history was read: `public._prisma_migrations`."""
    incarnation: str | None = None
    """Of the database, where there is a ledger."""
    ledger_is_new: bool = False
    """It was made by this visit."""
    has_changed: bool = False
    """Something was done in this visit."""
    unaudited: list[tuple[str, str]] = field(default_factory=list)
    """Stage and change: what was done, and is not in the audit log yet."""
    _changes: list[str] = field(default_factory=list)
    _told: bool = False
    _announced: bool = False
    _waits: bool = False

    @property
    def spec(self) -> Spec:
        """What is wanted."""
        return self.subject.spec

    async def view(self) -> Connection:
        """Return a session for reading catalogues: the role's where it has one, else the administrator's."""
        return self.sessions.as_role or await self.sessions.administrator()

    @property
    def ledger_exists(self) -> bool:
        """There is a ledger, which the role may write to."""
        return self.incarnation is not None

    def changed(self, stage: StageName, change: str, *, audited: bool = False) -> None:
        """Note a change; what the audit log has already, with the change itself, is not written there again."""
        self._changes.append(change)
        self.has_changed = True
        if not audited:
            self.unaudited.append((stage.value, change))

    def count_changes(self) -> int:
        """Return how many changes the running stage has made."""
        return len(self._changes)

    def take_changes(self) -> list[str]:
        """Return the changes since the last call."""
        taken, self._changes = self._changes, []
        return taken

    async def write_audit(self) -> None:
        """Write what was changed into the audit log; before there is a ledger the entries wait for it."""
        if not (self.unaudited and self.ledger_exists):
            return
        connection = await self.sessions.owner()
        try:
            await ledger.record_audit(connection, str(self.subject.owner), self.unaudited)
        except psycopg.Error as error:
            raise error_of(error, "write the audit log") from None
        self.unaudited.clear()

    async def announce(self, stage: StageName, message: str) -> None:
        """Show what is about to be taken over, before anything of it is changed; once a visit."""
        if not (self._announced or self.planning):
            self._announced = True
            said = Outcome(stage=stage, verdict=Verdict.UNDERWAY, reason=Reason.PROGRESSING, message=message)
            await self.progress((*self.outcomes, said), self.facts)

    async def wait_in_line(self, server: str) -> None:
        """Show that others have the connections, where nothing was ever told of the resource; once a visit."""
        if not (self._waits or self.planning or self.subject.status.conditions):
            self._waits = True
            self.show(f"Waiting for one of the operator's connections to {server}: other visits have them")
            await self.progress(self.outcomes, self.facts)
            self.show("")

    async def tell_progress(self) -> None:
        """Show that a slow stage has begun; once a visit, and not while planning."""
        if not (self._told or self.planning):
            self._told = True
            await self.progress(self.outcomes, self.facts)

    def show(self, doing: str) -> None:
        """Take the newest word on what is being done; it is told when its time comes."""
        self.facts.doing = doing

    @asynccontextmanager
    async def telling(self, *, at_once: bool = False) -> AsyncIterator[None]:
        """While this lasts, tell again and again what `show` was told; for work that takes long.

        It is told beside the work, which holds locks and must not wait for the API server.
        """
        over = asyncio.Event()
        teller = asyncio.create_task(self._tell_until(over, at_once), name="progress")
        try:
            yield
        except asyncio.CancelledError:
            teller.cancel()
            raise
        finally:
            over.set()
            await _end_of(teller)
            self.facts.doing = ""
        teller.result()

    async def _tell_until(self, over: asyncio.Event, at_once: bool) -> None:
        while not over.is_set():
            if at_once:
                await self.progress(self.outcomes, self.facts)
            at_once = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self.pace_seconds)


async def _end_of(teller: asyncio.Task[None]) -> None:
    """Wait for it: a word that is being written is written to its end, or nobody would know whether it was."""
    try:
        await asyncio.wait({teller})
    except asyncio.CancelledError:
        teller.cancel()  # Else it would write its word when the last one has been said.
        await asyncio.wait({teller})
        raise
