"""Access: given to roles that are there, waited for, kept up with what comes, limited, and taken back."""

import secrets
from collections.abc import Callable, Mapping

import psycopg
import pytest

from database_bootstrap.api.outcomes import Reason, StageName, Verdict
from fix_engine import Bootstrap, outcome
from postgres import alembic_projects as projects

PASSWORD = secrets.token_hex(8)
FIRST = "CREATE TABLE item (id serial PRIMARY KEY, name text); CREATE VIEW names AS SELECT name FROM item;"
SECOND = "CREATE TABLE app.later (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);"
Make = Callable[..., str]


@pytest.fixture
def make_role(bootstrap: Bootstrap, unique_name: Callable[[str], str]) -> Make:
    """Return a function that makes a login role of somebody else."""

    def make(name: str) -> str:
        role = unique_name(name)
        bootstrap.as_superuser(f"CREATE ROLE {quoted(role)} LOGIN PASSWORD '{PASSWORD}'")
        return role

    return make


def quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'


def give(bootstrap: Bootstrap, **levels: str) -> None:
    bootstrap.raw["access"] = [{"role": role, "level": level} for role, level in levels.items()]


def shop(bootstrap: Bootstrap, *, more: Mapping[str, str] | None = None) -> None:
    """Ask for a schema, a history of Prisma's, and a seed."""
    bootstrap.raw["schemas"] = [{"name": "app"}]
    bootstrap.migrate("Prisma", {"1_first/migration.sql": FIRST} | dict(more or {}))
    bootstrap.seed({"item.sql": "INSERT INTO item (name) VALUES ('a')"})


def can(bootstrap: Bootstrap, role: str, statement: str) -> bool:
    """Return whether the role, logged in by itself, may do this; nothing of it stays."""
    try:
        with psycopg.connect(**(bootstrap.connection() | {"user": role, "password": PASSWORD})) as connection:
            connection.execute(statement.encode())
            connection.rollback()
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.OperationalError as error:
        if "permission denied for database" not in str(error):
            raise
        return False
    return True


READS = ("SELECT 1 FROM item", "SELECT 1 FROM names", "SELECT last_value FROM item_id_seq")
WRITES = ("INSERT INTO item (name) VALUES ('b')", "UPDATE item SET name = 'c'", "DELETE FROM item")
OURS = (
    "UPDATE _prisma_migrations SET logs = NULL",
    "DELETE FROM _prisma_migrations",
    "SELECT 1 FROM dbbootstrap.seed",
    "INSERT INTO dbbootstrap.audit_log (stage, action, actor) VALUES ('', '', '')",
    "SELECT setval('item_id_seq', 1)",
    "TRUNCATE item",
    "CREATE TABLE mine (id int)",
)


async def test_levels_let_roles_do_what_they_say_now_and_later(bootstrap: Bootstrap, make_role: Make) -> None:
    reader, writer = make_role("re'ad\"er %s \\"), make_role("writer")
    give(bootstrap, **{reader: "ReadOnly", writer: "ReadWrite"})
    shop(bootstrap)
    report = await bootstrap.ready()
    assert outcome(report, StageName.ACCESS).reason is Reason.ACCESS_GIVEN
    assert f'give role "{writer}" ReadWrite access: CONNECT, 2 schemas, 2 tables' in " ".join(report.changes)
    assert [can(bootstrap, reader, one) for one in READS + WRITES] == [True] * 3 + [False] * 3
    assert [can(bootstrap, writer, one) for one in READS + WRITES] == [True] * 6
    assert [can(bootstrap, role, one) for one in OURS for role in (reader, writer)] == [False] * 14
    assert (await bootstrap.ready()).changes == ()
    shop(bootstrap, more={"2_second/migration.sql": SECOND})
    report = await bootstrap.ready()
    # What comes later is given by the server itself, with the table.
    assert outcome(report, StageName.ACCESS).changes == ()
    assert can(bootstrap, reader, "SELECT 1 FROM app.later")
    assert can(bootstrap, writer, "INSERT INTO app.later (name) VALUES ('x')")
    assert not can(bootstrap, reader, "INSERT INTO app.later (name) VALUES ('x')")


