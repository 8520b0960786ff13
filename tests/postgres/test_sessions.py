"""Sessions: what is pinned for the administrator holds, whatever the database's settings are."""

import pytest

from database_bootstrap.postgres import session
from database_bootstrap.postgres.login import Endpoint, Login
from fix_engine import Bootstrap


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
    login = Login(
        endpoint=Endpoint(host=bootstrap.server.host, port=bootstrap.server.port),
        user=bootstrap.admin.user,
        password=bootstrap.admin.password,
        database=bootstrap.database,
    )
    connection = await session.connect_administrator(login)
    try:
        row = await (await connection.execute(f"SHOW {name}".encode())).fetchone()
        user = await (await connection.execute("SELECT current_user")).fetchone()
    finally:
        await connection.close()
    assert row == (value,)
    assert user == (bootstrap.admin.user,)
