"""Adoption: what existed before is taken with proof, by an administrator's word, or not at all; rows stay."""

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from database_bootstrap.api import names
from database_bootstrap.api.outcomes import Reason, StageName, Verdict
from database_bootstrap.api.status import Origin, Status
from database_bootstrap.postgres.ownership import mark_in
from database_bootstrap.stages.subject import Report
from fix_engine import Bootstrap, outcome, within

PASSWORD = "theirs: 'quoted' \\ %"


def quoted(password: str) -> str:
    return "'" + password.replace("'", "''") + "'"


@pytest.fixture
def legacy(bootstrap: Bootstrap) -> Bootstrap:
    """A resource for a role and a database with rows that somebody has made by hand, years ago."""
    bootstrap.as_superuser(
        f'CREATE ROLE "{bootstrap.role}" LOGIN CREATEDB CONNECTION LIMIT 20 PASSWORD {quoted(PASSWORD)}'
    )
    bootstrap.as_superuser(f"COMMENT ON ROLE \"{bootstrap.role}\" IS 'ask Ann'")
    bootstrap.as_superuser(f'CREATE DATABASE "{bootstrap.database}" OWNER "{bootstrap.role}"')
    bootstrap.as_superuser(f"COMMENT ON DATABASE \"{bootstrap.database}\" IS 'of team X'")
    query_as_role(bootstrap, "CREATE TABLE users (id int); INSERT INTO users VALUES (1), (2), (3)")
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    bootstrap.drawer.put("own", {"password": PASSWORD})
    return bootstrap


def query_as_role(bootstrap: Bootstrap, query: str) -> list[Any]:
    dsn = bootstrap.server.dsn(bootstrap.database, bootstrap.role, PASSWORD)
    with psycopg.connect(dsn) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def before(bootstrap: Bootstrap) -> Any:
    """Return all that adoption must not change: password, attributes, rights of others, tables and rows."""
    return bootstrap.as_superuser(
        "SELECT rolpassword, rolcreatedb, rolconnlimit, rolcanlogin, rolinherit, datdba,"
        " has_database_privilege('public', d.oid, 'CONNECT, TEMPORARY'), datconnlimit, (SELECT count(*) FROM users)"
        f" FROM pg_authid, pg_database d WHERE rolname = '{bootstrap.role}' AND datname = '{bootstrap.database}'",
        bootstrap.database,
    )


def comments(bootstrap: Bootstrap) -> tuple[str | None, str | None]:
    ((role, database),) = bootstrap.as_superuser(
        "SELECT shobj_description(r.oid, 'pg_authid'), shobj_description(d.oid, 'pg_database')"
        f" FROM pg_roles r, pg_database d WHERE rolname = '{bootstrap.role}' AND datname = '{bootstrap.database}'"
    )
    return role, database


