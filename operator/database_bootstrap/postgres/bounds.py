"""Bounds: how much of what a server sends is held at once, whoever's words they are.

libpq keeps a message until it is complete, a row of a gigabyte too, and psycopg an answer; neither can be told to stop.
So they are given what comes in small portions, which are counted, and the connection is closed when that is too much.
"""

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import TypeVar

import psycopg
from psycopg import waiting

Row = TypeVar("Row")

LIMIT = 32 * 1024 * 1024
"""Bytes of one answer, or of what comes of a script before there is something to throw away."""
ROWS = 500_000
"""Rows of one answer: as Python has them, small ones take ten times as many bytes as on their way here."""
HISTORY = 10_000
"""Rows of a history of migrations: each is compared, and kept with the words that belong to it."""
NAME, WORDS = 1000, 20_000
"""Characters of a name and of words in a history, which its owner makes as long as it likes; no honest one has more."""
_ROOM = 2 * 1024 * 1024
"""What else may come between two looks at this process's memory."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TCP_INFO = getattr(socket, "TCP_INFO", None)
_BYTES_RECEIVED = 128
"""Where tcp_info of linux/tcp.h has tcpi_bytes_received, a number of eight bytes."""
_PORTION = 64 * 1024
_NOTHING = bytes(4)


class NotTaken(psycopg.OperationalError):
    """The operator does not take what was sent; but for too many rows, the connection is closed."""


class TooLarge(NotTaken):
    """More was sent than is taken."""


def too_many_bytes() -> TooLarge:
    """Return the error for an answer that goes on beyond the limit."""
    return TooLarge(f"more than {LIMIT // 1024 // 1024} MiB came at once, and the operator takes no more")


def too_many_rows(limit: int = ROWS) -> TooLarge:
    """Return the error for an answer that has come, and whose rows are too many."""
    return TooLarge(f"there are more than {limit} rows, and the operator takes no more")


def history(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows of a history, of which one more than the limit was asked for; raise `TooLarge` for too many."""
    if len(rows) > HISTORY:
        raise too_many_rows(HISTORY)
    return rows


def copy() -> NotTaken:
    """Return the error for data of COPY, or a wish for some, in the middle of a script."""
    return NotTaken("COPY from or to the client works in psql only")


class Portions:
    """What has come over a connection is given to libpq in portions; to be closed.

    PQconsumeInput reads a long message on and on for as long as the server keeps up with it. A portion is put into a
    pipe that stands in for the connection; what libpq has read of it is then taken off the connection itself, and the
    rest is still there. This is below TLS, which libpq reads in the same way.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pipe, self._end = socket.socketpair()
        self._real = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=os.dup(descriptor))
        self._pipe.setblocking(False)
        self._end.setblocking(False)
        self.size = 0
        """Bytes that libpq has read."""

    def close(self) -> None:
        """Leave the connection to libpq."""
        for each in (self._pipe, self._end, self._real):
            each.close()

    def give(self, read: Callable[[], waiting.Wait], is_open: Callable[[], bool]) -> waiting.Wait:
        """Return what is waited for after libpq has read one portion; the end of the connection it finds itself."""
        try:
            portion = self._end.send(self._real.recv(_PORTION, socket.MSG_PEEK))
        except OSError:
            portion = 0
        if not portion:
            return read()
        os.dup2(self._pipe.fileno(), self._descriptor, inheritable=False)
        try:
            while (state := read()) == waiting.Wait.R and self._is_left():
                """It reads no more at once than its buffer has room for."""
            return state
        finally:
            left = self._drain()
            if is_open():
                os.dup2(self._real.fileno(), self._descriptor, inheritable=False)
            with suppress(OSError):
                self._real.recv(portion - left, socket.MSG_TRUNC)
            self.size += portion - left

    def _is_left(self) -> bool:
        return fcntl.ioctl(self._pipe.fileno(), termios.FIONREAD, _NOTHING) != _NOTHING

    def _drain(self) -> int:
        """Return how many bytes nobody has read, and empty the pipe."""
        with suppress(BlockingIOError):
            self._real.send(self._end.recv(_PORTION))  # What TLS may have had to say meanwhile.
        with suppress(BlockingIOError):
            return len(self._pipe.recv(_PORTION))
        return 0


def taken(descriptor: int) -> int:
    """Return how many bytes were read from a TCP connection since its start; 0 where the kernel does not tell."""
    if _TCP_INFO is None:
        return 0
    # Only borrowed: it is libpq's, which closes it.
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        told = borrowed.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_RECEIVED + 8)
        (waiting,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    except OSError:
        return 0
    finally:
        borrowed.detach()
    if len(told) < _BYTES_RECEIVED + 8:
        return 0
    (received,) = struct.unpack_from("=Q", told, _BYTES_RECEIVED)
    # What waits in the kernel is bounded there.
    return int(received - waiting)


def room() -> int:
    """Return the bytes that this process has made room for, whether or not they are used; 0 where it is not told."""
    descriptor = _statm()
    return int(os.pread(descriptor, 200, 0).split()[5]) * _PAGE if descriptor is not None else 0


def has_made_room(before: int) -> bool:
    """Whether there is room for a message beyond the limit that was not there before.

    libpq makes room as soon as it knows a message's length. Another thread may have made it for something else.
    """
    return room() - before > LIMIT + _ROOM


@cache
def _statm() -> int | None:
    try:
        # For as long as the process lives: it is read at every turn.
        return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
