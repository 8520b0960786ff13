"""One PostgreSQL server, as all visits share it: its budget of connections, and whether it is away.

While it is away one asks, every second or two, and everybody else waits for the answer without a connection of the
budget: a visit is refused at once, and its caller may be called back at the end of the outage.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from database_bootstrap import metrics
from database_bootstrap.errors import BootstrapError, ServerUnreachable
from database_bootstrap.postgres.budget import Budget, nothing
from database_bootstrap.postgres.outage import Outage

Ask = Callable[[], Awaitable[str | None]]
"""Asks a server, and returns in a few words why it is of no use now; None where it is."""

PAUSE_SECONDS = 1.0
LATER_PAUSE_SECONDS = 2.0
LATER = 60.0
"""After so many seconds an outage is not a restart any more, and is asked about half as often."""
LATELY_SECONDS = 3600.0
"""What nobody has said for so long is of somebody who is gone, or has no use for the server now."""
OURSELVES = ""
"""Owner of the connections that are for no namespace; none has this name."""

log = logging.getLogger(__name__)


def pause(lasted: float, chance: random.Random) -> float:
    """Return in how many seconds to ask again about an outage that has lasted for so long."""
    return (PAUSE_SECONDS if lasted < LATER else LATER_PAUSE_SECONDS) * chance.uniform(0.8, 1.2)


class Server:
    """The budget, and at most one outage of each kind."""

    def __init__(
        self,
        name: str,
        max_connections: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._name = name
        self._budget = Budget(max_connections)
        self._limits: dict[str, tuple[int, float]] = {}
        """Who wants no more than how many connections here, and when that was said last."""
        self._clock = clock
        self._sleep = sleep
        self._chance = random.Random()  # noqa: S311 spreads, hides nothing
        self._asking = asyncio.Lock()
        self._outages: dict[type[BootstrapError], Outage] = {}
        self._watches: set[asyncio.Task[None]] = set()

    @property
    def absence(self) -> Outage | None:
        """The outage for which nobody is let through; while it lasts it does not even answer."""
        return self.outage(ServerUnreachable)

    def outage(self, kind: type[BootstrapError]) -> Outage | None:
        """The outage of this kind, while there is one."""
        return self._outages.get(kind)

    def resize(self, max_connections: int, *, by: str) -> None:
        """Allow so many connections at once from now on, or as many as another who has said it lately, if that is less.

        Several names for one server, and terms that go with each, are no more connections than the narrowest allows.
        """
        now = self._clock()
        self._limits[by] = (max_connections, now)
        self._limits = {who: said for who, said in self._limits.items() if now - said[1] < LATELY_SECONDS}
        self._budget.resize(min(limit for limit, _ in self._limits.values()))

    @asynccontextmanager
    async def reserve(
        self, owner: str, connections: int, knock: Ask, meanwhile: Callable[[], Awaitable[None]] = nothing
    ) -> AsyncIterator[None]:
        """Wait in line for connections for an owner; raise `ServerUnreachable` at once while the server is away.

        Those who hold the connections may be waiting for an answer that never comes; so whoever waits for long knocks,
        and where the server is there, does `meanwhile`.
        """

        async def grow_impatient() -> None:
            if await self.doubt(ServerUnreachable, knock) is None:
                await meanwhile()

        if outage := self.absence:
            outage.touch()
            raise ServerUnreachable(outage.why)
        async with self._budget.reserve(owner, connections, grow_impatient):
            yield

    async def doubt(self, kind: type[BootstrapError], ask: Ask) -> Outage | None:
        """Return the outage of this kind, once asking has shown that there is one; None where it was a single case.

        What one visit has met may be its own fault, as with a certificate that it alone does not trust, and must not
        keep others from a server that is well.
        """
        async with self._asking:
            if kind not in self._outages and (why := await ask()) is not None:
                self._begin(kind, ask, why)
        return self._outages.get(kind)

    async def stop(self) -> None:
        """Ask no more."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    def _begin(self, kind: type[BootstrapError], ask: Ask, why: str) -> None:
        said = f"{self._name} {why}. It is asked every second or two, and all goes on as soon as it is back"
        self._outages[kind] = outage = Outage(said, self._clock)
        metrics.SERVERS_AWAY.labels(reason=kind.__name__).inc()
        log.warning("%s: %s", kind.__name__, said)
        if kind is ServerUnreachable:
            self._budget.send_away(lambda: ServerUnreachable(said))
        watch = asyncio.create_task(self._watch(kind, outage, ask), name=f"outage of {self._name}")
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, kind: type[BootstrapError], outage: Outage, ask: Ask) -> None:
        try:
            while outage.is_wanted:
                await self._sleep(pause(outage.lasted, self._chance))
                if await self._answer(kind, ask) is None:
                    break
        finally:
            # Whatever the watch dies of: an outage that nobody watches must not keep anybody waiting.
            del self._outages[kind]
            metrics.SERVERS_AWAY.labels(reason=kind.__name__).dec()
            log.info(
                "%s: %s is asked no more after %.1f s; %d waited",
                kind.__name__,
                self._name,
                outage.lasted,
                outage.waiting,
            )
            outage.end()

    async def _answer(self, kind: type[BootstrapError], ask: Ask) -> str | None:
        if kind is ServerUnreachable:
            # Not in line: the whole budget may be with visits that wait for this very server, and it is no session.
            return await ask()
        if self.absence:
            return None  # Now it is away altogether, and whoever is woken waits for that instead.
        try:
            async with self._budget.reserve(OURSELVES, 1):
                return await ask()
        except ServerUnreachable:
            return None  # The same, found out while this stood in line.
