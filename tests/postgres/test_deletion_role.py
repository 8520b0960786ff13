"""The role of a deletion: what others do with it in databases of their own holds nothing up, and loses nobody a row."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest

from database_bootstrap.api.outcomes import Reason
from database_bootstrap.stages.deletion import Ending
from fix_engine import Bootstrap

Attack = Callable[[Bootstrap, Bootstrap], AbstractContextManager[None]]
GRANTS = """
    GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role} WITH GRANT OPTION;
    GRANT ALL ON SCHEMA own TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA own TO {role};
    GRANT SELECT (id), UPDATE (id) ON own.item TO {role};
    GRANT USAGE ON TYPE own.colour TO {role}; GRANT EXECUTE ON FUNCTION own.one() TO {role};
    GRANT SELECT ON LARGE OBJECT {object} TO {role};
    CREATE POLICY theirs ON own.item TO {role} USING (true);
    CREATE POLICY ours ON own.item TO {role}, {mine} USING (true);
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role};
    ALTER DEFAULT PRIVILEGES IN SCHEMA own GRANT USAGE ON TYPES TO {role};
    CREATE SERVER far FOREIGN DATA WRAPPER far; CREATE USER MAPPING FOR {role} SERVER far OPTIONS (user 'x');
"""
OBJECTS = """
    CREATE SCHEMA own; CREATE TABLE own.item (id int); INSERT INTO own.item VALUES (1), (2);
    CREATE TYPE own.colour AS ENUM ('red'); CREATE FUNCTION own.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
    ALTER TABLE own.item ENABLE ROW LEVEL SECURITY; CREATE SEQUENCE own.number
"""


@pytest.fixture
async def neighbour(make_bootstrap: Callable[[str], Bootstrap]) -> AsyncIterator[Bootstrap]:
    """Another tenant of the same server, with tables of its own."""
    found = make_bootstrap("neighbour")
    await found.ready()
    found.query(OBJECTS)
    found.as_superuser(
        f'CREATE FOREIGN DATA WRAPPER far; GRANT USAGE ON FOREIGN DATA WRAPPER far TO "{found.role}"', found.database
    )
    yield found
    found.as_superuser(f'ALTER DATABASE "{found.database}" ALLOW_CONNECTIONS true')


@pytest.fixture
async def leaving(bootstrap: Bootstrap) -> Bootstrap:
    """A resource that is about to be deleted."""
    bootstrap.remember(await bootstrap.ready())
    return bootstrap


def give(neighbour: Bootstrap, leaving: Bootstrap) -> None:
    """Give the other's role every kind of right that the owner of a database can."""
    ((number,),) = neighbour.query("SELECT lo_create(0)")
    names = {"database": neighbour.database, "role": leaving.role, "mine": neighbour.role}
    neighbour.query(GRANTS.format(object=number, **{key: f'"{name}"' for key, name in names.items()}))


def role(leaving: Bootstrap) -> list[tuple[bool, bool, str | None]]:
    """Return whether the role may log in, whether it has a password, and its comment; nothing where it is gone."""
    return leaving.as_superuser(
        "SELECT rolcanlogin, rolpassword IS NOT NULL, shobj_description(oid, 'pg_authid') FROM pg_authid"
        f" WHERE rolname = '{leaving.role}'"
    )


def as_it_should_be(leaving: Bootstrap, ending: Ending) -> None:
    assert ending.error is None, ending.error
    assert set(leaving.drawer.secrets) == {"admin"}
    assert leaving.as_superuser(f"SELECT 1 FROM pg_database WHERE datname = '{leaving.database}'") == []


