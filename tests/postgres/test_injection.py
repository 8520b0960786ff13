"""Text of a tenant in every place that takes one: to the server it is a name or a value, and never SQL."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from database_bootstrap.api import names
from database_bootstrap.api.outcomes import Reason
from database_bootstrap.api.v1alpha1 import ExtensionSpec, ParameterSpec, SchemaSpec, parse_spec
from database_bootstrap.stages.subject import Subject
from fix_engine import Bootstrap

EVIL = """\\';CREATE SCHEMA h;--";CREATE SCHEMA h;--%s{0}"""
"""Ends a literal, an escaped literal and an identifier, each with a statement behind it; and asks for arguments."""
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
    assert hacked(strange) == []
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
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.SPEC_REJECTED
    assert hacked(bootstrap) == []


async def test_statement_that_a_person_is_told_to_run_is_one_statement(strange: Bootstrap) -> None:
    await strange.ready()
    strange.as_superuser(f"ALTER ROLE {quoted(strange.role)} NOLOGIN")
    report = await strange.apply()
    assert report.trouble and report.trouble.reason is Reason.ROLE_LOGIN_REFUSED
    _, separator, statement = report.trouble.message.partition("ALTER ROLE")
    strange.as_superuser(separator + statement)
    assert hacked(strange) == []
    await strange.ready()


def past_the_rules(shop: Bootstrap, **changes: dict[str, Any]) -> Subject:
    """Return the subject with what pydantic and the API server would both refuse."""
    spec = parse_spec(shop.raw)
    parts: dict[str, Any] = {
        name: getattr(spec, name).model_copy(update=update) if name in {"role", "database"} else update["all"]
        for name, update in changes.items()
    }
    return replace(shop.subject, spec=spec.model_copy(update=parts))


@pytest.mark.parametrize("character", ["\n", "\0", "\udcff"], ids=["newline", "nul", "no-unicode"])
async def test_what_the_rules_refuse_would_be_no_sql_either(bootstrap: Bootstrap, character: str) -> None:
    text = character + EVIL
    parameter = ParameterSpec.model_construct(name=text, value=text)
    extension = ExtensionSpec.model_construct(name="pg_trgm", version=text, schema_name=text)
    for changes in (
        {"role": {"name": text}},
        {"database": {"name": text}},
        {"database": {"template": text, "encoding": text}},
        {"database": {"parameters": (parameter,)}},
        {"schemas": {"all": (SchemaSpec.model_construct(name=text),)}},
        {"extensions": {"all": (extension,)}},
        {"extensions": {"all": (extension.model_copy(update={"name": text}),)}},
    ):
        await bootstrap.engine.reconcile(past_the_rules(bootstrap, **changes), bootstrap.drawer)
    assert hacked(bootstrap) == []


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def as_name(text: str) -> dict[str, str]:
    return {"name": text}
