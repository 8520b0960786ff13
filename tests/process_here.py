"""What this process holds: memory for a while, and connections; the tests run the engine within it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LITTLE = 120 * 1024 * 1024
"""What may be held for a moment: twice a limit and some more, and much less than any of the tests sends."""


@contextmanager
def little_is_held() -> Iterator[None]:
    """Fail when memory grows meanwhile by what has come from a server."""
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    begun = _bytes("VmRSS")
    yield
    grown = _bytes("VmHWM") - begun
    assert grown < LITTLE, f"{grown // 1024 // 1024} MiB more than before"


def connections() -> set[str]:
    """Return the sockets and pipes that are open."""
    there = set()
    for each in os.scandir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # What lists them is there too.
            there.add(str(Path(each).readlink()))
    return {target for target in there if target.startswith(("socket:", "pipe:"))}


def _bytes(what: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(what)).split()[1])
