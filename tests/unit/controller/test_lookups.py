"""Names whose servers are silent keep nobody from the others, however often they are asked for and given up."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from database_bootstrap.controller import main
from database_bootstrap.controller.lookups import Addresses, Lookups

SILENT = 50


class Names:
    """Servers of names; those of `silent…` answer only at the end."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.end = threading.Event()

    def ask(self, name: str) -> Addresses:
        self.asked[name] += 1
        if name.startswith("silent"):
            self.end.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(name,)]


@pytest.fixture
def names() -> Iterator[Names]:
    one = Names()
    yield one
    one.end.set()
    while any(thread.name == "lookup" for thread in threading.enumerate()):
        time.sleep(0.01)


async def given_up(lookups: Lookups, name: str) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await lookups.answer(name)


async def test_silent_names_keep_nobody_waiting(names: Names) -> None:
    lookups = Lookups(names.ask)
    for _ in range(2):
        await asyncio.gather(*(given_up(lookups, f"silent{n}") for n in range(SILENT)))
    async with asyncio.timeout(5):
        assert await lookups.answer("good") == [("good",)]
    assert set(names.asked.values()) == {1}


async def test_answer_is_for_all_who_wait_for_it_and_who_comes_later_asks_anew(names: Names) -> None:
    lookups = Lookups(names.ask)
    waiting = [asyncio.create_task(lookups.answer("silent")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    names.end.set()
    for each in waiting[1:]:
        with pytest.raises(socket.gaierror, match="no answer"):
            await each
    with pytest.raises(socket.gaierror, match="no answer"):
        await lookups.answer("silent")
    assert names.asked["silent"] == 2


async def test_there_is_an_end_to_the_threads(names: Names) -> None:
    lookups = Lookups(names.ask, limit=3)
    waiting = [asyncio.create_task(lookups.answer(f"silent{n}")) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(socket.gaierror, match="Too many names"):
        await lookups.answer("good")
    names.end.set()
    await asyncio.wait(waiting)
    assert all(isinstance(each.exception(), socket.gaierror) for each in waiting)
    assert await lookups.answer("good") == [("good",)]


async def test_no_thread_is_no_answer(names: Names) -> None:
    lookups = Lookups(names.ask)
    threading.stack_size(1 << 56)  # More than a process has addresses for.
    try:
        with pytest.raises(socket.gaierror, match="no thread"):
            await lookups.answer("good")
    finally:
        threading.stack_size(0)
    assert await lookups.answer("good") == [("good",)]


def test_operator_looks_up_names_so() -> None:
    uvloop = pytest.importorskip("uvloop")
    factory = main._loop_factory()
    assert factory is not None
    assert getattr(factory, "getaddrinfo") is not uvloop.Loop.getaddrinfo  # noqa: B009 a class as a function's type

    async def look() -> Any:
        return await asyncio.get_running_loop().getaddrinfo("localhost", 5432, type=socket.SOCK_STREAM)

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(look()) == socket.getaddrinfo("localhost", 5432, type=socket.SOCK_STREAM)
