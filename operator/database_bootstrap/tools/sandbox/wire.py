"""What crosses between the operator and the sandbox: one job in, events out; the standard library only."""

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

_LENGTH = struct.Struct("!Q")
OWNER = b"s"
"""First byte of a line that the supervisor wrote."""
CHILD = b"c"
"""First byte of a line that came out of the child, where the project's code may have forged it."""
LINE_LIMIT = 65536
"""Bytes of one event; a longer one is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Where the parts of an Alembic project lie; all paths are relative to the folder into which the files are put."""

    root: str
    """The working directory of `alembic`: where its configuration lies."""
    config: str | None
    """The alembic.ini."""
    toml: str | None
    """The pyproject.toml."""
    script_location: str | None
    """Where env.py and `versions` are, when the configuration does not say it or says it wrongly."""
    version_locations: tuple[str, ...]
    """The directories that hold revisions."""
    recursive: bool
    """Whether directories below those count too."""
    environment: str | None
    """The env.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to log in, as whom, and how the session behaves; the password travels separately."""

    host: str
    port: int
    user: str
    database: str
    application_name: str
    sslmode: str
    require_auth: str
    ca: str | None
    schema: str
    lock_timeout: int
    statement_timeout: int
    owner_pid: int
    """The backend that holds the operator's own lock: proof that a session is in the right database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use."""

    seconds: int
    """Time for the whole run, 0 for no limit."""
    memory: int = 2 << 30
    """Bytes of address space beyond what the child begins with; half of the container's memory, if that is less."""
    scratch: int = 64 << 20
    """Bytes of a file, and of all files together."""
    files: int = 4096
    """Files and folders."""
    threads: int = 64
    open_files: int = 256
    """Descriptors per process."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Which revisions may destroy rows."""

    is_open: bool = False
    """All of them: the database has only what its migrations have put in."""
    refuses: bool = True
    """False: all of them, and what they destroy is recorded."""
    allowed: tuple[str, ...] = ()
    """These, otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of `upgrade heads`."""

    project: Project
    target: Target
    limits: Limits
    gate: Gate = field(default_factory=Gate)
    actor: str
    """Who acts, for the audit log."""
    checksums: Mapping[str, str]
    """Revision → checksum of its file, for the ledger."""
    baseline: tuple[str, ...] = ()
    """What is in the database although no history says so, in order: where there is none, the last one is stamped."""
    files: tuple[tuple[str, bytes], ...] = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entered:
    """The migrating session, with this backend, has the sandbox's lock."""

    pid: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The version table is there and locked."""

    schema: str
    table: str
    external: bool
    """Alembic found a transaction that env.py had begun, and leaves the commit to env.py."""


@dataclass(frozen=True, slots=True)
class Running:
    """A revision is about to run."""

    revision: str


@dataclass(frozen=True, slots=True)
class Uncovered:
    """From here on a part of this revision stays, whatever becomes of the rest: it leaves the transaction."""

    revision: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A revision has run, and its version and ledger rows are written; nothing is committed yet."""

    revision: str


@dataclass(frozen=True, slots=True)
class Committed:
    """What was reported as applied is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The run ended with an exception."""

    kind: str
    """locked | overtaken | elsewhere | destructive | module | database | code"""
    type: str
    """Name of the exception's class."""
    text: str
    """Its first line, or the server's primary message."""
    revision: str | None = None
    file: str | None = None
    line: int | None = None
    sql_state: str | None = None
    broken: bool = False
    """The connection to the server is gone or never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The child is gone, and everything that it had started."""

    status: int
    """Exit status; negative is the number of the signal that ended it."""
    late: bool
    """It was ended because its time was up."""
    output: str
    """The last of what it wrote to stdout and stderr."""
    excess: str | None = None
    """What it was ended for, when it used too much of something."""


Event = Entered | Opened | Running | Uncovered | Applied | Committed | Failed | Ended
_EVENTS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Entered, Opened, Running, Uncovered, Applied, Committed, Failed, Ended)
}


def encode_event(event: Event) -> bytes:
    """Return the event as one line."""
    return json.dumps({"event": type(event).__name__.lower(), **asdict(event)}).encode() + b"\n"


def decode_event(line: bytes, source: bytes) -> Event | None:
    """Return the event of a line, or None for what is none: the project's code could write anything."""
    try:
        values = json.loads(line)
        kind = _EVENTS[values.pop("event")]
        if (kind is Ended) != (source == OWNER):
            return None
        event: Event = kind(**values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return event if all(_fits(getattr(event, each.name), each.type) for each in fields(event)) else None


def _fits(value: object, wanted: object) -> bool:
    allowed: dict[object, tuple[type, ...]] = {
        str: (str,),
        int: (int,),
        bool: (bool,),
        str | None: (str, type(None)),
        int | None: (int, type(None)),
    }
    return isinstance(value, allowed[wanted])


def encode_job(job: Job) -> bytes:
    """Return the job without its password."""
    header = {
        "project": asdict(job.project),
        "target": asdict(job.target),
        "limits": asdict(job.limits),
        "gate": asdict(job.gate),
        "actor": job.actor,
        "checksums": dict(job.checksums),
        "baseline": job.baseline,
        "files": [(path, len(content)) for path, content in job.files],
    }
    encoded = json.dumps(header).encode()
    return b"".join((_LENGTH.pack(len(encoded)), encoded, *(content for _, content in job.files)))


def receive_job(connection: socket.socket) -> Job:
    """Read a job whose password is still to come; raise EOFError when the operator has left."""
    (length,) = _LENGTH.unpack(_receive(connection, _LENGTH.size))
    header = json.loads(_receive(connection, length))
    project = header["project"]
    return Job(
        project=Project(**{**project, "version_locations": tuple(project["version_locations"])}),
        target=Target(**header["target"]),
        limits=Limits(**header["limits"]),
        gate=Gate(**{**header["gate"], "allowed": tuple(header["gate"]["allowed"])}),
        actor=header["actor"],
        checksums=header["checksums"],
        baseline=tuple(header["baseline"]),
        files=tuple((path, _receive(connection, size)) for path, size in header["files"]),
        password="",
    )


def _receive(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
