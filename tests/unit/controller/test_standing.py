"""What a resource is known for: news once, and for how long it has been so."""

from database_bootstrap.controller.standing import Standings
from database_bootstrap.kube.resource import Key

KEY, OTHER = Key("shop", "db"), Key("shop", "other")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_same_finding_is_news_once_and_another_one_again() -> None:
    standings = Standings(Clock())
    said = [("A", "x"), ("A", "x"), ("A", "y"), ("B", "y"), ("B", "y"), ("A", "x")]
    assert [standings.note(KEY, *one) for one in said] == [True, False, True, True, False, True]
    assert standings.note(OTHER, "A", "x")


def test_time_is_counted_from_the_first_visit_that_found_it() -> None:
    clock = Clock()
    standings = Standings(clock)
    standings.note(KEY, "A")
    clock.now += 60
    standings.note(KEY, "A")
    assert standings.lasted(KEY) == 60
    standings.note(KEY, "B")
    assert standings.lasted(KEY) == 0


def test_somebody_who_changes_something_starts_the_time_anew_and_is_told_nothing_twice() -> None:
    clock = Clock()
    standings = Standings(clock)
    standings.note(KEY, "A")
    clock.now += 60
    standings.begin_anew(KEY)
    standings.begin_anew(OTHER)
    assert standings.lasted(KEY) == standings.lasted(OTHER) == 0
    assert not standings.note(KEY, "A")


def test_resource_that_is_gone_is_forgotten() -> None:
    standings = Standings(Clock())
    standings.note(KEY, "A")
    standings.forget(KEY)
    standings.forget(KEY)
    assert standings.note(KEY, "A")
