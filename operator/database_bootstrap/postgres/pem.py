"""PEM texts as files, which is all that libpq reads: in a folder that nobody else can look into, or has made before."""

import atexit
import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path


def file_of(text: str) -> str:
    """Return the path of a file with this text, readable by this process's user alone."""
    path = _folder(os.getpid()) / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pem"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(text)
    return str(path)


@cache
def _folder(process: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dbbootstrap-"))
    atexit.register(_remove, folder, process)
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # And not in a copy of it that ends earlier.
        shutil.rmtree(folder, ignore_errors=True)
