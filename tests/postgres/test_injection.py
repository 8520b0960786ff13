"""Text of a tenant in every place that takes one: to the server it is a name or a value, and never SQL."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from database_bootstrap.api import names
from database_bootstrap.api.access import AccessLevel, AccessSpec
from database_bootstrap.api.outcomes import Reason
from database_bootstrap.api.v1alpha1 import ExtensionSpec, ParameterSpec, SchemaSpec, parse_spec
from database_bootstrap.stages.subject import Subject
from fix_engine import Bootstrap

EVIL = """\\';CREATE SCHEMA h;--";CREATE SCHEMA h;--%s{0}"""
"""Ends a literal, an escaped literal and an identifier, each with a statement behind it; and asks for arguments."""
UNQUOTED = """role TO none;CREATE SCHEMA h;--"""
"""The same where nothing is around it that would have to be ended."""
TRAPS = ("$$;CREATE SCHEMA h;--$$", "%(x)s {} %s", '"', "'", "\\")
ALEMBIC = {
    "a1.py": "from alembic import op\nrevision = 'a1'\ndown_revision = None\ndef upgrade(): op.execute('SELECT 1')\n"
}


def evil(prefix: str) -> str:
    return f"{prefix}{EVIL}"


def hacked(shop: Bootstrap) -> list[str]:
    """Return the databases in which a statement of the text has been run."""
    there = [name for (name,) in shop.as_superuser("SELECT datname FROM pg_database WHERE datallowconn")]
    return [name for name in there if shop.as_superuser("SELECT 1 FROM pg_namespace WHERE nspname = 'h'", name)]


@contextmanager
def none_is_run(shop: Bootstrap) -> Iterator[None]:
    """Demand that no statement of the text has been run, whatever else went wrong."""
    try:
        yield
    finally:
        assert hacked(shop) == []


def csv_name(text: str) -> str:
    """Return what a file name can hold of it."""
    return text.replace("\\", "").replace(".", "")


@pytest.fixture
def strange(bootstrap: Bootstrap, unique_name: Callable[[str], str]) -> Bootstrap:
    """A resource with such a text in every field that takes it; what it makes is there."""
    own = unique_name("").removeprefix("_")
    # A backslash begins an escape in every literal of its database: the tenant's own doing.
    odd = [{"name": "standard_conforming_strings", "value": "off"}, {"name": "search_path", "value": evil("public, ")}]
    bootstrap.raw |= {
        "role": {"name": evil(own), "passwordSecretRef": {"name": "own"}},
        "database": {"name": evil(f"d{own}"), "parameters": odd},
    }
    bootstrap.drawer.put("own", {"password": evil("pw")})
    for annotation in (
        names.ANNOTATION_TAKE_OVER,
        names.ANNOTATION_RESOLVE,
        names.ANNOTATION_ACCEPT_INCARNATION,
        names.ANNOTATION_ACKNOWLEDGE_DATA_LOSS,
        names.ANNOTATION_RECONCILE_REQUESTED_AT,
    ):
        bootstrap.annotations[annotation] = evil("x=applied@")
    return bootstrap


@pytest.mark.parametrize("tool", ["SQL", "Prisma"])
async def test_text_is_never_sql(strange: Bootstrap, tool: str) -> None:
    with none_is_run(strange):
        await everything_is_made(strange, tool)


async def everything_is_made(strange: Bootstrap, tool: str) -> None:
    await strange.ready()
    table, column, schema = csv_name(evil("t")), evil("c"), evil("s")
    quoted_table, quoted_column = (quoted(table), quoted(column))
    first = evil("1_a").replace("\\", "").replace(";", "") + ".sql"
    path = first if tool == "SQL" else f"{first.removesuffix('.sql')}/migration.sql"
    strange.raw["schemas"] = [{"name": schema}, *({"name": evil(f"{n}")} for n in range(3)), *map(as_name, TRAPS)]
    strange.raw["extensions"] = [{"name": "pg_trgm", "schema": schema}]
    strange.migrate(
        tool,
        {path: f"CREATE TABLE {quoted_table} ({quoted_column} text)"},
        schema=evil("m"),
        allowOutOfOrder=[evil("o")],
        allowDestructive=[evil("a")],
    )
    strange.seed(
        {f"{table}.csv": f"{quoted_column}\n{quoted(EVIL)}\n"},
        ignoreTables=[f"{schema}.{table}"],
    )
    await strange.ready()
    assert (await strange.ready()).changes == ()
    assert strange.query(f"SELECT * FROM {quoted(evil('m'))}.{quoted(table)}") == [(EVIL,)]


async def test_names_lead_nobody_to_another_server(bootstrap: Bootstrap, unique_name: Callable[[str], str]) -> None:
    own = unique_name("").removeprefix("_")
    bootstrap.raw["role"]["name"] = f"{own}:x@192.0.2.1:1/y?sslkey=z#%2F"
    bootstrap.raw["database"]["name"] = f"postgresql://192.0.2.1:1/{own}?options=-crole%3Dnone&host=h"
    bootstrap.migrate("Alembic", ALEMBIC, schema=evil("m"))
    await bootstrap.ready()
    assert (await bootstrap.ready()).changes == ()
    assert bootstrap.query(f"SELECT version_num FROM {quoted(evil('m'))}.alembic_version") == [("a1",)]
    assert hacked(bootstrap) == []


