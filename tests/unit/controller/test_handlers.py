"""What kopf logs of a definition that is gone is left out, and nothing else."""

import logging

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
