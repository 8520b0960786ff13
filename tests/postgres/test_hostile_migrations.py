"""Migrations that reach for more than the role has: the server refuses, and nothing of a session outlives its visit."""

from collections.abc import Callable, Mapping

import psycopg
import pytest

from fix_engine import Bootstrap

BECOME = (
    "SET ROLE {admin}",
    "SET SESSION AUTHORIZATION {admin}",
    "ALTER ROLE {role} SUPERUSER",
    "ALTER ROLE {role} CREATEROLE",
    "ALTER ROLE {role} CREATEDB",
    "ALTER ROLE {role} REPLICATION",
    "ALTER ROLE {role} BYPASSRLS",
    "GRANT {admin} TO {role}",
    "GRANT {role} TO {other_role}",
    "GRANT pg_read_all_data TO {role}",
    "GRANT pg_execute_server_program TO {role}",
    "ALTER ROLE {admin} PASSWORD 'mine'",
    "ALTER ROLE {admin} SET search_path = public",
    "ALTER FUNCTION public.f() OWNER TO {admin}",
    "REASSIGN OWNED BY {admin} TO {role}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {admin} GRANT ALL ON TABLES TO {role}",
    "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION public.e()",
)
REACH_OUT = (
    "COPY public.won FROM PROGRAM 'echo'",
    "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'",
    "COPY public.won FROM '/dev/null'",
    "COPY (SELECT 1) TO '/dev/null'",
    "SELECT pg_catalog.pg_read_file('PG_VERSION')",
    "SELECT pg_catalog.pg_read_binary_file('/dev/null')",
    "SELECT pg_catalog.pg_ls_dir('.')",
    "SELECT pg_catalog.pg_stat_file('PG_VERSION')",
    "SELECT pg_catalog.lo_import('/dev/null')",
    "SELECT pg_catalog.lo_export(4711, '/dev/null')",
    "CREATE FUNCTION public.c() RETURNS void LANGUAGE internal AS 'pg_reload_conf'",
    "CREATE EXTENSION file_fdw",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION postgres_fdw",
    "LOAD 'dblink'",
    "SELECT pg_catalog.pg_reload_conf()",
    "SELECT pg_catalog.pg_switch_wal()",
    "SELECT pg_catalog.pg_create_restore_point('x')",
    "SELECT pg_catalog.pg_log_backend_memory_contexts(pg_catalog.pg_backend_pid())",
    "SELECT pg_catalog.pg_hba_file_rules()",
    "SELECT pg_catalog.pg_current_logfile()",
    "SELECT pg_catalog.pg_terminate_backend({admin_session})",
    "SELECT pg_catalog.pg_cancel_backend({other_session})",
    "CREATE SUBSCRIPTION s CONNECTION 'host=192.0.2.1 password=x' PUBLICATION p WITH (connect = false)",
    "CREATE PUBLICATION p FOR ALL TABLES",
    "CREATE FOREIGN DATA WRAPPER w",
    "CREATE ACCESS METHOD m TYPE TABLE HANDLER pg_catalog.heap_tableam_handler",
    "CREATE LANGUAGE l HANDLER pg_catalog.plpgsql_call_handler",
    "SET session_replication_role = 'replica'",
    "SET log_statement = 'none'",
    "SET zero_damaged_pages = on",
    "UPDATE pg_catalog.pg_database SET datallowconn = false",
)
OTHERS = (
    "ALTER ROLE {other_role} PASSWORD 'mine'",
    "ALTER ROLE {other_role} SET search_path = public",
    "DROP OWNED BY {other_role}",
    "COMMENT ON ROLE {other_role} IS 'mine'",
    "COMMENT ON ROLE {role} IS 'mine'",
    "COMMENT ON DATABASE {other_database} IS 'mine'",
    "GRANT CONNECT ON DATABASE {other_database} TO {role}",
    "ALTER DATABASE {other_database} OWNER TO {role}",
    "ALTER DATABASE {other_database} SET search_path = public",
    "ALTER DATABASE {other_database} RENAME TO mine",
    "ALTER DATABASE {database} OWNER TO {other_role}",
    "SELECT 1 / pg_catalog.count(*) FROM pg_catalog.pg_authid",
)
LEDGER = (
    "DROP SCHEMA dbbootstrap CASCADE",
    "ALTER SCHEMA dbbootstrap RENAME TO mine",
    "CREATE TABLE dbbootstrap.mine ()",
    "UPDATE dbbootstrap.identity SET name = 'other'",
    "DELETE FROM dbbootstrap.audit_log",
    "TRUNCATE dbbootstrap.migration",
    "ALTER TABLE dbbootstrap.audit_log DISABLE TRIGGER ALL",
    "CREATE TRIGGER t BEFORE INSERT ON dbbootstrap.audit_log FOR EACH ROW EXECUTE FUNCTION public.t()",
    "CREATE RULE r AS ON INSERT TO dbbootstrap.audit_log DO INSTEAD NOTHING",
    "ALTER TABLE dbbootstrap.seed ENABLE ROW LEVEL SECURITY",
    "LOCK TABLE dbbootstrap.identity IN ACCESS EXCLUSIVE MODE",
)
TRIES = (*BECOME, *REACH_OUT, *OTHERS, *LEDGER)
MADE = """
    CREATE TABLE public.won (what text);
    SELECT pg_catalog.lo_create(4711);
    CREATE FUNCTION public.f() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT';
    CREATE FUNCTION public.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE FUNCTION public.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
"""


