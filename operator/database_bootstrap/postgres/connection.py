"""A psycopg connection whose refusal carries its SQLSTATE, and which does not wait for ever for an answer."""

import asyncio
import ctypes
import re
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg
from psycopg import pq, waiting

_INTERVAL_SECONDS = 0.1
"""How often psycopg looks whether it was interrupted; its own default."""
_VERBOSITY_SQLSTATE = 3
"""PQERRORS_SQLSTATE of libpq-fe.h: the error text is the severity and the SQLSTATE, in no language."""
_SQLSTATE = re.compile(r"\b([0-9A-Z]{5})\s*$")


@cache
def _set_verbosity() -> Callable[[int, int], int] | None:
    """Return PQsetErrorVerbosity of the libpq that psycopg has loaded, or None where it cannot be reached.

    psycopg wraps no such function, and gives no SQLSTATE for a login that failed; the text of the refusal is in the
    server's language.
    """
    try:
        library = ctypes.CDLL(_loaded_libpq())
        function = library.PQsetErrorVerbosity
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_int]
    function.restype = ctypes.c_int
    return function


def _loaded_libpq() -> str:
    if pq.__impl__ == "binary":
        import psycopg_binary  # noqa: PLC0415 only there with this implementation

        package = Path(psycopg_binary.__file__ or "")
        return str(next(package.parent.parent.glob("psycopg_binary.libs/libpq-*"), ""))
    return "libpq.so.5"


def sqlstate_of_refusal(refusal: psycopg.OperationalError) -> str | None:
    """Return the SQLSTATE with which the server refused a login, or None when no server answered."""
    if refusal.sqlstate:
        return refusal.sqlstate
    last_line = str(refusal).strip().splitlines()[-1] if str(refusal).strip() else ""
    if ":" not in last_line:
        return None
    found = _SQLSTATE.search(last_line)
    return found.group(1) if found else None


Result = TypeVar("Result")


class PasswordWanted(psycopg.OperationalError):
    """The server has asked for a password, and there was none to give."""


class Connection(psycopg.AsyncConnection[Any]):
    """AsyncConnection that asks libpq for SQLSTATEs while it logs in."""

    patience: float | None = None
    """How many seconds the server may take for one answer. None: whoever waits has a limit of its own."""

    async def wait(
        self,
        gen: Generator[waiting.Wait, waiting.Ready | int, Result],
        interval: float = _INTERVAL_SECONDS,
        timeout: float | None = None,  # noqa: ASYNC109 psycopg's signature
    ) -> Result:
        """Return the server's answer; raise OperationalError where it has not come for longer than it may take.

        A server that is well keeps its own `statement_timeout`. One that only looks alive, as in a tenant's hands,
        would keep a worker for ever.
        """
        limit = asyncio.timeout(self.patience)
        try:
            async with limit:
                return await super().wait(gen, interval, timeout)
        except TimeoutError:
            if not limit.expired():
                raise
            raise psycopg.OperationalError(f"the server has not answered for {self.patience:.0f} seconds") from None

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> Generator[tuple[int, waiting.Wait], waiting.Ready | int, Self]:
        # psycopg's own generator has no place between start and poll, where the verbosity must be set.
        pgconn = pq.PGconn.connect_start(conninfo.encode())
        if (set_verbosity := _set_verbosity()) and (pointer := getattr(pgconn, "pgconn_ptr", None)):
            set_verbosity(pointer, _VERBOSITY_SQLSTATE)
        while (status := _poll(pgconn)) != pq.PollingStatus.OK:
            wait = waiting.Wait.R if status == pq.PollingStatus.READING else waiting.Wait.W
            while not (yield pgconn.socket, wait):
                pass
        pgconn.nonblocking = 1
        return cls(pgconn)


def _poll(pgconn: pq.abc.PGconn) -> int:
    """Return the next polling status; raise OperationalError with libpq's text when the attempt has failed."""
    status = pq.PollingStatus.FAILED if pgconn.status == pq.ConnStatus.BAD else pgconn.connect_poll()
    if status == pq.PollingStatus.FAILED:
        kind = PasswordWanted if pgconn.needs_password else psycopg.OperationalError
        text = pgconn.get_error_message()
        pgconn.finish()
        raise kind(f"connection failed: {text}")
    return status
