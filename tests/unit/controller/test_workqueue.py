"""The queue, awake: what is put into it is counted, whoever puts it in, and a worker comes for it."""

import asyncio

from database_bootstrap import metrics
from database_bootstrap.controller.workqueue import WorkQueue
from database_bootstrap.kube.resource import Key

KEY = Key("shop", "db")


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
