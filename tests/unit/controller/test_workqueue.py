"""The queue, awake: what is put into it is counted, whoever puts it in, and a worker comes for it."""

import asyncio
import time

from database_bootstrap import metrics
from database_bootstrap.controller.workqueue import WorkQueue
from database_bootstrap.kube.resource import Key
from database_bootstrap.postgres.outage import Outage

KEY, OTHER, LAST = Key("shop", "db"), Key("shop", "other"), Key("shop", "last")


def adds() -> float:
    return metrics.REGISTRY.get_sample_value("dbbootstrap_workqueue_adds_total") or 0.0


async def test_every_way_into_the_queue_is_counted_once() -> None:
    before, visits = adds(), asyncio.Queue[Key]()
    queue = WorkQueue(workers=1)
    queue.add(KEY)
    queue.add(KEY)  # It waits already.
    assert adds() == before + 1
    queue.start(visits.put)
    try:
        await asyncio.wait_for(visits.get(), 5)
        queue.add_after(KEY, 0.01)
        await asyncio.wait_for(visits.get(), 5)
        assert adds() == before + 2
    finally:
        await queue.stop(5)


async def test_parked_key_is_visited_at_the_end_of_the_outage_and_a_dropped_one_is_not() -> None:
    visits, outage = asyncio.Queue[Key](), Outage("away", time.monotonic)
    queue = WorkQueue(workers=1)
    queue.start(visits.put)
    try:
        for key in (KEY, OTHER):
            queue.park(key, outage)
            queue.add_after(key, 3600)
        queue.drop(OTHER)
        assert outage.waiting == 1
        outage.end()
        assert await asyncio.wait_for(visits.get(), 5) == KEY
        queue.add(LAST)
        assert await asyncio.wait_for(visits.get(), 5) == LAST
    finally:
        await queue.stop(5)


async def test_visit_ends_the_waiting_and_so_does_the_end_of_all() -> None:
    visits, outage = asyncio.Queue[Key](), Outage("away", time.monotonic)
    queue = WorkQueue(workers=1)
    queue.start(visits.put)
    queue.park(KEY, outage)
    queue.add(KEY)
    await asyncio.wait_for(visits.get(), 5)
    assert outage.waiting == 0
    queue.park(KEY, outage)
    await queue.stop(5)
    queue.park(OTHER, outage)
    assert outage.waiting == 0


async def test_visits_of_one_namespace_that_never_end_leave_workers_for_others() -> None:
    begun, never = asyncio.Queue[Key](), asyncio.Event()

    async def visit(key: Key) -> None:
        await begun.put(key)
        if key.namespace == "greedy":
            await never.wait()

    queue = WorkQueue(workers=2)
    queue.start(visit)
    try:
        for number in range(20):
            queue.add(Key("greedy", str(number)))
        for key in (KEY, OTHER, LAST):
            queue.add(key)
        order = [await asyncio.wait_for(begun.get(), 5) for _ in range(5)]
        assert sorted(key.name for key in order if key.namespace == "shop") == ["db", "last", "other"]
        assert begun.empty()
    finally:
        never.set()
        await queue.stop(5)
