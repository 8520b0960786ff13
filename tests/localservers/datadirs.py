"""Data directories: one initdb for each version and user, then copies, each with a password of its own."""

import base64
import hashlib
import hmac
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from localservers import cache, processes
from localservers.installations import Installation
from localservers.processes import Account

SUPERUSER = "postgres"
LOCALES = ("C.UTF-8", "C")
SCRAM_ITERATIONS = 4096
OWN_SETTINGS = "own.conf"
IN_MEMORY = Path("/dev/shm")
ROOM_BYTES = 3 * 1024**3

# Nobody gets in without a password, and nobody from another machine gets in at all.
HBA = """\
local all         all              scram-sha-256
host  all         all 127.0.0.1/32 scram-sha-256
host  replication all 127.0.0.1/32 scram-sha-256
"""


def create(datadir: Path, installation: Installation, *, account: Account | None, own_identity: bool = False) -> str:
    """Make a data directory that `account` owns and return its superuser's password.

    Copies of the template share its system identifier; `own_identity` pays for an initdb of its own.
    """
    if own_identity:
        _initdb(datadir, installation, account)
    else:
        shutil.copytree(_template(installation, account), datadir)
    give(datadir, account)
    (datadir / "pg_hba.conf").write_text(HBA)
    password = secrets.token_urlsafe(16)
    _set_password(datadir, installation, account, password)
    return password


def configure(datadir: Path, settings: Mapping[str, str]) -> None:
    """Append settings to the configuration; the last one of a name counts."""
    append(datadir, "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items()))


def append(datadir: Path, lines: str) -> None:
    """Append lines to the configuration, and keep them by themselves too, for the server that follows this one."""
    for name in ("postgresql.conf", OWN_SETTINGS):
        with (datadir / name).open("a") as conf:
            conf.write(lines)


def scram_verifier(password: str) -> str:
    """Return what PostgreSQL stores for a password, so that no statement (or log of it) ever holds the password."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def give(folder: Path, account: Account | None) -> None:
    """Let `account` own a folder and everything in it."""
    if account:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def has_room_in_memory() -> bool:
    """Whether the file system in memory can take a server's data; in a container it may hold next to nothing."""
    return IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM_BYTES


def private_folder(account: Account | None, *, in_memory: bool = False) -> Path:
    """Return a new temporary folder that `account` owns and can reach."""
    places = [IN_MEMORY] if in_memory else []
    places += [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    place = next((place for place in places if processes.is_reachable(place / "any", account)), places[0])
    folder = Path(tempfile.mkdtemp(prefix="database-bootstrap-", dir=place))
    give(folder, account)
    return folder


def environment() -> dict[str, str]:
    """Return what a server's program gets to see: nothing of this process's PG* variables and locale."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    return {"LC_ALL": "C", **{name: os.environ[name] for name in kept if name in os.environ}}


def _template(installation: Installation, account: Account | None) -> Path:
    origin = hashlib.sha256(f"{installation.bindir} {account}".encode()).hexdigest()[:8]
    template = cache.folder() / "initdb" / f"{installation.version}-{origin}"
    with cache.locked("initdb"):
        if not template.exists():
            template.parent.mkdir(parents=True, exist_ok=True)
            _initdb(template, installation, account)
    return template


def _initdb(target: Path, installation: Installation, account: Account | None) -> None:
    # Where the account can write; the target may be in a home that it cannot enter.
    folder = private_folder(account)
    try:
        for locale in LOCALES:
            done = _run(_initdb_command(folder / "data", installation, locale), account, folder)
            if done.returncode == 0:
                break
        else:
            raise processes.ServerFailed(f"initdb failed: {done.stderr.strip()}")
        # Complete under its name or not there at all, on whatever file system.
        beside = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(folder / "data", beside)
        beside.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _initdb_command(datadir: Path, installation: Installation, locale: str) -> list[str]:
    # "trust" holds for no moment: the template never runs, and its copies get a pg_hba.conf of their own.
    options = ["--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", f"--locale={locale}", "--no-sync"]
    return [str(installation.bindir / "initdb"), f"--pgdata={datadir}", *options]


def _set_password(datadir: Path, installation: Installation, account: Account | None, password: str) -> None:
    command = [str(installation.bindir / "postgres"), "--single", "-F", "-D", str(datadir), "postgres"]
    statement = f"ALTER ROLE {SUPERUSER} PASSWORD '{scram_verifier(password)}'\n"
    done = _run(command, account, datadir, statement)
    if done.returncode or "ERROR" in done.stderr:
        raise processes.ServerFailed(f"could not set the superuser's password: {done.stderr.strip()}")


def _run(
    command: list[str], account: Account | None, folder: Path, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        input=stdin,
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
