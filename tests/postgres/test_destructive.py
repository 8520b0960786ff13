"""The gate in front of destructive migrations, through the whole engine, with the rows counted before and after."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
import pytest
import pytest_asyncio

from database_bootstrap.api.outcomes import Reason, Verdict
from database_bootstrap.postgres import locks
from database_bootstrap.stages.subject import Report
from fix_engine import Bootstrap, within

SHOP = """
CREATE TABLE cart (id int PRIMARY KEY, note text, price numeric(8,2), code varchar(10), owner int);
CREATE TABLE line (id int PRIMARY KEY, cart int REFERENCES cart ON DELETE CASCADE);
CREATE TABLE spare (id int PRIMARY KEY, note text);
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE person (id int, mood mood, at timestamptz);
CREATE VIEW carts AS SELECT id, note FROM cart;
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE SCHEMA other; CREATE TABLE other.cart (id int); CREATE TABLE other.only_there (id int);
CREATE FUNCTION wipe() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM cart; END $$;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS count FROM cart;
CREATE FUNCTION wiping() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM wipe(); RETURN NEW; END $$;
CREATE FUNCTION stamping() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at = now(); RETURN NEW; END $$;
CREATE FUNCTION logging() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO logged SELECT one(); RETURN NULL; END $$;
CREATE TABLE logged (id int); CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
CREATE FUNCTION filling() RETURNS int LANGUAGE sql AS 'INSERT INTO spare VALUES (1) RETURNING 1';
CREATE FUNCTION emptying() RETURNS int LANGUAGE sql BEGIN ATOMIC DELETE FROM cart RETURNING 1; END;
"""
ROWS = """
INSERT INTO cart SELECT n, CASE WHEN n < 3 THEN 'n' END, n, 'c', n FROM generate_series(1, 12) AS n;
INSERT INTO line SELECT n, n FROM generate_series(1, 5) AS n;
INSERT INTO person VALUES (1, 'glad', now());
INSERT INTO parts VALUES (1), (2);
INSERT INTO other.only_there VALUES (1);
"""
COUNTS = """
SELECT (SELECT count(*) FROM cart), (SELECT count(*) FROM line), (SELECT count(*) FROM parts),
       (SELECT count(*) FROM other.only_there), (SELECT count(*) FROM person)
