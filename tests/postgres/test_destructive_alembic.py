"""Revisions that destroy rows: each statement is judged where it runs, and none that does is sent."""

import asyncio

import psycopg
import pytest
import pytest_asyncio

from database_bootstrap.api.outcomes import Reason, Verdict
from fix_engine import Bootstrap, within
from postgres import alembic_projects as projects

FIRST = """op.execute("CREATE TABLE cart (id int PRIMARY KEY, note text, price int)")
op.execute("CREATE TABLE line (id int PRIMARY KEY, cart int REFERENCES cart ON DELETE CASCADE)")
op.execute("CREATE TABLE spare (id int)")
op.execute("INSERT INTO cart VALUES (0, 'x', 1)")"""
ROWS = "INSERT INTO cart SELECT n FROM generate_series(1, 11) AS n; INSERT INTO line VALUES (1, 1), (2, 1)"
COUNTS = "SELECT (SELECT count(*) FROM cart), (SELECT count(*) FROM line), (SELECT version_num FROM alembic_version)"
BEFORE = [(12, 2, "r001")]
PER_MIGRATION = projects.PER_MIGRATION


def revisions(*bodies: str, environment: str | None = None, kind: str = "generic") -> dict[str, str]:
    """Return a project whose first revision makes the tables, and these behind it."""
    names = [f"r{number:03}" for number in range(1, len(bodies) + 2)]
    chain = projects.chain(names, **dict(zip(names, (FIRST, *bodies), strict=True)))
    return projects.project(chain, environment, kind)


@pytest_asyncio.fixture
async def shop(bootstrap: Bootstrap) -> Bootstrap:
    """A database that was set up once, and that has rows of an application since."""
    bootstrap.migrate("Alembic", revisions())
    await bootstrap.ready()
    bootstrap.query(ROWS)
    assert bootstrap.query(COUNTS) == BEFORE
    return bootstrap


async def refused(shop: Bootstrap, before: object = BEFORE) -> str:
    """Apply, insist that nothing was lost, and return what was said."""
    report = await shop.apply()
    trouble = report.trouble
    if trouble is None:
        pytest.fail(f"Not refused: {report.changes}")
    assert (trouble.reason, trouble.verdict) == (Reason.DESTRUCTIVE_MIGRATION, Verdict.STALLED), trouble.message
    assert shop.query(COUNTS) == before
    return trouble.message


CAUGHT = """try:
    op.execute("DELETE FROM cart")
except Exception:
    pass
op.execute("SELECT 1")"""
OWN_ENGINE = """import os
with sa.create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    connection.execute(sa.text("TRUNCATE cart CASCADE"))"""


def trigger(body: str, table: str = "spare") -> str:
    """Return statements that make a trigger with this body, in a function that is called like its table."""
    makes = f"CREATE FUNCTION on_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NEW; END $$"
    fires = f"CREATE TRIGGER t BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION on_{table}()"
    return f'op.execute("{makes}"); op.execute("{fires}")\n'


RULE = "CREATE RULE r AS ON INSERT TO spare DO ALSO DELETE FROM line"
ZERO = "CREATE FUNCTION zero() RETURNS int LANGUAGE sql AS 'DELETE FROM line RETURNING 0'"
FRESH = """op.create_table("fresh", sa.Column("id", sa.Integer)); op.create_table("logged", sa.Column("id", sa.Integer))
"""
REFUSED = {
    FRESH
    + trigger("INSERT INTO logged VALUES (1)", "fresh")
    + trigger("DELETE FROM line", "logged")
    + 'op.execute("INSERT INTO fresh VALUES (1)")': "fire the trigger t, and by that on_logged (there are rows",
    trigger("DELETE FROM line")
    + 'op.execute("INSERT INTO spare VALUES (1)")': "fire the trigger t, and by that on_spare",
    f'op.execute("{RULE}"); op.execute("INSERT INTO spare VALUES (1)")': "fire the rule r, and by that (there are rows",
    f'op.execute("{ZERO}"); op.execute("ALTER TABLE cart ADD zero int DEFAULT zero()")': "call zero (there are rows",
    'op.drop_table("line")': "drop table line (public.line: 2 rows)",
    'op.drop_column("cart", "price")': 'drop column "price" of cart (public.cart: 1 row)',
    'op.alter_column("cart", "note", type_=sa.String(3))': 'the type of column "note" of cart (public.cart: 1 row)',
    CAUGHT: "delete all rows of cart (public.cart: 12 rows, public.line: 2 rows)",
    OWN_ENGINE: "truncate cart (public.cart: 12 rows, public.line: 2 rows)",
    "op.execute(\"DO $$ BEGIN EXECUTE 'DROP TABLE line'; END $$\")": "run a block of code (there are rows, as in",
    'op.get_bind().execute(sa.text("UPDATE cart SET note = :note"), {"note": "%"})': "overwrite note in all rows",
    'op.rename_table("line", "gone"); op.drop_table("gone")': "drop table gone (public.gone: 2 rows)",
}


async def test_whatever_destroys_rows_is_refused_with_their_number(shop: Bootstrap) -> None:
    for body, said in REFUSED.items():
        shop.migrate("Alembic", revisions(body))
        message = await refused(shop)
        assert said in message, (body, message)
        assert "Revision r002 (migrations/versions/r002_step.py line" in message
        assert "Nothing of this run stayed" in message and "allowDestructive: [r002]" in message


