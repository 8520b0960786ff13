"""What happens to a resource while something goes wrong: it is made; or its password, or access to it, changes."""

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg

from crashing.scene import READER, Case, Scene, Story
from crashing.stock import STOCKS
from database_bootstrap.api import names

MADE = {name: Story(stock=stock) for name, stock in STOCKS.items()}
"""From nothing to ready, with each tool."""
WORD = "2024-05-01"
ACCESS = {"access": [{"role": READER, "level": "ReadOnly"}]}
_RIGHTS = """
    SELECT c.relnamespace::regnamespace || '.' || c.relname,
           has_table_privilege(%(reader)s, c.oid, 'SELECT'),
           has_table_privilege(%(reader)s, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
    FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace IN ('public'::regnamespace, 'dbbootstrap'::regnamespace)
    ORDER BY 1
"""
_NOTED = "SELECT action FROM dbbootstrap.audit_log WHERE stage = 'access' ORDER BY seq"
_LATER = """
    SELECT count(*) FROM pg_default_acl, aclexplode(defaclacl) WHERE grantee = %(reader)s::regrole
"""
_LEFT = """
    SELECT count(*) FROM pg_shdepend, (SELECT oid FROM pg_database WHERE datname = current_database()) AS here
    WHERE refobjid = %(reader)s::regrole AND (dbid = here.oid OR classid = 'pg_database'::regclass AND objid = here.oid)
"""


def _rotate(scene: Scene, case: Case) -> None:
    """Ask for another generated password."""
    scene.ask_for_visit([case], {names.ANNOTATION_ROTATE_PASSWORD: WORD})


def _edit(scene: Scene, case: Case) -> None:
    """Write another password into the Secret."""
    path = f"/api/v1/namespaces/{case.berth.namespace}/secrets/{case.name}-role"
    scene.api("PATCH", path, {"stringData": {"password": secrets.token_hex(8)}})
    scene.ask_for_visit([case])


def _give(scene: Scene, case: Case) -> None:
    scene.ask_for_visit([case], spec=ACCESS)


def _take(scene: Scene, case: Case) -> None:
    scene.ask_for_visit([case], spec={"access": []})


def passwords_that_work(scene: Scene, case: Case) -> list[bool]:
    """Return whether the password of before logs in, that in the Secret for it, and that for the application."""
    kept, published = (scene.secret(case, name)["password"] for name in ("role", "db"))
    known = {password: _logs_in(scene, case, password) for password in {case.password, kept, published}}
    return [known[password] for password in (case.password, kept, published)]


def _logs_in(scene: Scene, case: Case, password: str) -> bool:
    try:
        psycopg.connect(scene.server.dsn(case.database, case.role, password)).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" not in str(error):
            raise
        return False
    return True


def _locked_out(scene: Scene, case: Case) -> Iterator[str]:
    """At every moment a password that is written down logs in."""
    if not any(passwords_that_work(scene, case)[1:]):
        yield "in the middle neither Secret has a password that logs in"


def _one_password(scene: Scene, case: Case, writes: int) -> Iterator[str]:
    """Yield what is wrong with a password that was changed."""
    works = passwords_that_work(scene, case)
    if works != [False, True, True]:
        yield f"whether the old password, the kept and the published one log in: {works}"
    kept, published = (scene.secret(case, name) for name in ("role", "db"))
    if kept["password"] != published["password"]:
        yield "the Secrets have two passwords"
    if published["password"] not in published["uri"] or published["password"] not in published["pgpass"]:
        yield "the published Secret has a password beside that in its uri or pgpass"
    written = scene.writes(case, f"patch secrets {case.name}-role 200")
    if written != writes:
        yield f"the operator has written {written} passwords instead of {writes}"


def _rotated(scene: Scene, case: Case) -> Iterator[str]:
    yield from _one_password(scene, case, writes=1)
    if (said := case.status["role"].get("passwordRotation")) != WORD:
        yield f"role.passwordRotation is {said!r}"


def _edited(scene: Scene, case: Case) -> Iterator[str]:
    yield from _one_password(scene, case, writes=0)


def _has_access(scene: Scene, case: Case) -> Iterator[str]:
    tables, later, left, noted = _access(scene, case)
    wrong = [row for row in tables if row[1:] != (row[0].startswith("public."), False)]
    if wrong or not tables:
        yield f"who may only read may: {wrong}"
    if not later or not left:
        yield f"rights to come, and rights in all: {later}, {left}"
    # What was given and is not noted would never be taken back.
    if noted != ["give"]:
        yield f"what was given and taken, as the audit log has it: {noted}"


def _has_none(scene: Scene, case: Case) -> Iterator[str]:
    tables, later, left, noted = _access(scene, case)
    if (wrong := [row for row in tables if any(row[1:])]) or later or left:
        yield f"what was taken back is there: {wrong}, {later}, {left}"
    if noted != ["give", "take"]:
        yield f"what was given and taken, as the audit log has it: {noted}"


def _access(scene: Scene, case: Case) -> tuple[list[Any], int, int, list[str]]:
    """Return what the reader may do with each table, its rights in what is to come and in all, and what was noted."""
    arguments = {"reader": READER}
    with psycopg.connect(scene.server.dsn(case.database)) as connection:
        ((later,),) = connection.execute(_LATER, arguments).fetchall()
        ((left,),) = connection.execute(_LEFT, arguments).fetchall()
        noted = [action.split()[0] for (action,) in connection.execute(_NOTED).fetchall()]
        return connection.execute(_RIGHTS, arguments).fetchall(), later, left, noted


CHANGED = {
    "password rotated": Story(stock=STOCKS["SQL"], change=_rotate, lasting=_locked_out, faults=_rotated),
    "password edited": Story(stock=STOCKS["SQL"], change=_edit, lasting=_locked_out, faults=_edited),
    "access given": Story(stock=STOCKS["SQL"], change=_give, faults=_has_access),
    "access taken back": Story(stock=STOCKS["SQL"], change=_take, faults=_has_none, spec=ACCESS),
}
"""From ready to ready: what a resource goes through in its life."""
STORIES = MADE | CHANGED