def may_not_mark(bootstrap: Bootstrap) -> bool:
    """Whether the administrator can do nothing to a role that it has not made."""
    kind = bootstrap.as_superuser(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{bootstrap.admin.user}'")
    return bootstrap.server.major >= 16 and kind == [(False,)]


def remember(bootstrap: Bootstrap, report: Report) -> None:
    facts = report.facts
    bootstrap.status = Status(server=facts.server, role=facts.role, database=facts.database, binding=facts.binding)


def refused(report: Report, reason: Reason, *words: str) -> None:
    """Insist that a visit changed nothing, and said all of these words."""
    assert report.trouble and report.trouble.reason is reason, report.trouble
    assert report.changes == ()
    assert all(word in report.trouble.message for word in words), report.trouble.message


async def test_legacy_is_adopted_with_its_credentials_and_nothing_else_is_changed(legacy: Bootstrap) -> None:
    found = before(legacy)
    planned = await legacy.plan()
    assert comments(legacy) == ("ask Ann", "of team X")
    report = await legacy.ready()
    assert before(legacy) == found
    assert legacy.query("SELECT count(*) FROM users") == [(3,)]
    assert report.changes == planned.changes

    text = " ".join(report.changes)
    assert f'database "{legacy.database}" (owner "{legacy.role}", UTF8, 1 table: public.users, PUBLIC may conn' in text
    (announced,) = [said[-1] for said in legacy.progress if said[-1].verdict is Verdict.UNDERWAY]
    assert f'role "{legacy.role}" (LOGIN, CREATEDB, CONNECTION LIMIT 20)' in announced.message
    assert "1 table: public.users" in announced.message

    assert report.facts.role and report.facts.role.origin is Origin.ADOPTED
    assert report.facts.database and report.facts.database.origin is Origin.ADOPTED
    role_comment, database_comment = comments(legacy)
    assert database_comment and database_comment.startswith("of team X\n")
    database_mark = mark_in(database_comment)
    assert database_mark and (database_mark.owner, database_mark.origin) == (legacy.owner, "Adopted")
    assert database_mark.role_unmarked == may_not_mark(legacy)
    assert (mark_in(role_comment) is None) == may_not_mark(legacy)
    assert role_comment and role_comment.startswith("ask Ann")

    logged = [action for (action,) in legacy.query("SELECT action FROM dbbootstrap.audit_log ORDER BY seq")]
    assert logged == list(report.changes)

    again = await legacy.ready()
    assert again.changes == ()
    assert again.facts == report.facts
    database = next(outcome for outcome in again.outcomes if outcome.stage is StageName.DATABASE)
    assert any("REVOKE CONNECT" in warning for warning in database.warnings)
    thief = legacy.another("thief")
    thief.drawer.put("own", {"password": PASSWORD})
    refused(await thief.apply(), Reason.NOT_OWNED, "shop/shop", f"dbbootstrap.io/take-over={legacy.owner.uid}")


@pytest.mark.parametrize("admin", ["superuser"], indirect=True)
async def test_empty_database_of_an_adopted_role_was_not_made_here(legacy: Bootstrap) -> None:
    query_as_role(legacy, "DROP TABLE users")
    report = await legacy.ready()
    assert report.facts.database and report.facts.database.origin is Origin.ADOPTED
    assert legacy.query("SELECT has_database_privilege('public', current_database(), 'CONNECT')") == [(True,)]


@pytest.mark.parametrize("admin", ["superuser"], indirect=True)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("CREATE TABLE restored (id int)", "1 table: public.restored"),
        ("SELECT lo_from_bytea(0, 'kept')", "no tables, large objects: 1"),
        ("CREATE MATERIALIZED VIEW restored AS SELECT 1", "no tables, materialized views and foreign tables: 1"),
    ],
)
async def test_database_with_data_that_a_dba_made_for_our_role_was_not_made_here(
    bootstrap: Bootstrap, content: str, words: str
) -> None:
    await bootstrap.ready()
    del bootstrap.drawer.secrets["shop-db"]
    bootstrap.as_superuser(f'DROP DATABASE "{bootstrap.database}"')
    bootstrap.as_superuser(f'CREATE DATABASE "{bootstrap.database}" OWNER "{bootstrap.role}"')
    bootstrap.as_superuser(content, bootstrap.database)
    bootstrap.raw["adoption"] = "Never"
    refused(await bootstrap.apply(), Reason.NOT_OWNED, "spec.adoption is Never")
    del bootstrap.raw["adoption"]
    report = await bootstrap.ready()
    assert words in " ".join(report.changes)
    assert report.facts.role and report.facts.role.origin is Origin.CREATED
    assert report.facts.database and report.facts.database.origin is Origin.ADOPTED


async def test_what_is_adopted_is_taken_back_by_the_resource_made_again(legacy: Bootstrap) -> None:
    await legacy.ready()
    again = legacy.another("shop")
    again.drawer.secrets |= legacy.drawer.secrets
    await again.ready()
    assert (await again.ready()).changes == ()
    assert again.query("SELECT count(*) FROM users") == [(3,)]
    mark = mark_in(comments(again)[1])
    assert mark and (mark.owner, mark.role_unmarked) == (again.owner, may_not_mark(again))


