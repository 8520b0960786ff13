"""Proxies in front of PostgreSQL and of the API server, all in one thread of their own."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol, Self, TypeVar

from crashing.gates import Gate, Message, Place

Value = TypeVar("Value")
BLOCK = 1 << 16
BROKEN = (OSError, asyncio.IncompleteReadError)


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Return what the coroutine returns in that thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in that thread, and wait until it has returned."""

        async def work() -> None:
            function()

        self.run(work())


async def _end_all() -> None:
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # Whoever was just taken in is served only now.


class Ends(Protocol):
    """How a proxy tells where in a server's stream an answer ends."""

    def __call__(self, reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
        """Yield pieces of the stream, and whether an answer is complete with each."""
        ...


class Link:
    """One connection of the operator, and the proxy's own to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client = client
        self._server = server
        self._held = False
        self._answered = asyncio.Event()

    async def carry(self, messages: AsyncIterator[tuple[Message, bytes, Gate | None]]) -> None:
        """Forward what the operator sends, up to where the gate says otherwise."""
        async for message, content, gate in messages:
            place = gate.count(message) if gate else None
            if gate and place is Place.BEFORE:
                await gate.strike(message)
                return
            self._held = place is Place.AFTER
            self._server.write(content)
            await self._server.drain()
            if gate and place is Place.AFTER:
                if message.answered:
                    await self._answered.wait()
                await gate.strike(message)
                return

    async def carry_back(self, pieces: AsyncIterator[tuple[bytes, bool]]) -> None:
        """Forward what the server says; from the answer on that is held, nothing any more."""
        with contextlib.suppress(*BROKEN):
            async for piece, complete in pieces:
                if not self._held:
                    self._client.write(piece)
                    await self._client.drain()
                elif complete:
                    self._answered.set()
        self._answered.set()
        if not self._held:
            self._client.close()

    def cut(self) -> None:
        """Break off both connections without a farewell."""
        self._client.transport.abort()
        self._server.transport.abort()


class Proxy:
    """Listens on a port of its own; what it is for follows from the functions that it is given."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]],
        listen: Callable[..., AsyncIterator[tuple[Message, bytes, Gate | None]]],
        ends: Ends,
    ) -> None:
        self.port = 0
        self._connect = connect
        self._listen = listen
        self._ends = ends
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break off all connections; new ones are served."""
        for link in tuple(self._links):
            link.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(*BROKEN):
                await self._carry(reader, writer)
        except asyncio.CancelledError:
            pass  # The end of the test; streams would log it as a defect.
        finally:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await self._connect()
        link = Link(writer, upstream_writer)
        self._links.add(link)
        back = asyncio.create_task(link.carry_back(self._ends(upstream_reader)))
        try:
            await link.carry(self._listen(reader, writer))
        finally:
            self._links.discard(link)
            back.cancel()
            link.cut()
