"""A login that has come to nothing is over, whoever keeps its error."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import psycopg
import pytest

from database_bootstrap.postgres.connection import Connection
from process_here import connections

LIMIT_SECONDS = 2
"""psycopg takes no shorter one for a login."""
LogIn = Callable[[], Awaitable[Connection]]


@pytest.fixture
async def log_in() -> AsyncIterator[LogIn]:
    """Return a function that logs in to a server which takes a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        yield lambda: Connection.connect(f"host=127.0.0.1 port={port} user=u connect_timeout={LIMIT_SECONDS}")


async def test_nothing_stays_open_of_a_login_that_took_too_long(log_in: LogIn) -> None:
    before = connections()
    with pytest.raises(psycopg.errors.ConnectionTimeout) as kept:
        await log_in()
    assert connections() == before
    del kept


async def test_nothing_stays_open_of_a_login_that_was_given_up(log_in: LogIn) -> None:
    before = connections()
    with pytest.raises(TimeoutError) as kept:
        async with asyncio.timeout(LIMIT_SECONDS / 10):
            await log_in()
    assert connections() == before
    del kept


async def test_one_address_of_a_host_is_left_before_the_next_one_is_tried() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with socket.create_server(("127.0.0.2", port)) as second:
            for each in (first, second):
                each.setblocking(False)
            text = f"host=127.0.0.1,127.0.0.2 port={port} user=u connect_timeout={LIMIT_SECONDS}"
            login = asyncio.create_task(Connection.connect(text))
            left, _ = await loop.sock_accept(first)
            tried, _ = await loop.sock_accept(second)
            with left, tried:
                async with asyncio.timeout(LIMIT_SECONDS / 2):
                    while await loop.sock_recv(left, 1000):
                        """What it had to say before it was left."""
                assert not login.done()
                login.cancel()
                await asyncio.wait({login})
