"""PEM texts as files, which is all that libpq reads: in a folder that nobody else can look into, or has made before.

Keys are in no folder where the system can help it: a file stays when its process is killed, and whatever else runs as
the same user, such as a revision that is not confined, can read it.
"""

import atexit
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections import OrderedDict
from functools import cache
from pathlib import Path

LIMIT = 64
"""Files at once, more than there are visits: a Secret may hold another certificate each time it is read."""
_files: OrderedDict[Path, None] = OrderedDict()
"""The one that was not asked for for the longest time is first."""


def file_of(text: str) -> str:
    """Return the path of a file with this text, readable by this process's user alone; it stays while it is used."""
    path = _folder(os.getpid()) / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pem"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(text)
    _files[path] = None
    _files.move_to_end(path)
    while len(_files) > LIMIT:
        _files.popitem(last=False)[0].unlink(missing_ok=True)
    return str(path)


@cache
def secret_file_of(text: str) -> str:
    """Return a path at which this process finds the text, and no other does; elsewhere than on Linux a file's."""
    with contextlib.suppress(AttributeError, OSError):
        descriptor = os.memfd_create("key.pem")
        # It is kept as long as this process lives: libpq reads it for each session, and once more to cancel.
        path = f"/proc/self/fd/{descriptor}"
        os.fchmod(descriptor, 0o600)  # libpq takes no key that others could read.
        Path(path).write_text(text)
        return path
    return file_of(text)


@cache
def _folder(process: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dbbootstrap-"))
    atexit.register(_remove, folder, process)
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # And not in a copy of it that ends earlier.
        shutil.rmtree(folder, ignore_errors=True)
