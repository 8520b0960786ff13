"""Deletion: what this very resource has made goes, in a fixed order; whatever else is there stays, row by row."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import psycopg
import pytest

from database_bootstrap.api.outcomes import Reason
from database_bootstrap.api.status import Status
from database_bootstrap.stages.deletion import Ending
from fix_engine import Bootstrap
from localservers import PostgresServer

USERS = {"1_users.sql": "CREATE TABLE users (id int)"}
SEED = {"users.sql": "INSERT INTO users VALUES (1), (2)"}
LEDGER_AS_A_VIEW = """
    DROP SCHEMA dbbootstrap CASCADE;
    CREATE TABLE public.proof (who name);
    CREATE FUNCTION public.trap() RETURNS uuid LANGUAGE plpgsql
        AS $$BEGIN INSERT INTO public.proof VALUES (current_user); RETURN '{}'; END$$;
    CREATE SCHEMA dbbootstrap AUTHORIZATION "{}";
    CREATE VIEW dbbootstrap.identity AS
        SELECT public.trap() AS incarnation, 'tests' AS cluster, 'shop' AS namespace, 'shop' AS name;
    GRANT SELECT ON dbbootstrap.identity TO PUBLIC; GRANT ALL ON public.proof TO PUBLIC
"""


@pytest.fixture
async def shop(bootstrap: Bootstrap) -> Bootstrap:
    """A resource with two rows, remembered as the controller does."""
    bootstrap.migrate("SQL", USERS)
    bootstrap.seed(SEED)
    bootstrap.remember(await bootstrap.ready())
    assert rows(bootstrap) == 2
    return bootstrap


def rows(shop: Bootstrap) -> int:
    ((count,),) = shop.as_superuser("SELECT count(*) FROM public.users", shop.database)
    return int(count)


def there(shop: Bootstrap) -> tuple[bool, bool]:
    """Return whether the database and the role are there."""
    ((found),) = shop.as_superuser(
        f"SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = '{shop.database}'),"
        f" EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{shop.role}')"
    )
    return bool(found[0]), bool(found[1])


def all_is_kept(shop: Bootstrap, ending: Ending, secrets: set[str]) -> None:
    """Make sure that no row, no role and no Secret went."""
    assert ending.drops == ()
    assert there(shop) == (True, True)
    assert rows(shop) == 2
    assert set(shop.drawer.secrets) == secrets


def trouble(ending: Ending) -> tuple[str, str]:
    assert ending.error is not None
    return ending.error.reason, ending.error.message


async def test_what_the_resource_has_made_goes_and_a_second_time_finds_nothing(shop: Bootstrap) -> None:
    assert shop.status.database
    with psycopg.connect(**shop.connection()) as application:  # ended with the database that it is connected to
        application.execute("SELECT * FROM users")
        ending = await shop.delete()
        application.close()
    assert ending.error is None
    assert ending.kept == ()
    assert [drop.text for drop in ending.drops] == [
        f'drop database "{shop.database}" (oid {shop.status.database.oid}, incarnation '
        f"{shop.status.database.incarnation})",
        f'drop role "{shop.role}"',
        "delete Secret shop-db",
        "delete Secret shop-role",
    ]
    assert there(shop) == (False, False)
    assert set(shop.drawer.secrets) == {"admin"}
    assert await shop.delete() == Ending()


@pytest.mark.parametrize("last_step", ["the database", "the role"])
async def test_deletion_that_was_killed_after_a_step_goes_on(shop: Bootstrap, last_step: str) -> None:
    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    if last_step == "the role":
        shop.as_superuser(f'DROP ROLE "{shop.role}"')
    ending = await shop.delete()
    assert ending.error is None
    assert there(shop) == (False, False)
    assert set(shop.drawer.secrets) == {"admin"}


async def test_deletion_of_what_never_came_to_be_finds_nothing(bootstrap: Bootstrap) -> None:
    assert await bootstrap.delete() == Ending()
    bootstrap.migrate("SQL", {"1_bad.sql": "SELECT broken"})
    bootstrap.remember(await bootstrap.apply())
    assert bootstrap.status.database and bootstrap.status.database.incarnation is None
    ending = await bootstrap.delete()
    assert ending.error is None
    assert len(ending.drops) == 3
    assert there(bootstrap) == (False, False)


async def test_deleted_duplicate_leaves_the_survivor_its_data(shop: Bootstrap) -> None:
    thief = shop.another("thief")
    report = await thief.apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    thief.remember(report)
    ending = await thief.delete()
    assert ending.error is None
    all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
    assert [said.partition(": ")[0] for said in ending.kept] == [
        f'Database "{shop.database}" is kept',
        f'Role "{shop.role}" is kept with its Secrets',
    ]
    assert all(f"belongs to shop/shop (cluster tests, uid {shop.owner.uid})" in said for said in ending.kept)
    assert (await shop.ready()).changes == ()


async def test_duplicate_with_a_role_of_its_own_takes_only_that_along(shop: Bootstrap) -> None:
    thief = shop.another("thief")
    database = {"name": f"{shop.database}_2", "template": "template0", "locale": {"provider": "Libc", "name": "xx_YY"}}
    thief.raw = thief.raw | {"role": {"name": f"{shop.role}_2"}, "database": database}
    assert (await thief.apply()).trouble  # with a role made, and no database
    thief.raw["database"] = shop.raw["database"]
    ending = await thief.delete()
    assert ending.error is None
    assert [drop.text for drop in ending.drops] == [f'drop role "{thief.role}"', "delete Secret thief-role"]
    assert there(shop) == (True, True)
    assert rows(shop) == 2


@pytest.mark.parametrize("taken", ["role and database", "role only"])
async def test_what_another_resource_has_taken_over_stays(shop: Bootstrap, taken: str) -> None:
    before = shop.as_superuser(
        f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{shop.database}'"
    )
    heir = shop.another("heir")
    heir.drawer.put("own", {"password": "new"})
    heir.raw = heir.raw | {"role": {"name": shop.role, "passwordSecretRef": {"name": "own"}}}
    heir.annotations = {"dbbootstrap.io/take-over": shop.owner.uid}
    await heir.ready()
    if taken == "role only":  # as the heir leaves it when it is killed between the two
        shop.as_superuser(f"COMMENT ON DATABASE \"{shop.database}\" IS '{before[0][0]}'")
    ending = await shop.delete()
    assert ending.error is None
    all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
    assert heir.query("SELECT count(*) FROM users") == [(2,)]


async def test_copy_of_a_cluster_under_another_name_drops_nothing(shop: Bootstrap) -> None:
    """It was restored from an etcd snapshot: resource and Secrets are there with the uids that they have here."""
    copy = replace(shop, owner=replace(shop.owner, cluster="copy"))
    refused = (await copy.apply()).trouble
    assert refused and refused.reason is Reason.NOT_OWNED
    ending = await copy.delete()
    assert ending.error is None
    all_is_kept(copy, ending, {"admin", "shop-db", "shop-role"})
    assert (await shop.ready()).changes == ()


async def test_what_was_taken_over_from_a_living_resource_stays(shop: Bootstrap) -> None:
    preview = shop.another("preview")
    preview.drawer.put("own", {"password": "new"})
    preview.raw = preview.raw | {"role": {"name": shop.role, "passwordSecretRef": {"name": "own"}}}
    refused = (await preview.apply()).trouble
    assert refused and "a living one would lose its database" in refused.message
    preview.annotations = {"dbbootstrap.io/take-over": shop.owner.uid}
    preview.remember(await preview.ready())
    assert preview.query("SELECT origin FROM dbbootstrap.identity") == [("Adopted",)]
    ending = await preview.delete()
    assert ending.error is None
    all_is_kept(preview, ending, {"admin", "own", "preview-db"})
    assert len(ending.kept) == 2
    assert all("only adopted it" in said for said in ending.kept)


@pytest.mark.parametrize("known", ["status", "ledger"])
async def test_adopted_database_stays_whatever_its_owner_writes_into_its_comment(
    bootstrap: Bootstrap, known: str
) -> None:
    bootstrap.as_superuser(f"CREATE ROLE \"{bootstrap.role}\" LOGIN PASSWORD 'theirs'")
    bootstrap.as_superuser(f'CREATE DATABASE "{bootstrap.database}" OWNER "{bootstrap.role}"')
    bootstrap.as_superuser("CREATE TABLE users AS SELECT generate_series(1, 2) AS id", bootstrap.database)
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    bootstrap.drawer.put("own", {"password": "theirs"})
    bootstrap.remember(await bootstrap.ready())
    bootstrap.query(
        "DO $$BEGIN EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), (SELECT replace("
        "shobj_description(oid, 'pg_database'), 'Adopted', 'Created') FROM pg_database"
        " WHERE datname = current_database())); END$$"
    )
    report = await bootstrap.ready()
    assert report.changes == ()
    assert report.facts.database and report.facts.database.origin == "Adopted"
    if known == "ledger":
        bootstrap.status = Status()
    else:
        bootstrap.as_superuser("UPDATE dbbootstrap.identity SET origin = 'Created'", bootstrap.database)
    ending = await bootstrap.delete()
    assert ending.error is None
    all_is_kept(bootstrap, ending, {"admin", "own", "shop-db"})
    assert f"{known} that it has only adopted it" in ending.kept[0]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        pytest.param("replace({0}, 'Created', 'Adopted')", "only adopted it", id="adopted"),
        pytest.param("replace({0}, '{1}', 'another')", "uid another", id="of another uid"),
        pytest.param("replace({0}, '\"tests\"', '\"elsewhere\"')", "cluster elsewhere", id="of another cluster"),
        pytest.param("'not a word of ours'", "no mark of this resource", id="unmarked"),
    ],
)
async def test_what_is_not_marked_as_made_here_stays(shop: Bootstrap, statement: str, said: str) -> None:
    for kind, name, catalogue, column, comments in (
        ("ROLE", shop.role, "pg_roles", "rolname", "pg_authid"),
        ("DATABASE", shop.database, "pg_database", "datname", "pg_database"),
    ):
        old = f"shobj_description((SELECT oid FROM {catalogue} WHERE {column} = '{name}'), '{comments}')"
        ((new,),) = shop.as_superuser(f"SELECT {statement.format(old, shop.owner.uid)}")
        shop.as_superuser(f"COMMENT ON {kind} \"{name}\" IS '{new}'")
    ending = await shop.delete()
    assert ending.error is None
    all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
    assert len(ending.kept) == 2
    assert all(said in one for one in ending.kept)


async def test_role_without_a_mark_stays_when_its_database_goes(shop: Bootstrap) -> None:
    shop.as_superuser(f'COMMENT ON ROLE "{shop.role}" IS NULL')
    ending = await shop.delete()
    assert ending.error is None
    assert there(shop) == (False, True)
    assert set(shop.drawer.secrets) == {"admin", "shop-db", "shop-role"}
    assert ending.kept == (f'Role "{shop.role}" is kept with its Secrets: it carries no mark of this resource',)


async def test_role_that_owns_a_database_which_stays_stays_too(shop: Bootstrap) -> None:
    shop.as_superuser(f"COMMENT ON DATABASE \"{shop.database}\" IS 'mine, says the DBA'")
    ending = await shop.delete()
    assert ending.error is None
    all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
    assert "no mark" in ending.kept[0]
    assert "depending on it are " in ending.kept[1]
    assert f"database {shop.database}" in ending.kept[1]


DOUBTS = {
    "another incarnation": ("UPDATE dbbootstrap.identity SET incarnation = gen_random_uuid()", Reason.FOREIGN_DATABASE),
    "ledger gone": ("DROP SCHEMA dbbootstrap CASCADE", Reason.DATA_LOSS_DETECTED),
}


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize("remembered", ["in the status", "on the Secret"])
async def test_data_that_is_not_what_was_set_up_here_stays_and_is_told_of(
    shop: Bootstrap, doubt: str, remembered: str
) -> None:
    statement, reason = DOUBTS[doubt]
    if remembered == "on the Secret":
        shop.status = Status()
    else:
        shop.drawer.secrets["shop-db"] = replace(shop.drawer.secrets["shop-db"], incarnation=None)
    shop.as_superuser(statement, shop.database)
    ending = await shop.delete()
    all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
    assert trouble(ending)[0] == reason


async def test_ledger_of_another_resource_in_a_database_that_was_never_complete_keeps_it(shop: Bootstrap) -> None:
    shop.as_superuser("UPDATE dbbootstrap.identity SET name = 'another'", shop.database)
    shop.status = shop.status.model_copy(update={"database": None})
    shop.drawer.secrets["shop-db"] = replace(shop.drawer.secrets["shop-db"], incarnation=None)
    ending = await shop.delete()
    all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
    assert trouble(ending)[0] == Reason.NOT_OWNED


async def test_ledger_that_is_a_trap_is_not_stepped_into(shop: Bootstrap) -> None:
    assert shop.status.database
    shop.as_superuser(LEDGER_AS_A_VIEW.format(shop.status.database.incarnation, shop.role), shop.database)
    ending = await shop.delete()
    all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
    assert trouble(ending)[0] == Reason.DATA_LOSS_DETECTED
    assert shop.as_superuser("SELECT count(*) FROM proof", shop.database) == [(0,)]


@pytest.mark.parametrize("known_by", ["system identifier", "address"])
async def test_database_that_is_missing_on_another_server_keeps_the_secrets(shop: Bootstrap, known_by: str) -> None:
    assert shop.status.server
    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    changed = {"system_identifier": "1"} if known_by == "system identifier" else {"system_identifier": None, "port": 1}
    shop.status = shop.status.model_copy(update={"server": shop.status.server.model_copy(update=changed)})
    ending = await shop.delete()
    assert ending.drops == ()
    assert there(shop) == (False, True)
    assert set(shop.drawer.secrets) == {"admin", "shop-db", "shop-role"}
    reason, message = trouble(ending)
    assert reason == Reason.DATA_LOSS_DETECTED
    assert "another server" in message


async def test_database_that_was_given_to_another_role_stays(shop: Bootstrap) -> None:
    shop.as_superuser(f'ALTER DATABASE "{shop.database}" OWNER TO "{shop.server.superuser}"')
    ending = await shop.delete()
    all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
    reason, message = trouble(ending)
    assert reason == Reason.SETTING_MISMATCH
    shop.as_superuser(message.rpartition("give it back with ")[2])
    assert (await shop.delete()).error is None


async def test_role_with_objects_elsewhere_stays_until_they_are_somebody_elses(shop: Bootstrap) -> None:
    other = f"{shop.database}_other"
    shop.as_superuser(f'CREATE DATABASE "{other}"')
    shop.as_superuser(f'GRANT CONNECT ON DATABASE "{other}" TO "{shop.role}"')
    shop.as_superuser(f'CREATE TABLE kept AS SELECT 7; ALTER TABLE kept OWNER TO "{shop.role}"', other)
    ending = await shop.delete()
    assert [drop.stage for drop in ending.drops] == ["database"]
    reason, message = trouble(ending)
    assert reason == Reason.ROLE_OWNS_OBJECTS
    assert f'1 object in database "{other}"' in message
    assert there(shop) == (False, True)
    assert {"shop-db", "shop-role"} <= set(shop.drawer.secrets)
    (_, _, statement) = message.partition(f'somebody else in database "{other}" with ')
    assert statement.startswith("REASSIGN OWNED BY")
    shop.as_superuser(statement, other)
    ending = await shop.delete()
    assert ending.error is None
    is_superuser = shop.as_superuser(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{shop.admin.user}'")[0][0]
    if not is_superuser:  # What a superuser has given is not the administrator's to take away.
        assert f"(database {other})" in ending.kept[0]
        shop.as_superuser(f'DROP OWNED BY "{shop.role}"; DROP ROLE "{shop.role}"')
    assert [drop.stage for drop in ending.drops] == ["role"] * is_superuser + ["connection", "connection"]
    assert shop.as_superuser("SELECT * FROM kept", other) == [(7,)]


@contextmanager
def session_of(server: PostgresServer, database: str) -> Iterator[psycopg.Connection]:
    """A session of somebody who is neither the administrator nor the role, in the middle of a transaction."""
    with ExitStack() as stack:
        somebody = stack.enter_context(psycopg.connect(server.dsn(database)))
        somebody.execute("SELECT count(*) FROM public.users")
        yield somebody
        stack.callback(somebody.close)


async def test_dump_that_is_being_taken_is_waited_for(shop: Bootstrap) -> None:
    with session_of(shop.server, shop.database) as somebody:
        ending = await shop.delete()
        all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
        reason, message = trouble(ending)
        assert reason == Reason.SERVER_BUSY
        assert f'sessions of "{shop.server.superuser}" (1)' in message
        somebody.close()
    assert (await shop.delete()).error is None


async def test_idle_session_of_somebody_else_ends_where_the_administrator_may_end_it(shop: Bootstrap) -> None:
    is_superuser = shop.as_superuser(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{shop.admin.user}'")[0][0]
    with session_of(shop.server, shop.database) as somebody:
        somebody.rollback()
        ending = await shop.delete()
        if not is_superuser:  # It may neither see what the session does, nor end it.
            assert trouble(ending)[0] == Reason.SERVER_BUSY
            all_is_kept(shop, ending, {"admin", "shop-db", "shop-role"})
        somebody.close()
    assert (await shop.delete()).error is None
    assert there(shop) == (False, False)


async def test_administrator_that_does_not_inherit_drops_as_the_owner(bootstrap: Bootstrap) -> None:
    bootstrap.as_superuser(f'ALTER ROLE "{bootstrap.admin.user}" NOINHERIT')
    if bootstrap.server.major >= 16:  # What it makes, it can become, and is not.
        bootstrap.as_superuser(f"ALTER ROLE \"{bootstrap.admin.user}\" SET createrole_self_grant = 'set'")
    bootstrap.remember(await bootstrap.ready())
    ending = await bootstrap.delete()
    assert ending.error is None
    assert there(bootstrap) == (False, False)


async def test_administrator_without_a_right_is_told_which(shop: Bootstrap) -> None:
    other = shop.server.admin_role("createrole")
    shop.drawer.put(
        "admin",
        {key: value.decode() for key, value in shop.drawer.secrets["admin"].data.items()}
        | {"username": other.user, "password": other.password},
    )
    said = []
    for _ in range(4):
        ending = await shop.delete()
        if ending.error is None:
            break
        reason, message = trouble(ending)
        assert reason == Reason.ACCESS_DENIED
        said.append(message)
        shop.run_cure(message)
    assert ending.error is None
    assert there(shop) == (False, False)
    assert "may not enter" in said[0]
    assert "dbbootstrap.identity" in said[1]
    assert len(said) == (3 if shop.server.major >= 16 else 2)


async def test_admin_secret_that_names_the_very_database_serves_all_the_same(shop: Bootstrap) -> None:
    data = {key: value.decode() for key, value in shop.drawer.secrets["admin"].data.items()}
    shop.drawer.put("admin", data | {"dbname": shop.database})
    ending = await shop.delete()
    assert ending.error is None
    assert there(shop) == (False, False)


async def test_secret_of_another_stays(shop: Bootstrap) -> None:
    shop.drawer.secrets["shop-role"] = replace(shop.drawer.secrets["shop-role"], ours=False)
    ending = await shop.delete()
    assert ending.error is None
    assert ending.kept == ("Secret shop-role is kept: it was not made by this very resource",)
    assert set(shop.drawer.secrets) == {"admin", "shop-role"}


async def test_connection_secret_of_an_earlier_name_goes_too(shop: Bootstrap) -> None:
    shop.raw = shop.raw | {"connectionSecret": {"name": "renamed"}}
    ending = await shop.delete()
    assert ending.error is None
    assert set(shop.drawer.secrets) == {"admin"}


async def test_without_the_admin_secret_everything_stays(shop: Bootstrap) -> None:
    admin = shop.drawer.secrets.pop("admin")
    ending = await shop.delete()
    all_is_kept(shop, ending, {"shop-db", "shop-role"})
    assert trouble(ending)[0] == Reason.REFERENCE_NOT_FOUND
    shop.drawer.secrets["admin"] = admin
    assert (await shop.delete()).error is None