async def test_less_is_taken_back_and_so_is_everything(bootstrap: Bootstrap, make_role: Make) -> None:
    one, other = make_role("one"), make_role("other")
    give(bootstrap, **{one: "ReadWrite", other: "ReadWrite"})
    shop(bootstrap)
    await bootstrap.ready()
    give(bootstrap, **{one: "ReadOnly"})
    assert (await bootstrap.ready()).changes == (
        f'limit role "{one}" to ReadOnly access',
        f'take access from role "{other}"',
    )
    assert [can(bootstrap, one, it) for it in READS + WRITES] == [True] * 3 + [False] * 3
    assert not can(bootstrap, other, "SELECT 1")
    assert (await bootstrap.ready()).changes == ()
    shop(bootstrap, more={"2_second/migration.sql": SECOND})
    await bootstrap.ready()
    assert not can(bootstrap, one, "INSERT INTO app.later (name) VALUES ('x')")
    bootstrap.raw["access"] = []
    bootstrap.status = bootstrap.status.model_copy(update={"conditions": ()})  # what was given is in the database
    assert (await bootstrap.ready()).changes == (f'take access from role "{one}"',)
    left = "SELECT 1 FROM pg_shdepend d JOIN pg_roles r ON r.oid = refobjid WHERE rolname IN ('{}', '{}')"
    assert bootstrap.as_superuser(left.format(one, other)) == []


async def test_what_was_given_is_taken_back_however_long_ago_it_was(bootstrap: Bootstrap, make_role: Make) -> None:
    one = make_role('o"ne')
    give(bootstrap, **{one: "ReadOnly"})
    await bootstrap.ready()
    bootstrap.query(
        "INSERT INTO dbbootstrap.audit_log (stage, action, actor)"
        " SELECT 'access', 'give role \"' || name || '\" ReadOnly access: 1 table', 'a' FROM generate_series(1, 1001),"
        " unnest(ARRAY['gone', repeat('x', 1000), E'new\nline']) AS name"
    )
    give(bootstrap)
    assert set((await bootstrap.ready()).changes) == {f'take access from role "{it}"' for it in (one, "gone")}
    assert not can(bootstrap, one, "SELECT 1")
    assert (await bootstrap.ready()).changes == ()


async def test_a_history_that_comes_later_is_not_writable(bootstrap: Bootstrap, make_role: Make) -> None:
    writer = make_role("writer")
    give(bootstrap, **{writer: "ReadWrite"})
    bootstrap.raw["schemas"] = [{"name": "app"}]
    await bootstrap.ready()
    shop(bootstrap)
    report = await bootstrap.ready()
    assert outcome(report, StageName.ACCESS).changes == (f'limit role "{writer}" to ReadWrite access',)
    assert not can(bootstrap, writer, OURS[0])
    assert can(bootstrap, writer, "SELECT 1 FROM _prisma_migrations")
    assert can(bootstrap, writer, WRITES[0])
    assert (await bootstrap.ready()).changes == ()


async def test_a_role_that_is_not_there_is_waited_for_and_holds_nothing_up(
    bootstrap: Bootstrap, make_role: Make, unique_name: Callable[[str], str]
) -> None:
    there, late = make_role("there"), unique_name("late")
    give(bootstrap, **{late: "ReadOnly", there: "ReadOnly"})
    shop(bootstrap)
    report = await bootstrap.apply()
    verdicts = [one.verdict for one in report.outcomes]
    assert verdicts == [*[Verdict.DONE] * 6, Verdict.RETRY]
    assert report.trouble and report.trouble.reason is Reason.ACCESS_ROLE_NOT_FOUND
    assert f'CREATE ROLE "{late}" LOGIN' in report.trouble.message
    assert bootstrap.query("SELECT name FROM item") == [("a",)]
    assert can(bootstrap, there, "SELECT 1 FROM item")
    again = await bootstrap.apply()
    assert (again.changes, again.trouble) == ((), outcome(again, StageName.ACCESS))
    bootstrap.as_superuser(f"CREATE ROLE {quoted(late)} LOGIN PASSWORD '{PASSWORD}'")
    assert len((await bootstrap.ready()).changes) == 1
    assert can(bootstrap, late, "SELECT 1 FROM item")


