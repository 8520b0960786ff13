"""Restores and moves: recognised as what they are, with no false alarm, no second seed, no lost row."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from database_bootstrap.api.outcomes import Reason
from database_bootstrap.api.status import Status
from database_bootstrap.stages.subject import Report
from fix_engine import Bootstrap
from fix_postgres import INSTALLATIONS, SETTINGS
from localservers import Credentials, Installation, PostgresServer, processes

USERS = {"1_users.sql": "CREATE TABLE users (id int PRIMARY KEY)"}
LATER = USERS | {"2_orders.sql": "CREATE TABLE orders (id int)"}
SEED = {"users.sql": "INSERT INTO users VALUES (1), (2)"}


def remember(bootstrap: Bootstrap, report: Report) -> None:
    facts = report.facts
    bootstrap.status = Status(server=facts.server, role=facts.role, database=facts.database, binding=facts.binding)


@pytest.fixture
async def shop(bootstrap: Bootstrap) -> Bootstrap:
    """A resource that is set up, with a row of the application's own."""
    bootstrap.migrate("SQL", USERS)
    bootstrap.seed(SEED)
    remember(bootstrap, await bootstrap.ready())
    bootstrap.query("INSERT INTO users VALUES (3)")
    return bootstrap


def owner_of(shop: Bootstrap) -> Credentials:
    return Credentials(user=shop.role, password=shop.drawer.secrets["shop-role"].data["password"].decode())


def dump(shop: Bootstrap, who: Credentials | None, file: Path) -> Path:
    _run(shop.server, who, "pg_dump", "--format=custom", f"--file={file}", dbname=shop.database)
    return file


def restore(shop: Bootstrap, who: Credentials | None, file: Path) -> None:
    """Restore as people do; what cannot be given to its old owner stays with whoever restores, and is warned of."""
    shop.as_superuser(f'CREATE DATABASE "{shop.database}" OWNER "{shop.role}"')
    _run(shop.server, who, "pg_restore", f"--dbname={shop.database}", str(file), dbname=shop.database, may_warn=True)


