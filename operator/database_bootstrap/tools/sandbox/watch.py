"""What the child uses and no limit of the kernel's bounds: looked at from outside, a few times a second."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from database_bootstrap.tools.sandbox.wire import Limits

_BLOCK = 512
_EXITING = 0x4
"""PF_EXITING among a thread's flags."""


def excess(child: int, scratch: Path, limits: Limits) -> str | None:
    """Return what is too much, in words; None where nothing is."""
    if _threads(child) > limits.threads:
        return f"it had more than {limits.threads} threads"
    try:
        found = (*_visible(scratch, limits.files), *_hidden(child))
    except PermissionError:
        return "it does not let itself be looked at"
    size, files = 0, 0
    for each in found:
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
    """Yield files that are open and have no name any more; raise PermissionError where a child hides them.

    Each thread can have descriptors of its own, and the first one can be over before the others.
    """
    known = set()
    for thread in _entries(f"/proc/{child}/task"):
        try:
            found = [each for each in map(_status, _entries(f"{thread.path}/fd")) if each is not None]
        except PermissionError:
            if not _is_ending(Path(thread.path)):
                raise
            continue
        for each in found:
            if stat.S_ISREG(each.st_mode) and each.st_nlink == 0 and (each.st_dev, each.st_ino) not in known:
                known.add((each.st_dev, each.st_ino))
                yield each


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """Return what is known of a file; None where it has gone meanwhile."""
    try:
        return entry.stat()
    except PermissionError:
        raise
    except OSError:
        return None


def _entries(folder: str) -> "Iterator[os.DirEntry[str]]":
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), os.scandir(folder) as entries:
        yield from entries


def _is_ending(thread: Path) -> bool:
    """Whether it is over, or about to be: then the kernel shows it to root alone."""
    try:
        return bool(int((thread / "stat").read_text().rpartition(")")[2].split()[6]) & _EXITING)
    except (FileNotFoundError, ProcessLookupError):
        return True
