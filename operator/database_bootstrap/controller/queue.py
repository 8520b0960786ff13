"""The work queue, with client-go's semantics; pure, with a clock that is given."""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic

from database_bootstrap.controller.bucket import Bucket
from database_bootstrap.controller.fair_line import FairLine, Key, Whose

FIRST_DELAY = 1.0
LAST_DELAY = 300.0
JITTER = 0.2


class Queue(Generic[Key]):
    """Keys that wait: never two workers on one key, and what is added while a worker is on it comes once more.

    No owner of keys keeps another from its turn: with `workers` keys in processing, only those get one more that have
    none.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        chance: random.Random,
        *,
        workers: int,
        whose: Whose[Key],
        bucket: Bucket | None = None,
        added: Callable[[], None] = lambda: None,
    ) -> None:
        """Give no more keys than the bucket allows, and tell of each that begins to want a worker, whoever added it."""
        self._clock = clock
        self._chance = chance
        self._workers = workers
        self._whose = whose
        self._bucket = bucket or Bucket(clock)
        self._added = added
        self._waiting = FairLine(whose)
        self._crowd = FairLine(whose)
        """Keys that came all at once; they take turns with the others."""
        self._crowds_turn = False
        self._dirty: dict[Key, float] = {}
        """Keys that want a worker, and since when; those in processing are not in a line yet."""
        self._processing: set[Key] = set()
        self._under_way: Counter[Hashable] = Counter()
        """How many of them are whose."""
        self._due: dict[Key, float] = {}
        """When a key comes by itself; the one truth of which `_timers` may hold old news."""
        self._timers: list[tuple[float, int, Key]] = []
        self._serial = 0
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._crowd)

    @property
    def processing(self) -> int:
        """How many keys a worker is on."""
        return len(self._processing)

    def add(self, key: Key) -> None:
        """Let a worker have the key as soon as there is one."""
        if key in self._dirty:
            return
        self._dirty[key] = self._clock()
        self._added()
        if key not in self._processing:
            self._waiting.append(key)

    def add_to_crowd(self, key: Key) -> None:
        """Add a key that comes with many others, and begin anew with it; those that come alone wait for one of them."""
        self.forget(key)
        self._due.pop(key, None)
        if key in self._dirty or key in self._processing:
            self.add(key)
            return
        self._dirty[key] = self._clock()
        self._added()
        self._crowd.append(key)

    def add_after(self, key: Key, delay: float) -> None:
        """Add the key after so many seconds; a key has one such time, and this is it from now on."""
        when = self._clock() + delay
        self._due[key] = when
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, key))

    def add_within(self, key: Key, delay: float) -> None:
        """Add the key after so many seconds, unless it comes by itself before that; more words do not put it off."""
        if self._due.get(key, math.inf) > self._clock() + delay:
            self.add_after(key, delay)

    def retry(self, key: Key, longest: float = LAST_DELAY) -> float:
        """Count a failure, add the key after the delay that it has earned, and return that delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = self.jittered(min(FIRST_DELAY * 2 ** min(failures, 32), longest))
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Begin anew with the count of failures."""
        self._failures.pop(key, None)

    def drop(self, key: Key) -> None:
        """Forget all about the key; a worker that is on it ends what it does."""
        self.forget(key)
        self._due.pop(key, None)
        if self._dirty.pop(key, None) is not None and key not in self._processing:
            _ = self._crowd.remove(key) or self._waiting.remove(key)

    def take(self) -> tuple[Key, float] | None:
        """Return a key for a worker and how long it had waited; None where there is none now, or no token for it."""
        self._ring()
        if not len(self) or not self._bucket.has_token():
            return None
        key = self._next()
        if key is None:
            return None
        self._bucket.take()
        self._processing.add(key)
        self._under_way[self._whose(key)] += 1
        return key, self._clock() - self._dirty.pop(key)

    def done(self, key: Key) -> None:
        """End the work on a key; if it was added meanwhile, it waits again."""
        self._processing.discard(key)
        self._under_way -= Counter((self._whose(key),))
        if key in self._dirty:
            self._waiting.append(key)

    def next_due(self) -> float | None:
        """Return in how many seconds the next key comes by itself, or the next token for one that waits."""
        while self._timers and self._is_old_news(*self._timers[0]):
            heapq.heappop(self._timers)
        due = [max(0.0, self._timers[0][0] - self._clock())] if self._timers else []
        if len(self) and not self._bucket.has_token():
            due.append(self._bucket.wait())
        return min(due, default=None)

    def jittered(self, delay: float) -> float:
        """Return about so many seconds: what began together shall not stay together."""
        return delay * self._chance.uniform(1 - JITTER, 1 + JITTER)

    def _next(self) -> Key | None:
        lines = (self._crowd, self._waiting) if self._crowds_turn else (self._waiting, self._crowd)
        for line in lines:
            key = line.take(self._under_way, for_all=len(self._processing) < self._workers)
            if key is not None:
                self._crowds_turn = line is self._waiting
                return key
        return None

    def _ring(self) -> None:
        while self._timers and self._timers[0][0] <= self._clock():
            when, serial, key = heapq.heappop(self._timers)
            if not self._is_old_news(when, serial, key):
                del self._due[key]
                self.add(key)

    def _is_old_news(self, when: float, _: int, key: Key) -> bool:
        return self._due.get(key) != when