def _run(
    server: PostgresServer, who: Credentials | None, name: str, *options: str, dbname: str, may_warn: bool = False
) -> None:
    program = server.installation.program(name)
    if program is None:
        pytest.skip(f"the PostgreSQL {server.major} found here has no {name}")
    done = subprocess.run(
        [program, *options], env=server.client_environment(dbname, who), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or (may_warn and done.returncode == 1), done.stderr


def lay_traps(shop: Bootstrap) -> None:
    """Put triggers of the role on its ledger, which tell who runs them."""
    traps = "".join(
        f"CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON dbbootstrap.{table}"
        " FOR EACH ROW EXECUTE FUNCTION public.tell();"
        for table in ("identity", "migration", "seed", "audit_log")
    )
    shop.query(
        "CREATE TABLE public.caught (who text, session text);"
        "CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN INSERT INTO public.caught VALUES (current_user, session_user); RETURN NEW; END $$;" + traps
    )


def check_ledger(shop: Bootstrap) -> None:
    """Insist that the ledger is not the role's, is complete, and goes on."""
    assert shop.query(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'dbbootstrap'::regnamespace"
        " AND pg_get_userbyid(relowner) = current_user"
    ) == [(0,)]
    assert shop.query("SELECT count(*) FROM dbbootstrap.seed WHERE state = 'seeded'") == [(1,)]
    assert shop.query(
        "SELECT count(*) FROM dbbootstrap.migration WHERE name = '1_users.sql' AND state = 'applied'"
    ) == [(1,)]
    assert shop.query("SELECT count(*), count(DISTINCT incarnation) FROM dbbootstrap.identity") == [(1, 1)]


@pytest.mark.parametrize("by_role", [False, True], ids=["by a superuser", "by the role"])
async def test_older_dump_restored_in_place(shop: Bootstrap, tmp_path: Path, *, by_role: bool) -> None:
    who = owner_of(shop) if by_role else None
    file = dump(shop, who, tmp_path / "dump")
    shop.migrate("SQL", LATER)
    remember(shop, await shop.ready())
    shop.query("INSERT INTO users VALUES (4)")
    incarnation = shop.status.database and shop.status.database.incarnation

    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    restore(shop, who, file)
    if by_role:
        lay_traps(shop)
    report = await shop.ready()
    said = " ".join(report.changes)
    assert "made anew from its own dump" in said
    assert "restored to an earlier point" in said
    assert "seed the database" not in said
    assert ("set the restored ledger aside" in said) == by_role
    assert shop.query("SELECT id FROM users ORDER BY id") == [(1,), (2,), (3,)]
    assert shop.query("SELECT count(*) FROM orders") == [(0,)]
    check_ledger(shop)
    assert report.facts.database and report.facts.database.incarnation == incarnation
    assert report.facts.database.origin == "Created"
    logged = [action for (action,) in shop.query("SELECT action FROM dbbootstrap.audit_log ORDER BY seq")]
    assert [it for it in report.changes if it not in logged] == ["apply migration 2_orders.sql"]  # in other words
    if by_role:
        assert shop.query("SELECT DISTINCT who, session FROM caught") == []
    remember(shop, report)
    again = await shop.ready()
    assert again.changes == ()
    assert again.facts.database == report.facts.database


@pytest.mark.parametrize("admin", ["createrole"], indirect=True)
async def test_ledger_of_the_role_is_made_anew_through_every_crash(shop: Bootstrap, tmp_path: Path) -> None:
    """Killed after it was set aside, and after the new one was made: nothing is lost, and nothing is put in twice."""
    file = dump(shop, owner_of(shop), tmp_path / "dump")
    for stop in ("aside", "made"):
        shop.as_superuser(f'DROP DATABASE "{shop.database}"')
        restore(shop, owner_of(shop), file)
        shop.query("ALTER SCHEMA dbbootstrap RENAME TO dbbootstrap_restored")
        if stop == "made":
            # As the operator leaves it: the tables are there, and the rows are not.
            copied = shop.server.psql(
                "SELECT incarnation FROM dbbootstrap_restored.identity",
                dbname=shop.database,
                credentials=owner_of(shop),
            )
            await shop.ready()
            shop.as_superuser(
                "DO $$ BEGIN EXECUTE (SELECT 'ALTER SCHEMA ' || nspname || ' RENAME TO dbbootstrap_restored'"
                " FROM pg_namespace WHERE nspname ~ '^dbbootstrap_restored_'); END $$;"
                "TRUNCATE dbbootstrap.migration, dbbootstrap.seed",
                shop.database,
            )
            assert shop.query("SELECT incarnation::text FROM dbbootstrap.identity") == [(copied,)]
        report = await shop.ready()
        assert "copy the rows of the restored ledger into the new one" in report.changes
        assert shop.query("SELECT id FROM users ORDER BY id") == [(1,), (2,), (3,)]
        check_ledger(shop)
        remember(shop, report)
        assert (await shop.ready()).changes == ()


@pytest.mark.parametrize("admin", ["createrole"], indirect=True)
async def test_dump_restored_without_its_rights_says_the_grants(shop: Bootstrap, tmp_path: Path) -> None:
    file = dump(shop, None, tmp_path / "dump")
    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    restore(shop, None, file)
    shop.as_superuser(f'REVOKE ALL ON SCHEMA dbbootstrap FROM "{shop.role}"', shop.database)
    report = await shop.apply()
    assert report.trouble and report.trouble.reason is Reason.ACCESS_DENIED
    assert report.changes == ()
    shop.run_cure(report.trouble.message)
    await shop.ready()
    assert shop.query("SELECT count(*) FROM users") == [(3,)]


@pytest.fixture
def newest(
    request: pytest.FixtureRequest, postgres_servers: Callable[[Installation], PostgresServer]
) -> PostgresServer:
    """A server of the newest major that the tests run on."""
    return postgres_servers(request.config.stash[INSTALLATIONS][-1])


@pytest.mark.parametrize("by_role", [False, True], ids=["by a superuser", "by the role"])
async def test_dump_restored_into_another_major(
    shop: Bootstrap, newest: PostgresServer, tmp_path: Path, *, by_role: bool
) -> None:
    if newest is shop.server:
        pytest.skip("this is the newest PostgreSQL here; the test is about a move from an older one")
    who = owner_of(shop) if by_role else None
    file = dump(shop, who, tmp_path / "dump")
    is_superuser = shop.as_superuser(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{shop.admin.user}'") == [(True,)]
    admin = newest.admin_role("superuser" if is_superuser else "createrole")
    moved = replace(shop, server=newest, admin=admin)
    old = shop.drawer.secrets["shop-db"]
    access = {"host": newest.host, "port": str(newest.port), "username": admin.user, "password": admin.password}
    moved.drawer.put("admin", access)
    try:
        report = await moved.apply()  # somebody was too fast
        assert report.trouble and report.trouble.reason is Reason.DATA_LOSS_DETECTED
        assert report.changes == ()
        word = owner_of(shop).password.replace("'", "''")
        moved.as_superuser(f"CREATE ROLE \"{shop.role}\" LOGIN PASSWORD '{word}'")
        restore(moved, who, file)
        report = await moved.ready()
        said = " ".join(report.changes)
        assert "the database has moved to server" in said
        assert "seed the database" not in said
        assert "earlier point" not in said
        assert moved.query("SELECT id FROM users ORDER BY id") == [(1,), (2,), (3,)]
        check_ledger(moved)
        assert moved.drawer.secrets["shop-db"].incarnation == old.incarnation
        remember(moved, report)
        assert (await moved.ready()).changes == ()
    finally:
        moved.as_superuser(f'DROP DATABASE IF EXISTS "{shop.database}" WITH (FORCE)')
        owned = [
            name
            for name in (shop.role, admin.user)
            if moved.as_superuser(f"SELECT 1 FROM pg_roles WHERE rolname = '{name}'")
        ]
        for name in owned:
            moved.as_superuser(f'DROP OWNED BY "{name}"')
        for name in owned:
            moved.as_superuser(f'DROP ROLE "{name}"')


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("admin", ["superuser"], indirect=True)
async def test_copy_of_the_data_directory_promoted_elsewhere(
    shop: Bootstrap, servers: ExitStack, tmp_path: Path
) -> None:
    """The same marker and the same system identifier: the same database, though at an earlier point."""
    first = servers.enter_context(PostgresServer.start(tmp_path / "1", shop.server.installation, settings=SETTINGS))
    shop = replace(shop, server=first, admin=first.admin_role("superuser"), status=Status())
    shop.drawer = type(shop.drawer)(uid=shop.owner.uid)
    point_at(shop, first)
    remember(shop, await shop.ready())
    shop.query("INSERT INTO users VALUES (3)")
    first.stop()
    copy = PostgresServer(tmp_path / "2", first.installation)
    servers.callback(copy.close)
    copy_folder(first.datadir, copy.datadir)
    copy.password = first.password

    first.start_again()
    shop.migrate("SQL", LATER)
    remember(shop, await shop.ready())
    first.stop()
    processes.on_free_ports(copy._start_on_new_port)
    point_at(shop, copy)
    shop = replace(shop, server=copy)
    report = await shop.ready()
    said = " ".join(report.changes)
    assert "restored to an earlier point" in said
    assert "moved" not in said and "seed the database" not in said
    assert "publish the connection in Secret shop-db" in said
    assert shop.query("SELECT id FROM users ORDER BY id") == [(1,), (2,), (3,)]
    assert shop.query("SELECT count(*) FROM orders") == [(0,)]
    remember(shop, report)
    assert (await shop.ready()).changes == ()


def copy_folder(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True)


def point_at(shop: Bootstrap, server: PostgresServer) -> None:
    access = {"host": server.host, "port": str(server.port)}
    shop.drawer.put("admin", access | {"username": shop.admin.user, "password": shop.admin.password})
