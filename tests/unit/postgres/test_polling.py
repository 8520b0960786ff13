"""A server in a tenant's hands that asks for billions of rounds of hashing keeps nobody else waiting."""

import asyncio
import base64
import hashlib
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import psycopg
import pytest

from database_bootstrap.postgres import polling, session
from database_bootstrap.postgres.login import Endpoint, Login
from process_here import connections

SECONDS = 3.0
LEAVE = """
import asyncio, sys
from database_bootstrap.postgres import polling, session
from database_bootstrap.postgres.login import Endpoint, Login

async def main():
    endpoint = Endpoint(host="127.0.0.1", port=int(sys.argv[1]), sslmode="disable")
    async with asyncio.timeout(1):
        await session.connect(Login(endpoint=endpoint, user="u", password="p", database="d"), session.OBSERVER)

try:
    asyncio.run(main())
except TimeoutError:
    sys.exit(polling.end(5))
"""


@dataclass
class Greedy:
    """Speaks PostgreSQL's protocol as far as SCRAM's first message of a server."""

    rounds: int
    port: int = 0
    asked: int = 0
    was_left: int = 0
    handlers: list["asyncio.Task[None] | None"] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handlers.append(asyncio.current_task())
        try:
            await reader.readexactly(struct.unpack("!I", await reader.readexactly(4))[0] - 4)
            writer.write(message(10, b"SCRAM-SHA-256\0\0"))
            await reader.readexactly(1)
            first = await reader.readexactly(struct.unpack("!I", await reader.readexactly(4))[0] - 4)
            nonce, salt = first.partition(b"r=")[2], base64.b64encode(b"salt")
            self.asked += 1
            writer.write(message(11, b"r=%sx,s=%s,i=%d" % (nonce, salt, self.rounds)))
            await reader.read(1)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.was_left += 1
            writer.transport.abort()

    def login(self) -> Login:
        endpoint = Endpoint(host="127.0.0.1", port=self.port, sslmode="disable")
        return Login(endpoint=endpoint, user="u", password="p", database="d")


def message(kind: int, content: bytes) -> bytes:
    return b"R" + struct.pack("!II", len(content) + 8, kind) + content


def rounds_in(seconds: float) -> int:
    """Return how many rounds take this long here, at least."""
    began = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"p", b"salt", 200_000)
    return int(200_000 * seconds / (time.perf_counter() - began))


@pytest.fixture
async def greedy() -> AsyncIterator[Greedy]:
    one = Greedy(rounds=rounds_in(SECONDS))
    async with await asyncio.start_server(one.serve, "127.0.0.1", 0) as server:
        one.port = server.sockets[0].getsockname()[1]
        yield one
        for handler in filter(None, one.handlers):
            handler.cancel()
        await asyncio.gather(*filter(None, one.handlers), return_exceptions=True)
    while polling.is_at_work():  # It has what the processor has left, and must be over before this process is.
        await asyncio.sleep(0.05)


async def test_rounds_without_end_keep_nobody_else_waiting(greedy: Greedy) -> None:
    longest, last = 0.0, time.monotonic()

    async def clock() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    ticking = asyncio.create_task(clock())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SECONDS / 3):
            await session.connect(greedy.login(), session.OBSERVER)
    # Nor does it get another thread while that one is at work.
    with pytest.raises(psycopg.OperationalError, match="so much work at an earlier login"):
        await session.connect(greedy.login(), session.OBSERVER)
    ticking.cancel()
    assert longest < SECONDS / 3
    assert greedy.asked == 1


async def test_login_that_was_left_keeps_neither_its_server_nor_others(greedy: Greedy) -> None:
    """It may have been an honest one, which gets no time on a busy machine; and its connection is counted no more."""
    greedy.rounds = rounds_in(SECONDS / 6)
    for count in (1, 2):
        login = asyncio.create_task(session.connect(greedy.login(), session.OBSERVER))
        async with asyncio.timeout(SECONDS):
            while greedy.asked < count or not polling.is_at_work():
                await asyncio.sleep(0.005)
            login.cancel()
            await asyncio.wait({login})
            while greedy.was_left < count:
                await asyncio.sleep(0.005)
        assert polling.is_at_work()


async def test_process_ends_as_it_should_while_a_login_that_was_left_goes_on(greedy: Greedy) -> None:
    greedy.rounds = rounds_in(60)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", LEAVE, str(greedy.port))
    async with asyncio.timeout(30):
        assert await process.wait() == 5


async def test_nothing_stays_open_of_a_login_for_which_there_is_no_thread(greedy: Greedy) -> None:
    before = connections()
    threading.stack_size(1 << 56)  # More than a process has addresses for.
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await session.connect(greedy.login(), session.OBSERVER)
    finally:
        threading.stack_size(0)
    async with asyncio.timeout(SECONDS):
        while connections() != before:  # The server notices a little later that it was left.
            await asyncio.sleep(0.01)
