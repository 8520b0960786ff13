"""Migrations through the whole engine: pending only, in order; failures say where; what is another's is left alone."""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.bundles.sources import ConfigMapData
from database_bootstrap.postgres import locks
from database_bootstrap.reconcile import Engine
from database_bootstrap.stages.subject import Facts
from fix_engine import Bootstrap, outcome, within

USERS = "CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE NOT NULL);"
PRODUCTS = "CREATE TABLE products (id int PRIMARY KEY, title text);"
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, product int REFERENCES products);"

LAYOUTS = {
    "SQL": ["1_users.sql", "2_products.sql", "10_orders.sql"],
    "Prisma": [
        "20240101000000_users/migration.sql",
        "20240102000000_products.sql",
        "20240103000000_orders/migration.sql",
    ],
}


@pytest.fixture(params=list(LAYOUTS))
def tool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def files(tool: str, *texts: str) -> dict[str, str]:
    return dict(zip(LAYOUTS[tool], texts, strict=False))


async def test_pending_migrations_are_applied_once_and_in_order(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS, PRODUCTS))
    report = await bootstrap.ready()
    assert len([change for change in report.changes if change.startswith("apply migration")]) == 2
    assert report.facts.migrations and (report.facts.migrations.applied, report.facts.migrations.pending) == (2, 0)
    bootstrap.query("INSERT INTO users (email) VALUES ('test@example.com')")
    assert (await bootstrap.ready()).changes == ()
    bootstrap.migrate(tool, files(tool, USERS, PRODUCTS, ORDERS))
    report = await bootstrap.ready()
    assert [change for change in report.changes if "orders" in change] == list(report.changes)
    assert bootstrap.query("SELECT email FROM users") == [("test@example.com",)]


async def test_tables_belong_to_the_role(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS))
    await bootstrap.ready()
    assert bootstrap.query("SELECT tableowner FROM pg_tables WHERE tablename = 'users'") == [(bootstrap.role,)]


async def test_failing_migration_names_file_line_and_sqlstate(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS, "CREATE TABLE good (id int);\nSELECT *\nFROM missing;"))
    report = await bootstrap.apply()
    trouble = report.trouble
    assert trouble and trouble.reason is Reason.MIGRATION_FAILED and trouble.verdict is Verdict.STALLED
    assert "42P01" in trouble.message and "line 3" in trouble.message and "products" in trouble.message
    assert report.facts.migrations and report.facts.migrations.failed
    assert report.facts.migrations.failed.sql_state == "42P01"
    assert (report.facts.migrations.applied, report.facts.migrations.pending) == (1, 1)
    assert "shop-db" not in bootstrap.drawer.secrets
    assert bootstrap.as_superuser("SELECT to_regclass('good'), to_regclass('users')::text", bootstrap.database) == [
        (None, "users")
    ]


async def test_corrected_migration_goes_on_where_it_stopped(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS, "SELECT broken"))
    await bootstrap.apply()
    bootstrap.migrate(tool, files(tool, USERS, PRODUCTS))
    report = await bootstrap.ready()
    assert report.facts.migrations and report.facts.migrations.applied == 2


async def test_tables_of_another_owner_are_named_and_nothing_is_touched(bootstrap: Bootstrap, tool: str) -> None:
    await bootstrap.ready()
    bootstrap.query("CREATE TABLE users (id int); INSERT INTO users VALUES (1)")
    bootstrap.migrate(tool, files(tool, USERS))
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.SCHEMA_HAS_OTHER_OWNER
    assert "public.users" in report.trouble.message
    assert report.changes == ()
    assert bootstrap.query("SELECT count(*) FROM users") == [(1,)]


async def test_migrations_work_in_the_named_schema(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS), schema="Shop")
    await bootstrap.ready()
    assert (await bootstrap.ready()).changes == ()
    assert bootstrap.query('SELECT count(*) FROM "Shop".users') == [(0,)]


async def test_search_path_that_a_dump_leaves_empty_does_no_harm(bootstrap: Bootstrap, tool: str) -> None:
    dump = "SELECT pg_catalog.set_config('search_path', '', false); CREATE TABLE public.users (id int);"
    bootstrap.migrate(tool, files(tool, dump, PRODUCTS))
    await bootstrap.ready()
    assert (await bootstrap.ready()).changes == ()


async def test_concurrent_index_is_built_outside_a_transaction(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS, "CREATE INDEX CONCURRENTLY by_email ON users (email);"))
    await bootstrap.ready()
    assert bootstrap.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_email'::regclass") == [(True,)]


