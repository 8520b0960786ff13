"""Run one server and stop it when the process that wanted it is gone; started as a file, with `python -I -S`."""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
OWNER_CHECK_SECONDS = 1.0


def main() -> NoReturn:
    """Start the server, report its process id on stdout, and leave when it has left.

    Stdin is the other end of a pipe that only the owner holds. One byte is the number of the signal to stop with; the
    pipe's end means that the owner is gone, and then the folders that nobody needs any more are removed as well.
    """
    order: dict[str, Any] = json.loads(sys.argv[1])
    wakeup = _wake_up_on_signals()
    server = _spawn(order)
    os.write(1, f"{server}\n".encode())
    os.close(1)
    stop_signal = _wait_for_reason_to_stop(server, wakeup, order["owner"])
    status = _stop(server, stop_signal or order["stop_signal"], order["grace"])
    if stop_signal is None:
        for folder in order["remove"]:
            shutil.rmtree(folder, ignore_errors=True)
    os._exit(status)


def _wake_up_on_signals() -> int:
    """Return a descriptor that becomes readable when the server ends or the guard itself is told to stop."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _spawn(order: dict[str, Any]) -> int:
    guard = os.getpid()
    server = os.fork()
    if server:
        return server
    try:
        _become_server(order, guard)
    except OSError as error:
        os.write(2, f"cannot start {order['command'][0]}: {error}\n".encode())
    os._exit(127)


def _become_server(order: dict[str, Any], guard: int) -> None:
    os.setsid()
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Python ignores the first, and a shell the others for its background jobs; what is ignored stays so across exec.
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if order["account"]:
        uid, gid = order["account"]
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After the change of user, which clears it.
    _die_with_parent(order["death_signal"])
    if os.getppid() != guard:
        os._exit(1)
    os.chdir(order["folder"])
    os.execv(order["command"][0], order["command"])


def _die_with_parent(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def _wait_for_reason_to_stop(server: int, wakeup: int, owner: int) -> int | None:
    """Return the signal that the owner asked for, 0 for none in particular, or None if the owner is gone."""
    while True:
        readable, _, _ = select.select([0, wakeup], [], [], OWNER_CHECK_SECONDS)
        if wakeup in readable and any(byte != signal.SIGCHLD for byte in os.read(wakeup, 64)):
            return 0
        if 0 in readable:
            asked = os.read(0, 1)
            return asked[0] if asked else None
        # A child that the owner forked without exec holds the pipe open; the parent's id does not lie.
        if os.getppid() != owner:
            return None
        if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return 0


def _stop(server: int, number: int, grace: float) -> int:
    """Stop the server with a signal, after `grace` seconds with SIGKILL, and return what it returned."""
    deadline = time.monotonic() + grace
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, number)
        os.kill(server, signal.SIGCONT)
    while not os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() > deadline:
            os.kill(server, signal.SIGKILL)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server, signal.SIGKILL)
    _, status = os.waitpid(server, 0)
    return abs(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
