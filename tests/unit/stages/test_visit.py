"""What a visit tells while it works is over when the work is, however that ends."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from database_bootstrap.stages.subject import Facts
from database_bootstrap.stages.visit import Visit


def a_visit(progress: Any) -> Visit:
    nothing = cast(Any, SimpleNamespace())
    return Visit(
        subject=nothing,
        surroundings=nothing,
        credentials=nothing,
        sessions=nothing,
        tools={},
        sources=nothing,
        progress=progress,
        pace_seconds=60,
    )


async def test_word_is_not_written_any_more_when_its_end_is_not_waited_for() -> None:
    began, said = asyncio.Event(), []

    async def progress(outcomes: object, facts: Facts) -> None:
        began.set()
        await asyncio.sleep(1)
        said.append(facts.doing)

    async def work() -> None:
        async with asyncio.timeout(0.5), a_visit(progress).telling(at_once=True):
            await began.wait()

    with pytest.raises(TimeoutError):
        await work()
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "progress"] == []
    assert said == []
