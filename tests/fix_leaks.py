"""What a test has left open is told as the next one begins, and not wherever garbage happens to be collected."""

import gc

import pytest


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # What is there by now stays, and need not be looked at after each test.


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    gc.collect()