HARMLESS = """op.create_table("more", sa.Column("id", sa.Integer))
op.bulk_insert(sa.table("more", sa.column("id")), [{"id": 1}, {"id": 2}])
op.execute("DELETE FROM more"); op.drop_table("more"); op.drop_table("spare")
op.add_column("cart", sa.Column("slug", sa.Text, server_default="x")); op.execute("UPDATE cart SET slug = 'y'")
op.drop_column("cart", "slug")
op.get_bind().execute(sa.text("DELETE FROM line WHERE id = :id"), {"id": 1})
op.alter_column("cart", "price", type_=sa.BigInteger)
op.execute("CREATE FUNCTION quiet() RETURNS int LANGUAGE sql AS 'SELECT 1'"); op.execute("SELECT quiet()")
"""
STAMPED = (
    trigger("NEW.note = now()::text", "cart")
    + 'op.execute("UPDATE cart SET note = note WHERE id = 1")\n'
    + trigger("DELETE FROM line", "line")
    + 'op.create_table("fresh", sa.Column("id", sa.Integer)); op.execute("INSERT INTO fresh VALUES (1)")\n'
)
HARMLESS += STAMPED


@pytest.mark.parametrize("kind", ["generic", "async"])
async def test_what_loses_nothing_runs(shop: Bootstrap, kind: str) -> None:
    shop.migrate("Alembic", revisions(HARMLESS, kind=kind))
    await shop.ready()
    assert shop.query(COUNTS) == [(12, 1, "r002")]
    shop.migrate("Alembic", revisions(HARMLESS, 'op.drop_table("line")', kind=kind))
    assert "drop table line (public.line: 1 row)" in await refused(shop, [(12, 1, "r002")])


async def test_earlier_revisions_of_their_own_transactions_stay_and_the_message_says_so(shop: Bootstrap) -> None:
    bodies = ('op.execute("CREATE TABLE more (id int)")', 'op.drop_table("line")')
    shop.migrate("Alembic", revisions(*bodies, environment=PER_MIGRATION))
    message = await refused(shop, [(12, 2, "r002")])
    assert "Of this run r002 stayed applied" in message
    assert shop.query("SELECT to_regclass('more')::text") == [("more",)]


async def test_named_revision_destroys_and_the_audit_log_says_what(shop: Bootstrap) -> None:
    shop.migrate("Alembic", revisions('op.drop_table("line")'), allowDestructive=["r001"])
    await refused(shop)
    shop.migrate("Alembic", revisions('op.drop_table("line")'), allowDestructive=["r002"])
    await shop.ready()
    shop.migrate("Alembic", revisions('op.drop_table("line")', 'op.execute("DELETE FROM cart")'), onDestructive="Allow")
    await shop.ready()
    assert shop.query("SELECT count(*) FROM cart") == [(0,)]
    actions = shop.query("SELECT action FROM dbbootstrap.audit_log WHERE action LIKE '%allowed%' ORDER BY seq")
    assert actions == [
        ("migration r002 allowed to drop table line (public.line: 2 rows)",),
        ("migration r003 allowed to delete all rows of cart (public.cart: 12 rows)",),
    ]


@pytest.mark.parametrize("kind", ["generic", "async"])
async def test_rows_that_are_committed_while_the_revision_waits_for_the_table_are_seen(
    shop: Bootstrap, kind: str
) -> None:
    shop.query(f"ALTER DATABASE {shop.database} SET default_transaction_isolation = 'repeatable read'")
    shop.migrate("Alembic", revisions('op.drop_table("spare")', kind=kind))
    waiting = "SELECT 1 FROM pg_locks WHERE relation = 'spare'::regclass AND NOT granted"
    async with await psycopg.AsyncConnection.connect(**shop.connection()) as application:
        await application.execute("INSERT INTO spare VALUES (1)")
        visit = asyncio.create_task(refused(shop))
        await within(20, lambda: bool(shop.as_superuser(waiting, shop.database)))
        await application.commit()
        assert "drop table spare (public.spare: 1 row)" in await visit
    assert shop.query("SELECT count(*) FROM spare") == [(1,)]


async def test_plan_says_that_it_cannot_know(shop: Bootstrap) -> None:
    shop.migrate("Alembic", revisions('op.drop_table("line")'))
    (change,) = (await shop.plan()).changes
    assert "r002; whether rows would be lost shows when they run" in change


async def test_first_run_that_died_half_way_goes_on(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("Alembic", revisions('op.execute("SELECT broken")', environment=PER_MIGRATION))
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.MIGRATION_FAILED
    bootstrap.migrate("Alembic", revisions('op.execute("DELETE FROM cart")', environment=PER_MIGRATION))
    await bootstrap.ready()
    assert bootstrap.query("SELECT count(*) FROM cart") == [(0,)]
    again = ('op.execute("DELETE FROM cart")', 'op.execute("DELETE FROM cart")')
    bootstrap.query("INSERT INTO cart VALUES (1)")
    bootstrap.migrate("Alembic", revisions(*again, environment=PER_MIGRATION))
    await refused(bootstrap, [(1, 0, "r002")])
