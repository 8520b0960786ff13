"""libpq's next step of a login, in a thread: a server says how many rounds of hashing a password takes (RFC 5802).

Some thousands are usual, and some billions may be said by one in a tenant's hands: an hour in which libpq, which cannot
be told to stop, would keep the event loop. So it works beside that, without Python's lock; whoever waits for the login
leaves it in time, and it then goes on with what the processor has left; the server is left at once.
"""

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator

import psycopg
from psycopg import pq, waiting

Place = tuple[bytes, bytes]
"""An address and a port."""
Step = Callable[[int], int]
"""PQconnectPoll for the address of a PGconn."""

_NAME = "login"
_MUCH_SECONDS = 0.25
"""What of the processor's time no honest login takes; one that has had less only waits for its share."""
_left: set["_Work"] = set()
"""Logins that were left and are not over yet."""


def place_of(pgconn: pq.abc.PGconn) -> Place:
    """Return where a connection leads; raise OperationalError while a login that was left there takes much work."""
    place = (pgconn.hostaddr or pgconn.host, pgconn.port)
    if any(work.place == place and work.takes_much() for work in tuple(_left)):
        raise psycopg.OperationalError(
            "connection failed: the server has asked for so much work at an earlier login that this is not over yet"
        )
    return place


def is_at_work() -> bool:
    """Return whether a login is being worked at, by anybody or for nobody any more."""
    return any(thread.name == _NAME for thread in threading.enumerate())


def end(code: int) -> int:
    """Return the exit code, or end the process with it at once while a login that was left is not over.

    OpenSSL cleans up as a process ends, and what still hashes then would fall over that.
    """
    if is_at_work():
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def poll(
    pgconn: pq.abc.PGconn, address: int, step: Step
) -> Generator[tuple[int, waiting.Wait], waiting.Ready | int, int]:
    """Take one step in a thread, and return the polling status."""
    work = _Work(pgconn, address, step)
    try:
        while not (yield work.reader, waiting.Wait.R):
            pass
        return work.status
    finally:
        work.leave()


class _Work:
    """One step. Whoever is the later one, the thread or who waits for it, closes what both need."""

    def __init__(self, pgconn: pq.abc.PGconn, address: int, step: Step) -> None:
        self._pgconn = pgconn  # Not to be freed before the step is over.
        self.place = place_of(pgconn)
        self._lock = threading.Lock()
        self._is_over = self._is_left = False
        self.status: int = pq.PollingStatus.FAILED
        # A descriptor of our own: libpq may close its one at any time.
        self._connection = socket.socket(fileno=os.dup(pgconn.socket))
        self.reader, self._writer = os.pipe()
        # A daemon: the process does not wait for it at its end.
        self._thread = threading.Thread(target=self._run, args=(address, step), name=_NAME, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # The system gives no more threads.
            del self._thread  # Which has this one: the connection would stay open until both were collected.
            self._close()
            raise

    def _run(self, address: int, step: Step) -> None:
        self.status = step(address)
        with self._lock:
            self._is_over = True
            if self._is_left:
                _left.discard(self)
                self._close()
            else:
                os.write(self._writer, b".")

    def takes_much(self) -> bool:
        """Return whether it is not over, and has had more of the processor's time than an honest one."""
        with self._lock:
            if self._is_over:
                return False
            with contextlib.suppress(AttributeError):  # Linux has this.
                # It cannot end meanwhile: for that it takes the lock.
                clock = time.pthread_getcpuclockid(self._thread.ident or 0)
                return time.clock_gettime(clock) > _MUCH_SECONDS
            return True

    def leave(self) -> None:
        with self._lock:
            if self._is_over:
                self._close()
                return
            self._is_left = True
            _left.add(self)
            with contextlib.suppress(OSError):
                # Whoever left it counts it no more, so the server must not either.
                self._connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, AttributeError):  # Linux has this.
            os.sched_setscheduler(self._thread.native_id or 0, os.SCHED_IDLE, os.sched_param(0))

    def _close(self) -> None:
        self._connection.close()
        os.close(self.reader)
        os.close(self._writer)
