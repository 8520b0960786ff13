"""What must be true of a resource in the end, whatever was killed on the way."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg

from crashing.scene import Case, Scene
from crashing.stock import SEEDED_ROWS

_MARKS = """
    SELECT r.rolname, shobj_description(r.oid, 'pg_authid'), rolcanlogin,
           rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
    FROM pg_roles r WHERE rolname ~ %s
"""
_DATABASES = """
    SELECT datname, shobj_description(oid, 'pg_database'), pg_get_userbyid(datdba),
           EXISTS (SELECT 1 FROM aclexplode(datacl) WHERE grantee = 0), datacl IS NULL
    FROM pg_database WHERE datname ~ %s
"""
_ROLE = "SELECT a::text, a.xmin::text FROM pg_authid a WHERE rolname = %s"
_ONCE = (
    "create role",
    "create database",
    "mark database",
    "create the ledger",
    "create extension",
    "seed the database",
)
"""How actions begin that a resource sees once in its life."""


def faults(scene: Scene, case: Case) -> list[str]:
    """Return what is wrong with a resource that says it is ready."""
    try:
        common = (*_of_status(case), *_of_secrets(scene, case), *_of_server(scene, case), *_of_database(scene, case))
        return [*common, *case.story.faults(scene, case)]
    except (psycopg.Error, AssertionError) as error:
        return [f"{type(error).__name__}: {error}"]


def picture(scene: Scene, case: Case) -> tuple[object, ...]:
    """Return what a visit that finds nothing to do leaves as it is."""
    path = f"/api/v1/namespaces/{case.berth.namespace}/secrets"
    versions = [scene.api("GET", f"{path}/{case.name}-{one}")["metadata"]["resourceVersion"] for one in ("db", "role")]
    with psycopg.connect(scene.server.dsn(case.database)) as connection:
        role = connection.execute(_ROLE, (case.role,)).fetchall()
        audit = connection.execute("SELECT count(*) FROM dbbootstrap.audit_log").fetchall()
    return (*versions, role, audit, case.status["lastChange"])


def _unlike(what: str, found: Any, wanted: Any) -> Iterator[str]:
    if found != wanted:
        yield f"{what} is {found!r} instead of {wanted!r}"


def _of_status(case: Case) -> Iterator[str]:
    status = case.status
    for condition in status["conditions"]:
        yield from _unlike(condition["type"], condition["status"], "True")
    yield from _unlike("role.origin", status["role"].get("origin"), "Created")
    yield from _unlike("database.origin", status["database"].get("origin"), "Created")
    migrations = status["migrations"]
    counts = (migrations["applied"], migrations["pending"], migrations.get("failed"))
    yield from _unlike("applied, pending, failed", counts, (len(case.stock.names), 0, None))
    yield from _unlike("seed.state", status["seed"]["state"], "Seeded")
    yield from _unlike("binding", status["binding"]["name"], f"{case.name}-db")


def _of_secrets(scene: Scene, case: Case) -> Iterator[str]:
    found = scene.api("GET", f"/api/v1/namespaces/{case.berth.namespace}/secrets")["items"]
    ours = sorted(it["metadata"]["name"] for it in found if it["metadata"]["name"].startswith(f"{case.name}-"))
    yield from _unlike("Secrets", ours, [f"{case.name}-db", f"{case.name}-role"])
    published = scene.api.secret(case.berth.namespace, f"{case.name}-db")
    kept = scene.api.secret(case.berth.namespace, f"{case.name}-role")
    yield from _unlike("that both Secrets have one password", kept["password"] == published["password"], True)


def _of_server(scene: Scene, case: Case) -> Iterator[str]:
    uid = case.body["metadata"]["uid"]
    pattern = f"_{case.role.removeprefix('role_')}$"
    with psycopg.connect(scene.server.dsn()) as connection:
        roles = connection.execute(_MARKS, (pattern,)).fetchall()
        databases = connection.execute(_DATABASES, (pattern,)).fetchall()
    yield from _unlike("roles", [(role, *rest) for role, _, *rest in roles], [(case.role, True, False)])
    wanted = [(case.database, case.role, False, False)]
    yield from _unlike("databases", [(name, *rest) for name, _, *rest in databases], wanted)
    for name, comment, *_ in (*roles, *databases):
        yield from _unlike(f"that {name} is marked", uid in (comment or "") and '"Created"' in (comment or ""), True)


def _of_database(scene: Scene, case: Case) -> Iterator[str]:
    published = login_of(scene, case, f"{case.name}-db")
    with psycopg.connect(**published, dbname=case.database) as connection:

        def ask(query: str) -> list[Any]:
            return connection.execute(query.encode()).fetchall()

        yield from _unlike("customers", ask("SELECT name FROM customer ORDER BY name"), [("Ann",), ("Bob",)])
        yield from _unlike("orders", ask("SELECT id FROM orders ORDER BY id"), [(1,), (2,), (3,)])
        steps = [(word,) for word in ("first", "second", "third")]
        yield from _unlike("what the migrations did", ask("SELECT step FROM trace ORDER BY step"), steps)
        yield from _unlike("the sequence", ask("SELECT nextval('customer_id_seq')"), [(3,)])
        yield from _unlike("the tool's table", tuple(ask(case.stock.history)), case.stock.wanted)
        yield from _unlike(
            "extensions", ask("SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'"), [("pg_trgm",)]
        )
        incarnation = case.status["database"].get("incarnation")
        yield from _unlike("incarnations", ask("SELECT incarnation::text FROM dbbootstrap.identity"), [(incarnation,)])
        applied = "SELECT name, state, count(*) FROM dbbootstrap.migration WHERE state IN {} GROUP BY 1, 2 ORDER BY 1"
        states = "('applied', 'baselined')"
        wanted = [(name, "applied", 1) for name in case.stock.names]
        if case.stock.alone is None:
            yield from _unlike("the ledger", ask(applied.format(states)), wanted)
            yield from _unlike("the ledger's rows", ask("SELECT count(*) FROM dbbootstrap.migration"), [(len(wanted),)])
        seeds = ask("SELECT state, rows FROM dbbootstrap.seed")
        yield from _unlike("the seed's marker", seeds, [("seeded", SEEDED_ROWS)])
        yield from _of_audit(
            [action for (action,) in ask("SELECT action FROM dbbootstrap.audit_log ORDER BY seq")], case
        )


def _of_audit(actions: list[str], case: Case) -> Iterator[str]:
    # Twice would say that it was done twice.
    twice = [action for action, count in Counter(actions).items() if count > 1 and action.startswith(_ONCE)]
    yield from _unlike("what the audit log has twice", twice, [])
    for name in case.stock.names:
        if case.stock.alone is None:
            yield from _unlike(f"audit of {name}", actions.count(f"migration {name} applied"), 1)
    yield from _unlike("taken over", [action for action in actions if re.match("take over|note that", action)], [])


def login_of(scene: Scene, case: Case, secret: str) -> dict[str, Any]:
    """Return the role's login as a Secret has it, but for the way there, which is the proxy's."""
    data = scene.api.secret(case.berth.namespace, secret)
    where = {"host": scene.server.host, "port": scene.server.port}
    return {**where, "user": data["username"], "password": data["password"]}
