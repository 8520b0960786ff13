"""The one end that needs a person: a killed migration that cannot be one transaction."""

import re
from collections.abc import Iterator

import psycopg

from crashing.scene import Case, Scene
from crashing.verdict import login_of

_CURE = re.compile(r"INSERT INTO dbbootstrap\.migration .*?'(applied)'\)")
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
    cure = _CURE.search(message)
    if cure is None:
        yield f"half-applied, and it does not say what to do: {message}"
        return
    with psycopg.connect(
        **login_of(scene, case, f"{case.name}-role"), dbname=case.database, autocommit=True
    ) as connection:
        states = [state for (state,) in connection.execute(_STATES, (case.stock.alone,))]
        if states not in (["running"], ["running", "failed"]):
            yield f"half-applied, and the ledger says {states}"
        index = connection.execute(_INDEX.encode()).fetchone()
        statement = cure.group()
        if index != (True,):
            connection.execute(b"DROP INDEX IF EXISTS customer_name")
            statement = (
                statement[: cure.start(1) - cure.start()] + "rolled-back" + statement[cure.end(1) - cure.start() :]
            )
        connection.execute(statement.encode())
    scene.request_visit(case, "cured")
    scene.wait([case], lambda one: one.is_ready)
