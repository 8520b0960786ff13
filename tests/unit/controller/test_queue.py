"""The queue against a clock that the test sets: what client-go promises holds here too."""

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from database_bootstrap.controller.bucket import Bucket
from database_bootstrap.controller.queue import FIRST_DELAY, JITTER, LAST_DELAY, Queue


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> Queue[str]:
    return Queue(clock, random.Random(7), workers=8, whose=lambda key: key)


def take(queue: Queue[str]) -> str | None:
    taken = queue.take()
    return taken[0] if taken else None


def test_keys_come_in_the_order_in_which_they_were_added(queue: Queue[str]) -> None:
    for key in "abc":
        queue.add(key)
    assert [take(queue) for _ in range(4)] == ["a", "b", "c", None]


def test_key_that_waits_is_not_added_twice(queue: Queue[str]) -> None:
    queue.add("a")
    queue.add("a")
    assert (take(queue), take(queue)) == ("a", None)


def test_key_in_work_is_given_to_nobody_else_and_comes_once_more(queue: Queue[str]) -> None:
    queue.add("a")
    take(queue)
    queue.add("a")
    queue.add("a")
    assert take(queue) is None
    queue.done("a")
    assert (take(queue), take(queue)) == ("a", None)


def test_key_that_nobody_added_meanwhile_does_not_come_again(queue: Queue[str]) -> None:
    queue.add("a")
    take(queue)
    queue.done("a")
    assert take(queue) is None


def test_delayed_key_comes_when_it_is_due_and_not_before(queue: Queue[str], clock: Clock) -> None:
    queue.add_after("a", 10)
    assert queue.next_due() == pytest.approx(10)
    clock.now += 9.99
    assert take(queue) is None
    clock.now += 0.01
    assert take(queue) == "a"
    assert queue.next_due() is None


@pytest.mark.parametrize("second", [5, 20], ids=["earlier", "later"])
def test_second_delay_of_a_key_replaces_the_first(queue: Queue[str], clock: Clock, second: float) -> None:
    queue.add_after("a", 10)
    queue.add_after("a", second)
    assert queue.next_due() == pytest.approx(second)
    clock.now += 100
    assert (take(queue), take(queue)) == ("a", None)


@pytest.mark.parametrize("due", [2, 7, None], ids=["before that", "later", "never"])
def test_words_that_follow_each_other_put_nothing_off(queue: Queue[str], clock: Clock, due: float | None) -> None:
    if due is not None:
        queue.add_after("a", due)
    for _ in range(3):
        queue.add_within("a", 5)
        clock.now += 1
    assert queue.next_due() == pytest.approx(min(due or 5, 5) - 3 if due != 2 else 0)


def test_key_that_is_due_while_in_work_comes_once_more(queue: Queue[str], clock: Clock) -> None:
    queue.add("a")
    take(queue)
    queue.add_after("a", 1)
    clock.now += 2
    assert take(queue) is None
    queue.done("a")
    assert take(queue) == "a"


def test_waiting_time_is_told(queue: Queue[str], clock: Clock) -> None:
    queue.add("a")
    clock.now += 3
    taken = queue.take()
    assert taken is not None
    assert taken[1] == pytest.approx(3)


def test_delay_doubles_with_each_failure_up_to_its_limit(queue: Queue[str]) -> None:
    delays = [queue.retry("a") for _ in range(12)]
    for failures, delay in enumerate(delays):
        expected = min(FIRST_DELAY * 2**failures, LAST_DELAY)
        assert expected * (1 - JITTER) <= delay <= expected * (1 + JITTER)


def test_delay_has_the_limit_that_is_asked_for(queue: Queue[str]) -> None:
    delays = [queue.retry("a", 30) for _ in range(12)]
    assert 24 <= max(delays) <= 36


def test_whoever_adds_a_key_it_is_told_once(clock: Clock) -> None:
    told: list[None] = []
    queue: Queue[str] = Queue(
        clock, random.Random(7), workers=8, whose=lambda key: key, added=lambda: told.append(None)
    )
    queue.add("a")
    queue.add("a")
    queue.add_after("b", 1)
    assert len(told) == 1
    clock.now += 1
    take(queue)
    assert len(told) == 2


def test_forgotten_failures_do_not_count(queue: Queue[str]) -> None:
    for _ in range(5):
        queue.retry("a")
    queue.forget("a")
    assert queue.retry("a") <= FIRST_DELAY * (1 + JITTER)


def test_ten_thousand_failures_do_no_harm(queue: Queue[str]) -> None:
    assert max(queue.retry("a") for _ in range(10_000)) <= LAST_DELAY * (1 + JITTER)


def test_crowd_and_single_ones_take_turns(queue: Queue[str]) -> None:
    for key in "abcd":
        queue.add_to_crowd(key)
    assert take(queue) == "a"
    queue.add("x")
    queue.add("y")
    assert [take(queue) for _ in range(6)] == ["x", "b", "y", "c", "d", None]


def test_key_that_comes_with_a_crowd_comes_once_and_begins_anew(queue: Queue[str], clock: Clock) -> None:
    for _ in range(5):
        queue.retry("a")
    queue.add_to_crowd("a")
    queue.add("a")
    queue.add_to_crowd("a")
    assert (take(queue), take(queue)) == ("a", None)
    queue.add_to_crowd("a")
    assert take(queue) is None
    queue.done("a")
    assert take(queue) == "a"
    clock.now += 1000
    assert take(queue) is None
    assert queue.retry("a") <= FIRST_DELAY * (1 + JITTER)


