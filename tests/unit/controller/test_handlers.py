"""How kopf is set up: what it logs of a definition that is gone is left out, and it comes again soon, and for ever."""

import logging
from itertools import islice

import pytest

from database_bootstrap.controller import handlers


class ApiError(Exception):
    """An error as kopf raises it: it has a status."""

    def __init__(self, status: int) -> None:
        super().__init__("page not found")
        self.status = status


@pytest.mark.parametrize(
    ("error", "shown"),
    [(ApiError(404), False), (ApiError(403), True), (ValueError("404"), True), (None, True)],
    ids=repr,
)
def test_only_the_missing_definition_is_left_out(error: Exception | None, shown: bool) -> None:
    about = (type(error), error, None) if error else None
    record = logging.LogRecord("kopf", logging.ERROR, "", 0, "Watcher has failed", (), about)
    assert bool(handlers.NOT_THE_MISSING_DEFINITION.filter(record)) is shown


def test_watch_comes_again_soon_however_long_the_absence_was_and_never_gives_up() -> None:
    delays = list(islice(handlers.Backoffs(), 1000))
    assert max(delays) < 5
    assert max(delays[:300]) < 2.5
    assert sum(delays[:300]) > 400
