"""The owner's side of a guarded server: start it, signal it, stop it; it never outlives this process."""

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

GUARD = Path(__file__).with_name("guard.py")

Started = TypeVar("Started")


class ServerFailed(RuntimeError):
    """A server did not start, or ended; the message carries the last lines of its log."""


class PortTaken(ServerFailed):
    """Somebody else got hold of the port between our choosing it and the server's using it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of this machine for servers that refuse to run as root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a guard is told to run, and how it ends."""

    command: Sequence[str | Path]
    log: Path
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    """For the server if the guard itself is killed."""
    grace: float = 5.0
    remove: Sequence[Path] = ()
    """Folders to remove if the owner dies; after an ordered stop the owner removes them itself."""

    def as_json(self) -> str:
        return json.dumps(
            {
                "command": [str(part) for part in self.command],
                "folder": str(self.folder),
                "account": [self.account.uid, self.account.gid] if self.account else None,
                "owner": os.getpid(),
                "stop_signal": self.stop_signal,
                "death_signal": self.death_signal,
                "grace": self.grace,
                "remove": [str(folder) for folder in self.remove],
            }
        )


class Server:
    """One running server behind its guard."""

    def __init__(self, order: Order) -> None:
        self.order = order
        with order.log.open("ab") as log:
            # A session of its own keeps the terminal's Ctrl-C away: the owner decides who stops, and in which order.
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), order.as_json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(order.environment),
                start_new_session=True,
            )
        assert self._guard.stdout
        with self._guard.stdout as report:
            line = report.readline()
        if not line:
            self.stop()
            raise ServerFailed(f"{order.command[0]} was not started: {tail(order.log)}")
        self.pid = int(line)

    @property
    def is_running(self) -> bool:
        return self._guard.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server itself."""
        if self.is_running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the server without a warning, as a lost node does."""
        self.send(signal.SIGKILL)
        self._guard.wait()
        self._close_pipe()

    def begin_stop(self, number: signal.Signals | None = None) -> None:
        """Ask for the stop and return at once."""
        assert self._guard.stdin
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._guard.stdin.write(bytes([number or 0]))
            self._guard.stdin.flush()
        self._close_pipe()

    def stop(self, number: signal.Signals | None = None) -> int:
        """Stop the server and return its exit code (or the number of the signal that ended it)."""
        self.begin_stop(number)
        return self._guard.wait(timeout=self.order.grace + 10)

    def _close_pipe(self) -> None:
        assert self._guard.stdin
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()


def free_port() -> int:
    """Return a port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_free_ports(start: Callable[[], Started], *, attempts: int = 5) -> Started:
    """Start something that chooses free ports; again, if somebody was faster."""
    for _ in range(attempts - 1):
        with contextlib.suppress(PortTaken):
            return start()
    return start()


def tail(log: Path, lines: int = 25) -> str:
    """Return the end of a log, for an error message."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(["", f"--- {log}", *text.splitlines()[-lines:]])


def failure(what: str, log: Path) -> ServerFailed:
    """Return the error that says why a server ended."""
    message = f"{what}: {tail(log)}"
    taken = ("address already in use", "could not bind")
    return (PortTaken if any(words in message.lower() for words in taken) else ServerFailed)(message)


def unprivileged_account() -> Account | None:
    """Return whom a server that refuses root runs as: nobody else than us, unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody", "daemon"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise ServerFailed("PostgreSQL refuses to run as root, and this machine has no other account to run it as")


def is_reachable(path: Path, account: Account | None) -> bool:
    """Say whether `account` may walk down to `path`; a home of mode 0700 stops it."""
    if account is None:
        return True
    return all(_may_enter(folder, account) for folder in _folders_above(path.resolve()))


def _folders_above(path: Path) -> Iterable[Path]:
    return (folder for folder in path.parents if folder.exists())


def _may_enter(folder: Path, account: Account) -> bool:
    found = folder.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & 0o100)
    if found.st_gid == account.gid:
        return bool(found.st_mode & 0o010)
    return bool(found.st_mode & 0o001)


def children(pid: int) -> list[int]:
    """Return the processes that `pid` is the parent of."""
    return [child for child, (its_parent, _) in _all_processes().items() if its_parent == pid]


def parent(pid: int) -> int:
    """Return the process that `pid` is a child of."""
    return _all_processes()[pid][0]


def wait_until_gone(pids: Iterable[int], seconds: float = 10.0) -> None:
    """Wait until none of the processes runs any more; one that only nobody has reaped counts as gone."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if _all_processes().get(pid, (0, "Z"))[1] != "Z"]:
        if time.monotonic() > deadline:
            raise ServerFailed(f"still running after {seconds:.0f} s: {left}")
        time.sleep(0.01)


def _all_processes() -> dict[int, tuple[int, str]]:
    """Return parent and state of every process."""
    if Path("/proc/self/stat").exists():
        # Not "[0-9]*/stat": glob itself asks whether that is there, and fails where the process ends at that moment.
        stats = (folder / "stat" for folder in Path("/proc").glob("[0-9]*"))
        return dict(filter(None, map(_from_proc, stats)))
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,state="], check=True, capture_output=True, text=True)
    rows = (line.split() for line in listing.stdout.splitlines())
    return {int(pid): (int(ppid), state[0]) for pid, ppid, state in rows}


def _from_proc(path: Path) -> tuple[int, tuple[int, str]] | None:
    try:
        text = path.read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, even parentheses.
    state, ppid, *_ = text.rpartition(")")[2].split()
    return int(path.parent.name), (int(ppid), state)
