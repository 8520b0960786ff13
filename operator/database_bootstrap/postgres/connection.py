"""A psycopg connection whose refusal carries its SQLSTATE, and whose answers end, in time and in memory."""

import asyncio
import re
import sys
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import psycopg
from psycopg import generators, pq, waiting

from database_bootstrap.postgres import bounds, polling
from database_bootstrap.postgres.libpq import Libpq, loaded

Value = TypeVar("Value")
Waits = Generator[waiting.Wait, waiting.Ready | int, Value]
Attempt = Generator[tuple[int, waiting.Wait], waiting.Ready | int, Value]

_INTERVAL_SECONDS = 0.1
"""How often psycopg looks whether it was interrupted; its own default."""
_PARTING_SECONDS = 8.0
"""How long an answer is waited for by whoever was told to end; a little longer than a session is given for its end."""
_VERBOSITY_SQLSTATE = 3
"""PQERRORS_SQLSTATE of libpq-fe.h: the error text is the severity and the SQLSTATE, in no language."""
_ROWS_AT_ONCE = 8
"""Then a million small rows take no longer than when all are kept, and a few large ones are still not too much."""
_RESULTS_AT_ONCE = 1000
_NOTIFICATION = 11
"""Bytes of a NotificationResponse beside its channel and its payload."""
_COPIES = frozenset({pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH})
_SQLSTATE = re.compile(r"\b([0-9A-Z]{5})\s*$")
_attempts: ContextVar[list[Attempt[Any]]] = ContextVar("attempts")
"""The logins that this task has begun."""


def sqlstate_of_refusal(refusal: psycopg.OperationalError) -> str | None:
    """Return the SQLSTATE with which the server refused a login, or None when no server answered."""
    if refusal.sqlstate:
        return refusal.sqlstate
    last_line = str(refusal).strip().splitlines()[-1] if str(refusal).strip() else ""
    if ":" not in last_line:
        return None
    found = _SQLSTATE.search(last_line)
    return found.group(1) if found else None


class PasswordWanted(psycopg.OperationalError):
    """The server has asked for a password, and there was none to give."""


@dataclass(frozen=True, slots=True)
class Done:
    """One statement of a message that went through."""

    tag: bytes
    """The server's word for what it was, as in `INSERT 0 3`."""
    rows: int
    """How many it has returned, put in or changed."""


class Cursor(psycopg.AsyncCursor[Any]):
    """AsyncCursor that makes no Python objects of more rows than can be borne."""

    async def fetchall(self) -> list[Any]:
        """Return all rows; raise `TooLarge` for too many."""
        if self.rowcount > bounds.ROWS:
            raise bounds.too_many_rows()
        return await super().fetchall()