async def test_what_others_have_granted_is_never_taken_back(bootstrap: Bootstrap, make_role: Make) -> None:
    shop(bootstrap)
    await bootstrap.ready()
    theirs, listed, unlisted = make_role("theirs"), make_role("listed"), make_role("unlisted")
    for role in (theirs, unlisted):
        bootstrap.query(
            f'GRANT CONNECT ON DATABASE "{bootstrap.database}" TO "{role}"; GRANT SELECT ON item TO "{role}"'
        )
    bootstrap.query(f'GRANT TRUNCATE ON item TO "{listed}"')
    give(bootstrap, **{listed: "ReadOnly", unlisted: "ReadOnly"})
    bootstrap.raw["access"].pop()
    await bootstrap.ready()
    # More than the level, by somebody else's hand: ReadOnly was all that was ever given.
    bootstrap.query(f'GRANT INSERT ON item TO "{listed}"')
    assert (await bootstrap.ready()).changes == ()
    assert can(bootstrap, listed, "INSERT INTO item (id, name) VALUES (77, 'x')")
    bootstrap.raw["access"] = []
    assert (await bootstrap.ready()).changes == (f'take access from role "{listed}"',)
    assert can(bootstrap, theirs, "SELECT 1 FROM item")
    assert can(bootstrap, unlisted, "SELECT 1 FROM item")
    assert bootstrap.query(
        "SELECT array_agg(privilege_type ORDER BY 1) FROM pg_class, aclexplode(relacl)"
        f" WHERE relname = 'item' AND grantee = '{listed}'::regrole"
    ) == [(["INSERT", "TRUNCATE"],)]


async def test_access_is_taken_back_although_migrations_wait_for_a_person(
    bootstrap: Bootstrap, make_role: Make
) -> None:
    leaving, coming = make_role("leaving"), make_role("coming")
    give(bootstrap, **{leaving: "ReadOnly"})
    shop(bootstrap)
    await bootstrap.ready()
    shop(bootstrap, more={"2_bad/migration.sql": "SET search_path TO nowhere; SELECT 1 / 0"})
    give(bootstrap, **{coming: "ReadOnly"})
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.MIGRATION_FAILED
    assert [one.verdict.value for one in report.outcomes][3:] == ["Stalled", "Blocked", "Blocked", "Done"]
    assert len(outcome(report, StageName.ACCESS).changes) == 2
    assert (can(bootstrap, leaving, "SELECT 1"), can(bootstrap, coming, "SELECT 1 FROM item")) == (False, True)
    bootstrap.query(f'REVOKE SELECT ON item FROM "{coming}"')
    planned = await bootstrap.plan()
    assert outcome(planned, StageName.ACCESS).changes == (f'give role "{coming}" ReadOnly access: 1 table',)
    give(bootstrap, **{"nobody": "ReadOnly"})
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.stage is StageName.MIGRATIONS
    assert outcome(report, StageName.ACCESS).reason is Reason.ACCESS_ROLE_NOT_FOUND
    assert not can(bootstrap, coming, "SELECT 1")


async def test_a_history_by_another_name_is_not_writable_either(bootstrap: Bootstrap, make_role: Make) -> None:
    writer = make_role("writer")
    give(bootstrap, **{writer: "ReadWrite"})
    bootstrap.raw["schemas"] = [{"name": "The History"}]
    bootstrap.migrate("Alembic", projects.project(projects.chain(projects.FIVE), projects.OTHER_TABLE))
    await bootstrap.ready()
    update = 'UPDATE "The History"."Shop.Version" SET version_num = version_num'
    assert (can(bootstrap, writer, "DELETE FROM customer"), can(bootstrap, writer, update)) == (True, False)
    bootstrap.migrate("Alembic", {"a.py": "no revision"})
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.stage is StageName.MIGRATIONS
    assert (outcome(report, StageName.ACCESS).verdict, report.changes) == (Verdict.DONE, ())
    assert not can(bootstrap, writer, update)


async def test_a_role_that_was_dropped_is_forgotten(bootstrap: Bootstrap, make_role: Make) -> None:
    role = make_role("brief")
    give(bootstrap, **{role: "ReadWrite"})
    shop(bootstrap)
    await bootstrap.ready()
    bootstrap.as_superuser(f'DROP OWNED BY "{role}"', bootstrap.database)
    bootstrap.as_superuser(f'DROP ROLE "{role}"')
    bootstrap.raw["access"] = []
    assert (await bootstrap.ready()).changes == (f'take access from role "{role}"',)
    bootstrap.as_superuser(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}'")
    bootstrap.query(f'GRANT CONNECT ON DATABASE "{bootstrap.database}" TO "{role}"')
    assert (await bootstrap.ready()).changes == ()
    assert can(bootstrap, role, "SELECT 1")


async def test_drift_is_mended_and_objects_of_others_are_left_alone(bootstrap: Bootstrap, make_role: Make) -> None:
    role = make_role("reader")
    give(bootstrap, **{role: "ReadOnly"})
    shop(bootstrap)
    await bootstrap.ready()
    bootstrap.query(f'REVOKE SELECT ON item FROM "{role}"; REVOKE USAGE ON SCHEMA app FROM "{role}"')
    bootstrap.as_superuser("CREATE TABLE public.dba (id int); CREATE SEQUENCE public.dba_seq", bootstrap.database)
    assert (await bootstrap.ready()).changes == (f'give role "{role}" ReadOnly access: 1 schema, 1 table',)
    assert not can(bootstrap, role, "SELECT 1 FROM dba")


