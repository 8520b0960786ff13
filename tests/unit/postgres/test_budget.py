"""The budget of connections: never more than the limit, in line, and nothing is lost when somebody gives up."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.postgres.budget import SPARE, Budget


@given(
    limit=st.integers(3, 8),
    visits=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(0, 3), st.booleans()), max_size=30
    ),
)
def test_limit_is_kept_and_all_get_their_turn(limit: int, visits: list[tuple[str, int, int, bool]]) -> None:
    asyncio.run(_play(limit, visits))


async def _play(limit: int, visits: list[tuple[str, int, int, bool]]) -> None:
    budget, most = Budget(limit), 0
    taken: Counter[str] = Counter()

    async def visit(owner: str, count: int, steps: int) -> None:
        nonlocal most
        async with budget.reserve(owner, count):
            taken[owner] += count
            most = max(most, taken.total())
            is_the_only_one = taken[owner] == count
            assert is_the_only_one or taken[owner] <= limit - SPARE, "nothing is left for others"
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
            finally:
                taken[owner] -= count

    tasks = [asyncio.create_task(visit(owner, count, steps)) for owner, count, steps, _ in visits]
    await asyncio.sleep(0)
    cancelled = [task for task, (*_, gives_up) in zip(tasks, visits, strict=True) if gives_up and not task.done()]
    for task in cancelled:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [end for end in ends if isinstance(end, AssertionError)]
    assert most <= limit
    async with asyncio.timeout(1), budget.reserve("a", limit):
        pass


async def test_cancelled_one_gives_back_what_it_was_just_granted() -> None:
    budget = Budget(2)
    async with budget.reserve("a", 2):
        waiting = asyncio.create_task(_reserve(budget))
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), budget.reserve("a", 2):
        pass


async def _reserve(budget: Budget, owner: str = "b", count: int = 2) -> None:
    async with budget.reserve(owner, count):
        await asyncio.sleep(0)


async def test_last_connections_are_for_owners_that_have_none() -> None:
    budget = Budget(8)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(budget.reserve("a", 2))
        greedy = [asyncio.create_task(_reserve(budget, "a")) for _ in range(3)]
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await _reserve(budget, "b", 3)
            await stack.enter_async_context(budget.reserve("c", 2))
        await asyncio.sleep(0)
        assert not any(task.done() for task in greedy)
    async with asyncio.timeout(1):
        await asyncio.gather(*greedy)


async def test_smaller_visits_of_an_owner_do_not_overtake_its_larger_one() -> None:
    budget, order = Budget(8), list[int]()

    async def reserve(count: int) -> None:
        async with budget.reserve("a", count):
            order.append(count)

    async with budget.reserve("a", 3):
        tasks = [asyncio.create_task(reserve(count)) for count in (3, 2)]
        await asyncio.sleep(0)
        assert order == [], "of five that are free, three are for others"
    await asyncio.gather(*tasks)
    assert order == [3, 2]


async def test_owner_with_nothing_is_not_overtaken() -> None:
    budget, order = Budget(3), list[str]()

    async def reserve(owner: str, count: int) -> None:
        async with budget.reserve(owner, count):
            order.append(owner)

    async with budget.reserve("a", 2):
        tasks = [asyncio.create_task(reserve(owner, count)) for owner, count in (("b", 3), ("c", 1))]
        await asyncio.sleep(0)
        assert order == []
    await asyncio.gather(*tasks)
    assert order == ["b", "c"]


async def test_larger_budget_lets_those_go_on_who_wait() -> None:
    budget = Budget(2)
    async with budget.reserve("a", 2):
        waiting = asyncio.create_task(_reserve(budget))
        await asyncio.sleep(0)
        budget.resize(4)
        async with asyncio.timeout(1):
            await waiting


async def test_smaller_budget_takes_back_first_what_is_lent() -> None:
    budget = Budget(4)
    async with budget.reserve("a", 2):
        budget.resize(2)
        waiting = asyncio.create_task(_reserve(budget))
        await asyncio.sleep(0.01)
        assert not waiting.done()
    async with asyncio.timeout(1):
        await waiting
    budget.resize(2)
    async with asyncio.timeout(1), budget.reserve("a", 2):
        pass
