"""What tests and the benchmark see of an outage: how many sessions at once, and when the last resource is Ready."""

import threading
import time
import urllib.error
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Self

import psycopg

from fix_operator import BOOTSTRAPS, ready
from localservers import ControlPlane, PostgresServer

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'dbbootstrap%'"

MIGRATIONS = {
    "1_users.sql": "CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE NOT NULL);",
    "2_orders.sql": "CREATE TABLE orders (id int PRIMARY KEY, buyer int REFERENCES users);",
}
# With ids of its own: a sequence is not rolled back, so one that was stopped in the middle would get others next time.
SEED = "INSERT INTO users SELECT n, 'user' || n FROM generate_series(1, 50) n; INSERT INTO orders SELECT 1, 1;"
SEEDED = (50, 1)


def with_rows() -> dict[str, Any]:
    """Return what a resource with two migrations and a seed asks for beside role and database."""
    files = [{"path": path, "content": content} for path, content in MIGRATIONS.items()]
    return {
        "migrations": {"tool": "SQL", "source": {"inline": files}},
        "seed": {"source": {"inline": [{"path": "seed.sql", "content": SEED}]}},
    }


class SessionCount:
    """Counts the operator's sessions on a server twenty times a second, whenever there is a server."""

    def __init__(self, server: PostgresServer) -> None:
        self.most = 0
        """The most that were seen at once."""
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> int:
        """Return how many there are now."""
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            return _count(connection)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._server.dsn(), autocommit=True, connect_timeout=2) as connection:
                    while not self._stop.wait(0.05):
                        self.most = max(self.most, _count(connection))
            except psycopg.OperationalError:
                self._stop.wait(0.05)


def seconds_until_ready(
    plane: ControlPlane, namespace: str, names: Iterable[str], longest: float
) -> tuple[float, float]:
    """Return how long it takes from now until one more of these is Ready, and until all are.

    Raise `TimeoutError` with the status of the others where it takes too long.
    """
    wanted, began = set(names), time.monotonic()
    first: float | None = None
    before = _ready(found := _statuses(plane, namespace)) & wanted
    while left := wanted - _ready(found):
        if first is None and wanted - left > before:
            first = time.monotonic() - began
        if time.monotonic() - began > longest:
            raise TimeoutError(f"not Ready after {longest:.0f} s: { {name: found.get(name) for name in left} }")
        time.sleep(0.05)
        found = _statuses(plane, namespace)
    took = time.monotonic() - began
    return first or took, took


def _statuses(plane: ControlPlane, namespace: str) -> dict[str, dict[str, Any]]:
    try:
        items: list[dict[str, Any]] = plane.request("GET", BOOTSTRAPS.format(namespace))["items"]
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.TOO_MANY_REQUESTS:
            raise
        return {}  # It is back, and reads its storage first: nothing can be Ready yet.
    return {it["metadata"]["name"]: it for it in items}


def _ready(found: Mapping[str, dict[str, Any]]) -> set[str]:
    return {name for name, it in found.items() if ready(it) == ("True", "Succeeded")}


def _count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(SESSIONS).fetchone()
    return int(row[0]) if row else 0
