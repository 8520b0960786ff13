"""A seed that no memory should hold: 200 MB in ConfigMaps, through the operator as a process, into PostgreSQL."""

import base64
import gzip
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from fix_operator import Operator, until
from fix_status import StatusWatch
from fix_system import Tenant

MEGABYTE = 1_000_000
PARTS = 20
PEAK_KILOBYTES = 150 * 1024
TABLE = "CREATE TABLE events (id bigint, kind text, note text); CREATE TABLE users (email text);"


def table(size: int) -> tuple[bytes, int]:
    """Return so many bytes of CSV, which compress to a twelfth as tables do, and the number of rows."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=12)) for _ in range(200)]
    rows: list[str] = []
    length = 0
    while length < size:
        note = " ".join(words[:12] + chance.choices(words, k=5))
        rows.append(f"{len(rows) // 10 + 10**6},{words[len(rows) % 3]},{note}\n")
        length += len(rows[-1])
    return ("id,kind,note\n" + "".join(rows)).encode(), len(rows)


def archive(path: str, content: bytes, packed: bytes) -> bytes:
    """Return a .tar.gz of one file: a gzip file may be several, so that the content need not be compressed anew."""
    info = tarfile.TarInfo(path)
    info.size = len(content)
    return (
        gzip.compress(info.tobuf())
        + packed
        + gzip.compress(bytes(-len(content) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE))
    )


def peak(operator: Operator) -> int:
    """Return the most memory that the process ever had, in kilobytes."""
    status = Path(f"/proc/{operator.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def seed(tenant: Tenant, parts: int, *scripts: tuple[str, str]) -> int:
    """Ask for a seed of so many parts of 10 MB, each in a ConfigMap, and scripts; return the number of rows."""
    content, rows = table(10 * MEGABYTE)
    packed = gzip.compress(content, 6)
    for number in range(parts):
        data = {"bundle.tar.gz": base64.b64encode(archive(f"1/events.part-{number}.csv", content, packed)).decode()}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"seed-{number}"}, "binaryData": data}
        tenant.plane.request("POST", f"/api/v1/namespaces/{tenant.namespace}/configmaps", body)
    names = [f"seed-{number}" for number in range(parts)]
    if scripts:
        tenant.config_map("scripts", dict(scripts))
        names.append("scripts")
    migrations = {"tool": "SQL", "source": {"inline": [{"path": "1_t.sql", "content": TABLE}]}}
    wanted: dict[str, Any] = {"source": {"configMapRefs": [{"name": name} for name in names]}}
    tenant.bootstrap(migrations=migrations, seed=wanted)
    return rows * parts


def test_two_hundred_megabytes_take_little_memory_and_are_told_of(tenant: Tenant, status_watcher: StatusWatch) -> None:
    rows = seed(tenant, PARTS)
    status = tenant.ready(seconds=100)
    assert tenant.query("SELECT count(*) FROM events") == [(rows,)]
    assert status["seed"]["state"] == "Seeded"
    told = [
        condition["message"]
        for version in status_watcher.versions(tenant.namespace, "shop")
        for condition in version.get("status", {}).get("conditions", ())
        if condition["type"] == "Seeded"
    ]
    assert f"Loading 1/events.part-0.csv: 0 of {PARTS * 10} MB" in told
    assert peak(tenant.operator) < PEAK_KILOBYTES


def test_whatever_ends_in_the_middle_leaves_nothing_and_is_seeded_afterwards(
    tenant: Tenant, make_operator: Callable[..., Operator]
) -> None:
    tenant.operator.stop()
    tenant.operator = make_operator("--namespace", tenant.namespace, "--grace-seconds", "1").start()
    rows = seed(tenant, 2, ("2.sql", "INSERT INTO users VALUES ('a'); SELECT pg_sleep(300)"))
    until(60, lambda: is_asleep(tenant))
    tenant.server.kill()
    tenant.server.start_again()
    assert counts(tenant) == [0, 0, 0]
    until(60, lambda: is_asleep(tenant))
    ended = time.monotonic()
    assert tenant.operator.stop() == 0
    assert time.monotonic() - ended < 15
    until(10, lambda: not is_asleep(tenant))
    assert counts(tenant) == [0, 0, 0]
    tenant.config_map("scripts", {"2.sql": "INSERT INTO users VALUES ('a')"})
    tenant.operator.start()
    tenant.ready(seconds=60)
    assert counts(tenant) == [rows, 1, 1]


def is_asleep(tenant: Tenant) -> bool:
    """Return whether the seed is at its last statement."""
    query = (
        "SELECT 1 FROM pg_stat_activity WHERE query ~ 'pg_sleep[(]300' AND pid <> pg_backend_pid() AND usename = '{}'"
    )
    with psycopg.connect(tenant.server.dsn()) as connection:
        return connection.execute(query.format(tenant.get()["spec"]["role"]["name"]).encode()).fetchone() is not None


def counts(tenant: Tenant) -> list[int]:
    """Return the rows of each table, the seed's mark among them."""
    tables = ("events", "users", "dbbootstrap.seed")
    query = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    with psycopg.connect(tenant.server.dsn(tenant.get()["spec"]["database"]["name"])) as connection:
        found = connection.execute(f"SELECT {query}".encode()).fetchone()
    assert found
    return list(found)