"""
BEFORE = [(12, 5, 2, 1, 1)]
LAYOUTS = {
    "SQL": ["1_shop.sql", "2_next.sql", "3_last.sql"],
    "Prisma": [f"2024010{number}000000_{name}.sql" for number, name in ((1, "shop"), (2, "next"), (3, "last"))],
}


@dataclass
class Shop:
    """A database that was set up once, and that has rows of an application since."""

    bootstrap: Bootstrap
    tool: str

    def ask(self, *texts: str, **options: object) -> None:
        """Ask for these migrations behind the first one."""
        names = dict(zip(LAYOUTS[self.tool], (SHOP, *texts), strict=False))
        self.bootstrap.migrate(self.tool, names, **options)

    @property
    def names(self) -> list[str]:
        """How the tool names the migrations behind the first one."""
        return [name.removesuffix(".sql") if self.tool == "Prisma" else name for name in LAYOUTS[self.tool][1:]]

    async def refused(self) -> str:
        """Apply, insist that nothing was run, and return what was said; a plan says the same."""
        before = self.bootstrap.query(COUNTS)
        planned = (await self.bootstrap.plan()).trouble
        report = await self.bootstrap.apply()
        trouble = report.trouble
        if trouble is None:
            pytest.fail(f"Not refused: {report.changes}")
        assert (trouble.reason, trouble.verdict) == (Reason.DESTRUCTIVE_MIGRATION, Verdict.STALLED), trouble.message
        assert planned and planned.message == trouble.message
        assert report.changes == ()
        assert self.bootstrap.query(COUNTS) == before
        return trouble.message


@pytest.fixture(params=list(LAYOUTS))
def tool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def shop(bootstrap: Bootstrap, tool: str) -> Shop:
    found = Shop(bootstrap=bootstrap, tool=tool)
    found.ask()
    await bootstrap.ready()
    bootstrap.query(ROWS)
    assert bootstrap.query(COUNTS) == BEFORE
    return found


WIPING = """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM line; RETURN NEW; END $$;
CREATE TRIGGER t AFTER INSERT ON spare FOR EACH ROW EXECUTE FUNCTION f();"""
REFUSED: Mapping[str, tuple[str, ...]] = {
    "DROP TABLE cart CASCADE;": ("drop table cart (public.cart: 12 rows)",),
    'drop /* x */ table\n\n if exists "cart" cascade': ("drop table cart (public.cart: 12 rows)",),
    "SELECT 1; DROP TABLE line, spare;": ("line 1: drop table line (public.line: 5 rows)",),
    "DROP TABLE public.line;": ("drop table public.line (public.line: 5 rows)",),
    "DROP TABLE parts;": ("public.parts: 2 rows",),
    "DROP TABLE parts_1;": ("public.parts_1: 2 rows",),
    "ALTER TABLE parts DETACH PARTITION parts_1;\nDROP TABLE parts_1": ("line 2: drop table parts_1",),
    "DROP TABLE only_there": ("other.only_there: 1 row",),
    "SET search_path TO other;\nDROP TABLE only_there": ("line 2", "other.only_there: 1 row)"),
    "DROP SCHEMA other CASCADE": ("drop schema … cascade other (other.only_there: 1 row)",),
    "ALTER SCHEMA other RENAME TO old;\nDROP SCHEMA old CASCADE": ("other.only_there: 1 row",),
    "ALTER TABLE cart RENAME TO gone;\nDROP TABLE gone CASCADE": ("line 2: drop table gone (public.cart: 12 rows)",),
    "ALTER TABLE line SET SCHEMA other; DROP TABLE other.line": ("public.line: 5 rows",),
    "ALTER TABLE cart DROP price, DROP COLUMN IF EXISTS note CASCADE": (
        'drop column "price" of cart (public.cart: 12 rows)',
        'drop column "note" of cart (public.cart: 2 rows)',
    ),
    "ALTER TABLE cart RENAME note TO words; ALTER TABLE cart DROP words CASCADE": (
        'drop column "words" of cart (public.cart: 2 rows)',
    ),
    'ALTER TABLE "cart" DROP COLUMN "price",\nADD COLUMN "price" INTEGER;': ('drop column "price"',),
    "TRUNCATE cart CASCADE": ("public.cart: 12 rows", "public.line: 5 rows"),
    "TRUNCATE TABLE parts": ("truncate parts (public.parts: 2 rows)",),
    "DELETE FROM cart": ("delete all rows of cart (public.cart: 12 rows, public.line: 5 rows)",),
    "DELETE FROM ONLY line WHERE 1 = 1": ("delete all rows of line",),
    "DELETE FROM carts": ("public.carts: 12 rows",),
    "WITH gone AS (DELETE FROM line RETURNING *) SELECT count(*) FROM gone": ("public.line: 5 rows",),
    "INSERT INTO spare WITH gone AS (DELETE FROM line RETURNING *) SELECT id FROM gone": ("public.line: 5 rows",),
    "MERGE INTO line USING cart ON line.cart = cart.id WHEN MATCHED THEN DELETE": ("public.line: 5 rows",),
    "EXPLAIN ANALYZE DELETE FROM line": ("public.line: 5 rows",),
    "PREPARE p AS DELETE FROM line; EXECUTE p": ("public.line: 5 rows",),
    "UPDATE cart SET note = NULL": ("overwrite note in all rows of cart (public.cart: 2 rows)",),
    "ALTER TABLE cart ALTER note TYPE varchar(3)": ("change to varchar the type", "(public.cart: 2 rows)"),
    "ALTER TABLE cart ALTER COLUMN price SET DATA TYPE int": ("(public.cart: 12 rows)",),
    "ALTER TABLE cart ALTER code TYPE text USING upper(code)": ("(public.cart: 12 rows)",),
    "DROP TYPE mood CASCADE": ("drop type … cascade mood (public.person: 1 row)",),
    "DROP OWNED BY CURRENT_USER": ("public.cart: 12 rows",),
    "DO $$ BEGIN DELETE FROM line; END $$": ("run a block of code (there are rows, as in",),
    "DO $$ BEGIN EXECUTE 'DR' || 'OP TABLE line'; END $$": ("there are rows",),
    "DO $$ BEGIN PERFORM wipe(); END $$": ("call wipe (there are rows",),
    "SELECT wipe()": ("call wipe (there are rows",),
    "SELECT lo_unlink(id) FROM cart": ("call lo_unlink (there are rows",),
    "CREATE FUNCTION mine() RETURNS void AS $$ TRUNCATE line $$ LANGUAGE sql; SELECT mine()": ("call mine, which",),
    "ALTER TABLE line SET UNLOGGED": ("set unlogged", "public.line: 5 rows"),
    "CREATE SCHEMA attic; ALTER TABLE line SET SCHEMA attic; DROP SCHEMA attic CASCADE": (
        "drop schema … cascade attic (public.line: 5 rows)",
    ),
    "CREATE TABLE whole (LIKE line) PARTITION BY LIST (id); ALTER TABLE whole ATTACH PARTITION line DEFAULT;\n"
    "TRUNCATE whole": ("line 2: truncate whole (public.line: 5 rows)",),
    "CREATE TABLE copy AS SELECT * FROM line; DROP TABLE line;\nDROP TABLE copy": (
        "line 2: drop table copy (public.line: 5 rows)",
    ),
    "DO $$ BEGIN ALTER TABLE line RENAME TO old; END $$;\nDROP TABLE old": ("line 2: drop table old (there are rows",),
    "DO $$ BEGIN EXECUTE 'SELECT 1'; END $$;\nALTER TABLE line DROP unheard": (
        'line 2: drop column "unheard" of line (there are rows',
    ),
    f"{WIPING} INSERT INTO spare VALUES (1)": (
        "line 2: fire the trigger t, which the migrations make, and which may destroy anything (there are rows",
    ),
    f"{WIPING} COPY line FROM '/x'": ("line 2: fire the trigger t",),
    f"{WIPING} DO $$ BEGIN INSERT INTO spare VALUES (1); END $$": ("line 2: fire the trigger t",),
    "CREATE TRIGGER t AFTER INSERT ON spare EXECUTE FUNCTION wiping();\nINSERT INTO spare VALUES (1)": (
        "line 2: fire the trigger t, and by that wiping (there are rows",
    ),
    "CREATE RULE r AS ON INSERT TO spare DO ALSO DELETE FROM line;\nINSERT INTO spare VALUES (1)": ("fire the rule r",),
    "CREATE FUNCTION zero() RETURNS int LANGUAGE sql AS 'DELETE FROM line RETURNING 0';\n"
    "ALTER TABLE cart ADD zero int DEFAULT zero()": ("line 2: have zero called, which the migrations make",),
    "ALTER FUNCTION wipe RENAME TO w;\nSELECT w()": ("line 2: call wipe (there are rows",),
    f"{WIPING} SELECT filling()": ("line 2: call filling (there are rows",),
    "SELECT emptying()": ("call emptying (there are rows",),
    f"{WIPING} SELECT one(); CREATE TRIGGER l AFTER INSERT ON person FOR EACH ROW EXECUTE FUNCTION logging();\n"
    "DELETE FROM person WHERE id = 2": ("line 3: fire the trigger t",),
    "CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql AS 'SELECT 1';\nDROP TABLE line": (
        "line 2: drop table line",
    ),
    "ALTER TABLE cart ADD double int GENERATED ALWAYS AS (id * 2) VIRTUAL, DROP price": ("which cannot be read",),
}
"""What is said of each; all of it is one migration, and none of it may run."""


# What a statement does is the same for every tool that has scripts.
@pytest.mark.parametrize("tool", ["SQL"])
async def test_whatever_destroys_rows_is_refused_with_their_number(shop: Shop) -> None:
    for text, said in REFUSED.items():
        shop.ask(text)
        message = await shop.refused()
        assert [words for words in said if words not in message] == [], (text, message)
    assert "next" in message and "allowDestructive: [" in message


HARMLESS = """
DROP TABLE spare; DROP TABLE other.cart; DROP TABLE IF EXISTS nowhere CASCADE;
DROP VIEW carts; DROP MATERIALIZED VIEW totals; CREATE MATERIALIZED VIEW totals AS SELECT 1;
ALTER TABLE cart ALTER note TYPE text; CREATE INDEX i ON cart (note); DROP INDEX i;
 DROP SCHEMA IF EXISTS nowhere CASCADE;
