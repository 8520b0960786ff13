"""The bucket against a clock that the test sets: what comes at once is let through, what never ends is slowed."""

import random

import pytest

from database_bootstrap.controller.bucket import BURST, PER_SECOND, Bucket
from database_bootstrap.controller.queue import Queue


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fresh(clock: Clock, bucket: Bucket | None = None) -> Queue[str]:
    return Queue(clock, random.Random(1), workers=8, whose=lambda key: key, bucket=bucket)


def taken(queue: Queue[str]) -> int:
    """Take as many keys as can be had, and return how many that were."""
    count = 0
    while (one := queue.take()) is not None:
        queue.done(one[0])
        count += 1
    return count


def test_as_many_as_the_burst_begin_at_once(clock: Clock) -> None:
    bucket = Bucket(clock)
    assert sum(bucket.take() for _ in range(2 * BURST)) == BURST


def test_token_comes_back_in_its_time(clock: Clock) -> None:
    bucket = Bucket(clock, per_second=10, burst=1)
    assert bucket.take()
    assert bucket.wait() == pytest.approx(0.1)
    clock.now += 0.05
    assert not bucket.take()
    clock.now += 0.06
    assert bucket.take()


def test_rest_of_any_length_fills_no_more_than_the_burst(clock: Clock) -> None:
    bucket = Bucket(clock)
    clock.now += 1e6
    assert sum(bucket.take() for _ in range(2 * BURST)) == BURST


def test_hundred_resources_at_once_are_not_slowed(clock: Clock) -> None:
    queue: Queue[str] = fresh(clock)
    for number in range(100):
        queue.add(str(number))
    assert taken(queue) == 100


def test_more_than_the_burst_come_one_after_the_other_and_none_is_lost(clock: Clock) -> None:
    queue: Queue[str] = fresh(clock)
    for number in range(BURST + 100):
        queue.add(str(number))
    assert taken(queue) == BURST
    assert queue.next_due() == pytest.approx(1 / PER_SECOND)
    clock.now += 1.001
    assert taken(queue) == PER_SECOND
    clock.now += 1.001
    assert taken(queue) == PER_SECOND
    assert queue.next_due() is None


def test_key_that_is_due_before_the_next_token_is_not_forgotten(clock: Clock) -> None:
    queue: Queue[str] = fresh(clock, Bucket(clock, per_second=0.5, burst=1))
    queue.add("a")
    queue.add("b")
    queue.add_after("c", 1)
    assert taken(queue) == 1
    assert queue.next_due() == pytest.approx(1)
    clock.now += 2.5
    assert taken(queue) == 1
    clock.now += 2.5
    assert taken(queue) == 1
