"""The libpq that psycopg has loaded, called without psycopg."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from psycopg import pq


@dataclass(frozen=True, slots=True)
class Libpq:
    """Functions that psycopg wraps not at all, or keeps Python's lock for."""

    set_verbosity: Callable[[int, int], int]
    """It gives no SQLSTATE for a login that failed, and the text of the refusal is in the server's language."""
    poll: Callable[[int], int]


@cache
def loaded() -> Libpq | None:
    """Return functions of the libpq that psycopg has loaded, or None where it cannot be reached."""
    try:
        library = ctypes.CDLL(_path())
        set_verbosity, poll = library.PQsetErrorVerbosity, library.PQconnectPoll
    except (OSError, AttributeError):
        return None
    set_verbosity.argtypes, poll.argtypes = [ctypes.c_void_p, ctypes.c_int], [ctypes.c_void_p]
    set_verbosity.restype = poll.restype = ctypes.c_int
    return Libpq(set_verbosity, poll)


def _path() -> str:
    if pq.__impl__ == "binary":
        import psycopg_binary  # noqa: PLC0415 only there with this implementation

        package = Path(psycopg_binary.__file__ or "")
        return str(next(package.parent.parent.glob("psycopg_binary.libs/libpq-*"), ""))
    return "libpq.so.5"
