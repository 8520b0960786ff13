"""The supervisor of one run: starts the child, relays what it says, ends it in time, leaves nothing behind."""

import contextlib
import math
import os
import selectors
import signal
import socket
import time
from pathlib import Path
from typing import NoReturn

from database_bootstrap.tools.sandbox import confinement, descendants, watch, wire
from database_bootstrap.tools.sandbox import scratch as scratches
from database_bootstrap.tools.sandbox.level import Level

_GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL."""
_OUTPUT_BYTES = 65536
"""How much of the end of stdout and stderr is kept."""
_EVENTS_BYTES = 16 << 20
"""How much a child may report in all."""
_PIPE_READS = 16
"""Reads after which a full pipe is empty."""
_WATCH_SECONDS = 0.25
_OWNER_SECONDS = 60.0
"""How long the operator may take to send the job or to read an event."""


def wake_up_on(*signals: signal.Signals) -> int:
    """Return a descriptor that becomes readable when one of these arrives; its bytes are their numbers."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    for number in signals:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def supervise(owner: socket.socket, secret: socket.socket, scratch: Path, level: Level | None) -> NoReturn:
    """Run the job that the operator sends, and leave with status 0 when everything of it is gone.

    The operator's end of the socket is told by then: it waits for the end of the stream, which comes last.
    """
    wakeup = wake_up_on(signal.SIGCHLD, signal.SIGTERM)
    confinement.adopt_orphans()
    try:
        owner.settimeout(_OWNER_SECONDS)
        _Run(owner, secret, scratch, level, wakeup).to_the_end()
    except (OSError, EOFError):
        pass  # The operator has left: nobody is there to be told.
    finally:
        descendants.kill_all(spare=())
        scratches.remove(scratch)
    os._exit(0)


class _Run:
    def __init__(
        self, owner: socket.socket, secret: socket.socket, scratch: Path, level: Level | None, wakeup: int
    ) -> None:
        self._owner = owner
        self._secret = secret
        self._scratch = scratch
        self._level = level
        self._wakeup = wakeup
        self._output = bytearray()
        self._cut = False
        self._events = bytearray()
        self._events_left = _EVENTS_BYTES
        self._child = 0
        self._status: int | None = None
        self._excess: str | None = None
        self._unwanted = False

    def to_the_end(self) -> None:
        job = wire.receive_job(self._owner)
        scratches.fill(self._scratch, job)
        events, output = self._start(job)
        self._owner.sendall(wire.OWNER + b"{}\n")
        late = not self._wait(events, output, job.limits)
        if self._status is None:
            self._end_child(events, output)
        self._drain(events, output)
        if not self._unwanted:
            ended = wire.Ended(status=self._status or 0, late=late, output=self._text(), excess=self._excess)
            self._owner.sendall(wire.OWNER + wire.encode_event(ended))

    def _start(self, job: wire.Job) -> tuple[int, int]:
        events, events_in = os.pipe()
        output, output_in = os.pipe()
        supervisor = os.getpid()
        self._child = os.fork()
        if not self._child:
            # Nothing may return into the loop of the supervisor.
            try:
                from database_bootstrap.tools.sandbox import child  # noqa: PLC0415 - loaded by the zygote

                pipes = child.Pipes(self._secret, events_in, output_in)
                child.run(job, self._scratch, pipes, supervisor, self._level)
            finally:
                os._exit(1)
        for descriptor in (events_in, output_in):
            os.close(descriptor)
        self._secret.close()
        for descriptor in (events, output):
            os.set_blocking(descriptor, False)
        return events, output

    def _wait(self, events: int, output: int, limits: wire.Limits) -> bool:
        """Relay until the child has ended or uses too much; return False when the time is up before."""
        end = time.monotonic() + (limits.seconds or math.inf)
        selector = selectors.DefaultSelector()
        for descriptor in (events, output, self._wakeup, self._owner.fileno()):
            selector.register(descriptor, selectors.EVENT_READ)
        look = time.monotonic() + _WATCH_SECONDS
        while self._status is None and not self._unwanted and self._excess is None:
            now = time.monotonic()
            if now >= end:
                return False
            if now >= look:
                self._excess = watch.excess(self._child, self._scratch, limits)
                look = now + _WATCH_SECONDS
            for key, _ in selector.select(max(0, min(look, end) - now)):
                if not self._serve(key.fd, events, output):
                    selector.unregister(key.fd)
            self._reap()
        return True

    def _serve(self, descriptor: int, events: int, output: int) -> bool:
        """Handle one readable descriptor; return False when it will never be readable again."""
        if descriptor == events:
            return self._relay(events)
        if descriptor == output:
            return self._keep(output)
        if descriptor == self._wakeup:
            self._unwanted |= signal.SIGTERM in os.read(self._wakeup, 512)
        else:
            # The operator says nothing after the job: this is the end of its side.
            self._unwanted = True
        return True

    def _relay(self, events: int) -> bool:
        data = _read(events)
        if not data:
            return data is None
        self._events_left -= len(data)
        if self._events_left < 0:
            return True
        self._events += data
        *lines, rest = bytes(self._events).split(b"\n")
        self._events = bytearray(rest[: wire.LINE_LIMIT])
        self._owner.sendall(b"".join(wire.CHILD + line + b"\n" for line in lines if len(line) < wire.LINE_LIMIT))
        return True

    def _keep(self, output: int) -> bool:
        data = _read(output)
        if not data:
            return data is None
        self._output += data
        self._cut |= len(self._output) > _OUTPUT_BYTES
        del self._output[:-_OUTPUT_BYTES]
        return True

    def _text(self) -> str:
        """Return the output from its first whole line on: half a line could hold half a password."""
        kept = bytes(self._output)
        return (kept.partition(b"\n")[2] if self._cut else kept).decode(errors="replace")

    def _reap(self) -> None:
        while self._status is None:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not process:
                return
            if process == self._child:
                self._status = os.waitstatus_to_exitcode(status)

    def _end_child(self, events: int, output: int) -> None:
        asked = () if self._excess else (signal.SIGTERM,)
        for number in (*asked, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child, number)
            end = time.monotonic() + _GRACE_SECONDS
            while self._status is None and time.monotonic() < end:
                time.sleep(0.01)
                self._drain(events, output)
                self._reap()

    def _drain(self, events: int, output: int) -> None:
        """Take what lies in the pipes, and no more: somebody may still be writing."""
        for _ in range(_PIPE_READS):
            if self._unwanted or not _readable(events) or not self._relay(events):
                break
        for _ in range(_PIPE_READS):
            if not _readable(output) or not self._keep(output):
                break


def _readable(descriptor: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(0))


def _read(descriptor: int) -> bytes | None:
    """Return what is there: empty at the end, None when there is nothing now."""
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return None
