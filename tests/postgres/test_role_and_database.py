"""Role and database: absent → made, present → nothing, drift → repaired, not ours → refused, crash → resumed."""

import psycopg
import pytest

from database_bootstrap.api.outcomes import Reason, Verdict
from database_bootstrap.postgres.ownership import mark_in
from fix_engine import Bootstrap


async def test_role_and_database_are_made_and_the_application_logs_in(bootstrap: Bootstrap) -> None:
    report = await bootstrap.ready()
    assert report.changes[0] == "generate a password into Secret shop-role"
    assert bootstrap.query("SELECT current_user, current_database()") == [(bootstrap.role, bootstrap.database)]
    assert bootstrap.query("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()") == [
        (bootstrap.role,)
    ]
    assert report.facts.database and report.facts.database.origin == "Created"
    assert report.facts.database.incarnation


async def test_second_visit_changes_nothing(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    writes = list(bootstrap.drawer.writes)
    report = await bootstrap.ready()
    assert report.changes == ()
    assert bootstrap.drawer.writes == writes


async def test_second_visit_has_the_same_facts(bootstrap: Bootstrap) -> None:
    first = await bootstrap.ready()
    assert (await bootstrap.ready()).facts == first.facts


async def test_public_may_not_connect(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    stranger = bootstrap.another("stranger")
    stranger.raw = stranger.raw | {
        "role": {"name": bootstrap.role + "2"},
        "database": {"name": bootstrap.database + "2"},
    }
    await stranger.ready()
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        stranger.query("SELECT 1", dbname=bootstrap.database)


async def test_changed_password_is_set_again(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.as_superuser(f"ALTER ROLE \"{bootstrap.role}\" PASSWORD 'changed by hand'")
    report = await bootstrap.ready()
    assert report.changes == (f'set the password of role "{bootstrap.role}" to that of its Secret',)
    assert bootstrap.query("SELECT 1") == [(1,)]


async def test_password_rotated_in_its_secret_is_set_and_published(bootstrap: Bootstrap) -> None:
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own", "key": "pw"}
    bootstrap.drawer.put("own", {"pw": 'first: it\'s "quoted" \\ and % long'})
    await bootstrap.ready()
    assert bootstrap.query("SELECT 1") == [(1,)]
    bootstrap.drawer.put("own", {"pw": "second @:/?#"})
    report = await bootstrap.ready()
    assert len(report.changes) == 2
    assert bootstrap.query("SELECT 1", password="second @:/?#") == [(1,)]
    assert (await bootstrap.ready()).changes == ()


async def test_nologin_of_a_dba_is_left_and_said(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.as_superuser(f'ALTER ROLE "{bootstrap.role}" NOLOGIN')
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.ROLE_LOGIN_REFUSED
    statement = f'ALTER ROLE "{bootstrap.role}" LOGIN'
    assert statement in report.trouble.message
    assert report.changes == ()
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        bootstrap.query("SELECT 1")
    bootstrap.as_superuser(statement)
    assert (await bootstrap.ready()).changes == ()


async def test_connection_limits_follow_the_spec_only_where_it_names_them(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.as_superuser(f'ALTER ROLE "{bootstrap.role}" CONNECTION LIMIT 9')
    assert (await bootstrap.ready()).changes == ()
    bootstrap.raw["role"]["connectionLimit"] = 7
    bootstrap.raw["database"]["connectionLimit"] = 8
    assert len((await bootstrap.ready()).changes) == 2
    assert bootstrap.query(
        "SELECT rolconnlimit, datconnlimit FROM pg_roles, pg_database"
        " WHERE rolname = current_user AND datname = current_database()"
    ) == [(7, 8)]


async def test_superuser_role_is_refused(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.as_superuser(f'ALTER ROLE "{bootstrap.role}" SUPERUSER')
    trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.reason is Reason.ROLE_TOO_POWERFUL
    assert "NOSUPERUSER" in trouble.message


async def test_role_of_somebody_else_is_left_alone(bootstrap: Bootstrap) -> None:
    bootstrap.as_superuser(f"CREATE ROLE \"{bootstrap.role}\" LOGIN PASSWORD 'theirs'")
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    assert report.changes == ()
    assert [one.verdict for one in report.outcomes] == [Verdict.STALLED, *[Verdict.BLOCKED] * 6]
    assert bootstrap.drawer.writes == []


async def test_database_of_somebody_else_is_left_alone(bootstrap: Bootstrap) -> None:
    bootstrap.as_superuser(f'CREATE DATABASE "{bootstrap.database}"')
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    assert f'ALTER DATABASE "{bootstrap.database}" OWNER TO' in report.trouble.message
    assert report.changes == ()
    assert bootstrap.as_superuser(
        f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{bootstrap.database}'"
    ) == [(None,)]


async def test_second_resource_for_the_same_database_harms_nothing(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    report = await bootstrap.another("thief").apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    assert "shop/shop" in report.trouble.message
    assert report.changes == ()
    assert (await bootstrap.ready()).changes == ()


async def test_crash_between_create_and_comment_is_resumed(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.as_superuser(f'COMMENT ON DATABASE "{bootstrap.database}" IS NULL')
    bootstrap.as_superuser("DROP SCHEMA dbbootstrap CASCADE", bootstrap.database)
    del bootstrap.drawer.secrets["shop-db"]  # Without a complete success there was none yet.
    report = await bootstrap.ready()
    assert len(report.changes) == 3
    ((comment,),) = bootstrap.query(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    )
    mark = mark_in(comment)
    assert mark and mark.owner == bootstrap.owner


async def test_comments_of_people_are_kept(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    ((comment,),) = bootstrap.as_superuser(
        f"SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{bootstrap.role}'"
    )
    mine = comment.replace("'", "''")
    bootstrap.as_superuser(f"COMMENT ON ROLE \"{bootstrap.role}\" IS 'ask Ann\n{mine}'")
    assert (await bootstrap.ready()).changes == ()


async def test_generated_password_survives_its_secret(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    kept = bootstrap.drawer.secrets.pop("shop-role")
    report = await bootstrap.ready()
    assert report.changes == ("restore Secret shop-role from the connection Secret",)
    assert bootstrap.drawer.secrets["shop-role"].data == kept.data


async def test_lost_password_is_said_and_nothing_is_rotated(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    del bootstrap.drawer.secrets["shop-role"], bootstrap.drawer.secrets["shop-db"]
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.PASSWORD_LOST
    assert report.changes == ()


async def test_missing_password_secret_is_waited_for(bootstrap: Bootstrap) -> None:
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.verdict is Verdict.RETRY
    assert "Secret own" in report.trouble.message
    bootstrap.drawer.put("own", {"password": "here now"})
    await bootstrap.ready()


async def test_unchanged_visit_needs_no_admin_secret(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    del bootstrap.drawer.secrets["admin"]
    assert (await bootstrap.ready()).changes == ()


async def test_schemas_and_parameters(bootstrap: Bootstrap) -> None:
    bootstrap.raw["schemas"] = [{"name": "app"}, {"name": 'Odd "name"; DROP'}]
    bootstrap.raw["database"]["parameters"] = [
        {"name": "timezone", "value": "UTC"},
        {"name": "search_path", "value": 'app, "Odd ""name""; DROP", public'},
    ]
    await bootstrap.ready()
    assert (await bootstrap.ready()).changes == ()
    assert bootstrap.query("SHOW timezone") == [("UTC",)]
    assert bootstrap.query("SELECT current_schemas(false)") == [(["app", 'Odd "name"; DROP', "public"],)]
    assert bootstrap.query(
        "SELECT count(*) FROM pg_namespace WHERE nspowner = current_user::regrole AND nspname !~ '^pg'"
    ) == [(2,)]
    bootstrap.as_superuser(f"ALTER DATABASE \"{bootstrap.database}\" SET timezone TO 'Asia/Tokyo'")
    assert len((await bootstrap.ready()).changes) == 1


async def test_parameter_that_the_role_may_not_set_is_refused_by_the_server(bootstrap: Bootstrap) -> None:
    bootstrap.raw["database"]["parameters"] = [{"name": "session_preload_libraries", "value": "evil"}]
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.ACCESS_DENIED
    assert bootstrap.drawer.secrets.keys() == {"admin", "shop-role"}


async def test_names_with_quotes_and_semicolons_are_names(bootstrap: Bootstrap) -> None:
    bootstrap.raw["role"]["name"] += """'"; DROP TABLE x; --%s{}"""
    bootstrap.raw["database"]["name"] += """'"; $$ é%(x)s"""
    await bootstrap.ready()
    assert (await bootstrap.ready()).changes == ()


async def test_settings_of_creation_that_differ_are_said(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.raw["database"]["encoding"] = "LATIN1"
    trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.reason is Reason.SETTING_MISMATCH
    assert "LATIN1" in trouble.message


async def test_locale_of_template0(bootstrap: Bootstrap) -> None:
    bootstrap.raw["database"] |= {"template": "template0", "locale": {"provider": "Libc", "name": "C"}}
    await bootstrap.ready()
    assert (await bootstrap.ready()).changes == ()


async def test_plan_of_nothing_writes_nothing(bootstrap: Bootstrap) -> None:
    report = await bootstrap.plan()
    assert f'create database "{bootstrap.database}"' in report.changes
    assert bootstrap.drawer.writes == []
    assert bootstrap.as_superuser(f"SELECT 1 FROM pg_roles WHERE rolname = '{bootstrap.role}'") == []


async def test_plan_of_what_is_there_is_empty(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    assert (await bootstrap.plan()).changes == ()


async def test_every_change_is_in_the_audit_log(bootstrap: Bootstrap) -> None:
    report = await bootstrap.ready()
    logged = [action for (action,) in bootstrap.query("SELECT action FROM dbbootstrap.audit_log ORDER BY seq")]
    assert logged == list(report.changes)


async def test_role_may_not_rewrite_the_ledger(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    for statement in (
        "DELETE FROM dbbootstrap.audit_log",
        "UPDATE dbbootstrap.identity SET uid = 'x'",
        "DROP SCHEMA dbbootstrap CASCADE",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            bootstrap.query(statement)


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("m²-pass…word", id="changed by SASLprep"),
        pytest.param("ünïcödé", id="composed"),
        pytest.param("\u00ad soft", id="soft hyphen"),
        pytest.param("日本語 パスワード", id="other scripts"),
    ],
)
async def test_password_beyond_ascii_logs_in(bootstrap: Bootstrap, password: str) -> None:
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    bootstrap.drawer.put("own", {"password": password})
    await bootstrap.ready()
    assert bootstrap.query("SELECT 1") == [(1,)]
    assert (await bootstrap.ready()).changes == ()


async def test_role_that_has_expired_is_a_dbas_matter(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.as_superuser(f"ALTER ROLE \"{bootstrap.role}\" VALID UNTIL '2001-01-01'")
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.ROLE_LOGIN_REFUSED
    assert "VALID UNTIL" in report.trouble.message
    assert report.changes == ()


async def test_comment_of_the_owner_is_kept_when_it_is_marked_again(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.query(
        f"COMMENT ON DATABASE \"{bootstrap.database}\" IS 'of team X';"
        f'GRANT CONNECT ON DATABASE "{bootstrap.database}" TO PUBLIC'
    )
    await bootstrap.ready()
    ((comment, acl),) = bootstrap.query(
        "SELECT shobj_description(oid, 'pg_database'), datacl::text FROM pg_database WHERE datname = current_database()"
    )
    assert comment.startswith("of team X\n")
    assert "=c/" in acl


async def test_names_in_another_encoding_are_the_names_that_were_meant(bootstrap: Bootstrap) -> None:
    bootstrap.raw["database"] |= {
        "template": "template0",
        "encoding": "LATIN1",
        "locale": {"provider": "Libc", "name": "C"},
    }
    bootstrap.raw["schemas"] = [{"name": "café"}]
    bootstrap.migrate("SQL", {"1_a.sql": "CREATE TABLE a (t text); INSERT INTO a VALUES ('é');"})
    bootstrap.seed({"a.sql": "INSERT INTO a VALUES ('ö')", "public.a.csv": "t\nü\n"}, policy="Once")
    await bootstrap.ready()
    assert bootstrap.query('SELECT t FROM a ORDER BY t COLLATE "C"') == [("é",), ("ö",), ("ü",)]
    assert bootstrap.query("SELECT count(*) FROM pg_namespace WHERE nspname = 'café'", client_encoding="UTF8") == [(1,)]
    bootstrap.seed({"a.sql": "INSERT INTO a VALUES ('€')"}, policy="Once")


async def test_unknown_locale_needs_a_person(bootstrap: Bootstrap) -> None:
    bootstrap.raw["database"] |= {"template": "template0", "locale": {"provider": "Libc", "name": "xx_YY.UTF-8"}}
    trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.verdict is Verdict.STALLED


async def test_settings_of_the_database_do_not_end_our_sessions(bootstrap: Bootstrap) -> None:
    bootstrap.raw["database"]["parameters"] = [
        {"name": "default_transaction_read_only", "value": "on"},
        {"name": "idle_session_timeout", "value": "1s"},
        {"name": "statement_timeout", "value": "1s"},
    ]
    bootstrap.migrate("SQL", {"1_a.sql": "CREATE TABLE a (id int); SELECT pg_sleep(1.5);"})
    await bootstrap.ready()
    assert (await bootstrap.ready()).changes == ()


async def test_parameter_that_only_a_superuser_can_set_is_said_and_then_checked(bootstrap: Bootstrap) -> None:
    bootstrap.raw["database"]["parameters"] = [{"name": "app.environment", "value": "dev"}]
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.ACCESS_DENIED
    assert "app.environment" in report.trouble.message and "superuser" in report.trouble.message
    bootstrap.as_superuser(f"ALTER DATABASE \"{bootstrap.database}\" SET app.environment TO 'dev'")
    await bootstrap.ready()


async def test_schema_of_our_name_that_is_not_ours_is_left_alone(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.as_superuser("ALTER SCHEMA dbbootstrap RENAME TO old", bootstrap.database)
    bootstrap.query("CREATE SCHEMA dbbootstrap")
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.verdict is Verdict.STALLED
    assert "dbbootstrap" in report.trouble.message


async def test_broken_connection_secret_is_repaired(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    good = {key: value.decode() for key, value in bootstrap.drawer.secrets["shop-db"].data.items()}
    bootstrap.drawer.put("shop-db", good | {"uri": "postgresql://evil:5432/x"}, ours=True)
    assert (await bootstrap.ready()).changes == ("publish the connection in Secret shop-db",)
    assert {key: value.decode() for key, value in bootstrap.drawer.secrets["shop-db"].data.items()} == good


async def test_password_secret_of_somebody_else_is_not_used(bootstrap: Bootstrap) -> None:
    bootstrap.drawer.put("shop-role", {"username": "x", "password": "theirs"})
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    assert "shop-role" in report.trouble.message
    assert bootstrap.as_superuser(f"SELECT 1 FROM pg_roles WHERE rolname = '{bootstrap.role}'") == []


async def test_what_was_done_before_a_failure_is_in_the_audit_log(bootstrap: Bootstrap) -> None:
    bootstrap.raw["extensions"] = [{"name": "pg_trgm"}, {"name": "cube", "schema": "nowhere"}]
    report = await bootstrap.apply()
    assert report.trouble is not None
    logged = bootstrap.as_superuser("SELECT action FROM dbbootstrap.audit_log", bootstrap.database)
    assert ("create extension pg_trgm",) in logged
