"""The folder of one run: made, filled, measured, and removed whatever was done to it."""

import contextlib
import os
import shutil
import tempfile
from itertools import count
from pathlib import Path

from database_bootstrap.tools.sandbox import wire

_EMPTY_CONFIGURATION = """
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s [%(name)s] %(message)s
"""
"""What `fileConfig(config.config_file_name)` in an env.py wants to find."""


def make() -> Path:
    """Make an empty one, for nobody else."""
    return Path(tempfile.mkdtemp(prefix="dbbootstrap-alembic-"))


def fill(scratch: Path, job: wire.Job) -> None:
    """Put all there that the child reads; it can write to `home` only."""
    for folder in ("project", "home"):
        (scratch / folder).mkdir()
    for path, content in job.files:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(path)
        file = scratch / "project" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    if job.project.config is None:
        configuration = scratch / "project" / job.project.root / "alembic.ini"
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_text(f"[alembic]\n{_EMPTY_CONFIGURATION}")
    if job.target.ca is not None:
        (scratch / "ca.pem").write_text(job.target.ca)


def remove(scratch: Path) -> None:
    """Remove it, also where its folders are too deep for a path, or shut."""
    _remove(scratch)
    if not scratch.exists():
        return
    with contextlib.suppress(OSError):
        numbers = count()
        while folders := [Path(entry) for entry in os.scandir(scratch) if entry.is_dir(follow_symlinks=False)]:
            for folder in folders:
                _flatten(folder, scratch, numbers)
    _remove(scratch)


def _remove(folder: Path) -> None:
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)


def _flatten(folder: Path, scratch: Path, numbers: "count[int]") -> None:
    """Move the folders in it up, so that none is entered further than one step, and remove it."""
    folder.chmod(0o700)
    for entry in list(os.scandir(folder)):
        if entry.is_dir(follow_symlinks=False):
            Path(entry).chmod(0o700)  # A folder that is moved is written to: its `..` changes.
            Path(entry).rename(scratch / f".{next(numbers)}-{os.getpid()}")
        else:
            Path(entry).unlink()
    folder.rmdir()
