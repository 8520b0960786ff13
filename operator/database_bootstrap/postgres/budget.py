"""The connections that may be open at once on one server."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from database_bootstrap.errors import BootstrapError

PATIENCE_SECONDS = 5.0
"""After so long in the line one asks whether those who are ahead are getting on at all."""


async def _in_good_faith() -> None:
    """Ask nobody."""


class Budget:
    """Connections, lent in the order of asking.

    A visit reserves all that it can need before it opens the first: holding one and asking for more would deadlock.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, count: int, doubt: Callable[[], Awaitable[object]] = _in_good_faith) -> AsyncIterator[None]:
        """Wait in line for `count` connections, and give them back at the end; raise what the line is sent away with.

        `doubt` is called every now and then while the line does not move.
        """
        await self._acquire(count, doubt)
        try:
            yield
        finally:
            self._free += count
            self._grant()

    def resize(self, limit: int) -> None:
        """Lend so many from now on; what is lent already comes back first."""
        self._free += limit - self._limit
        self._limit = limit
        self._grant()

    def send_away(self, error: Callable[[], BootstrapError]) -> None:
        """Let nobody wait any longer."""
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error())

    async def _acquire(self, count: int, doubt: Callable[[], Awaitable[object]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
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
                self._free += count
            self._grant()
            raise

    def _grant(self) -> None:
        while self._waiting:
            count, turn = self._waiting[0]
            if not turn.done():
                if count > self._free:
                    return
                self._free -= count
                turn.set_result(None)
            self._waiting.popleft()
