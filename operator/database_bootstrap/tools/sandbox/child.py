"""The child: confined, with the role's credentials only, it runs the project's own Python once and ends."""

import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, TextIO
from urllib.parse import quote

from database_bootstrap.tools.sandbox import confinement, failure, fence, migrate, wire
from database_bootstrap.tools.sandbox.level import Level

_KEPT = ("PATH", "LANG", "LC_ALL", "TZ")


@dataclass(frozen=True, slots=True)
class Pipes:
    """What connects the child: the password comes in, events and output go out."""

    secret: socket.socket
    events: int
    output: int


def run(job: wire.Job, scratch: Path, pipes: Pipes, supervisor: int, level: Level | None) -> NoReturn:
    """Run the job in this process, which ends with it; no level leaves it the reach of the operator."""
    _forget_signals()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(pipes.output, 1)
    os.dup2(pipes.output, 2)
    # The standard streams of the zygote lead nowhere; a project's StreamHandler writes to these.
    sys.stdout, sys.stderr = _writer(1), _writer(2)
    confinement.confine(job.limits, supervisor, {pipes.secret.fileno(), pipes.events})
    if level is not None:
        fence.close(job.target, scratch, level)
    job = replace(job, password=_password(pipes.secret))
    _surround(job, scratch)
    status = _migrate(job, scratch / "project", pipes.events)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    # Threads and exit handlers of the project have nothing to say any more.
    os._exit(status)


def _forget_signals() -> None:
    """Undo what the supervisor has set for itself."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _migrate(job: wire.Job, project: Path, events: int) -> int:
    def emit(event: wire.Event) -> None:
        data = wire.encode_event(event)
        while data:
            data = data[os.write(events, data) :]

    run = migrate.Run(job, project, url_of(job), emit)
    try:
        run.to_heads()
    except BaseException as error:  # noqa: BLE001 - also SystemExit, and whatever else a project raises
        emit(failure.describe(error, project, run))
        return 1
    return 0


def _writer(descriptor: int) -> TextIO:
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _password(secret: socket.socket) -> str:
    with secret:
        return b"".join(_parts(secret)).decode()


def _parts(connection: socket.socket) -> Iterator[bytes]:
    while part := connection.recv(65536):
        yield part


def _surround(job: wire.Job, scratch: Path) -> None:
    """Give the process the folder and the environment in which an unmodified project finds its database."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    home = str(scratch / "home")
    os.environ.clear()
    os.environ.update(kept, HOME=home, TMPDIR=home, **_environment(job, scratch))
    # The zygote has looked for it already, and found its own.
    tempfile.tempdir = None
    os.chdir(scratch / "project" / job.project.root)
    sys.dont_write_bytecode = True
    sys.argv = ["alembic", "upgrade", "heads"]


def _environment(job: wire.Job, scratch: Path) -> dict[str, str]:
    target = job.target
    url = url_of(job)
    variables = {
        "DATABASE_URL": url,
        "SQLALCHEMY_DATABASE_URI": url,
        "SQLALCHEMY_DATABASE_URL": url,
        "PGAPPNAME": target.application_name,
        "PGOPTIONS": _options(target),
        "PGSSLMODE": target.sslmode,
        "PGREQUIREAUTH": target.require_auth,
        "PGGSSENCMODE": "disable",
        "PGCONNECT_TIMEOUT": "10",
    }
    parts = {"HOST": target.host, "PORT": str(target.port), "USER": target.user, "PASSWORD": job.password}
    for prefix in ("PG", "DB_", "POSTGRES_"):
        variables |= {f"{prefix}{name}": value for name, value in parts.items()}
    variables |= dict.fromkeys(("PGDATABASE", "DB_NAME", "DB_DATABASE", "POSTGRES_DB"), target.database)
    if target.ca is not None:
        variables["PGSSLROOTCERT"] = str(scratch / "ca.pem")
    return variables


def url_of(job: wire.Job) -> str:
    """Return SQLAlchemy's URL of the target.

    Since SQLAlchemy 2.1 `postgresql://` means psycopg 3; the driver is named for a project that looks at it.
    """
    target = job.target
    user, password, database = (quote(each, safe="") for each in (target.user, job.password, target.database))
    if target.host.startswith("/"):
        return (
            f"postgresql+psycopg://{user}:{password}@/{database}?host={quote(target.host, safe='')}&port={target.port}"
        )
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"postgresql+psycopg://{user}:{password}@{host}:{target.port}/{database}"


def _options(target: wire.Target) -> str:
    settings = {
        "lock_timeout": f"{target.lock_timeout}s",
        "statement_timeout": f"{target.statement_timeout}s",
        "idle_session_timeout": "0",
        "default_transaction_read_only": "off",
        # The gate counts once more behind its locks, within the transaction: another level would show it the past.
        "default_transaction_isolation": "read committed",
    }
    if target.schema != "public":
        settings["search_path"] = '"{}"'.format(target.schema.replace('"', '""'))
    return " ".join(
        f"-c {name}={value.replace(chr(92), chr(92) * 2).replace(' ', chr(92) + ' ')}"
        for name, value in settings.items()
    )