def trying(shop: Bootstrap, other: Bootstrap, sessions: Mapping[str, int]) -> str:
    """Return a script that tries each, takes it back, and notes which went through."""
    names = {
        **{name: str(pid) for name, pid in sessions.items()},
        "admin": quoted(shop.admin.user),
        "role": quoted(shop.role),
        "database": quoted(shop.database),
        "other_role": quoted(other.role),
        "other_database": quoted(other.database),
    }
    return "\n".join(
        f"DO $try$ BEGIN BEGIN EXECUTE $sql${one.format(**names)}$sql$; RAISE SQLSTATE 'WON00';"
        f" EXCEPTION WHEN SQLSTATE 'WON00' THEN RESET SESSION AUTHORIZATION;"
        f" INSERT INTO public.won VALUES ($t${one}$t$);"
        f" WHEN OTHERS THEN IF SQLSTATE IN ('42601', '42883', '42P01') THEN RAISE; END IF; END; END $try$;"
        for one in TRIES
    )


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def test_nothing_that_a_migration_reaches_for_is_the_roles(
    bootstrap: Bootstrap, make_bootstrap: Callable[[str], Bootstrap]
) -> None:
    other = make_bootstrap("other")
    await other.ready()
    with (
        psycopg.connect(**(other.connection() | {"dbname": "postgres"})) as theirs,
        psycopg.connect(bootstrap.server.dsn("postgres")) as administrators,
    ):
        sessions = {"other_session": theirs.info.backend_pid, "admin_session": administrators.info.backend_pid}
        tries = trying(bootstrap, other, sessions)
        bootstrap.migrate("SQL", {"1_made.sql": MADE, "2_tries.sql": tries})
        await bootstrap.ready()
        assert bootstrap.query("SELECT what FROM public.won") == []
        superuser_gets_all(bootstrap, tries)


def superuser_gets_all(bootstrap: Bootstrap, tries: str) -> None:
    """Show that each is an attack."""
    with psycopg.connect(bootstrap.server.dsn(bootstrap.database)) as connection:
        connection.execute(tries.encode())
        won = {what for (what,) in connection.execute("SELECT what FROM public.won")}
        connection.rollback()
    # But for what would be a circle where the administrator is a member of the role.
    assert set(TRIES) - won <= {"GRANT {admin} TO {role}"}


LEFT_BEHIND = """
    SET SESSION search_path = pg_temp;
    SET default_transaction_read_only = on;
    SET lock_timeout = 0;
    SET row_security = off;
    LISTEN everything;
    SELECT pg_catalog.pg_advisory_lock(42);
    PREPARE kept AS SELECT 1;
    DECLARE open_for_ever CURSOR WITH HOLD FOR SELECT 1;
    CREATE TEMP TABLE migration (a int);
    CREATE TEMP TABLE identity (a int);
    CREATE TEMP TABLE audit_log (a int);
    CREATE TEMP TABLE pg_class (a int);
    CREATE TEMP TABLE _prisma_migrations (a int);
    CREATE FUNCTION pg_temp.now() RETURNS text LANGUAGE sql AS 'SELECT NULL';
"""


@pytest.mark.parametrize("tool", ["SQL", "Prisma"])
async def test_nothing_of_a_migrations_session_is_left_behind(bootstrap: Bootstrap, tool: str) -> None:
    name = "{}.sql" if tool == "SQL" else "{}/migration.sql"
    bootstrap.migrate(tool, {name.format("1_left"): LEFT_BEHIND, name.format("2_a"): "CREATE TABLE a (id int)"})
    bootstrap.seed({"a.csv": "id\n1\n"})
    await bootstrap.ready()
    assert bootstrap.query("SELECT id FROM public.a") == [(1,)]
    assert bootstrap.query("SELECT count(*) FROM dbbootstrap.seed") == [(1,)]
    assert bootstrap.as_superuser(f"SELECT pid FROM pg_stat_activity WHERE usename = '{bootstrap.role}'") == []
    assert bootstrap.as_superuser("SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND objid = 42") == []
    assert (await bootstrap.ready()).changes == ()
