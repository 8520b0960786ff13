"""PostgreSQL goes away in every way it can, and comes back: all goes on at once, and each row is there once."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from fix_operator import SYSTEM_NAMESPACE, Operator, ready, until, writes
from fix_system import Tenant
from localservers import PostgresServer
from outage_measures import SEEDED, SessionCount, seconds_until_ready, with_rows

COUNT = 20
AWAY_SECONDS = 17.0
"""Whoever tried again by itself, after 1, 3, 7 and 15 s, would come next after half a minute."""
FIRST_SECONDS, LAST_SECONDS = 15.0, 60.0
"""The promise is 5 s for all, and `make bench` shows it; here others may be busy on the same two cores."""
ALL_SECONDS = 12.0
BUDGET = 8

Change = Callable[[PostgresServer], None]


def stop(server: PostgresServer) -> None:
    server.stop()


def start(server: PostgresServer) -> None:
    server.start_again()


@pytest.mark.parametrize(
    ("go", "come"),
    [
        pytest.param(stop, start, id="stopped", marks=pytest.mark.pg("<= 17")),
        pytest.param(PostgresServer.freeze, PostgresServer.thaw, id="frozen", marks=pytest.mark.pg(">= 16")),
    ],
)
def test_all_are_ready_within_seconds_of_the_servers_return(tenant: Tenant, go: Change, come: Change) -> None:
    names = [f"shop{number}" for number in range(COUNT)]
    with SessionCount(tenant.server) as sessions:
        tenant.bootstraps(names, **with_rows())
        until(20, lambda: any(ready(tenant.get(name)) for name in names[:BUDGET]))
        with absence(tenant.server, go, come):
            time.sleep(AWAY_SECONDS)
            told = status_writes(tenant)
            assert servers_away(tenant) == 1
        first, last = seconds_until_ready(tenant.plane, tenant.namespace, names, LAST_SECONDS)
    print(f"{COUNT} resources Ready {first:.1f} to {last:.1f} s after the server's return")
    assert first <= FIRST_SECONDS
    assert sessions.most <= BUDGET
    until(5, lambda: sessions.now() == 0)
    # Begun at most once, and told once that the server is away: nothing is written for each knock.
    assert told <= 2 * COUNT
    for name in names:
        assert rows(tenant, name) == SEEDED
    assert servers_away(tenant) == 0


LEASE = ("--leader-elect", "--lease-namespace", SYSTEM_NAMESPACE, "--lease-name")


@pytest.mark.parametrize(
    "elects",
    [
        pytest.param(False, id="alone", marks=pytest.mark.pg("<= 17")),
        pytest.param(True, id="with a Lease", marks=pytest.mark.pg(">= 16")),
    ],
)
def test_all_goes_on_within_seconds_of_the_api_servers_return(
    tenant: Tenant, make_operator: Callable[..., Operator], elects: bool
) -> None:
    if elects:
        tenant.operator.stop()
        tenant.operator = make_operator("--namespace", tenant.namespace, *LEASE, tenant.namespace).start()
    old, new = [f"old{number}" for number in range(4)], [f"shop{number}" for number in range(COUNT)]
    tenant.bootstraps(old, **with_rows(), intervalSeconds=5)
    for name in old:
        tenant.ready(name)
    before, process = [tenant.get(name)["metadata"]["resourceVersion"] for name in old], tenant.operator.pid
    tenant.bootstraps(new, **with_rows())
    until(20, lambda: any(ready(tenant.get(name)) for name in new[:BUDGET]))
    tenant.plane.stop_apiserver()
    try:
        time.sleep(AWAY_SECONDS)
        # One asks for all; who acts no more, because it could not renew its Lease, asks for nothing but the Lease.
        assert servers_away(tenant, "ClusterUnavailable") == (0 if elects else 1)
    finally:
        tenant.plane.start_apiserver()
    tenant.bootstrap("late", **with_rows())
    first, last = seconds_until_ready(tenant.plane, tenant.namespace, [*new, "late"], LAST_SECONDS)
    print(f"{COUNT} resources, and a new one, Ready {first:.1f} to {last:.1f} s after the API server's return")
    assert last <= ALL_SECONDS
    for name in (*old, *new, "late"):
        assert rows(tenant, name) == SEEDED
    # Those that were well are not touched, and the process is the same: Kubernetes would start another one ever later.
    assert [tenant.get(name)["metadata"]["resourceVersion"] for name in old] == before
    assert (tenant.operator.is_running, tenant.operator.pid) == (True, process)
    assert ("stepping down" in tenant.operator.log) is elects
    assert {it["level"] for it in tenant.operator.messages} == {"info", "warning"}
    assert "raceback" not in tenant.operator.log


@contextmanager
def absence(server: PostgresServer, go: Change, come: Change) -> Iterator[None]:
    """Take the server away, and give it back whatever happens meanwhile."""
    go(server)
    try:
        yield
    finally:
        come(server)


def status_writes(tenant: Tenant) -> int:
    return sum("databasebootstraps/status" in line for line in writes(tenant.plane, tenant.namespace))


def servers_away(tenant: Tenant, reason: str = "ServerUnreachable") -> float:
    return tenant.operator.metrics().get(f'dbbootstrap_servers_away{{reason="{reason}"}}', 0)


def rows(tenant: Tenant, name: str) -> tuple[int, int]:
    ((found,),) = tenant.query("SELECT ARRAY[(SELECT count(*) FROM users), (SELECT count(*) FROM orders)]", name)
    return found[0], found[1]


SLOW_MIGRATION = "CREATE TABLE late_{0} (id int); INSERT INTO late_{0} VALUES (1); SELECT pg_sleep(2);"
SLOW_SEED = "INSERT INTO users (email) VALUES ('a'), ('b'); SELECT pg_sleep(2); INSERT INTO users (email) VALUES ('c');"
RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND pid <> pg_backend_pid()"


def restart(tenant: Tenant) -> None:
    tenant.server.restart("immediate")


def crash(tenant: Tenant) -> None:
    tenant.server.kill()
    tenant.server.start_again()


def be_gone(tenant: Tenant) -> None:
    tenant.server.stop()
    time.sleep(3)
    tenant.server.start_again()


def crash_with_the_operator(tenant: Tenant) -> None:
    tenant.server.kill()
    tenant.operator.kill()
    tenant.operator.start()
    tenant.server.start_again()


def restart_the_api_server(tenant: Tenant) -> None:
    tenant.plane.restart_apiserver()


@pytest.mark.timeout(240)
def test_no_row_is_lost_or_doubled_whatever_goes_away_in_the_middle(tenant: Tenant) -> None:
    """One resource has rows and gets one migration after the other; beside it a new one is seeded each time."""
    files = {"0_users.sql": "CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE NOT NULL);"}
    shop = tenant.bootstrap(**spec(files, "INSERT INTO users (email) VALUES ('first')"))
    tenant.ready()
    tenant.query("INSERT INTO users (email) SELECT 'customer' || n FROM generate_series(1, 100) n")
    for number, trouble in enumerate((restart, crash, be_gone, crash_with_the_operator, restart_the_api_server), 1):
        new = f"new{number}"
        files[f"{number}_late.sql"] = SLOW_MIGRATION.format(number)
        tenant.apply(shop | {"spec": shop["spec"] | spec(files, "INSERT INTO users (email) VALUES ('first')")})
        tenant.bootstrap(new, **spec({"0_users.sql": files["0_users.sql"]}, SLOW_SEED))
        until(30, lambda: tenant.server.psql(RUNNING) == "2")
        trouble(tenant)
        for name in ("shop", new):
            status = tenant.ready(name, seconds=40)
            assert status["database"]["origin"] == "Created"
        assert tenant.query("SELECT count(*), count(DISTINCT email) FROM users") == [(101, 101)]
        late = [f"SELECT {one} AS late, count(*) FROM late_{one}" for one in range(1, number + 1)]
        assert set(tenant.query(" UNION ALL ".join(late))) == {(one, 1) for one in range(1, number + 1)}
        assert tenant.query("SELECT count(*), count(DISTINCT email) FROM users", new) == [(3, 3)]
        assert tenant.get(new)["status"]["seed"]["state"] == "Seeded"


def spec(files: dict[str, str], seed: str) -> dict[str, Any]:
    migrations = [{"path": path, "content": content} for path, content in files.items()]
    return {
        "migrations": {"tool": "SQL", "source": {"inline": migrations}},
        "seed": {"source": {"inline": [{"path": "seed.sql", "content": seed}]}},
    }


def test_full_server_is_not_hammered_and_all_are_ready_soon_after_it_has_room(tenant: Tenant) -> None:
    tenant.bootstrap(**with_rows())
    tenant.ready()
    tenant.query("INSERT INTO users (email) VALUES ('customer')")
    names = [f"shop{number}" for number in range(5)]
    with full(tenant.server):
        tenant.bootstraps(names, **with_rows())
        for name in names:
            tenant.reaches("False", "ServerBusy", name)
        before = tenant.server.said().count("FATAL")
        time.sleep(6)
        # One asks every second; each resource tries by itself every half minute.
        assert tenant.server.said().count("FATAL") - before <= 12
    first, last = seconds_until_ready(tenant.plane, tenant.namespace, names, LAST_SECONDS)
    print(f"{len(names)} resources Ready {first:.1f} to {last:.1f} s after the server had room")
    assert first <= FIRST_SECONDS
    for name in names:
        assert rows(tenant, name) == SEEDED
    assert rows(tenant, "shop") == (SEEDED[0] + 1, SEEDED[1])


@contextmanager
def full(server: PostgresServer) -> Iterator[None]:
    """Take every connection that the server has."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(psycopg.connect(server.dsn()))
            except psycopg.OperationalError:
                break
        yield


