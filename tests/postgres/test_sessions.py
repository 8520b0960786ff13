"""Sessions: what is pinned for the administrator holds, whatever the database's settings are."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest

from database_bootstrap.postgres import session
from database_bootstrap.postgres.doors import Entry
from database_bootstrap.postgres.login import Endpoint, Login
from database_bootstrap.stages.sessions import Sessions
from fix_engine import Bootstrap
from localservers import PostgresServer
from process_here import connections


def _administrator(bootstrap: Bootstrap) -> Login:
    return Login(
        endpoint=Endpoint(host=bootstrap.server.host, port=bootstrap.server.port),
        user=bootstrap.admin.user,
        password=bootstrap.admin.password,
        database=bootstrap.database,
    )


def _superuser(server: PostgresServer) -> Login:
    endpoint = Endpoint(host=server.host, port=server.port)
    return Login(endpoint=endpoint, user=server.superuser, password=server.password, database="postgres")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("role", "none", id="role"),
        pytest.param("search_path", "pg_catalog,pg_temp", id="search_path"),
        pytest.param("row_security", "off", id="row_security"),
        pytest.param("restrict_nonsystem_relation_kind", "view, foreign-table", id="views"),
        pytest.param("client_encoding", "UTF8", id="client_encoding"),
        pytest.param("idle_session_timeout", "0", id="idle_session_timeout"),
        pytest.param("default_transaction_read_only", "off", id="read_only"),
    ],
)
async def test_administrators_session_is_not_the_tenants_to_shape(bootstrap: Bootstrap, name: str, value: str) -> None:
    await bootstrap.ready()
    bootstrap.query(
        f"ALTER DATABASE \"{bootstrap.database}\" SET role = '{bootstrap.role}';"
        f'ALTER DATABASE "{bootstrap.database}" SET search_path = public;'
        f'ALTER DATABASE "{bootstrap.database}" SET row_security = on;'
        f'ALTER DATABASE "{bootstrap.database}" SET client_encoding = LATIN1;'
        f'ALTER DATABASE "{bootstrap.database}" SET idle_session_timeout = 1;'
        f'ALTER DATABASE "{bootstrap.database}" SET default_transaction_read_only = on'
    )
    login = _administrator(bootstrap)
    connection = await session.connect_administrator(login)
    try:
        row = await (await connection.execute(f"SHOW {name}".encode())).fetchone()
        user = await (await connection.execute("SELECT current_user")).fetchone()
    finally:
        await connection.close()
    assert row == (value,)
    assert user == (bootstrap.admin.user,)


async def test_server_that_does_not_answer_is_not_waited_for_without_end(
    bootstrap: Bootstrap, unique_name: Callable[[str], str]
) -> None:
    name = unique_name("silent")
    login = replace(_administrator(bootstrap), database="postgres", application_name=name)
    asleep = f"SELECT 1 FROM pg_stat_activity WHERE application_name = '{name}' AND state = 'active'"
    async with await session.connect(login, session.OBSERVER, limit=1 - session.GRACE_SECONDS) as connection:
        with pytest.raises(psycopg.OperationalError, match="has not answered for 1 seconds"):
            await connection.execute("SELECT pg_sleep(1000)")
        assert bootstrap.as_superuser(asleep) == [], "the server was not told"
        # It has answered: the limit is one for each answer.
        for _ in range(3):
            await connection.execute("SELECT pg_sleep(0.5)")


async def test_nothing_stays_open_of_an_answer_that_was_given_up(bootstrap: Bootstrap) -> None:
    before = connections()
    async with await session.connect(_administrator(bootstrap).to("postgres"), session.OBSERVER) as connection:
        opened, backend = connections(), connection.info.backend_pid
        answer = asyncio.create_task(connection.execute("SELECT pg_sleep(1000)"))
        async with asyncio.timeout(20):
            while connections() == opened:  # It is waited for, in portions.
                await asyncio.sleep(0.02)
        for _ in range(2):  # The second one comes while psycopg tells the server, and is kept with the first.
            answer.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError) as kept:
            await answer
    assert connections() == before
    del kept
    # Telling the server was given up as well, so that it may still be asleep.
    bootstrap.as_superuser(f"SELECT pg_terminate_backend({backend})")


async def test_who_is_told_to_end_waits_little_for_a_server_that_stands_still(postgres_server: PostgresServer) -> None:
    """A rollback must not keep a process that ends for as long as a statement may take, nor make it go on."""
    connection = await session.connect(_superuser(postgres_server), session.OWNER, limit=1 - session.GRACE_SECONDS)
    backend, begun = connection.info.backend_pid, asyncio.Event()

    async def work() -> None:
        async with connection.transaction(), connection.cursor() as cursor:
            await cursor.execute("CREATE TEMPORARY TABLE t (a text)")
            async with cursor.copy("COPY t FROM STDIN") as copy:
                await copy.write(b"a\n")
                begun.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    os.kill(backend, signal.SIGSTOP)
    try:
        task.cancel("told to end")
        await asyncio.wait({task}, timeout=5)
        assert task.done()
        with pytest.raises(asyncio.CancelledError, match="told to end"):
            await task
        assert connection.closed
    finally:
        os.kill(backend, signal.SIGCONT)


async def test_session_goes_to_the_addresses_that_were_found(bootstrap: Bootstrap) -> None:
    found = _administrator(bootstrap).to("postgres")
    for addresses in ((bootstrap.server.host,), ("127.0.0.2", bootstrap.server.host)):
        endpoint = replace(found.endpoint, host="no-such-host.invalid", addresses=addresses)
        async with await session.connect(replace(found, endpoint=endpoint), session.OBSERVER) as connection:
            assert (connection.info.host, connection.info.hostaddr) == (endpoint.host, bootstrap.server.host)


async def test_each_session_of_a_visit_has_its_limit(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    login = _administrator(bootstrap)
    password = bootstrap.drawer.secrets["shop-db"].data["password"].decode()

    async def administrator() -> Login:
        return login

    async def role() -> Login:
        return replace(login, user=bootstrap.role, password=password)

    @asynccontextmanager
    async def door(login: Login) -> AsyncIterator[Entry]:
        yield Entry(login)

    sessions = Sessions(administrator, role, session.OWNER, door, door, owner_limit=7200)
    try:
        limits = [(await opened()).patience for opened in (sessions.administrator, sessions.owner, sessions.another)]
    finally:
        await sessions.close()
    assert limits == [660, 7260, 90]
