"""The one end that needs a person: a killed migration that cannot be one transaction."""

import re
from collections.abc import Iterator

import psycopg

from crashing.scene import Case, Scene
from crashing.verdict import login_of
from database_bootstrap.api import names

_CURES = re.compile(rf"{re.escape(names.ANNOTATION_RESOLVE)}=([^\s',]+)")
_STATES = "SELECT state FROM dbbootstrap.migration WHERE name = %s ORDER BY seq"
_INDEX = """
    SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('public.customer_name')
"""


def go_on(scene: Scene, case: Case) -> Iterator[str]:
    """Do what the message says, and yield what is wrong with it."""
    assert case.stock.alone
    *_, message = case.ready
    if case.stock.alone not in message:
        yield f"half-applied, and it does not say which: {message}"
    cures = _CURES.findall(message)
    if len(cures) != 2:
        yield f"half-applied, and it does not say what to do: {message}"
        return
    applied, rolled_back = cures
    login = login_of(scene, case, f"{case.name}-role")
    with psycopg.connect(**login, dbname=case.database, autocommit=True) as connection:
        states = [state for (state,) in connection.execute(_STATES, (case.stock.alone,))]
        if states not in (["running"], ["running", "failed"]):
            yield f"half-applied, and the ledger says {states}"
        is_there = connection.execute(_INDEX.encode()).fetchone() == (True,)
        if not is_there:
            connection.execute(b"DROP INDEX IF EXISTS customer_name")
    scene.annotate(case, {names.ANNOTATION_RESOLVE: applied if is_there else rolled_back})
    scene.wait([case], lambda one: one.is_ready)
