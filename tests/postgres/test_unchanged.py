"""An unchanged visit writes nothing at all."""

import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from fix_engine import Bootstrap, within


@pytest.fixture(params=["SQL", "Prisma", "Alembic"])
async def settled(bootstrap: Bootstrap, request: pytest.FixtureRequest, unique_name: Callable[[str], str]) -> Bootstrap:
    """A resource with everything, visited until nothing is left to do."""
    bootstrap.raw["extensions"] = [{"name": "pg_trgm"}]
    bootstrap.raw["schemas"] = [{"name": "app"}]
    bootstrap.raw["database"]["parameters"] = [{"name": "timezone", "value": "UTC"}]
    other = unique_name("other")
    bootstrap.as_superuser(f'CREATE ROLE "{other}"')
    bootstrap.raw["access"] = [{"role": other, "level": "ReadWrite"}]
    table = "CREATE TABLE users (id serial PRIMARY KEY, email text);"
    head = 'from alembic import op\nrevision = "a1"\ndown_revision = None\n'
    revision = f'{head}def upgrade():\n    op.execute("{table}")\n'
    files = {
        "SQL": {"1_users.sql": table},
        "Prisma": {"20240101000000_users.sql": table},
        "Alembic": {"a1_users.py": revision},
    }
    bootstrap.migrate(request.param, files[request.param])
    bootstrap.seed({"users.sql": "INSERT INTO users (email) VALUES ('a')"})
    await bootstrap.ready()
    return bootstrap


async def test_unchanged_visit_writes_nothing(settled: Bootstrap) -> None:
    server = settled.server
    if server.pg_waldump is None:
        pytest.skip(f"the PostgreSQL {server.major} found here has no pg_waldump")
    with psycopg.connect(server.dsn(), autocommit=True) as watcher:
        before = _position(watcher)
        writes = list(settled.drawer.writes)
        report = await settled.ready()
        after = _position(watcher)
    assert report.changes == ()
    assert settled.drawer.writes == writes
    assert after[0] == before[0]
    assert _transactions_between(settled, before[1], after[1]) == []


async def test_unchanged_visit_needs_one_connection(settled: Bootstrap) -> None:
    with psycopg.connect(settled.server.dsn(), autocommit=True) as watcher:
        before = _sessions(watcher)
        await settled.ready()
        await within(10, lambda: _sessions(watcher) != before)
        after = _sessions(watcher)
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name)} == {
        settled.database: 1
    }


def _position(watcher: psycopg.Connection[Any]) -> tuple[str, str]:
    """Return the next transaction id and the end of the write-ahead log."""
    row: tuple[str, str] | None = watcher.execute(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text, pg_current_wal_insert_lsn()::text"
    ).fetchone()
    assert row
    return row


def _sessions(watcher: psycopg.Connection[Any]) -> dict[str, int]:
    return dict(watcher.execute("SELECT datname, sessions FROM pg_stat_database WHERE datname IS NOT NULL").fetchall())


def _transactions_between(settled: Bootstrap, start: str, end: str) -> list[str]:
    """Return the log's records that belong to a transaction; hint bits, pruning and checkpoints belong to none."""
    if start == end:
        return []
    settled.as_superuser("CHECKPOINT")  # so that all of it is in the files
    command = [str(settled.server.pg_waldump), "-p", str(settled.server.datadir / "pg_wal"), "-s", start, "-e", end]
    dumped = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.splitlines()
    return [line for line in dumped if "tx:          0" not in line]