@pytest.mark.parametrize("admin", ["createrole"], indirect=True)
async def test_adoption_that_was_not_asked_for_or_is_not_proven_takes_nothing(legacy: Bootstrap) -> None:
    found = (before(legacy), comments(legacy))
    legacy.raw["adoption"] = "Never"
    refused(await legacy.apply(), Reason.NOT_OWNED, "spec.adoption is Never")
    for adoption in ("WithCredentials", "Force"):
        legacy.raw["adoption"] = adoption
        legacy.drawer.put("own", {"password": "wrong"})
        refused(await legacy.apply(), Reason.NOT_OWNED, "password in Secret own", "ALTER ROLE")
        legacy.drawer.put("own", {"password": PASSWORD})
        legacy.as_superuser(f'ALTER ROLE "{legacy.role}" NOLOGIN')
        refused(await legacy.apply(), Reason.ROLE_LOGIN_REFUSED, f'ALTER ROLE "{legacy.role}" LOGIN')
        legacy.as_superuser(f'ALTER ROLE "{legacy.role}" LOGIN')
        legacy.raw["database"]["encoding"] = "LATIN1"
        refused(await legacy.apply(), Reason.SETTING_MISMATCH, "LATIN1")
        del legacy.raw["database"]["encoding"]
    del legacy.raw["role"]["passwordSecretRef"], legacy.raw["adoption"]
    refused(await legacy.apply(), Reason.NOT_OWNED, "role.passwordSecretRef")
    assert (before(legacy), comments(legacy)) == found


@pytest.mark.parametrize("adoption", ["WithCredentials", "Force"])
@pytest.mark.parametrize("admin", ["superuser"], indirect=True)
async def test_roles_with_power_are_never_adopted(legacy: Bootstrap, adoption: str) -> None:
    legacy.raw["adoption"] = adoption
    group = f"{legacy.role}_dba"
    legacy.as_superuser(f'CREATE ROLE "{group}" CREATEROLE')
    for power in ("SUPERUSER", "REPLICATION", "BYPASSRLS", "CREATEROLE"):
        legacy.as_superuser(f'ALTER ROLE "{legacy.role}" {power}')
        refused(await legacy.apply(), Reason.ROLE_TOO_POWERFUL, f"NO{power}")
        legacy.as_superuser(f'ALTER ROLE "{legacy.role}" NO{power}')
    for above, through in ((group, None), (group, f"{legacy.role}_team"), ("pg_execute_server_program", None)):
        if through:
            legacy.as_superuser(f'CREATE ROLE "{through}" IN ROLE "{above}"')
        legacy.as_superuser(f'GRANT "{through or above}" TO "{legacy.role}"')
        refused(await legacy.apply(), Reason.ROLE_TOO_POWERFUL, f'"{above}"', "REVOKE")
        legacy.as_superuser(f'REVOKE "{through or above}" FROM "{legacy.role}"')
    assert mark_in(comments(legacy)[1]) is None


@pytest.mark.parametrize("admin", ["createrole"], indirect=True)
async def test_administrator_itself_is_never_adopted(bootstrap: Bootstrap) -> None:
    bootstrap.raw["role"] = {"name": bootstrap.admin.user, "passwordSecretRef": {"name": "own"}}
    bootstrap.raw["adoption"] = "Force"
    bootstrap.drawer.put("own", {"password": bootstrap.admin.password})
    refused(await bootstrap.apply(), Reason.NOT_OWNED, "administrator itself")


@pytest.mark.parametrize("admin", ["createrole"], indirect=True)
async def test_login_without_scram_proves_nothing(legacy: Bootstrap) -> None:
    admin = {key: value.decode() for key, value in legacy.drawer.secrets["admin"].data.items()}
    legacy.drawer.put("admin", admin | {"require_auth": "scram-sha-256,none"})
    refused(await legacy.apply(), Reason.NOT_OWNED, "proves nothing")
    legacy.raw["adoption"] = "Force"
    await legacy.ready()


@pytest.fixture
async def trusted(legacy: Bootstrap) -> AsyncIterator[Bootstrap]:
    """The same on a server that lets the role in with any password, or none."""
    rules = legacy.server.datadir / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f'host all "{legacy.role}" 127.0.0.1/32 trust\n{before}')
    legacy.as_superuser("SELECT pg_reload_conf()")
    dsn = legacy.server.dsn(legacy.database, legacy.role, "anything")
    try:
        await within(10, lambda: lets_in(dsn))
        yield legacy
    finally:
        rules.write_text(before)
        legacy.as_superuser("SELECT pg_reload_conf()")
        await within(10, lambda: not lets_in(dsn))