class Connection(psycopg.AsyncConnection[Any]):
    """AsyncConnection that asks libpq for SQLSTATEs while it logs in, and bounds what it holds of an answer."""

    patience: float | None = None
    """How many seconds the server may take for one answer. None: whoever waits has a limit of its own."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        super().__init__(pgconn)
        self.cursor_factory = Cursor
        # Nobody asks for notifications, and psycopg would keep them: a script can send itself any number.
        pgconn.notify_handler = None
        self._has_come = False
        self._cancelling: Generator[Any, Any, None] | None = None

    @classmethod
    async def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """Log in as AsyncConnection does; nothing of an attempt that has failed stays open.

        psycopg leaves that to whoever collects the error, whose traceback holds the attempt.
        """
        attempts: list[Attempt[Any]] = []
        token = _attempts.set(attempts)
        try:
            return await super().connect(conninfo, **options)
        finally:
            _attempts.reset(token)
            for attempt in attempts:
                attempt.close()

    async def wait(
        self,
        gen: Waits[Value],
        interval: float = _INTERVAL_SECONDS,
        timeout: float | None = None,  # noqa: ASYNC109 psycopg's signature
    ) -> Value:
        """Return the server's answer; raise OperationalError where it has not come for longer than it may take.

        A server that is well keeps its own `statement_timeout`. One that only looks alive, as in a tenant's hands,
        would keep a worker for ever. For an answer beyond the limit `TooLarge` is raised, and the connection closed.
        Whoever was cancelled, and only tidies up, has little time for that: then it is closed as well, and they are
        cancelled still.
        """
        is_parting, handled = timeout is None and _is_told_to_end(), sys.exception()
        if is_parting:
            timeout = _PARTING_SECONDS if self.patience is None else min(_PARTING_SECONDS, self.patience)
        limit = asyncio.timeout(None if is_parting else self.patience)
        try:
            # Closed here: of a wait that is given up psycopg leaves that to whoever collects the error.
            with closing(self._bounded(gen)) as bounded:
                async with limit:
                    return await super().wait(bounded, interval, timeout)
        except psycopg.errors._WaitTimeout:
            if not is_parting:
                raise
            self.pgconn.finish()
            # With the word with which they were cancelled, which is on its way up.
            raise asyncio.CancelledError(
                *(handled.args if isinstance(handled, asyncio.CancelledError) else ())
            ) from None
        except TimeoutError:
            if not limit.expired():
                raise
            raise psycopg.OperationalError(f"the server has not answered for {self.patience:.0f} seconds") from None
        finally:
            if self._cancelling:
                self._cancelling.close()

    def _cancel_gen(self) -> Generator[Any, Any, None]:
        # Telling the server takes a connection of its own, which psycopg leaves open where even that is given up.
        self._cancelling = super()._cancel_gen()
        return self._cancelling

    async def run(self, query: bytes, take: Callable[[Done], None]) -> pq.abc.PGresult | None:
        """Send a message, and tell of each statement that went through; return the result of one that was refused.

        Rows, notices and notifications are thrown away as they come. psycopg's `execute` would keep all the rows.
        """
        async with self.lock:
            self.pgconn.send_query(query)
            self.pgconn.set_chunked_rows_mode(_ROWS_AT_ONCE)
            self.pgconn.notice_handler = lambda _: self._note()
            try:
                return await self.wait(self._results(take))
            finally:
                self.pgconn.notice_handler = None

    def _note(self) -> None:
        self._has_come = True

    def _bounded(self, gen: Waits[Value]) -> Waits[Value]:
        portions = None
        try:
            state, self._has_come, begun = next(gen), False, 0
            while True:
                ready = yield state
                if portions and state == waiting.Wait.R and ready == waiting.Ready.R:
                    state = portions.give(partial(gen.send, ready), self._is_open)
                    begun += self._drop_notifications()
                    if self._has_come:
                        begun, self._has_come = portions.size, False
                    if portions.size - begun > bounds.LIMIT:
                        self.pgconn.finish()
                        raise bounds.too_many_bytes()
                else:
                    # What is read first is no more than libpq's buffer takes, and mostly all.
                    state = gen.send(ready)
                    portions = portions or bounds.Portions(self.pgconn.socket)
        except StopIteration as end:
            value: Value = end.value
            return value
        finally:
            if portions:
                portions.close()

    def _is_open(self) -> bool:
        return self.pgconn.status == pq.ConnStatus.OK

    def _drop_notifications(self) -> int:
        """Return how many bytes they were."""
        size = 0
        while notification := self.pgconn.notifies():
            size += len(notification.relname) + len(notification.extra) + _NOTIFICATION
        return size

    def _results(self, take: Callable[[Done], None]) -> Waits[pq.abc.PGresult | None]:
        yield from generators.send(self.pgconn)
        done, count = Done(b"", 0), 0
        while (result := (yield from self._next())) is not None:
            count += 1
            if not count % _RESULTS_AT_ONCE:
                yield waiting.Wait.RW  # Others get their turn, and it goes on at once.
            if result.status in _COPIES:
                self.pgconn.finish()
                raise bounds.copy()
            if result.status == pq.ExecStatus.FATAL_ERROR:
                yield from self._end()
                return result
            if tag := result.command_status:
                # libpq puts it on the last rows, or where they were a full chunk, on the end that comes after them.
                done = Done(tag, result.command_tuples or 0)
            if result.status != pq.ExecStatus.TUPLES_CHUNK:
                take(done)
                done = Done(b"", 0)
        return None

    def _end(self) -> Waits[None]:
        """Take what comes after a refusal; where that was the server's last word, nothing does."""
        with suppress(psycopg.DatabaseError):
            while (yield from self._next()) is not None:
                """The end of the message."""

    def _next(self) -> Waits[pq.abc.PGresult | None]:
        while self.pgconn.is_busy():
            yield waiting.Wait.R
            self.pgconn.consume_input()
            self._drop_notifications()
        self._has_come = True
        return self.pgconn.get_result()

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> Attempt[Self]:
        attempts = _attempts.get()
        for earlier in attempts:  # At the host's address before this one.
            earlier.close()
        attempts.append(cls._log_in(conninfo))
        return attempts[-1]

    @classmethod
    def _log_in(cls, conninfo: str) -> Attempt[Self]:
        # psycopg's own generator has no place between start and poll, where the verbosity must be set.
        pgconn = pq.PGconn.connect_start(conninfo.encode())
        pointer = getattr(pgconn, "pgconn_ptr", None) or 0
        libpq = loaded() if pointer else None
        if libpq:
            libpq.set_verbosity(pointer, _VERBOSITY_SQLSTATE)
        while (status := (yield from _poll(pgconn, pointer, libpq))) != pq.PollingStatus.OK:
            wait = waiting.Wait.R if status == pq.PollingStatus.READING else waiting.Wait.W
            while not (yield pgconn.socket, wait):
                pass
        pgconn.nonblocking = 1
        return cls(pgconn)


def _is_told_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _poll(pgconn: pq.abc.PGconn, address: int, libpq: Libpq | None) -> Attempt[int]:
    """Return the next polling status; raise OperationalError with libpq's text when the attempt has failed.

    Before the session is there libpq takes single messages only, and throws each away.
    """
    status: int = pq.PollingStatus.FAILED
    if libpq and pgconn.status == pq.ConnStatus.AWAITING_RESPONSE:
        status = yield from polling.poll(pgconn, address, libpq.poll)
    elif pgconn.status != pq.ConnStatus.BAD:
        room = bounds.room()
        status = pgconn.connect_poll()
        _bound(pgconn, bounds.has_made_room(room))
    if status != pq.PollingStatus.FAILED:
        # A thread's room cannot be told from others'; but what comes into it can be counted.
        _bound(pgconn, bounds.taken(pgconn.socket) > bounds.LIMIT)
        return status
    kind = PasswordWanted if pgconn.needs_password else psycopg.OperationalError
    text = pgconn.get_error_message()
    pgconn.finish()
    raise kind(f"connection failed: {text}")


def _bound(pgconn: pq.abc.PGconn, is_too_much: bool) -> None:
    if is_too_much:
        pgconn.finish()
        raise bounds.too_many_bytes()