async def test_rights_that_a_neighbour_has_given_hold_nothing_up(leaving: Bootstrap, neighbour: Bootstrap) -> None:
    login = leaving.connection()
    give(neighbour, leaving)
    with psycopg.connect(**login | {"dbname": neighbour.database}, autocommit=True) as session:
        assert session.execute("SELECT count(*) FROM own.item").fetchone() == (2,)
        session.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
        ending = await leaving.delete()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    as_it_should_be(leaving, ending)
    assert ending.kept == ()
    assert f'drop role "{leaving.role}"' in map(str, ending.drops)
    assert role(leaving) == []
    assert neighbour.query("SELECT id FROM own.item ORDER BY 1") == [(1,), (2,)]
    assert neighbour.query("SELECT polname::text FROM pg_policy") == [("ours",)]
    assert (await neighbour.ready()).changes == ()


@contextmanager
def closed(neighbour: Bootstrap, leaving: Bootstrap) -> Iterator[None]:
    give(neighbour, leaving)
    neighbour.query(f'ALTER DATABASE "{neighbour.database}" ALLOW_CONNECTIONS false', dbname="postgres")
    yield


@contextmanager
def spoilt(neighbour: Bootstrap, leaving: Bootstrap) -> Iterator[None]:
    give(neighbour, leaving)
    neighbour.query(f"ALTER DATABASE \"{neighbour.database}\" SET local_preload_libraries = 'nothing'")
    yield


@contextmanager
def not_committed(neighbour: Bootstrap, leaving: Bootstrap) -> Iterator[None]:
    with psycopg.connect(**neighbour.connection()) as session:
        session.execute(f'GRANT SELECT ON own.item TO "{leaving.role}"'.encode())
        yield
        session.commit()


@pytest.mark.parametrize("attack", [closed, spoilt, pytest.param(not_committed, marks=pytest.mark.pg(">= 16"))])
async def test_role_that_cannot_be_dropped_is_left_behind_without_any_power(
    leaving: Bootstrap, neighbour: Bootstrap, attack: Attack
) -> None:
    leaving.as_superuser(
        f"DO $$BEGIN EXECUTE format('COMMENT ON ROLE %I IS %L', '{leaving.role}',"
        f" E'of the shop\\n' || shobj_description('{leaving.role}'::regrole, 'pg_authid')); END$$"
    )
    with attack(neighbour, leaving):
        ending = await leaving.delete()
    as_it_should_be(leaving, ending)
    assert role(leaving) == [(False, False, "of the shop")]
    (said,) = ending.kept
    assert f'Role "{leaving.role}" is kept, without login, password and mark' in said
    # Another visit, as after a crash before the finalizer was off, leaves it alone.
    assert "carries no mark" in (await leaving.delete()).kept[0]
    neighbour.as_superuser(f'ALTER DATABASE "{neighbour.database}" ALLOW_CONNECTIONS true')
    neighbour.as_superuser(f'ALTER DATABASE "{neighbour.database}" RESET local_preload_libraries')
    for statement in said.partition("let a superuser run ")[2].split(", and then "):
        (sql, _, where) = statement.partition(" in ")
        assert attack is not_committed or not where or neighbour.database in where
        neighbour.as_superuser(sql, neighbour.database)
    assert role(leaving) == []


async def test_what_the_role_owns_in_a_neighbours_database_keeps_it(leaving: Bootstrap, neighbour: Bootstrap) -> None:
    login = leaving.connection()
    give(neighbour, leaving)
    with psycopg.connect(**login | {"dbname": neighbour.database}) as session:
        session.execute("CREATE TABLE own.theirs AS SELECT 7 AS id")
    ending = await leaving.delete()
    assert ending.error is not None and ending.error.reason == Reason.ROLE_OWNS_OBJECTS
    assert f'1 object in database "{neighbour.database}"' in ending.error.message
    assert role(leaving)[0][:2] == (True, True), "whoever has to see to it can still log in"
    assert {"shop-db", "shop-role"} <= set(leaving.drawer.secrets)
    with psycopg.connect(**login | {"dbname": neighbour.database}) as session:
        assert session.execute("TABLE own.theirs").fetchall() == [(7,)]
        session.execute("DROP TABLE own.theirs")
    as_it_should_be(leaving, await leaving.delete())
    assert role(leaving) == []
