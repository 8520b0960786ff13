"""Logging of this process as it was, after a test of what sets it up."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Undo what a command of ours has set up in this process."""
    root, server = logging.getLogger(), logging.getLogger("database_bootstrap.postgres.server")
    before, levels = root.handlers[:], (root.level, server.level)
    yield
    root.handlers[:] = before
    root.setLevel(levels[0])
    server.setLevel(levels[1])
