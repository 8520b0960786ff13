"""Parked keys: each waits for one outage, and comes once."""

import pytest

from database_bootstrap.controller.parking import Parking
from database_bootstrap.kube.resource import Key
from database_bootstrap.postgres.outage import Outage

ONE, TWO = Key("shop", "one"), Key("shop", "two")


@pytest.fixture
def back() -> list[Key]:
    return []


@pytest.fixture
def parking(back: list[Key]) -> Parking:
    return Parking(back.append)


def outage() -> Outage:
    return Outage("away", lambda: 0.0)


def test_keys_come_back_when_their_outage_is_over(parking: Parking, back: list[Key]) -> None:
    first, second = outage(), outage()
    parking.park(ONE, first)
    parking.park(TWO, second)
    first.end()
    assert back == [ONE]
    second.end()
    assert back == [ONE, TWO]
    assert len(parking) == 0


def test_key_waits_for_the_last_outage_only(parking: Parking, back: list[Key]) -> None:
    first, second = outage(), outage()
    parking.park(ONE, first)
    parking.park(ONE, second)
    first.end()
    assert back == []
    second.end()
    assert back == [ONE]


def test_outage_that_is_over_already_holds_nobody(parking: Parking, back: list[Key]) -> None:
    gone = outage()
    gone.end()
    parking.park(ONE, gone)
    assert back == [ONE]
    assert len(parking) == 0


def test_key_that_leaves_does_not_come(parking: Parking, back: list[Key]) -> None:
    gone = outage()
    parking.park(ONE, gone)
    parking.park(TWO, gone)
    parking.leave(ONE)
    parking.close()
    gone.end()
    assert back == []
    assert gone.waiting == 0
