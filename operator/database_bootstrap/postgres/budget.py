"""The connections that may be open at once on one server."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from database_bootstrap.errors import BootstrapError

SPARE = 3
"""Connections that only those get who have none: as many as most visits need. Only then may they be the last ones."""
PATIENCE_SECONDS = 5.0
"""After so long in the line one asks whether those who are ahead are getting on at all."""


async def nothing() -> None:
    """Wait, and do nothing else."""


@dataclass(eq=False, frozen=True, slots=True, kw_only=True)
class _Request:
    """Somebody who stands in line."""

    owner: str
    count: int
    turn: asyncio.Future[None]


class Budget:
    """Connections, lent in the order of asking; nobody's are so many that none are left for others.

    A visit reserves all that it can need before it opens the first: holding one and asking for more would deadlock.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._lent: Counter[str] = Counter()
        self._waiting: deque[_Request] = deque()

    @asynccontextmanager
    async def reserve(
        self, owner: str, count: int, doubt: Callable[[], Awaitable[object]] = nothing
    ) -> AsyncIterator[None]:
        """Wait in line for `count` connections, and give them back at the end; raise what the line is sent away with.

        `doubt` is called every now and then while the line does not move.
        """
        await self._acquire(owner, count, doubt)
        try:
            yield
        finally:
            self._take_back(owner, count)

    def resize(self, limit: int) -> None:
        """Lend so many from now on; what is lent already comes back first."""
        self._free += limit - self._limit
        self._limit = limit
        self._grant()

    def send_away(self, error: Callable[[], BootstrapError]) -> None:
        """Let nobody wait any longer."""
        while self._waiting:
            turn = self._waiting.popleft().turn
            if not turn.done():
                turn.set_exception(error())

    async def _acquire(self, owner: str, count: int, doubt: Callable[[], Awaitable[object]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(owner=owner, count=count, turn=turn))
        self._grant()
        try:
            while not turn.done():
                await asyncio.wait({turn}, timeout=PATIENCE_SECONDS)
                if not turn.done():
                    await doubt()
            turn.result()
        except BaseException:
            if not turn.cancel() and turn.exception() is None:
                # Granted and cancelled in the same breath: what nobody will use goes back.
                self._take_back(owner, count)
            else:
                self._grant()
            raise

    def _take_back(self, owner: str, count: int) -> None:
        self._free += count
        self._lent -= Counter({owner: count})
        self._grant()

    def _grant(self) -> None:
        """Lend to all whose turn it is; those who have connections wait until there are some to spare for others."""
        waiting, self._waiting = self._waiting, deque()
        passed_by: set[str] = set()
        while waiting:
            request = waiting.popleft()
            if request.turn.done():
                continue
            if request.owner in passed_by or self._is_for_others(request):
                passed_by.add(request.owner)
            elif request.count > self._free:
                self._waiting += [request, *waiting]
                return
            else:
                self._lend(request)
                continue
            self._waiting.append(request)

    def _is_for_others(self, request: _Request) -> bool:
        return self._lent[request.owner] > 0 and self._free - request.count < SPARE

    def _lend(self, request: _Request) -> None:
        self._free -= request.count
        self._lent[request.owner] += request.count
        request.turn.set_result(None)
