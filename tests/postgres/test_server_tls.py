"""TLS of an offered server, on a server that has it: whose certificate is trusted, and what the administrator shows."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from database_bootstrap.api.outcomes import Reason
from database_bootstrap.postgres.bounds import TooLarge
from database_bootstrap.postgres.connection import Connection, Done
from database_bootstrap.stages.subject import Report
from fix_engine import Bootstrap
from localservers import PostgresServer
from process_here import little_is_held

HBA = """
hostssl all secured 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
hostssl all all 127.0.0.1/32 scram-sha-256
local all all scram-sha-256
host all postgres 127.0.0.1/32 scram-sha-256
"""


class Authority:
    """Makes certificates as a platform team does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority",
                  "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip

    def issue(self, name: str, extension: str = "") -> tuple[str, str]:
        """Return certificate and key."""
        self._run("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                  "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        (self.folder / "ext").write_text(extension)
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                  "-days", "2", "-out", f"{name}.crt", "-extfile", "ext")  # fmt: skip
        return (self.folder / f"{name}.crt").read_text(), (self.folder / f"{name}.key").read_text()

    @property
    def certificate(self) -> str:
        return (self.folder / "ca.crt").read_text()

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made with openssl, which is not here")
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def encrypted(postgres_server: PostgresServer, authority: Authority, tmp_path: Path) -> Iterator[PostgresServer]:
    """A server of its own with TLS, where PostgreSQL was built with it."""
    if not postgres_server.psql("SHOW ssl_library"):
        pytest.skip(f"PostgreSQL {postgres_server.version} was built without TLS")
    certificate, key = authority.issue("server", "subjectAltName=IP:127.0.0.1")
    with PostgresServer.start(tmp_path / "tls", postgres_server.installation) as server:
        owner = server.datadir.stat()
        for name, text in (("server.crt", certificate), ("server.key", key), ("root.crt", authority.certificate)):
            path = server.datadir / name
            path.write_text(text)
            path.chmod(0o600)
            os.chown(path, owner.st_uid, owner.st_gid)
        server.psql("CREATE ROLE secured LOGIN SUPERUSER PASSWORD 'secured'")
        (server.datadir / "pg_hba.conf").write_text(HBA)
        for setting in ("ssl = on", "ssl_ca_file = 'root.crt'"):
            server.psql(f"ALTER SYSTEM SET {setting}")
        server.psql("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def offered(bootstrap: Bootstrap, encrypted: PostgresServer) -> Bootstrap:
    """A resource on that server, of an administrator who must show a certificate."""
    moved = replace(bootstrap, server=encrypted)
    access = {"host": encrypted.host, "port": str(encrypted.port), "username": "secured", "password": "secured"}
    moved.drawer.platform["platform", "postgres"] = {key: value.encode() for key, value in access.items()}
    return moved


def ended(report: Report) -> tuple[Reason | None, str]:
    return (report.trouble.reason, report.trouble.message) if report.trouble else (None, "")


@pytest.mark.parametrize("admin", ["superuser"], indirect=True)
async def test_server_is_trusted_by_its_authority_and_the_administrator_by_its_certificate(
    offered: Bootstrap, authority: Authority, tmp_path: Path
) -> None:
    platform: Any = offered.drawer.platform
    ca = {"namespace": "platform", "name": "ca"}
    shown = {"namespace": "platform", "name": "client"}
    chain, key = authority.issue("client")
    platform["platform", "client"] = {"tls.crt": chain.encode(), "tls.key": key.encode()}
    # Under an authority that has not signed the server's certificate.
    platform["platform", "ca"] = {"ca.crt": Authority(tmp_path / "other").certificate.encode()}
    offered.offer(tls={"caSecretRef": ca, "clientCertificateRef": shown})
    reason, said = ended(await offered.apply())
    assert reason is Reason.SERVER_UNREACHABLE
    assert "certificate verify failed" in said
    assert "secured" not in said, "the administrator's name is no tenant's business"
    # Without the certificate that the server asks for.
    platform["platform", "ca"] = {"ca.crt": authority.certificate.encode()}
    offered.offer(tls={"caSecretRef": ca})
    reason, _ = ended(await offered.apply())
    assert reason is Reason.ADMIN_LOGIN_REFUSED
    offered.offer(tls={"caSecretRef": ca, "clientCertificateRef": shown})
    await _ready_within(offered)
    data = offered.drawer.secrets["shop-db"].data
    assert (data["sslmode"], data["ca.crt"]) == (b"verify-full", authority.certificate.encode())
    assert key.encode() not in b"".join(data.values())
    platform["platform", "client"] = {"tls.crt": chain.encode()}
    error = (await offered.engine.inspect(offered.drawer.servers["main"], offered.drawer, "tests")).error
    assert error and "its key in tls.key" in error.message


async def _ready_within(offered: Bootstrap, tries: int = 60) -> None:
    """The login that was refused above has closed the door for a moment."""
    for _ in range(tries):
        if (await offered.apply()).trouble is None:
            return
        await asyncio.sleep(0.1)
    await offered.ready()


async def test_answers_over_tls_come_whole_and_end_at_the_limit(encrypted: PostgresServer) -> None:
    """Below TLS, of whose records none ends where a portion does."""
    dsn = f"{encrypted.dsn('postgres', 'plain', 'plain')}?sslmode=require"
    encrypted.psql("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    done: list[Done] = []
    async with await Connection.connect(dsn, autocommit=True) as connection:
        assert connection.pgconn.ssl_in_use
        for size in (1, 8_000, 16_384, 65_535, 65_536, 1_000_001, 20_000_000):
            answer = await connection.execute(f"SELECT repeat('x', {size})".encode())
            assert await answer.fetchall() == [("x" * size,)]
        await connection.run(b"SELECT repeat('x', 1000) FROM generate_series(1, 100000); SELECT 1", done.append)
        assert [one.rows for one in done] == [100_000, 1]
        with little_is_held(), pytest.raises(TooLarge):
            await connection.execute("SELECT repeat('x', 100000000)")
