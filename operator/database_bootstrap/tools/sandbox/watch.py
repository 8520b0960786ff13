"""What the child uses and no limit of the kernel's bounds: looked at from outside, a few times a second."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from database_bootstrap.tools.sandbox.wire import Limits

_BLOCK = 512


def excess(child: int, scratch: Path, limits: Limits) -> str | None:
    """Return what is too much, in words; None where nothing is."""
    if _threads(child) > limits.threads:
        return f"it had more than {limits.threads} threads"
    size, files = 0, 0
    for each in (*_visible(scratch, limits.files), *_hidden(child)):
        size += each.st_blocks * _BLOCK
        files += 1
    if files > limits.files:
        return f"it kept more than {limits.files} files"
    return f"its files took more than {limits.scratch >> 20} MiB" if size > limits.scratch else None


def _threads(child: int) -> int:
    try:
        return int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[17])
    except (OSError, ValueError, IndexError):
        return 0


def _visible(scratch: Path, most: int) -> Iterator[os.stat_result]:
    """Yield what is in `home`, and a little more than the most that may be there."""
    folders = [scratch / "home"]
    left = most + 1
    while folders and left > 0:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    return
                with contextlib.suppress(FileNotFoundError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry))


def _hidden(child: int) -> Iterator[os.stat_result]:
    """Yield files that are open and have no name any more."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{child}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found = entry.stat()
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    yield found
