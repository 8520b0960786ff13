"""The budget of connections: never more than the limit, in line, and nothing is lost when somebody gives up."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.postgres.budget import Budget


@given(
    limit=st.integers(3, 8),
    visits=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.booleans()), max_size=30),
)
def test_limit_is_kept_and_all_get_their_turn(limit: int, visits: list[tuple[int, int, bool]]) -> None:
    asyncio.run(_play(limit, visits))


async def _play(limit: int, visits: list[tuple[int, int, bool]]) -> None:
    budget, taken, most = Budget(limit), 0, 0

    async def visit(count: int, steps: int) -> None:
        nonlocal taken, most
        async with budget.reserve(count):
            taken += count
            most = max(most, taken)
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
            finally:
                taken -= count

    tasks = [asyncio.create_task(visit(count, steps)) for count, steps, _ in visits]
    await asyncio.sleep(0)
    cancelled = [task for task, (_, _, gives_up) in zip(tasks, visits, strict=True) if gives_up and not task.done()]
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most <= limit
    async with asyncio.timeout(1), budget.reserve(limit):
        pass


async def test_cancelled_one_gives_back_what_it_was_just_granted() -> None:
    budget = Budget(2)
    async with budget.reserve(2):
        waiting = asyncio.create_task(_reserve(budget))
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), budget.reserve(2):
        pass


async def _reserve(budget: Budget) -> None:
    async with budget.reserve(2):
        await asyncio.sleep(0)


async def test_larger_budget_lets_those_go_on_who_wait() -> None:
    budget = Budget(2)
    async with budget.reserve(2):
        waiting = asyncio.create_task(_reserve(budget))
        await asyncio.sleep(0)
        budget.resize(4)
        async with asyncio.timeout(1):
            await waiting


async def test_smaller_budget_takes_back_first_what_is_lent() -> None:
    budget = Budget(4)
    async with budget.reserve(2):
        budget.resize(2)
        waiting = asyncio.create_task(_reserve(budget))
        await asyncio.sleep(0.01)
        assert not waiting.done()
    async with asyncio.timeout(1):
        await waiting
    budget.resize(2)
    async with asyncio.timeout(1), budget.reserve(2):
        pass