def test_dropped_key_does_not_come_with_the_crowd(queue: Queue[str]) -> None:
    queue.add_to_crowd("a")
    queue.add_to_crowd("b")
    queue.drop("a")
    assert (take(queue), take(queue)) == ("b", None)


def test_dropped_key_does_not_come(queue: Queue[str], clock: Clock) -> None:
    queue.add("a")
    queue.add_after("a", 1)
    queue.drop("a")
    clock.now += 2
    assert take(queue) is None
    assert queue.next_due() is None


def test_dropped_key_in_work_does_not_come_again_but_can_be_added(queue: Queue[str]) -> None:
    queue.add("a")
    take(queue)
    queue.add("a")
    queue.drop("a")
    queue.done("a")
    assert take(queue) is None
    queue.add("a")
    assert take(queue) == "a"


def test_jitter_spreads_what_began_together(queue: Queue[str]) -> None:
    delays = {queue.jittered(100) for _ in range(50)}
    assert len(delays) == 50
    assert all(80 <= delay <= 120 for delay in delays)


def shared(clock: Clock, workers: int) -> Queue[str]:
    """Return a queue in which a key's first letter says whose it is."""
    return Queue(clock, random.Random(1), workers=workers, whose=lambda key: key[0])


def test_owners_take_turns_however_many_keys_one_of_them_brings(clock: Clock) -> None:
    queue = shared(clock, workers=8)
    for number in range(50):
        queue.add(f"a{number}")
    for key in ("b1", "b2", "c1"):
        queue.add(key)
    order = []
    while (taken := take(queue)) is not None:
        order.append(taken)
        queue.done(taken)
    assert order[:6] == ["a0", "b1", "c1", "a1", "b2", "a2"]
    assert len(order) == 53


def test_last_workers_are_for_owners_that_have_none(clock: Clock) -> None:
    queue = shared(clock, workers=2)
    for key in ("a1", "a2", "a3"):
        queue.add(key)
    assert [take(queue) for _ in range(3)] == ["a1", "a2", None]
    queue.add("b1")
    queue.add("b2")
    assert (take(queue), take(queue)) == ("b1", None)
    queue.done("b1")
    assert (take(queue), take(queue)) == ("b2", None)
    queue.done("a1")
    assert take(queue) is None, "two are under way"
    queue.done("b2")
    assert take(queue) == "a3"


def test_who_has_fewer_under_way_is_next(clock: Clock) -> None:
    queue = shared(clock, workers=4)
    for key in ("a1", "a2", "a3", "a4", "a5"):
        queue.add(key)
    assert [take(queue) for _ in range(4)] == ["a1", "a2", "a3", "a4"]
    for key in ("b1", "b2", "b3"):
        queue.add(key)
    assert take(queue) == "b1"
    queue.done("a1")
    queue.done("a2")
    assert take(queue) == "b2"
    queue.done("a3")
    assert take(queue) == "a5", "one of each is under way, and its turn was longer ago"


def test_crowd_of_one_owner_keeps_nobody_waiting_who_comes_alone(clock: Clock) -> None:
    queue = shared(clock, workers=2)
    for number in range(9):
        queue.add_to_crowd(f"a{number}")
    assert (take(queue), take(queue), take(queue)) == ("a0", "a1", None)
    queue.add("b1")
    assert take(queue) == "b1"


def test_key_that_nobody_may_have_costs_no_token(clock: Clock) -> None:
    bucket = Bucket(clock, per_second=1, burst=2)
    queue: Queue[str] = Queue(clock, random.Random(1), workers=1, whose=lambda key: key[0], bucket=bucket)
    for key in ("a1", "a2"):
        queue.add(key)
    assert [take(queue) for _ in range(5)] == ["a1", None, None, None, None]
    queue.done("a1")
    assert take(queue) == "a2"


class QueueMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: no key is with two workers, none that was added is lost, and all are fair."""

    keys = st.sampled_from(["a1", "a2", "a3", "b1", "b2", "c1"])
    workers = 2

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = shared(self.clock, self.workers)
        self.working: set[str] = set()
        self.wanted: set[str] = set()
        self.due: dict[str, float] = {}

    @rule(key=keys)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.wanted.add(key)

    @rule(key=keys)
    def add_to_crowd(self, key: str) -> None:
        self.queue.add_to_crowd(key)
        self.wanted.add(key)
        self.due.pop(key, None)

    @rule(key=keys, delay=st.integers(0, 5))
    def add_after(self, key: str, delay: int) -> None:
        self.queue.add_after(key, delay)
        self.due[key] = self.clock.now + delay

    @rule(key=keys)
    def drop(self, key: str) -> None:
        self.queue.drop(key)
        self.wanted.discard(key)
        self.due.pop(key, None)

    @rule(seconds=st.integers(0, 3))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def take(self) -> None:
        for key in [key for key, when in self.due.items() if when <= self.clock.now]:
            self.wanted.add(key)
            del self.due[key]
        taken = self.queue.take()
        served = {key[0] for key in self.working}
        is_for_all = len(self.working) < self.workers
        if taken is None:
            assert not {key for key in self.wanted - self.working if is_for_all or key[0] not in served}
            return
        assert is_for_all or taken[0][0] not in served
        assert taken[0] not in self.working
        assert taken[0] in self.wanted
        self.working.add(taken[0])
        self.wanted.remove(taken[0])

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.remove(key)

    @invariant()
    def next_one_is_the_earliest(self) -> None:
        due = min(self.due.values(), default=None)
        expected = None if due is None else max(0.0, due - self.clock.now)
        assert self.queue.next_due() == expected

    @invariant()
    def work_is_counted(self) -> None:
        assert self.queue.processing == len(self.working)


TestQueueMachine = QueueMachine.TestCase
