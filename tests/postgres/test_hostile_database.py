"""A database whose owner lays traps for the administrator: none of its code ever runs as anybody but the owner."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest_asyncio

from database_bootstrap.api.status import Status
from fix_engine import Bootstrap

TRAP = """
    CREATE FUNCTION public.trap() RETURNS boolean LANGUAGE plpgsql AS
        $$BEGIN RAISE LOG 'trapped: % (%)', current_user, session_user; RETURN true; END$$;
    CREATE FUNCTION public.trap_trigger() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN PERFORM public.trap(); RETURN new; END$$;
    CREATE FUNCTION public.trap_index(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
        $$BEGIN PERFORM public.trap(); RETURN $1; END$$;
"""
"""Told to the server's log, which no ROLLBACK takes back and no read-only session refuses."""
SHADOWED = {
    "shobj_description(oid, name)": "text",
    "shobj_description(oid, text)": "text",
    "pg_get_userbyid(oid)": "name",
    "has_database_privilege(text, oid, text)": "boolean",
    "has_database_privilege(text, text)": "boolean",
    "has_function_privilege(text, text)": "boolean",
    "has_table_privilege(oid, text)": "boolean",
    "pg_has_role(oid, text)": "boolean",
    "pg_has_role(name, name, text)": "boolean",
    "current_database()": "name",
    "current_setting(text)": "text",
    "pg_backend_pid()": "integer",
    "pg_try_advisory_lock(bigint)": "boolean",
    "quote_ident(text)": "text",
    "to_regnamespace(text)": "regnamespace",
    "lower(text)": "text",
    "count(oid)": "bigint",
    "now()": "timestamptz",
    "clock_timestamp()": "timestamptz",
    "jsonb_build_object(text, text)": "jsonb",
    "name(text)": "name",
}
OPERATORS = (
    ("=", "name", "name"),
    ("=", "name", "text"),
    ("=", "oid", "oid"),
    ("=", "oid", "integer"),
    ("=", "text", "text"),
    ("=", "boolean", "boolean"),
    ("<>", "name", "text"),
    ("<>", "text", "text"),
    ("~", "name", "text"),
    ("!~", "name", "text"),
    ("||", "text", "text"),
    ("<", "timestamptz", "timestamptz"),
    (">", "integer", "integer"),
)
RELATIONS = (
    *("pg_class", "pg_roles", "pg_database", "pg_namespace", "pg_extension", "pg_depend", "pg_type", "pg_locks"),
    *("pg_auth_members", "pg_db_role_setting", "pg_available_extension_versions", "pg_stat_activity", "pg_index"),
)
SETTINGS = (
    "role = '{role}'",
    "session_authorization = '{role}'",
    "search_path = public, pg_catalog",
    "row_security = on",
    "transform_null_equals = on",
    "standard_conforming_strings = off",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "createrole_self_grant = 'set, inherit'",
    "client_encoding = 'LATIN1'",
    "check_function_bodies = off",
)
IMPATIENCE = ("idle_in_transaction_session_timeout = 1", "lock_timeout = 1", "statement_timeout = 1")


def traps(shop: Bootstrap) -> Iterator[str]:
    """Yield what the owner of a database can lay out in it, each by itself."""
    for signature, result in SHADOWED.items():
        yield (
            f"CREATE FUNCTION public.{signature} RETURNS {result} LANGUAGE plpgsql AS"
            f" $$BEGIN PERFORM public.trap(); RETURN NULL; END$$"
        )
    for number, (operator, left, right) in enumerate(OPERATORS):
        result = "text" if operator == "||" else "boolean"
        yield (
            f"CREATE FUNCTION public.operator_{number}({left}, {right}) RETURNS {result} LANGUAGE plpgsql AS"
            f" $$BEGIN PERFORM public.trap(); RETURN true; END$$"
        )
        yield (
            f"CREATE OPERATOR public.{operator}"
            f" (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.operator_{number})"
        )
    for name in RELATIONS:
        yield f"CREATE VIEW public.{name} AS SELECT x.* FROM pg_catalog.{name} x WHERE public.trap()"
    for name in ("text", "oid", "regclass", "uuid"):
        yield f"CREATE DOMAIN public.{name} AS pg_catalog.{name} CHECK (public.trap())"
    yield (
        "CREATE TABLE public.data (t text DEFAULT public.trap()::text CHECK (public.trap()),"
        " g text GENERATED ALWAYS AS (public.trap_index(t)) STORED)"
    )
    yield "CREATE INDEX ON public.data (public.trap_index(t))"
    yield "CREATE TRIGGER a BEFORE INSERT OR UPDATE ON public.data FOR EACH ROW EXECUTE FUNCTION public.trap_trigger()"
    yield "INSERT INTO public.data VALUES ('x')"
    yield "ALTER TABLE public.data ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    yield "CREATE POLICY p ON public.data USING (public.trap())"
    yield "CREATE VIEW public.numbers AS SELECT t FROM public.data WHERE public.trap()"
    yield "CREATE MATERIALIZED VIEW public.kept AS SELECT t FROM public.data WHERE public.trap()"
    yield "CREATE SCHEMA extensions CREATE VIEW pg_proc AS SELECT 1 AS oid WHERE public.trap()"
    yield "CREATE RULE r AS ON INSERT TO public.numbers DO INSTEAD SELECT public.trap()"
    yield "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC"
    yield from settings(shop, SETTINGS)


def settings(shop: Bootstrap, wanted: tuple[str, ...]) -> Iterator[str]:
    for setting in wanted:
        yield f'ALTER DATABASE "{shop.database}" SET {setting.format(role=shop.role)}'


REFUSED = (
    "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION public.trap()",
    "CREATE FUNCTION pg_catalog.now(text) RETURNS text LANGUAGE sql AS 'SELECT NULL'",
    "ALTER DATABASE \"{database}\" SET session_preload_libraries = 'evil'",
    "ALTER DATABASE \"{database}\" SET session_replication_role = 'replica'",
    "ALTER DATABASE \"{database}\" SET log_statement = 'all'",
    "ALTER ROLE ALL SET search_path = public",
    'ALTER ROLE "{admin}" IN DATABASE "{database}" SET role = \'{role}\'',
    "CREATE OPERATOR CLASS public.o DEFAULT FOR TYPE text USING btree AS OPERATOR 1 <",
    "CREATE CAST (oid AS name) WITH FUNCTION public.trap_index(text)",
    "CREATE FUNCTION dbbootstrap.now() RETURNS text LANGUAGE sql AS 'SELECT NULL'",
    "CREATE TRIGGER a BEFORE INSERT ON dbbootstrap.audit_log EXECUTE FUNCTION public.trap_trigger()",
    "CREATE RULE r AS ON SELECT TO dbbootstrap.identity DO INSTEAD SELECT public.trap()",
    "ALTER TABLE dbbootstrap.identity ADD CHECK (public.trap())",
    "DROP SCHEMA dbbootstrap CASCADE",
    "ALTER SCHEMA dbbootstrap RENAME TO mine",
    "CREATE FUNCTION pg_temp.x() RETURNS text LANGUAGE c AS 'x'",
)
"""What PostgreSQL itself keeps the owner of a database from; with it the traps would be others'."""


def try_each(shop: Bootstrap, statements: Iterable[str]) -> dict[str, str]:
    """Return the statements that the role could not run, and why."""
    failed: dict[str, str] = {}
    # The owner's own settings come after all the others, and count in its next session.
    with psycopg.connect(**shop.connection(), options="-c search_path=pg_catalog", autocommit=True) as connection:
        for statement in statements:
            try:
                connection.execute(statement.encode())
            except psycopg.Error as error:
                failed[statement] = str(error.sqlstate)
    return failed


@contextmanager
def nobody_else_is_trapped(shop: Bootstrap) -> Iterator[None]:
    began = len(shop.server.log.read_bytes())
    try:
        yield
    finally:
        victims = set(re.findall(r"trapped: (\S+ \(\S+\))", shop.server.said(began)))
        assert victims - {f"{shop.role} ({shop.role})"} == set()


@pytest_asyncio.fixture
async def trapped(bootstrap: Bootstrap) -> Bootstrap:
    """A resource in whose database every trap is laid that its owner can lay."""
    bootstrap.remember(await bootstrap.ready())
    bootstrap.query(TRAP)
    failed = try_each(bootstrap, traps(bootstrap))
    assert {one for one in failed if "createrole_self_grant" not in one} == set()
    # They work: whoever looks without care runs into them.
    began = len(bootstrap.server.log.read_bytes())
    bootstrap.query("SELECT count(*) FROM pg_roles WHERE rolname = 'x'::name")
    assert f"trapped: {bootstrap.role}" in bootstrap.server.said(began)
    assert try_each(bootstrap, settings(bootstrap, IMPATIENCE)) == {}
    # Its own sessions go round them.
    own = f'ALTER ROLE "{bootstrap.role}" IN DATABASE "{bootstrap.database}" SET search_path = pg_catalog, public'
    assert try_each(bootstrap, (own,)) == {}
    return bootstrap


async def test_administrator_never_runs_what_the_owner_has_laid_out(trapped: Bootstrap) -> None:
    shop = trapped
    with nobody_else_is_trapped(shop):
        assert (await shop.ready()).changes == ()
        again = replace(shop, owner=replace(shop.owner, uid=str(uuid4())), status=Status())
        again.drawer.secrets = dict(shop.drawer.secrets)
        assert any("take over the ledger" in change for change in (await again.ready()).changes)
        # All that the administrator does happens in a database where the traps are.
        keys = {key: value.decode() for key, value in again.drawer.secrets["admin"].data.items()}
        again.drawer.put("admin", keys | {"dbname": shop.database})
        shop.as_superuser(f"ALTER ROLE \"{shop.role}\" PASSWORD 'other' CONNECTION LIMIT 50")
        again.raw["role"]["connectionLimit"] = 20
        again.raw["schemas"] = [{"name": "more"}]
        again.raw["extensions"] = [{"name": "pg_trgm", "schema": "more"}]
        again.remember(await again.ready())
        assert (await again.ready()).changes == ()
        ending = await again.delete()
        assert ending.error is None and len(ending.drops) >= 2


async def test_postgres_itself_keeps_the_owner_from_the_rest(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.query(TRAP)
    names = {"database": bootstrap.database, "role": bootstrap.role, "admin": bootstrap.admin.user}
    statements = tuple(statement.format(**names) for statement in REFUSED)
    assert set(try_each(bootstrap, statements).values()) == {"42501"}
    assert try_each(bootstrap, statements).keys() == set(statements)
