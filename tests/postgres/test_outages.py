"""Servers that are away, as the engine meets them: one visit finds out, one asks, the others wait and are woken."""

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

import psycopg
import pytest

from database_bootstrap.api.outcomes import Outcome, Verdict
from database_bootstrap.postgres import probe
from database_bootstrap.postgres.login import Endpoint
from database_bootstrap.postgres.outage import Outage
from database_bootstrap.stages.subject import Report
from fix_engine import Bootstrap
from localservers import Credentials, PostgresServer

MakeBootstrap = Callable[[str], Bootstrap]
one_administrator = pytest.mark.parametrize("admin", ["createrole"], indirect=True)


def knock(server: PostgresServer, user: str = "nobody-at-all") -> Awaitable[str | None]:
    return probe.knock(Endpoint(host=server.host, port=server.port), user, "nothing-at-all")


def trouble(report: Report) -> Outcome:
    assert report.trouble, "the visit ended well"
    return report.trouble


def outage_of(report: Report) -> Outage:
    assert report.outage, f"no outage: {report.trouble}"
    return report.outage


async def end_of(outage: Outage, seconds: float) -> None:
    """Wait for the end of an outage."""
    over = asyncio.Event()
    outage.when_over(over, over.set)
    await asyncio.wait_for(over.wait(), seconds)


@pytest.fixture
def stopped(postgres_server: PostgresServer) -> PostgresServer:
    """The server, stopped; it runs again after the test."""
    postgres_server.stop()
    return postgres_server


