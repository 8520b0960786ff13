"""What all server fixtures share: a test without its server fails in CI, and elsewhere is skipped, loudly."""

import os
from typing import NoReturn

import pytest

MISSING = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MISSING] = {}


def missing(config: pytest.Config, server: str, why: str) -> NoReturn:
    """End a test that cannot have its server."""
    config.stash[MISSING][server] = why
    message = f"no {server}: {why}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for server, why in config.stash[MISSING].items():
        terminalreporter.section(f"NO {server}: ITS TESTS DID NOT RUN", red=True, bold=True)
        terminalreporter.line(why, red=True)
