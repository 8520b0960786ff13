"""Outages against a clock that the test sets: one asks, nobody is kept waiting for ever, and all are woken in order."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable

import pytest
import pytest_asyncio

from database_bootstrap import errors, metrics
from database_bootstrap.postgres.budget import Budget
from database_bootstrap.postgres.outage import FORGOTTEN_SECONDS, Outage
from database_bootstrap.postgres.server import LATELY_SECONDS, Server, pause

AWAY = errors.ServerUnreachable


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Asked:
    """Gives one answer after the other, and the last for ever."""

    def __init__(self, answers: Iterable[str | None]) -> None:
        self._answers = list(answers)
        self.times = 0

    async def __call__(self) -> str | None:
        self.times += 1
        await asyncio.sleep(0)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def server(clock: Clock) -> AsyncIterator[Server]:
    server = Server("db:5432", 8, clock=clock, sleep=clock.sleep)
    yield server
    await server.stop()


async def test_narrowest_word_on_a_server_counts_until_it_is_old(server: Server, clock: Clock) -> None:
    async def fits(count: int) -> bool:
        task = asyncio.ensure_future(_lend(server, count))
        await asyncio.sleep(0)
        done, _ = await asyncio.wait({task}, timeout=0)
        task.cancel()
        return bool(done)

    server.resize(3, by="narrow")
    server.resize(10, by="wide")
    assert (await fits(4), await fits(3)) == (False, True)
    server.resize(5, by="narrow")
    assert (await fits(6), await fits(5)) == (False, True)
    clock.now += LATELY_SECONDS
    server.resize(10, by="wide")
    assert await fits(10)


async def _lend(server: Server, count: int) -> None:
    async with server.reserve("shop", count, nobody):
        pass


async def nobody() -> str | None:
    pytest.fail("nobody was to be asked")


def gauge() -> float | None:
    return metrics.REGISTRY.get_sample_value("dbbootstrap_servers_away", {"reason": "ServerUnreachable"})


def test_end_wakes_each_once_and_in_the_order_of_coming(clock: Clock) -> None:
    outage, woken = Outage("away", clock), list[str]()
    for name in "abca":
        outage.when_over(name, lambda name=name: woken.append(name))  # type: ignore[misc]
    outage.leave("b")
    outage.end()
    assert woken == ["a", "c"]


def test_whoever_comes_too_late_goes_on_at_once(clock: Clock) -> None:
    outage, woken = Outage("away", clock), list[str]()
    outage.end()
    outage.when_over("a", lambda: woken.append("a"))
    assert woken == ["a"]
    assert outage.waiting == 0


def test_outage_that_nobody_waits_for_is_not_wanted_for_long(clock: Clock) -> None:
    outage = Outage("away", clock)
    outage.when_over("a", lambda: None)
    clock.now += 10_000
    assert outage.is_wanted
    outage.leave("a")
    clock.now += FORGOTTEN_SECONDS - 1
    assert outage.is_wanted
    outage.touch()
    clock.now += FORGOTTEN_SECONDS
    assert not outage.is_wanted


@pytest.mark.parametrize(("lasted", "about"), [(0, 1), (59, 1), (60, 2), (1e6, 2)])
def test_server_is_asked_every_second_or_two(lasted: float, about: float) -> None:
    pauses = {pause(lasted, random.Random(seed)) for seed in range(50)}
    assert len(pauses) == 50
    assert all(about * 0.8 <= it <= about * 1.2 for it in pauses)


async def test_single_case_is_no_outage(server: Server) -> None:
    assert await server.doubt(AWAY, Asked([None])) is None
    async with server.reserve("a", 8, nobody):
        pass


async def test_many_who_meet_it_at_once_ask_once(clock: Clock) -> None:
    asked, server = Asked(["is away"]), Server("db:5432", 8, clock=clock)  # The watch sleeps a real second.
    found = await asyncio.gather(*(server.doubt(AWAY, asked) for _ in range(20)))
    assert asked.times == 1
    assert len({id(outage) for outage in found}) == 1
    await server.stop()


async def test_while_it_is_away_all_are_refused_at_once_and_woken_at_its_return(server: Server, clock: Clock) -> None:
    before, asked, woken = gauge() or 0, Asked(["is away", "is away", "is away", None]), asyncio.Event()
    outage = await server.doubt(AWAY, asked)
    assert outage is not None
    assert gauge() == before + 1
    with pytest.raises(errors.ServerUnreachable, match="db:5432 is away"):
        async with server.reserve("a", 2, nobody):
            pass
    outage.when_over("me", woken.set)
    await asyncio.wait_for(woken.wait(), 5)
    assert asked.times == 4
    assert 1000 + 3 * 0.8 <= clock.now <= 1000 + 3 * 1.2
    assert gauge() == before
    async with server.reserve("a", 2, nobody):
        pass


async def test_those_in_line_are_sent_away_when_it_goes(server: Server) -> None:
    async with server.reserve("a", 8, nobody):
        waiting = [asyncio.create_task(reserve(server)) for _ in range(5)]
        await asyncio.sleep(0)
        await server.doubt(AWAY, Asked(["is away"]))
        ends = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert [type(end) for end in ends] == [errors.ServerUnreachable] * 5


async def test_nothing_of_the_budget_is_lost_with_those_who_are_sent_away() -> None:
    budget = Budget(8)
    async with budget.reserve("a", 8):
        waiting = [asyncio.create_task(take(budget)) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        budget.send_away(lambda: AWAY("gone"))
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError, AWAY}
    async with asyncio.timeout(1), budget.reserve("a", 8):
        pass


async def test_other_kinds_keep_nobody_out(server: Server) -> None:
    outage = await server.doubt(errors.ServerBusy, Asked(["has no connection left"]))
    assert outage is not None
    async with server.reserve("a", 2, nobody):
        assert await server.doubt(AWAY, Asked([None])) is None


async def test_answer_that_is_waited_for_in_line_gives_way_to_what_is_worse(server: Server) -> None:
    woken = asyncio.Event()
    async with server.reserve("a", 8, nobody):
        outage = await server.doubt(errors.ServerBusy, Asked(["has no connection left"]))
        assert outage is not None
        outage.when_over("me", woken.set)
        await server.doubt(AWAY, Asked(["is away"]))
        await asyncio.wait_for(woken.wait(), 5)


async def test_outage_ends_where_asking_is_a_defect(server: Server) -> None:
    async def broken() -> str | None:
        if outage:
            raise RuntimeError
        return "is away"

    outage, woken = None, asyncio.Event()
    outage = await server.doubt(AWAY, broken)
    assert outage is not None
    outage.when_over("me", woken.set)
    (watch,) = (task for task in asyncio.all_tasks() if task.get_name() == "outage of db:5432")
    with pytest.raises(RuntimeError):
        await watch
    assert woken.is_set()
    assert server.absence is None


async def test_what_nobody_waits_for_is_not_asked_for_ever(server: Server, clock: Clock) -> None:
    await server.doubt(AWAY, Asked(["is away"]))
    async with asyncio.timeout(5):
        while server.absence:
            await asyncio.sleep(0)
    assert FORGOTTEN_SECONDS <= clock.now - 1000 <= FORGOTTEN_SECONDS + 3


async def test_stop_asks_no_more(clock: Clock) -> None:
    server = Server("db:5432", 8, clock=clock, sleep=clock.sleep)
    outage = await server.doubt(AWAY, Asked(["is away"]))
    assert outage is not None
    outage.when_over("me", lambda: None)
    await asyncio.wait_for(server.stop(), 5)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "outage of db:5432"]


async def reserve(server: Server) -> None:
    async with server.reserve("a", 2, nobody):
        pass


async def take(budget: Budget) -> None:
    async with budget.reserve("a", 2):
        pass
