"""Four processes want the same at the same moment: it is done once."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from crashing import stock
from crashing.scene import Scene
from crashing.stock import STOCKS
from crashing.stories import MADE
from crashing.verdict import faults
from fix_operator import Operator, until
from fix_status import StatusWatch
from localservers import Credentials, PostgresServer

RACERS = 4
SLOW = {"9_wait.sql": "SELECT pg_sleep(1);"}
"""So that all are there before the first one is through."""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^dbbootstrap/'"


@pytest.mark.timeout(300)
def test_four_operators_do_everything_once(
    scene: Scene, access: Path, make_operator: Callable[..., Operator], status_watch: StatusWatch
) -> None:
    operators = [make_operator(kubeconfig=access) for _ in range(RACERS)]
    for operator in operators:
        operator.start()
    cases = [scene.begin(berth, story) for berth, story in zip(scene.berths, 2 * tuple(MADE.values()), strict=True)]
    for case in cases:
        # Operators without a Lease contradict each other there, as the README says.
        status_watch.excuse(case.berth.namespace, case.name)
    scene.wait(cases, lambda case: case.is_ready)
    until(60, lambda: scene.server.psql(SESSIONS) == "0")
    scene.wait(cases, lambda case: case.is_ready)
    wrong = [f"{case.stock.tool}: {fault}" for case in cases for fault in faults(scene, case)]
    logs = [line for operator in operators for line in operator.log.splitlines() if '"INFO"' not in line]
    assert wrong == [], "\n".join(logs[-40:])
    scene.clear(cases)


@pytest.mark.parametrize("tool", ["Prisma", "Alembic", "SQL"])
def test_four_applies_without_a_cluster_seed_once(
    tool: str, postgres_server: PostgresServer, admin: Credentials, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    file = tmp_path / "shop.yaml"
    role, database = unique_name("role"), unique_name("db")
    file.write_text("\n---\n".join(map(json.dumps, documents(tool, postgres_server, admin, role, database))))
    command = [sys.executable, "-m", "database_bootstrap", "apply", "-f", str(file), "--no-secret-dir", "--wait", "60"]
    racers = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(RACERS)
    ]
    told = [racer.communicate()[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * RACERS, "\n".join(told)
    assert sum(text.count("+ seed the database") for text in told) == 1
    with psycopg.connect(postgres_server.dsn(database)) as connection:

        def count(table: str) -> Any:
            row = connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*table.split(".")))
            ).fetchone()
            return row and row[0]

        tables = ("customer", "orders", "trace", "dbbootstrap.seed", "dbbootstrap.identity")
        assert [count(table) for table in tables] == [2, 3, 3, 1, 1]


def documents(tool: str, server: PostgresServer, admin: Credentials, role: str, database: str) -> list[dict[str, Any]]:
    """Return one resource, with its password, its administrator, and its files."""
    wanted = STOCKS[tool]
    spec = stock.spec(wanted, role, database)
    spec["role"]["passwordSecretRef"] = {"name": "own", "key": "password"}
    access = {"host": server.host, "port": str(server.port), "username": admin.user, "password": admin.password}
    return [
        {
            "apiVersion": "dbbootstrap.io/v1alpha1",
            "kind": "DatabaseBootstrap",
            "metadata": {"name": "shop"},
            "spec": spec,
        },
        _document("Secret", "admin", stringData=access),
        _document("Secret", "own", stringData={"password": "a password for all four"}),
        _document("ConfigMap", stock.config_map(wanted), data=wanted.files),
        _document("ConfigMap", "seed", data=stock.SEED | SLOW),
    ]


def _document(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}} | content