def lets_in(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


async def test_password_that_no_server_asked_for_proves_nothing(trusted: Bootstrap) -> None:
    kept = before(trusted)
    trusted.drawer.put("own", {"password": "guessed"})
    report = await trusted.apply()
    assert report.changes == ()
    assert comments(trusted) == ("ask Ann", "of team X")
    assert before(trusted) == kept
    assert report.trouble
    assert "shop-db" not in trusted.drawer.secrets


async def test_database_of_another_owner(legacy: Bootstrap) -> None:
    """Only on an administrator's word, from the administrator or a superuser, and where the server lets it be given."""
    other = f"{legacy.role}_other"
    legacy.as_superuser(f'CREATE ROLE "{other}" LOGIN')
    legacy.as_superuser(f'ALTER DATABASE "{legacy.database}" OWNER TO "{other}"')
    hand_over = f'ALTER DATABASE "{legacy.database}" OWNER TO "{legacy.role}"'
    refused(await legacy.apply(), Reason.NOT_OWNED, f'owned by "{other}"', hand_over)
    legacy.raw["adoption"] = "Force"
    refused(await legacy.apply(), Reason.NOT_OWNED, "another application's", hand_over)
    legacy.as_superuser(f'ALTER DATABASE "{legacy.database}" OWNER TO "{legacy.server.superuser}"')
    is_superuser = legacy.as_superuser(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{legacy.admin.user}'")
    if is_superuser == [(False,)]:
        refused(await legacy.apply(), Reason.ACCESS_DENIED, hand_over)
    legacy.as_superuser(f'ALTER DATABASE "{legacy.database}" OWNER TO "{legacy.admin.user}"')
    if may_not_mark(legacy):
        refused(await legacy.apply(), Reason.ACCESS_DENIED, hand_over)
        legacy.as_superuser(f'GRANT "{legacy.role}" TO "{legacy.admin.user}" WITH ADMIN OPTION')
    legacy.raw["schemas"] = [{"name": "public2"}]
    planned = await legacy.plan()
    report = await legacy.ready()
    assert planned.changes == report.changes
    assert "and hand it over to the role" in " ".join(report.changes)
    assert "1 table: public.users" in legacy.progress[0][-1].message
    assert report.facts.database and report.facts.database.origin is Origin.ADOPTED
    assert legacy.query("SELECT count(*) FROM users") == [(3,)]
    assert (await legacy.ready()).changes == ()


async def test_role_without_its_database_is_adopted_where_a_database_can_be_made(legacy: Bootstrap) -> None:
    legacy.as_superuser(f'DROP DATABASE "{legacy.database}"')
    if may_not_mark(legacy):
        grant = f'GRANT "{legacy.role}" TO "{legacy.admin.user}" WITH ADMIN OPTION'
        refused(await legacy.apply(), Reason.ACCESS_DENIED, grant)
        legacy.as_superuser(grant)
    report = await legacy.ready()
    assert report.facts.role and report.facts.role.origin is Origin.ADOPTED
    assert report.facts.database and report.facts.database.origin is Origin.CREATED
    assert (await legacy.ready()).changes == ()


@pytest.mark.parametrize("admin", ["createrole"], indirect=True)
async def test_database_without_its_role_makes_no_role(legacy: Bootstrap) -> None:
    legacy.as_superuser(f'ALTER DATABASE "{legacy.database}" OWNER TO "{legacy.server.superuser}"')
    legacy.as_superuser(f'DROP OWNED BY "{legacy.role}"', legacy.database)
    legacy.as_superuser(f'DROP ROLE "{legacy.role}"')
    refused(await legacy.apply(), Reason.NOT_OWNED, f'Database "{legacy.database}" exists')
    assert legacy.as_superuser(f"SELECT 1 FROM pg_roles WHERE rolname = '{legacy.role}'") == []


@pytest.mark.parametrize("admin", ["createrole"], indirect=True)
async def test_password_and_attributes_of_an_adopted_role_are_never_set(legacy: Bootstrap) -> None:
    legacy.migrate("SQL", {"1_bad.sql": "SELECT broken"})
    report = await legacy.apply()
    assert report.trouble and report.trouble.stage is StageName.MIGRATIONS
    legacy.drawer.put("own", {"password": "another"})
    refused(await legacy.apply(), Reason.ROLE_LOGIN_REFUSED, "Secret own", f'ALTER ROLE "{legacy.role}" PASSWORD')
    legacy.drawer.put("own", {"password": PASSWORD})
    del legacy.raw["migrations"]
    await legacy.ready()
    legacy.drawer.put("own", {"password": "another"})
    found = before(legacy)
    refused(await legacy.apply(), Reason.ROLE_LOGIN_REFUSED, "Secret own", f'ALTER ROLE "{legacy.role}" PASSWORD')
    legacy.as_superuser(f'ALTER ROLE "{legacy.role}" NOLOGIN')
    refused(await legacy.apply(), Reason.ROLE_LOGIN_REFUSED, f'ALTER ROLE "{legacy.role}" LOGIN')
    legacy.as_superuser(f'ALTER ROLE "{legacy.role}" LOGIN')
    assert before(legacy) == found
    legacy.drawer.put("own", {"password": PASSWORD})
    assert (await legacy.ready()).changes == ()


@pytest.mark.parametrize("admin", ["createrole"], indirect=True)
async def test_seed_of_an_adopted_database_with_rows_is_adopted_too(legacy: Bootstrap) -> None:
    legacy.seed({"users.sql": "INSERT INTO users VALUES (4)"})
    report = await legacy.ready()
    assert report.facts.seed and report.facts.seed.state == "Adopted"
    assert legacy.query("SELECT count(*) FROM users") == [(3,)]


async def test_adoption_that_was_killed_goes_on(legacy: Bootstrap) -> None:
    """At each of its steps: the role marked alone, and the database marked alone."""
    await legacy.ready()
    role_comment, _ = comments(legacy)
    ((oid, acl),) = legacy.as_superuser(f"SELECT oid, datacl FROM pg_database WHERE datname = '{legacy.database}'")
    del legacy.drawer.secrets["shop-db"]
    legacy.as_superuser("DROP SCHEMA dbbootstrap CASCADE", legacy.database)
    legacy.as_superuser(f'COMMENT ON DATABASE "{legacy.database}" IS NULL')
    report = await legacy.ready()
    assert any(change.startswith("adopt database") for change in report.changes)
    assert report.facts.database and report.facts.database.origin is Origin.ADOPTED
    assert legacy.as_superuser(f"SELECT oid, datacl FROM pg_database WHERE datname = '{legacy.database}'") == [
        (oid, acl)
    ]
    if not may_not_mark(legacy):
        assert mark_in(role_comment)
        legacy.as_superuser(f'COMMENT ON ROLE "{legacy.role}" IS NULL')
        assert (await legacy.ready()).changes == (f'mark role "{legacy.role}" again',)
    assert (await legacy.ready()).changes == ()


async def test_marks_that_a_dba_removed_are_written_again_and_taken_by_nobody_else(bootstrap: Bootstrap) -> None:
    remember(bootstrap, await bootstrap.ready())
    password = bootstrap.drawer.secrets["shop-role"].data["password"].decode()
    for target in ("ROLE", "DATABASE", "both"):
        if target != "DATABASE":
            bootstrap.as_superuser(f'COMMENT ON ROLE "{bootstrap.role}" IS NULL')
        if target != "ROLE":
            bootstrap.as_superuser(f"COMMENT ON DATABASE \"{bootstrap.database}\" IS 'mine now'")
        thief = bootstrap.another("thief")
        thief.raw = {
            **bootstrap.raw,
            "adoption": "Force",
            "role": {"name": bootstrap.role, "passwordSecretRef": {"name": "own"}},
        }
        thief.drawer.put("own", {"password": password})
        refused(await thief.apply(), Reason.NOT_OWNED, "take-over")
        report = await bootstrap.ready()
        assert len(report.changes) == (2 if target == "both" else 1)
        assert report.facts.role and report.facts.role.origin is Origin.CREATED
        assert report.facts.database and report.facts.database.origin is Origin.CREATED
        assert (await bootstrap.ready()).changes == ()


async def test_password_of_an_adopted_role_is_changed_by_whoever_made_it(legacy: Bootstrap) -> None:
    remember(legacy, await legacy.ready())
    legacy.annotations[names.ANNOTATION_ROTATE_PASSWORD] = "now"
    report = await legacy.ready()
    assert report.changes == ()
    assert any("Secret own" in warning for warning in outcome(report, StageName.ROLE).warnings)
    legacy.drawer.put("own", {"password": "another"})
    # With a mark of its own or without, as the administrator may or may not comment on it.
    refused(await legacy.apply(), Reason.ROLE_LOGIN_REFUSED, "adoption never sets one", "Secret own")
    legacy.as_superuser(f"ALTER ROLE \"{legacy.role}\" PASSWORD 'another'")
    assert (await legacy.ready()).changes == ("publish the new password in Secret shop-db",)
    assert legacy.query("SELECT 1", password="another") == [(1,)]
    assert (await legacy.ready()).changes == ()