async def test_failed_concurrent_index_is_half_applied_and_says_so(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS))
    await bootstrap.ready()
    bootstrap.query("INSERT INTO users (email) VALUES ('a'), ('b')")
    bad = "ALTER TABLE users ADD COLUMN x int DEFAULT 1;\nCREATE UNIQUE INDEX CONCURRENTLY one ON users (x);"
    bootstrap.migrate(tool, files(tool, USERS, bad))
    first = (await bootstrap.apply()).trouble
    assert first and "one" in first.message
    second = (await bootstrap.apply()).trouble
    assert second and second.reason is Reason.MIGRATION_HALF_APPLIED
    assert "products" in second.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("\\connect other\n", "psql", id="meta-command"),
        pytest.param("COPY users FROM STDIN;\n1\n\\.\n", "COPY", id="copy-from-stdin"),
        pytest.param("-- migrate:up\nSELECT 1;\n-- migrate:down\nDROP TABLE users;", "dbmate", id="dbmate"),
        pytest.param("-- +goose Up\nSELECT 1;\n-- +goose Down\nDROP TABLE users;", "goose", id="goose"),
        pytest.param("SELECT '\x01';", "control", id="control-character"),
    ],
)
async def test_file_for_another_program_is_refused_before_anything_runs(
    bootstrap: Bootstrap, tool: str, text: str, said: str
) -> None:
    bootstrap.migrate(tool, files(tool, USERS, text))
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.BUNDLE_REJECTED
    assert said.lower() in report.trouble.message.lower()
    assert bootstrap.as_superuser("SELECT to_regclass('users')", bootstrap.database) == [(None,)]


async def test_missing_config_map_is_named_and_waited_for(bootstrap: Bootstrap) -> None:
    bootstrap.raw["migrations"] = {"tool": "SQL", "source": {"configMapRefs": [{"name": "later"}]}}
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.REFERENCE_NOT_FOUND
    assert outcome(report, StageName.EXTENSIONS).verdict is Verdict.DONE
    bootstrap.drawer.config_maps["later"] = ConfigMapData(name="later", data={"1_users.sql": USERS})
    await bootstrap.ready()


async def test_lock_of_another_migrator_is_respected(bootstrap: Bootstrap, tool: str) -> None:
    await bootstrap.ready()
    bootstrap.migrate(tool, files(tool, USERS))
    connection = await psycopg.AsyncConnection.connect(**bootstrap.connection(), autocommit=True)
    try:
        await connection.execute("SELECT pg_advisory_lock(%s)", (locks.KEY,))
        visit = asyncio.create_task(bootstrap.apply())
        await within(10, lambda: bool(bootstrap.progress))
        assert bootstrap.query("SELECT to_regclass('users')") == [(None,)]
        await connection.execute("SELECT pg_advisory_unlock(%s)", (locks.KEY,))
        assert (await visit).trouble is None
    finally:
        await connection.close()


async def test_two_operators_at_once_apply_each_migration_once(bootstrap: Bootstrap, tool: str) -> None:
    await bootstrap.ready()
    bootstrap.migrate(tool, files(tool, USERS, PRODUCTS, ORDERS))
    reports = await asyncio.gather(*(bootstrap.apply() for _ in range(3)))
    assert [report.trouble for report in reports] == [None] * 3
    assert sum("apply migration" in change for report in reports for change in report.changes) == 3


async def test_run_that_takes_too_long_is_rolled_back(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS, "SELECT pg_sleep(60);"), timeoutSeconds=1)
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.MIGRATION_TIMED_OUT
    (_, second, *_) = LAYOUTS[tool]
    assert f"timeoutSeconds), at {second.removesuffix('.sql')}" in report.trouble.message


async def test_plan_lists_what_is_pending(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS))
    await bootstrap.ready()
    bootstrap.migrate(tool, files(tool, USERS, PRODUCTS))
    (change,) = (await bootstrap.plan()).changes
    assert "products" in change
    assert bootstrap.query("SELECT to_regclass('products')") == [(None,)]


async def test_progress_is_told_once_before_a_slow_stage(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS))
    bootstrap.seed({"users.sql": "INSERT INTO users (email) VALUES ('a')"})
    await bootstrap.ready()
    assert [[one.stage.value for one in told] for told in bootstrap.progress] == [["role", "database", "extensions"]]


async def test_long_run_says_which_migration_it_is_at(bootstrap: Bootstrap, tool: str) -> None:
    told: list[str] = []

    async def tell(outcomes: Sequence[Outcome], facts: Facts) -> None:
        told.append(facts.doing)

    bootstrap.migrate(tool, files(tool, USERS, "SELECT pg_sleep(0.5);", PRODUCTS))
    engine = Engine(pace_seconds=0.05)
    try:
        assert (await engine.reconcile(bootstrap.subject, bootstrap.drawer, tell)).trouble is None
    finally:
        await engine.stop()
    assert any(word.startswith("Applying migration 2 of 3: ") for word in told), told


async def test_each_migration_is_in_ledger_and_audit_log(bootstrap: Bootstrap, tool: str) -> None:
    bootstrap.migrate(tool, files(tool, USERS, PRODUCTS))
    await bootstrap.ready()
    rows: list[Any] = bootstrap.query("SELECT tool, state FROM dbbootstrap.migration ORDER BY seq")
    assert rows == [(tool, "applied")] * 2
    audit = bootstrap.query("SELECT action FROM dbbootstrap.audit_log WHERE stage = 'migrations' ORDER BY seq")
    assert len(audit) == 3 and audit[-1] == ("all migrations applied for the first time",)
