"""Workers: they take keys from the queue, as many at once as there are workers."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

from database_bootstrap import logs, metrics
from database_bootstrap.api.outcomes import Reason
from database_bootstrap.controller import reporting
from database_bootstrap.controller.parking import Parking
from database_bootstrap.controller.queue import LAST_DELAY, Queue
from database_bootstrap.errors import BootstrapError
from database_bootstrap.kube.resource import Key
from database_bootstrap.postgres.outage import Outage

log = logging.getLogger(__name__)

SPARE = 2
"""Workers beyond those that are for all: they come for namespaces that have no visit under way."""

Work = Callable[[Key], Awaitable[None]]


class WorkQueue:
    """The queue, awake: a worker is woken for each key that is added, and when the next one is due."""

    def __init__(self, workers: int) -> None:
        chance = random.Random()  # noqa: S311 spreads, hides nothing
        self._queue: Queue[Key] = Queue(
            time.monotonic, chance, workers=workers, whose=lambda key: key.namespace, added=metrics.QUEUE_ADDS.inc
        )
        self._parking = Parking(self._back)
        self._workers = workers + SPARE
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._stopping = False

    def start(self, work: Work) -> None:
        """Start the workers."""
        metrics.MAX_CONCURRENT_RECONCILES.set(self._workers)
        metrics.QUEUE_DEPTH.set_function(lambda: len(self._queue))
        metrics.ACTIVE_WORKERS.set_function(lambda: self._queue.processing)
        self._tasks = [asyncio.create_task(self._run(work), name=f"worker {n}") for n in range(self._workers)]

    async def stop(self, grace: float) -> None:
        """Take nothing more, let the visits that are under way end, and cancel those that do not end in time."""
        self._stopping = True
        self._parking.close()
        if self._alarm is not None:
            self._alarm.cancel()
        while self._idle:
            self._nudge()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def add(self, key: Key) -> None:
        """Let a worker have the key as soon as there is one."""
        self._queue.add(key)
        self._nudge()

    def add_after(self, key: Key, delay: float) -> None:
        """Add the key after so many seconds, and not at the time that was set for it before."""
        self._queue.add_after(key, delay)
        self._set_alarm()

    def add_within(self, key: Key, delay: float) -> None:
        """Add the key after so many seconds, unless it comes by itself before that."""
        self._queue.add_within(key, delay)
        self._set_alarm()

    def park(self, key: Key, outage: Outage) -> None:
        """Add the key as soon as the outage is over, if nothing else brings it before."""
        if not self._stopping:
            self._parking.park(key, outage)

    def retry(self, key: Key, longest: float = LAST_DELAY) -> float:
        """Add the key after a delay that grows with each failure, and return that delay."""
        metrics.QUEUE_RETRIES.inc()
        delay = self._queue.retry(key, longest)
        self._set_alarm()
        return delay

    def forget(self, key: Key) -> None:
        """Begin anew with the count of failures."""
        self._queue.forget(key)

    def drop(self, key: Key) -> None:
        """Forget all about the key."""
        self._parking.leave(key)
        self._queue.drop(key)

    def jittered(self, delay: float) -> float:
        """Return about so many seconds."""
        return self._queue.jittered(delay)

    async def _run(self, work: Work) -> None:
        while (key := await self._next()) is not None:
            try:
                await work(key)
            except BootstrapError as error:
                self._failed(key, error.reason)
                log.warning("Visit put off: %s", error, extra=logs.about(*key))
            except Exception:  # One resource must not end the visits to all the others.
                self._failed(key, Reason.INTERNAL_ERROR)
                log.exception("Visit failed", extra=logs.about(*key))
            finally:
                self._queue.done(key)

    def _failed(self, key: Key, reason: str) -> None:
        metrics.RECONCILE_ERRORS.labels(reason=reason).inc()
        self.retry(key, reporting.longest_delay(reason))

    async def _next(self) -> Key | None:
        while not self._stopping:
            taken = self._queue.take()
            self._set_alarm()
            if taken is not None:
                (key, waited) = taken
                self._parking.leave(key)
                metrics.QUEUE_SECONDS.observe(waited)
                if len(self._queue):
                    self._nudge()  # An alarm wakes one worker, however many keys are due.
                return key
            await self._sleep()
        return None

    def _back(self, key: Key) -> None:
        self._queue.add_to_crowd(key)
        self._nudge()

    async def _sleep(self) -> None:
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(call)
        await call

    def _nudge(self) -> None:
        while self._idle:
            call = self._idle.popleft()
            if not call.done():
                call.set_result(None)
                return

    def _set_alarm(self) -> None:
        """Wake a worker when the next key is due; it sets the alarm anew, and so all that are due find one."""
        due = self._queue.next_due()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due is not None and not self._stopping:
            self._alarm = asyncio.get_running_loop().call_later(due, self._nudge)
