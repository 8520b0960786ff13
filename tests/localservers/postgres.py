"""PostgreSQL servers on loopback: started within a second, stopped and killed at will, gone with their owner."""

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from localservers import datadirs, installations, processes
from localservers.installations import Installation, discover
from localservers.processes import Order, Server

__all__ = ["Credentials", "Installation", "Kind", "PostgresServer", "discover"]

Kind = Literal["superuser", "createrole"]
Mode = Literal["smart", "fast", "immediate"]

READY_SECONDS = 60.0
POLL_SECONDS = 0.01
IPC_RMID = 0

STOP_SIGNALS: dict[Mode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
RIGHTS: dict[Kind, str] = {
    "superuser": "SUPERUSER",
    # What the administrator of a managed service has.
    "createrole": "NOSUPERUSER CREATEROLE CREATEDB",
}
# Durability against power loss is not what the tests are about.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "lc_messages": "C",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A role that can log in."""

    user: str
    password: str = field(repr=False)


class PostgresServer:
    """One server with its own data directory.

    It is made by `start`, and stops at the end of a `with` block or with this process, whichever comes first.
    """

    superuser = datadirs.SUPERUSER
    host = "127.0.0.1"

    def __init__(self, folder: Path, installation: Installation, *, in_memory: bool = False) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "postgres.log"
        self.port = 0
        self.password = ""
        self._account = processes.unprivileged_account()
        self.installation = installations.for_account(installation, self._account)
        self.datadir, self._private = self._choose_data_directory(in_memory)
        self._server: Server | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        installation: Installation,
        *,
        settings: Mapping[str, str] | None = None,
        own_identity: bool = False,
        in_memory: bool = False,
    ) -> Self:
        """Return a server that answers; raises ServerFailed with the end of its log.

        Servers of one version share a system identifier unless `own_identity` is asked for. `in_memory` puts the data
        into memory where there is room: hundreds of databases that come and go keep ext4 busy with its inodes.
        """
        server = cls(folder, installation, in_memory=in_memory and datadirs.has_room_in_memory())
        try:
            server.password = datadirs.create(
                server.datadir, server.installation, account=server._account, own_identity=own_identity
            )
            datadirs.configure(server.datadir, {**SETTINGS, **(settings or {})})
            processes.on_free_ports(server._start_on_new_port)
        except BaseException:
            server.close()
            raise
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def major(self) -> int:
        return self.installation.major

    @property
    def version(self) -> str:
        return self.installation.version

    @property
    def bindir(self) -> Path:
        return self.installation.bindir

    @property
    def pg_waldump(self) -> Path | None:
        return self.installation.program("pg_waldump")

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._server, "the server is not running"
        return self._server.pid

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.is_running

    def said(self, since: int = 0) -> str:
        """Return the log from this byte on; statements in databases of other encodings are in it in their own bytes."""
        return self.log.read_bytes()[since:].decode(errors="replace")

    def dsn(self, dbname: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """Return a connection URI, for the superuser unless somebody else is named."""
        name, word = (user, password or "") if user else (self.superuser, self.password)
        return f"postgresql://{quote(name, '')}:{quote(word, '')}@{self.host}:{self.port}/{quote(dbname, '')}"

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server; the data stays for `start_again`."""
        if self._server:
            self._server.stop(STOP_SIGNALS[mode])
            self._server = None

    def start_again(self) -> None:
        """Start the stopped (or killed) server, on the port and with the data it had."""
        assert not self.is_running
        order = Order(
            command=[self.bindir / "postgres", "-D", self.datadir, "-c", f"port={self.port}"],
            log=self.log,
            folder=self.datadir,
            environment=datadirs.environment(),
            account=self._account,
            stop_signal=signal.SIGINT,
            # Dies with the guard, but takes its backends and its shared memory along.
            death_signal=signal.SIGQUIT,
            grace=20,
            remove=[self._private] if self._private else [],
        )
        self._server = Server(order)
        self._wait_until_ready(self._server)

    def restart(self, mode: Mode = "fast") -> None:
        self.stop(mode)
        self.start_again()

    def kill(self) -> None:
        """Kill the postmaster and all its backends at once, as a power cut does."""
        assert self._server
        # Stopped, it can start no backend that we have not seen.
        self._server.send(signal.SIGSTOP)
        backends = processes.children(self._server.pid)
        self._server.kill()
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        processes.wait_until_gone(backends)
        self._server = None

    def wipe(self) -> None:
        """Lose everything, as with a volume that is gone: the same address, another identity, and nothing in it."""
        self.stop("immediate")
        settings = (self.datadir / datadirs.OWN_SETTINGS).read_text()
        shutil.rmtree(self.datadir)
        self.password = datadirs.create(self.datadir, self.installation, account=self._account, own_identity=True)
        datadirs.append(self.datadir, settings)
        self.start_again()

    def dump(self, dbname: str, *options: str, credentials: Credentials | None = None) -> str:
        """Return a database as SQL, as pg_dump writes it."""
        who = credentials or Credentials(user=self.superuser, password=self.password)
        program = self.installation.program("pg_dump")
        assert program, "there is no pg_dump"
        done = subprocess.run(
            [program, *options],
            check=False,
            capture_output=True,
            text=True,
            env=self.client_environment(dbname, who),
        )
        if done.returncode:
            raise processes.ServerFailed(f"pg_dump: {done.stderr.strip()}")
        return done.stdout

    def signal(self, number: signal.Signals) -> None:
        """Send the postmaster a signal, and do not wait for what it does."""
        assert self._server
        self._server.send(number)

    def freeze(self) -> None:
        """Let the postmaster stand still: connections are taken by the kernel, and answered by nobody."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; nothing happens to one that does."""
        self.signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop the server and remove its data; the log stays."""
        self.stop("immediate")
        self._remove_shared_memory()
        shutil.rmtree(self._private or self.datadir, ignore_errors=True)

    def psql(self, sql: str, *options: str, dbname: str = "postgres", credentials: Credentials | None = None) -> str:
        """Run SQL with psql, unaligned and without headers, and return what it printed.

        Neither SQL nor password is on the command line. Raises ServerFailed with psql's words.
        """
        who = credentials or Credentials(user=self.superuser, password=self.password)
        done = subprocess.run(
            [installations.find_psql(self.installation), "-XAtq", "-v", "ON_ERROR_STOP=1", *options],
            input=sql,
            check=False,
            capture_output=True,
            text=True,
            env={**self.client_environment(dbname, who), "PGOPTIONS": "-c client_min_messages=warning"},
        )
        if done.returncode:
            raise processes.ServerFailed(f"psql: {done.stderr.strip()}")
        return done.stdout.rstrip("\n")

    def client_environment(self, dbname: str = "postgres", credentials: Credentials | None = None) -> dict[str, str]:
        """Return an environment in which psql, pg_dump and the like reach this server."""
        who = credentials or Credentials(user=self.superuser, password=self.password)
        return {
            **datadirs.environment(),
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": dbname,
            "PGUSER": who.user,
            "PGPASSWORD": who.password,
            "PGCLIENTENCODING": "UTF8",
        }

    def admin_role(self, kind: Kind, name: str | None = None) -> Credentials:
        """Create an administrator for the operator, with a random password that no log has seen."""
        made = Credentials(user=name or f"admin_{secrets.token_hex(4)}", password=secrets.token_urlsafe(16))
        verifier = datadirs.scram_verifier(made.password)
        self.psql(f"CREATE ROLE \"{made.user}\" LOGIN {RIGHTS[kind]} PASSWORD '{verifier}'")
        return made

    def _choose_data_directory(self, in_memory: bool) -> tuple[Path, Path | None]:
        """Return the data directory, and the temporary folder around it if it cannot be in ours."""
        inside = self.folder / "data"
        if not in_memory and processes.is_reachable(inside, self._account):
            return inside, None
        private = datadirs.private_folder(self._account, in_memory=in_memory)
        return private / "data", private

    def _start_on_new_port(self) -> None:
        self.stop("immediate")
        self.port = processes.free_port()
        self.start_again()

    def _wait_until_ready(self, server: Server) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._says_ready(server.pid):
            if not server.is_running:
                raise processes.failure(f"PostgreSQL {self.version} ended", self.log)
            if time.monotonic() > deadline:
                raise processes.failure(
                    f"PostgreSQL {self.version} was not ready within {READY_SECONDS:.0f} s", self.log
                )
            time.sleep(POLL_SECONDS)

    def _says_ready(self, pid: int) -> bool:
        lines = self._pid_file()
        # The process id: the file of a killed server stays behind and says "ready" for ever.
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")

    def _pid_file(self) -> list[str]:
        try:
            return (self.datadir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _remove_shared_memory(self) -> None:
        """Remove the segment that a killed server left; the next one on the same data would do it."""
        lines = self._pid_file()
        if len(lines) >= 7 and len(key_and_id := lines[6].split()) == 2:
            ctypes.CDLL(None).shmctl(int(key_and_id[1]), IPC_RMID, None)
