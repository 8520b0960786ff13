"""The zygote: loads Alembic once, and forks a supervisor per run; it never sees a bundle or a password."""

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

from database_bootstrap.tools.sandbox import confinement, descendants, level, supervisor
from database_bootstrap.tools.sandbox import scratch as scratches

_PRELOAD = (
    "alembic.command",
    "alembic.context",
    "alembic.op",
    "asyncio",
    "greenlet",
    "logging.config",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.ext.asyncio",
    "database_bootstrap.tools.sandbox.child",
)
_PARTING_SECONDS = 10.0
"""For the supervisors to end their runs once the operator has left."""


def main() -> None:
    """Serve the socket whose number is the first argument until the other end closes it.

    The second argument is the operator's process, the third whether its revisions are confined.
    """
    confinement.hide()
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    confinement.die_with_parent(signal.SIGTERM, int(sys.argv[2]))
    confinement.adopt_orphans()
    try:
        for name in _PRELOAD:
            importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever it is, the operator is told before this process ends
        control.sendall(f"{type(error).__name__}: {error}".encode())
        sys.exit(1)
    # What is loaded stays: the collector shall not touch, and so copy, its pages in every child.
    gc.freeze()
    confinement.container_memory()
    _Zygote(control, level.available() if sys.argv[3] == "confined" else None).serve()


class _Zygote:
    def __init__(self, control: socket.socket, confined: level.Level | None) -> None:
        self._control = control
        self._level = confined
        self._runs: dict[int, Path] = {}
        self._leaving = False

    def serve(self) -> None:
        wakeup = supervisor.wake_up_on(signal.SIGCHLD, signal.SIGTERM)
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        while not self._leaving:
            for key, _ in selector.select():
                if key.fd == wakeup:
                    self._leaving |= signal.SIGTERM in os.read(wakeup, 512)
                else:
                    self._accept()
            self._reap()
        self._leave()

    def _accept(self) -> None:
        try:
            order, received, _, _ = socket.recv_fds(self._control, 1, 2)
        except ConnectionError:
            order, received = b"", []
        if not order:
            self._leaving = True
        elif len(received) == 2:
            self._fork(*received)

    def _fork(self, owner: int, secret: int) -> None:
        scratch = scratches.make()
        zygote = os.getpid()
        process = os.fork()
        if not process:
            # Nothing may return into the loop of the zygote.
            try:
                self._control.close()
                confinement.die_with_parent(signal.SIGTERM, zygote)
                sockets = socket.socket(fileno=owner), socket.socket(fileno=secret)
                supervisor.supervise(*sockets, scratch, self._level)
            finally:
                os._exit(1)
        self._runs[process] = scratch
        os.close(owner)
        os.close(secret)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                scratch = self._runs.pop(ended[0], None)
                if scratch is not None and ended[1] != 0:
                    # The supervisor itself was killed: its descendants are ours now.
                    descendants.kill_all(spare=self._runs)
                    scratches.remove(scratch)

    def _leave(self) -> None:
        for process in self._runs:
            os.kill(process, signal.SIGTERM)
        end = time.monotonic() + _PARTING_SECONDS
        while self._runs and time.monotonic() < end:
            time.sleep(0.02)
            self._reap()
        descendants.kill_all(spare=())
        for scratch in self._runs.values():
            scratches.remove(scratch)


if __name__ == "__main__":
    main()