@pytest.fixture
def frozen(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """The server with a postmaster that does not move: the kernel takes connections, and nobody answers."""
    postgres_server.freeze()
    yield postgres_server
    postgres_server.thaw()


@pytest.mark.parametrize("user", ["nobody-at-all", PostgresServer.superuser])
async def test_server_answers_without_a_line_in_its_log(
    postgres_server: PostgresServer, user: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = postgres_server.log.stat().st_size
    assert await knock(postgres_server, user) is None
    # What the server has to say of a session it says when that ends; the next one comes after it.
    postgres_server.psql("SELECT 'the end'")
    said = postgres_server.said(before)
    assert "the end" in said
    assert "FATAL" not in said and "ERROR" not in said
    assert capfd.readouterr().err == "", "libpq has complained"


async def test_server_that_refuses_whoever_knocks_is_there(postgres_server: PostgresServer) -> None:
    rules = postgres_server.datadir / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all {PostgresServer.superuser} all scram-sha-256\n")
    postgres_server.psql("SELECT pg_reload_conf()")
    try:
        assert await knock(postgres_server) is None
    finally:
        rules.write_text(before)
        postgres_server.psql("SELECT pg_reload_conf()")


async def test_stopped_server_does_not_answer(stopped: PostgresServer) -> None:
    words = await knock(stopped)
    assert words is not None
    assert "refused" in words


async def test_open_port_is_no_answer(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.dsn()):
        # It shuts down once this session is over; until then its port is open, and no other session is let in.
        postgres_server.signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            while (words := await knock(postgres_server)) is None:
                await asyncio.sleep(0.02)
    assert words == "takes no session now (SQLSTATE 57P03)"
    postgres_server.stop()


async def test_silence_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        words = await probe.knock(Endpoint(host="127.0.0.1", port=silent.getsockname()[1]), "a", "b")
    assert words is not None
    assert time.monotonic() - began < 5


async def test_name_that_nobody_knows_does_not_answer() -> None:
    assert await probe.knock(Endpoint(host="no-such-host.invalid"), "a", "b") is not None


@one_administrator
async def test_one_finds_out_and_all_the_others_wait(make_bootstrap: MakeBootstrap, stopped: PostgresServer) -> None:
    first, *others = [make_bootstrap(f"shop{number}") for number in range(4)]
    found = await first.apply()
    assert trouble(found).reason == "ServerUnreachable"
    assert not found.refused
    began = time.monotonic()
    reports = await asyncio.gather(*(other.apply() for other in others))
    assert time.monotonic() - began < 3  # Asking takes ten.
    assert all(report.refused and report.outage is found.outage for report in reports)
    (message,) = {trouble(report).message for report in reports}
    assert f"127.0.0.1:{stopped.port} does not answer" in message
    assert first.admin.user not in message and first.role not in message  # It is read by everybody.
    stopped.start_again()
    await end_of(outage_of(found), 10)
    for bootstrap in (first, *others):
        await bootstrap.ready()


@one_administrator
async def test_plan_waits_like_everybody(bootstrap: Bootstrap, stopped: PostgresServer) -> None:
    await bootstrap.apply()
    assert (await bootstrap.plan()).refused


@one_administrator
async def test_trouble_of_one_resource_keeps_nobody_else_out(make_bootstrap: MakeBootstrap) -> None:
    strange, other = make_bootstrap("strange"), make_bootstrap("other")
    server, admin = strange.server, strange.admin
    strange.drawer.put(
        "admin",
        {
            "host": server.host,
            "port": str(server.port),
            "username": admin.user,
            "password": admin.password,
            "sslmode": "require",
        },
    )
    for _ in range(2):
        report = await strange.apply()
        assert trouble(report).reason == "ServerUnreachable"
        assert "SSL" in trouble(report).message
        assert report.outage is None and not report.refused
    await other.ready()


@one_administrator
async def test_resource_that_points_elsewhere_does_not_wait(
    bootstrap: Bootstrap, postgres_server: PostgresServer
) -> None:
    keys = {name: value.decode() for name, value in bootstrap.drawer.secrets["admin"].data.items()}
    bootstrap.drawer.put("admin", keys | {"host": "no-such-host.invalid"})
    assert (await bootstrap.apply()).outage
    assert (await bootstrap.apply()).refused
    bootstrap.drawer.put("admin", keys)
    await bootstrap.ready()


@one_administrator
async def test_black_hole_holds_a_few_for_a_moment_and_nobody_later(
    make_bootstrap: MakeBootstrap, frozen: PostgresServer
) -> None:
    many = [make_bootstrap(f"shop{number}") for number in range(20)]
    began = time.monotonic()
    ends: list[float] = []

    async def visit(bootstrap: Bootstrap) -> Report:
        report = await bootstrap.apply()
        ends.append(time.monotonic() - began)
        return report

    reports = await asyncio.gather(*(visit(bootstrap) for bootstrap in many))
    # Three find out by themselves, at ten seconds each; the others stand in line, get impatient, and are sent away.
    assert {trouble(report).reason for report in reports} == {"ServerUnreachable"}
    assert sum(report.refused for report in reports) == 17
    assert sorted(ends)[16] < 10
    assert max(ends) < 25
    began = time.monotonic()
    assert (await many[0].apply()).refused
    assert time.monotonic() - began < 3
    frozen.thaw()
    await end_of(outage_of(reports[0]), 15)
    await many[0].ready()


@one_administrator
async def test_server_without_connections_is_asked_by_one(make_bootstrap: MakeBootstrap) -> None:
    first, second = make_bootstrap("shop0"), make_bootstrap("shop1")
    limit(first, 0)
    reports = [await first.apply(), await second.apply()]
    assert [trouble(report).reason for report in reports] == ["ServerBusy"] * 2
    assert reports[0].outage is reports[1].outage
    assert not any(report.refused for report in reports)
    limit(first, -1)
    await end_of(outage_of(reports[0]), 10)
    await first.ready()
    await second.ready()


@one_administrator
async def test_role_that_finds_no_connection_is_asked_for_as_itself(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.migrate("SQL", {"1_a.sql": "CREATE TABLE a (id int)"})
    limit(bootstrap, 0, bootstrap.role)
    report = await bootstrap.apply()
    assert trouble(report).reason == "ServerBusy"
    limit(bootstrap, -1, bootstrap.role)
    await end_of(outage_of(report), 10)
    await bootstrap.ready()


@one_administrator
async def test_session_that_somebody_ended_is_no_outage(make_bootstrap: MakeBootstrap) -> None:
    victim = make_bootstrap("victim")
    victim.migrate("SQL", {"1_a.sql": "CREATE TABLE a (id int); SELECT pg_sleep(60)"})
    visit = asyncio.create_task(victim.apply())
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE query ~ 'pg_sleep' AND datname = '{victim.database}' AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(20):
        while not victim.as_superuser(query):
            await asyncio.sleep(0.05)
    report = await visit
    assert trouble(report).verdict is Verdict.RETRY
    assert report.outage is None
    await make_bootstrap("other").ready()


async def test_nothing_is_asked_after_the_engine_has_stopped(bootstrap: Bootstrap, stopped: PostgresServer) -> None:
    await bootstrap.apply()
    await asyncio.wait_for(bootstrap.engine.stop(), 5)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("outage")]


def limit(bootstrap: Bootstrap, connections: int, role: str = "") -> None:
    who: Credentials = bootstrap.admin
    bootstrap.server.psql(f'ALTER ROLE "{role or who.user}" CONNECTION LIMIT {connections}')
