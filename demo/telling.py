"""How the demo talks: numbered steps, what was run, and checks that end it when one is not so."""

import sys
import time
from collections.abc import Callable

STARTED = time.monotonic()
CHECKED: list[str] = []


class NotSo(Exception):
    """The story is not true."""


def step(number: int, text: str) -> None:
    """Begin a part of the story."""
    say(f"\n{number:>2}  {text}")


def show(text: str) -> None:
    """Show what a program printed."""
    for line in text.rstrip().splitlines():
        say(f"      {line}")


def check(claim: str, found: object, expected: object) -> None:
    """Say that something is so, or raise `NotSo`."""
    if found != expected:
        raise NotSo(f"{claim}: expected {expected!r}, found {found!r}")
    CHECKED.append(claim)
    say(f"    ✓ {claim}")


def wait_for(what: str, is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return as soon as it is so; raise `NotSo` where it takes too long."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise NotSo(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.1)


def say(text: str) -> None:
    """Say it now, also where somebody reads through a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
