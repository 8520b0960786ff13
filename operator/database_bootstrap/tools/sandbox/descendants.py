"""Every process that descends from this one, found and killed."""

import contextlib
import os
import signal
import time
from collections.abc import Container
from pathlib import Path

_PATIENCE_SECONDS = 5.0
"""How long something that forks without end is fought."""


def kill_all(spare: Container[int]) -> None:
    """Kill and reap all children but these; theirs come to us as they die, because we adopt orphans."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        victims = [child for child in _children() if child not in spare]
        if not victims:
            return
        for process in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for process in victims:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _children() -> list[int]:
    """Return our children, dead ones that nobody waited for included."""
    ours = os.getpid()
    try:
        return [int(each) for each in Path(f"/proc/self/task/{ours}/children").read_text().split()]
    except OSError:
        return [process for process in _all_processes() if _parent_of(process) == ours]


def _all_processes() -> list[int]:
    try:
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    except OSError:
        return []


def _parent_of(process: int) -> int | None:
    try:
        # The second field is the name in parentheses, which may hold anything.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