@pytest.mark.parametrize("locale", [EVIL, "C' IS_TEMPLATE true --"], ids=["statement", "clause"])
async def test_text_that_the_server_refuses_is_no_sql_either(bootstrap: Bootstrap, locale: str) -> None:
    bootstrap.raw["database"] |= {"template": "template0", "locale": {"provider": "Libc", "name": locale}}
    with none_is_run(bootstrap):
        report = await bootstrap.apply()
    assert bootstrap.as_superuser(f"SELECT 1 FROM pg_database WHERE datname = '{bootstrap.database}'") == []
    assert report.trouble and report.trouble.reason is Reason.SPEC_REJECTED


async def test_statement_that_a_person_is_told_to_run_is_one_statement(strange: Bootstrap) -> None:
    await strange.ready()
    strange.as_superuser(f"ALTER ROLE {quoted(strange.role)} NOLOGIN")
    report = await strange.apply()
    assert report.trouble and report.trouble.reason is Reason.ROLE_LOGIN_REFUSED
    _, separator, statement = report.trouble.message.partition("ALTER ROLE")
    with none_is_run(strange), suppress(psycopg.Error):
        strange.as_superuser(separator + statement)
    await strange.ready()


def past_the_rules(shop: Bootstrap, **changes: dict[str, Any]) -> Subject:
    """Return the subject with what pydantic and the API server would both refuse."""
    spec = parse_spec(shop.raw)
    parts: dict[str, Any] = {
        name: getattr(spec, name).model_copy(update=update) if name in {"role", "database"} else update["all"]
        for name, update in changes.items()
    }
    return replace(shop.subject, spec=spec.model_copy(update=parts))


@pytest.mark.parametrize(
    "text",
    [f"\n{EVIL}", f"\0{EVIL}", f"\udcff{EVIL}", UNQUOTED],
    ids=["newline", "nul", "no-unicode", "unquoted"],
)
async def test_what_the_rules_refuse_would_be_no_sql_either(bootstrap: Bootstrap, text: str) -> None:
    await bootstrap.ready()  # What comes last in the line is reached as well.
    parameter = ParameterSpec.model_construct(name=text, value=text)
    extension = ExtensionSpec.model_construct(name="pg_trgm", version=text, schema_name=text)
    with none_is_run(bootstrap):
        for changes in (
            {"role": {"name": text}},
            {"database": {"name": text}},
            {"database": {"template": text, "encoding": text}},
            {"database": {"parameters": (parameter,)}},
            {"schemas": {"all": (SchemaSpec.model_construct(name=text),)}},
            {"extensions": {"all": (extension,)}},
            {"extensions": {"all": (extension.model_copy(update={"version": None}),)}},
            {"extensions": {"all": (extension.model_copy(update={"name": text}),)}},
            {"access": {"all": (AccessSpec.model_construct(role=text, level=AccessLevel.READ_ONLY),)}},
        ):
            await bootstrap.engine.reconcile(past_the_rules(bootstrap, **changes), bootstrap.drawer)


async def test_what_the_rules_refuse_would_take_nothing_of_a_neighbour_either(
    bootstrap: Bootstrap, make_bootstrap: Callable[[str], Bootstrap]
) -> None:
    """PostgreSQL cuts names off at 63 bytes, in what it is asked as well; and copies any database as a template."""
    victim = make_bootstrap("victim")
    for what in ("role", "database"):
        victim.raw[what]["name"] += "x" * (63 - len(victim.raw[what]["name"]))
    victim.migrate("SQL", {"1_a.sql": "CREATE TABLE secret (id int); INSERT INTO secret VALUES (1)"})
    victim.remember(await victim.ready())
    bootstrap.drawer.put("guess", {"password": "guessed"})
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "guess"}
    for fields in ({"role", "database"}, {"role"}, {"database"}):
        longer = {what: {"name": f"{victim.raw[what]['name']}y"} for what in fields}
        report = await bootstrap.engine.reconcile(past_the_rules(bootstrap, **longer), bootstrap.drawer)
        assert report.trouble
    assert (await victim.ready()).changes == ()
    assert victim.query("SELECT id FROM secret") == [(1,)]


async def test_a_role_called_public_would_not_be_everybody_either(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("SQL", {"1_a.sql": "CREATE TABLE secret (id int)"})
    await bootstrap.ready()
    everybody = AccessSpec.model_construct(role="public", level=AccessLevel.READ_WRITE)
    report = await bootstrap.engine.reconcile(past_the_rules(bootstrap, access={"all": (everybody,)}), bootstrap.drawer)
    assert bootstrap.query("SELECT relacl IS NULL FROM pg_class WHERE relname = 'secret'") == [(True,)]
    assert report.trouble and report.trouble.reason is Reason.ACCESS_ROLE_NOT_FOUND


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def as_name(text: str) -> dict[str, str]:
    return {"name": text}