async def test_plan_says_who_would_get_what(
    bootstrap: Bootstrap, make_role: Make, unique_name: Callable[[str], str]
) -> None:
    there, late = make_role("there"), unique_name("late")
    give(bootstrap, **{there: "ReadWrite", late: "ReadOnly"})
    shop(bootstrap)
    wait = f'wait for role "{late}", which is to have access and is not there'
    planned = outcome(await bootstrap.plan(), StageName.ACCESS)
    assert planned.changes == (f'give role "{there}" ReadWrite access', wait)
    await bootstrap.apply()
    assert outcome(await bootstrap.plan(), StageName.ACCESS).changes == (wait,)
    give(bootstrap, **{there: "ReadOnly"})
    assert (await bootstrap.plan()).changes == (f'limit role "{there}" to ReadOnly access',)
    assert can(bootstrap, there, WRITES[0])


async def test_the_administrator_and_a_closed_schema_are_refused(bootstrap: Bootstrap, make_role: Make) -> None:
    shop(bootstrap)
    await bootstrap.ready()
    give(bootstrap, **{bootstrap.admin.user: "ReadOnly"})
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.SPEC_REJECTED
    assert bootstrap.admin.user in report.trouble.message
    role = make_role("reader")
    give(bootstrap, **{role: "ReadOnly"})
    owner = bootstrap.as_superuser("SELECT current_user")[0][0]
    bootstrap.as_superuser(
        f'ALTER SCHEMA public OWNER TO "{owner}"; REVOKE ALL ON SCHEMA public FROM PUBLIC', bootstrap.database
    )
    bootstrap.as_superuser(f'GRANT USAGE, CREATE ON SCHEMA public TO "{bootstrap.role}"', bootstrap.database)
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.ACCESS_DENIED
    bootstrap.run_cure(report.trouble.message)
    await bootstrap.ready()
    assert can(bootstrap, role, "SELECT 1 FROM item")


async def test_a_log_that_the_role_has_written_harms_nobody_else(bootstrap: Bootstrap, make_role: Make) -> None:
    shop(bootstrap)
    await bootstrap.ready()
    other = make_role("other")
    for name in ("public", bootstrap.role, "pg_monitor", other, other + '"; DROP TABLE item; --'):
        entry = f'give role "{name}" ReadWrite access'
        insert = "INSERT INTO dbbootstrap.audit_log (stage, action, actor) VALUES ('access', '{}', '')"
        bootstrap.query(insert.format(entry))
    before = bootstrap.as_superuser(
        "SELECT datacl::text FROM pg_database WHERE datname = current_database()", bootstrap.database
    )
    report = await bootstrap.ready()
    assert [change.partition(" from role ")[0] for change in report.changes] == ["take access"] * 2
    assert (
        bootstrap.as_superuser(
            "SELECT datacl::text FROM pg_database WHERE datname = current_database()", bootstrap.database
        )
        == before
    )
    assert bootstrap.query("SELECT 1 FROM item") == [(1,)]
    assert (await bootstrap.ready()).changes == ()


async def test_access_for_another_tenants_role_opens_nothing_of_theirs(
    bootstrap: Bootstrap, make_bootstrap: Callable[[str], Bootstrap]
) -> None:
    theirs = make_bootstrap("victim")
    theirs.migrate("SQL", {"1_a.sql": "CREATE TABLE secret (id int); INSERT INTO secret VALUES (1)"})
    await theirs.ready()
    before = memberships(bootstrap)
    give(bootstrap, **{theirs.role: "ReadWrite"})
    shop(bootstrap)
    await bootstrap.ready()
    # They may come in here, and nobody from here to them.
    assert bootstrap.query("SELECT name FROM item", user=theirs.role, password=theirs.connection()["password"]) == [
        ("a",)
    ]
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        bootstrap.query("SELECT 1 FROM secret", dbname=theirs.database)
    for statement in (f'SET ROLE "{theirs.role}"', f'GRANT "{theirs.role}" TO "{bootstrap.role}"'):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            bootstrap.query(statement)
    assert memberships(bootstrap) - before <= {(bootstrap.role, bootstrap.admin.user)}


def memberships(bootstrap: Bootstrap) -> set[tuple[str, str]]:
    """Return (role, member) of all memberships of the server."""
    return set(bootstrap.as_superuser("SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members"))