def test_other_servers_are_served_while_one_hangs(tenant: Tenant) -> None:
    """More resources than there are workers wait for a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        tenant.secret("silent", tenant.admin_keys | {"port": str(silent.getsockname()[1])})
        names = [f"away{number}" for number in range(12)]
        tenant.bootstraps(names, server={"adminSecretRef": {"name": "silent"}})
        until(20, lambda: servers_away(tenant) == 1)
        began = time.monotonic()
        tenant.bootstrap()
        tenant.ready(seconds=10)
        print(f"another server's resource was Ready after {time.monotonic() - began:.1f} s")
        for name in names:
            tenant.reaches("False", "ServerUnreachable", name)
        told = status_writes(tenant)
        time.sleep(5)  # What is measured is how much is written in this time.
        assert status_writes(tenant) == told
        # The Secret points elsewhere by now, and nobody tells the operator of it.
        tenant.secret("silent", tenant.admin_keys)
        for name in names:
            tenant.ready(name, seconds=45)


def test_operator_ends_in_time_while_a_server_is_away(tenant: Tenant) -> None:
    tenant.bootstrap()
    tenant.ready()
    with absence(tenant.server, stop, start):
        tenant.bootstrap("late")
        tenant.reaches("False", "ServerUnreachable", "late")
        began = time.monotonic()
        assert tenant.operator.stop() == 0
        assert time.monotonic() - began < 5
        assert "raceback" not in tenant.operator.log
        assert "never retrieved" not in tenant.operator.log
        tenant.operator.start()
        until(20, lambda: servers_away(tenant) == 1)
    tenant.ready("late", seconds=20)