ALTER TABLE cart ALTER price TYPE numeric(12,2), ALTER code TYPE varchar(20), ALTER id TYPE bigint;
ALTER TABLE cart ALTER code TYPE text USING code::text;
CREATE TYPE mood_new AS ENUM ('glad'); ALTER TABLE person ALTER COLUMN mood TYPE mood_new USING (mood::text::mood_new);
ALTER TYPE mood RENAME TO mood_old; ALTER TYPE mood_new RENAME TO mood; DROP TYPE mood_old;
ALTER TABLE cart ADD slug text; UPDATE cart SET slug = 'cart-' || id; UPDATE cart SET owner = 1 WHERE id = 1;
DELETE FROM line WHERE id = 5;
CREATE TABLE staging AS SELECT * FROM line; DELETE FROM staging; TRUNCATE staging; DROP TABLE staging;
CREATE TEMP TABLE person AS SELECT 1 AS one; DROP TABLE person;
DO $$ BEGIN ALTER TABLE line ADD CONSTRAINT twice FOREIGN KEY (cart) REFERENCES cart (id) ON DELETE cascade
    ON UPDATE no action; EXCEPTION WHEN duplicate_object THEN null; END $$;
DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_type WHERE typname = 'x') THEN CREATE TYPE x AS ENUM ('a'); END IF; END $$;
INSERT INTO parts SELECT 3; -- DROP TABLE cart
COMMENT ON TABLE cart IS 'DROP TABLE cart; DELETE FROM cart'; SELECT setval('s', 2) FROM (SELECT 1) AS one WHERE false;
CREATE FUNCTION quiet() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT quiet();
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at = now(); RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TRIGGER stamping BEFORE INSERT OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION stamping();
CREATE TRIGGER logging AFTER UPDATE ON person FOR EACH ROW EXECUTE FUNCTION logging();
UPDATE person SET id = 1 WHERE id = 1; SELECT one();
CREATE FUNCTION on_line() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM cart; RETURN NULL; END $$;
CREATE TRIGGER on_line AFTER INSERT ON line FOR EACH ROW EXECUTE FUNCTION on_line();
CREATE TABLE fresh (id int DEFAULT one()); INSERT INTO fresh VALUES (1);
"""


async def test_what_loses_nothing_runs(shop: Shop) -> None:
    shop.ask(HARMLESS.replace("SELECT setval('s', 2) FROM", "SELECT 1 FROM"))
    report = await shop.bootstrap.ready()
    assert [change for change in report.changes if "apply migration" in change]
    assert shop.bootstrap.query(COUNTS) == [(12, 4, 3, 1, 1)]
    assert shop.bootstrap.query("SELECT count(*) FROM dbbootstrap.audit_log WHERE action LIKE '%allowed%'") == [(0,)]


async def test_named_migration_destroys_and_the_audit_log_says_what(shop: Shop) -> None:
    shop.ask("CREATE TABLE more (id int);", "DROP TABLE line; CREATE INDEX CONCURRENTLY c ON cart (note);")
    assert "public.line: 5 rows" in await shop.refused()
    assert shop.bootstrap.query("SELECT to_regclass('more')") == [(None,)]
    shop.ask(
        "CREATE TABLE more (id int);",
        "DROP TABLE line; CREATE INDEX CONCURRENTLY c ON cart (note);",
        allowDestructive=[shop.names[0]],
    )
    await shop.refused()
    shop.ask(
        "CREATE TABLE more (id int);",
        "DROP TABLE line; CREATE INDEX CONCURRENTLY c ON cart (note);",
        allowDestructive=[shop.names[1]],
    )
    report = await shop.bootstrap.ready()
    assert len(report.changes) == 2
    assert shop.bootstrap.query("SELECT to_regclass('line'), to_regclass('more')::text") == [(None, "more")]
    assert shop.bootstrap.query("SELECT action FROM dbbootstrap.audit_log WHERE action LIKE '%allowed%'") == [
        (f"migration {shop.names[1]} allowed to drop table line (public.line: 5 rows)",)
    ]


async def test_all_may_destroy_where_that_is_allowed(shop: Shop) -> None:
    shop.ask("DELETE FROM line;", "DROP TABLE cart CASCADE", onDestructive="Allow")
    await shop.bootstrap.ready()
    assert shop.bootstrap.query("SELECT count(*) FROM line") == [(0,)]
    actions = shop.bootstrap.query(
        "SELECT action FROM dbbootstrap.audit_log WHERE action LIKE '%allowed%' ORDER BY seq"
    )
    assert actions == [
        (f"migration {shop.names[0]} allowed to delete all rows of line (public.line: 5 rows)",),
        (f"migration {shop.names[1]} allowed to drop table cart (public.cart: 12 rows)",),
    ]


async def test_rows_that_arrive_after_the_look_are_seen_under_the_lock(shop: Shop) -> None:
    shop.ask("DROP TABLE spare")
    connection = await psycopg.AsyncConnection.connect(**shop.bootstrap.connection(), autocommit=True)
    try:
        await connection.execute("SELECT pg_advisory_lock(%s)", (locks.KEY,))
        told = len(shop.bootstrap.progress)
        visit = asyncio.create_task(shop.bootstrap.apply())
        await within(10, lambda: len(shop.bootstrap.progress) > told)
        await connection.execute("INSERT INTO spare VALUES (1)")
        await connection.execute("SELECT pg_advisory_unlock(%s)", (locks.KEY,))
        report = await visit
    finally:
        await connection.close()
    assert _reason(report) is Reason.DESTRUCTIVE_MIGRATION
    assert shop.bootstrap.query("SELECT count(*) FROM spare") == [(1,)]


_WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted"


async def test_rows_that_arrive_while_an_earlier_migration_runs_are_seen(shop: Shop) -> None:
    waits = "INSERT INTO other.cart VALUES (1); SELECT pg_advisory_lock(77); SELECT pg_advisory_unlock(77);"
    # What the migrations themselves put in is no loss.
    shop.ask(waits, "DROP TABLE other.cart; ALTER TABLE spare RENAME TO old; DROP TABLE old;")
    connection = await psycopg.AsyncConnection.connect(**shop.bootstrap.connection(), autocommit=True)
    try:
        await connection.execute("SELECT pg_advisory_lock(77)")
        visit = asyncio.create_task(shop.bootstrap.apply())
        await within(10, lambda: bool(shop.bootstrap.as_superuser(_WAITING, shop.bootstrap.database)))
        await connection.execute("INSERT INTO spare VALUES (1)")
        await connection.execute("SELECT pg_advisory_unlock(77)")
        report = await visit
    finally:
        await connection.close()
    assert _reason(report) is Reason.DESTRUCTIVE_MIGRATION
    assert report.trouble and "spare: 1 row)" in report.trouble.message, report.trouble
    assert "stopped before this migration" in report.trouble.message and "other.cart" not in report.trouble.message
    assert shop.bootstrap.query("SELECT count(*) FROM spare") == [(1,)]


_WAITING_FOR_TABLE = "SELECT 1 FROM pg_locks WHERE relation = 'spare'::regclass AND NOT granted"


@pytest.mark.parametrize(
    ("text", "isolation"),
    [("DROP TABLE spare", "repeatable read"), ("ALTER TABLE spare DROP note", "read committed")],
)
async def test_rows_that_are_committed_while_the_migration_waits_for_the_table_are_seen(
    shop: Shop, text: str, isolation: str
) -> None:
    bootstrap = shop.bootstrap
    bootstrap.query(f"ALTER DATABASE {bootstrap.database} SET default_transaction_isolation = '{isolation}'")
    shop.ask(text)
    async with await psycopg.AsyncConnection.connect(**bootstrap.connection()) as application:
        await application.execute("INSERT INTO spare VALUES (1, 'mine')")
        visit = asyncio.create_task(bootstrap.apply())
        await within(10, lambda: bool(bootstrap.as_superuser(_WAITING_FOR_TABLE, bootstrap.database)))
        await application.commit()
        report = await visit
    assert _reason(report) is Reason.DESTRUCTIVE_MIGRATION
    assert report.trouble and "public.spare: 1 row)" in report.trouble.message, report.trouble
    assert bootstrap.query("SELECT note FROM spare") == [("mine",)]


@pytest.mark.parametrize("tool", ["SQL"])
async def test_application_that_keeps_the_table_is_waited_for_and_never_run_over(shop: Shop) -> None:
    shop.ask("DROP TABLE spare", lockTimeoutSeconds=1)
    async with await psycopg.AsyncConnection.connect(**shop.bootstrap.connection()) as application:
        await application.execute("INSERT INTO spare VALUES (1)")
        report = await shop.bootstrap.apply()
        assert (_reason(report), report.changes) == (Reason.MIGRATION_INTERRUPTED, ())
        assert report.trouble and "lock timeout" in report.trouble.message
        await application.rollback()
    await shop.bootstrap.ready()
    assert shop.bootstrap.query("SELECT to_regclass('spare')") == [(None,)]


async def _reads_and_does_not_write_meanwhile(shop: Shop, insert: str) -> None:
    """Hold the migration up behind its locks, and see that others may read the table, and not write into it."""
    async with await psycopg.AsyncConnection.connect(**shop.bootstrap.connection(), autocommit=True) as application:
        await application.execute("SET lock_timeout = '200ms'; SELECT pg_advisory_lock(77)")
        visit = asyncio.create_task(shop.bootstrap.apply())
        await within(10, lambda: bool(shop.bootstrap.as_superuser(_WAITING, shop.bootstrap.database)))
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await application.execute(insert.encode())
        await application.execute("SELECT count(*) FROM spare; SELECT pg_advisory_unlock(77)")
        assert (await visit).trouble is None


@pytest.mark.parametrize("tool", ["SQL"])
async def test_nobody_writes_between_the_last_count_and_the_end_of_the_migration(shop: Shop) -> None:
    shop.ask("SELECT pg_advisory_xact_lock(77); DELETE FROM spare;")
    await _reads_and_does_not_write_meanwhile(shop, "INSERT INTO spare VALUES (1)")
    shop.bootstrap.query("INSERT INTO spare VALUES (1)")
    assert shop.bootstrap.query("SELECT count(*) FROM spare") == [(1,)]


@pytest.mark.parametrize("tool", ["SQL"])
async def test_large_table_can_be_read_while_its_rows_are_looked_at_once_more(shop: Shop) -> None:
    wide = "ALTER TABLE spare ADD wide text; ALTER TABLE spare ALTER wide SET STORAGE PLAIN;"
    shop.bootstrap.query(
        f"{wide} INSERT INTO spare SELECT n, NULL, repeat('x', 7900) FROM generate_series(1, 4200) AS n"
    )
    shop.ask("SELECT pg_advisory_xact_lock(77); ALTER TABLE spare DROP note;")
    await _reads_and_does_not_write_meanwhile(shop, "INSERT INTO spare VALUES (0, 'mine')")


@pytest.mark.parametrize("tool", ["SQL"])
@pytest.mark.parametrize(
    "text",
    [
        "DROP TABLE spare",
        "DO $$ BEGIN EXECUTE 'DROP TABLE spare'; END $$",
        "CALL empty()",
        "INSERT INTO logged VALUES (1)",
    ],
)
async def test_first_rows_of_all_are_seen_when_they_come_while_an_earlier_migration_runs(
    bootstrap: Bootstrap, tool: str, text: str
) -> None:
    makes = f"CREATE PROCEDURE empty() LANGUAGE sql AS 'DELETE FROM spare'; {WIPING.replace('ON spare', 'ON logged')}"
    shop = Shop(bootstrap=bootstrap, tool=tool)
    shop.ask()
    await bootstrap.ready()
    # What the migrations themselves put in is no loss.
    shop.ask(f"{makes} INSERT INTO other.cart VALUES (1); SELECT pg_advisory_xact_lock(77);", text)
    async with await psycopg.AsyncConnection.connect(**bootstrap.connection(), autocommit=True) as application:
        await application.execute("SELECT pg_advisory_lock(77)")
        visit = asyncio.create_task(bootstrap.apply())
        await within(10, lambda: bool(bootstrap.as_superuser(_WAITING, bootstrap.database)))
        await application.execute("INSERT INTO spare VALUES (1)")
        await application.execute("SELECT pg_advisory_unlock(77)")
        report = await visit
    assert _reason(report) is Reason.DESTRUCTIVE_MIGRATION
    assert report.trouble and "public.spare" in report.trouble.message, report.trouble
    assert bootstrap.query("SELECT count(*) FROM spare") == [(1,)]
    bootstrap.query("DELETE FROM spare; DELETE FROM other.cart")
    await bootstrap.ready()


async def test_rows_that_the_migrations_put_in_are_no_loss(shop: Shop) -> None:
    shop.bootstrap.query("DELETE FROM parts; DELETE FROM cart")
    fill = "INSERT INTO spare VALUES (1), (2); INSERT INTO parts VALUES (1);"
    shop.ask(fill, "UPDATE spare SET note = ''; DROP TABLE spare; TRUNCATE parts; DELETE FROM carts; DELETE FROM cart;")
    await shop.bootstrap.ready()


@pytest.mark.pg(">= 18")
@pytest.mark.parametrize("tool", ["SQL"])
async def test_newer_syntax_that_destroys_nothing_runs(shop: Shop) -> None:
    newer = "ALTER TABLE cart ADD twice int GENERATED ALWAYS AS (id * 2) VIRTUAL, ADD NOT NULL owner NOT VALID"
    shop.ask(newer)
    await shop.bootstrap.ready()
    shop.ask(
        newer,
        "ALTER TABLE cart ADD more int GENERATED ALWAYS AS (id * 3) VIRTUAL, DROP COLUMN price",
    )
    assert "which cannot be read" in await shop.refused()


PAST = """
CREATE TABLE old (id int); INSERT INTO old SELECT generate_series(1, 3); CREATE TABLE kept (id int, a int, b text);
INSERT INTO kept VALUES (1, 2, 'three');
"""
HISTORY = (PAST, "DROP TABLE old; DELETE FROM kept; ALTER TABLE kept DROP a, ALTER b TYPE int USING length(b);")
OPAQUE = "DO $$ BEGIN EXECUTE 'CREATE TABLE new (id int)'; END $$;"


def history(tool: str, *texts: str) -> dict[str, str]:
    return dict(zip(LAYOUTS[tool], texts, strict=False))


async def test_fresh_database_does_not_trip_over_its_own_past(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, history(tool, *HISTORY, OPAQUE))
    await bootstrap.ready()
    assert bootstrap.query("SELECT to_regclass('old'), to_regclass('new')::text") == [(None, "new")]


async def test_first_run_that_died_half_way_goes_on(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, history(tool, PAST, "SELECT broken;"))
    assert _reason(await bootstrap.apply()) is Reason.MIGRATION_FAILED
    bootstrap.migrate(tool, history(tool, *HISTORY, OPAQUE))
    await bootstrap.ready()
    assert bootstrap.query("SELECT to_regclass('old'), to_regclass('new')::text") == [(None, "new")]


@pytest.mark.parametrize("tool", ["SQL"])
async def test_application_that_has_the_password_may_have_written_during_the_first_run(
    bootstrap: Bootstrap, tool: str
) -> None:
    bootstrap.drawer.put("mine", {"password": "pw-12345"})
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "mine", "key": "password"}
    bootstrap.migrate(tool, history(tool, "CREATE TABLE cart (id int)", "SELECT broken"))
    assert _reason(await bootstrap.apply()) is Reason.MIGRATION_FAILED
    again = "DROP TABLE cart; CREATE TABLE cart (id bigint)"
    insert = f"SET ROLE {bootstrap.role}; INSERT INTO cart SELECT generate_series(1, 500)"
    bootstrap.as_superuser(insert, bootstrap.database)
    bootstrap.migrate(tool, history(tool, "CREATE TABLE cart (id int)", again))
    report = await bootstrap.apply()
    assert _reason(report) is Reason.DESTRUCTIVE_MIGRATION
    assert report.trouble and "public.cart: 500 rows" in report.trouble.message
    assert "never through" in report.trouble.message
    bootstrap.as_superuser("TRUNCATE cart", bootstrap.database)
    await bootstrap.ready()


async def test_database_is_no_longer_fresh_when_only_its_seed_has_failed(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, history(tool, PAST))
    bootstrap.seed({"bad.sql": "SELECT broken"}, policy="Once")
    assert _reason(await bootstrap.apply()) is Reason.SEED_FAILED
    bootstrap.migrate(tool, history(tool, *HISTORY))
    assert _reason(await bootstrap.apply()) is Reason.DESTRUCTIVE_MIGRATION


async def test_history_that_somebody_else_has_begun_is_no_first_run(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("Prisma", history("Prisma", PAST, "SELECT broken;"))
    assert _reason(await bootstrap.apply()) is Reason.MIGRATION_FAILED
    forget = "ALTER TABLE dbbootstrap.migration DISABLE TRIGGER ALL; DELETE FROM dbbootstrap.migration;"
    bootstrap.as_superuser(forget, bootstrap.database)
    bootstrap.migrate("Prisma", history("Prisma", *HISTORY))
    report = await bootstrap.apply()
    assert _reason(report) is Reason.DESTRUCTIVE_MIGRATION
    assert report.trouble and "public.old: 3 rows" in report.trouble.message


async def test_opaque_code_runs_where_there_is_no_row(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, history(tool, "CREATE TABLE kept (id int);"))
    await bootstrap.ready()
    bootstrap.migrate(tool, history(tool, "CREATE TABLE kept (id int);", f"{OPAQUE} DROP TABLE kept; SELECT 1;"))
    await bootstrap.ready()


async def test_rows_that_cannot_be_seen_count(shop: Shop) -> None:
    bootstrap = shop.bootstrap
    bootstrap.query(
        "ALTER TABLE line ENABLE ROW LEVEL SECURITY; ALTER TABLE line FORCE ROW LEVEL SECURITY;"
        "ALTER TABLE spare ENABLE ROW LEVEL SECURITY; ALTER TABLE spare FORCE ROW LEVEL SECURITY;"
        "ALTER TABLE cart ENABLE ROW LEVEL SECURITY"
    )
    bootstrap.as_superuser(
        "CREATE TABLE theirs (id int); INSERT INTO theirs VALUES (1); CREATE TABLE empty (id int)", bootstrap.database
    )
    shop.ask("DROP TABLE line; DROP TABLE spare; DELETE FROM cart; DROP TABLE theirs; DROP TABLE empty;")
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.DESTRUCTIVE_MIGRATION
    message = report.trouble.message
    assert "public.line: rows that cannot be counted" in message and "public.theirs: rows that cannot" in message
    assert "delete all rows of cart (public.cart: 12 rows, public.line: rows that" in message
    assert "spare" not in message and "empty" not in message


@pytest.mark.parametrize("tool", ["SQL"])
async def test_rows_are_counted_to_a_million(shop: Shop) -> None:
    shop.bootstrap.query("INSERT INTO spare SELECT n, '' FROM generate_series(1, 1000001) AS n")
    shop.ask("DROP TABLE spare")
    assert "public.spare: more than 1000000 rows" in await shop.refused()


async def test_tables_are_those_of_the_migrating_session(bootstrap: Bootstrap, tool: str) -> None:
    text = (
        'CREATE TABLE same (id int); CREATE SCHEMA other; CREATE TABLE other.same (id int); CREATE TABLE "T" (id int);'
    )
    bootstrap.migrate(tool, history(tool, text), schema="Shop")
    await bootstrap.ready()
    bootstrap.query("INSERT INTO other.same VALUES (1)")
    bootstrap.migrate(tool, history(tool, text, 'DROP TABLE same; DROP TABLE "T";'), schema="Shop")
    await bootstrap.ready()
    bootstrap.migrate(
        tool, history(tool, text, 'DROP TABLE same; DROP TABLE "T";', "DROP TABLE other.same"), schema="Shop"
    )
    report = await bootstrap.apply()
    assert report.trouble and "other.same: 1 row)" in report.trouble.message


def _reason(report: Report) -> Reason | None:
    return report.trouble.reason if report.trouble else None
