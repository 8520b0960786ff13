"""Input that would use up the operator: bombs, a seed without an end, floods of text; others are served meanwhile."""

import base64
import gzip
import tarfile
from pathlib import Path
from typing import Any

from fix_operator import until
from fix_system import Tenant

PEAK_KILOBYTES = 150 * 1024
GIBIBYTE = 1 << 30
ENDLESS = {
    "loop": "DO $$ BEGIN LOOP END LOOP; END $$",
    "many": "INSERT INTO users SELECT n FROM generate_series(1, 1000000000000) n",
    "sleep": "INSERT INTO users VALUES (1); SELECT pg_sleep(100000)",
}
FLOOD = "DO $$ BEGIN RAISE EXCEPTION '%', repeat(E'\\x1b[2Jx\\n', 1000000) USING HINT = repeat('y', 1000000); END $$"
HALF_A_GIGABYTE = "SELECT repeat('x', 1000) FROM generate_series(1, 500000)"
LARGE_ROW = "SELECT repeat('x', 200000000)"
USERS = {"path": "1_users.sql", "content": "CREATE TABLE users (id bigint)"}


def bomb(name: str) -> bytes:
    """Return less than a mebibyte that claims ten gibibytes, and unpacks to one: that is as far as gzip goes."""
    info = tarfile.TarInfo(name)
    info.size = 10 * GIBIBYTE
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + gzip.compress(bytes(1 << 20), 9) * 900


def python_bomb(name: str) -> bytes:
    """Return some kilobytes that unpack to a file of which Python's parser makes four gigabytes."""
    info = tarfile.TarInfo(name)
    info.size = 4 << 20
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"a;" * (2 << 20) + bytes(1024), 9)


def put_bomb(tenant: Tenant, name: str, content: bytes) -> None:
    data = {"bundle.tar.gz": base64.b64encode(content).decode()}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "binaryData": data}
    tenant.plane.request("POST", f"/api/v1/namespaces/{tenant.namespace}/configmaps", body)


def peak(tenant: Tenant) -> int:
    """Return the most memory that the operator ever had, in kilobytes."""
    status = Path(f"/proc/{tenant.operator.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def test_what_would_use_up_the_operator_is_refused_and_others_are_served(tenant: Tenant) -> None:
    put_bomb(tenant, "code", bomb("1_zeros.sql"))
    put_bomb(tenant, "rows", bomb("users.csv"))
    put_bomb(tenant, "python", python_bomb("versions/a.py"))
    migrations: dict[str, Any] = {"tool": "SQL", "source": {"inline": [USERS]}}
    tenant.bootstrap("code", migrations={"tool": "SQL", "source": {"configMapRefs": [{"name": "code"}]}})
    tenant.bootstrap("rows", migrations=migrations, seed={"source": {"configMapRefs": [{"name": "rows"}]}})
    tenant.bootstrap("python", migrations={"tool": "Alembic", "source": {"configMapRefs": [{"name": "python"}]}})
    flood = {"tool": "SQL", "source": {"inline": [USERS | {"content": FLOOD}]}}
    tenant.bootstrap("flood", migrations=flood)
    for name, content in ENDLESS.items():
        seed = {"source": {"inline": [{"path": "users.sql", "content": content}]}, "timeoutSeconds": 1}
        tenant.bootstrap(name, migrations=migrations, seed=seed)
    for name, content in {"selects": HALF_A_GIGABYTE, "row": LARGE_ROW}.items():
        tenant.bootstrap(name, migrations={"tool": "SQL", "source": {"inline": [USERS | {"content": content}]}})
    tenant.bootstrap("honest", migrations=migrations)
    tenant.ready("honest")
    for name in ("code", "rows", "python"):
        tenant.reaches("False", "BundleRejected", name)
    for name in ENDLESS:
        tenant.reaches("False", "SeedFailed", name)
        database = tenant.get(name)["spec"]["database"]["name"]
        assert tenant.server.psql("SELECT count(*) FROM users", dbname=database) == "0"
    tenant.ready("selects")
    assert "more than 32 MiB came at once" in tenant.reaches("False", "MigrationFailed", "row")
    said = tenant.reaches("False", "MigrationFailed", "flood")
    assert len(said) <= 32_768 and "\x1b" not in said
    working = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND application_name LIKE 'dbbootstrap%'"
    until(10, lambda: tenant.server.psql(working) == "0")
    assert peak(tenant) < PEAK_KILOBYTES
    assert tenant.operator.get("/healthz")[0] == 200
