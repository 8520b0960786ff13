"""Databases that their owners have blown up: worked with, or refused with a sentence, and never held in memory."""

import pytest

from database_bootstrap.api.outcomes import Reason
from database_bootstrap.errors import MigrationDiverged, MigrationHalfApplied
from database_bootstrap.postgres import bounds, ledger, session
from database_bootstrap.postgres.bounds import TooLarge
from database_bootstrap.tools import alembic_table
from database_bootstrap.tools.tool import Options
from fix_engine import Bootstrap
from fix_tools import Workbench
from process_here import little_is_held

MANY = bounds.HISTORY + 1
FILES = {"1_a/migration.sql": "SELECT 1"}
SQL_FILES = {"1_a.sql": "SELECT 1"}
LONG = "repeat('x', 35000000)"
"""Longer than anything that is taken as a whole."""


async def test_history_of_prisma_is_read_as_far_as_there_is_sense_in_it(workbench: Workbench) -> None:
    await workbench.migrate("Prisma", FILES)
    workbench.query("ALTER TABLE _prisma_migrations ALTER migration_name TYPE text, ALTER checksum TYPE text")
    insert = "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at, logs)"
    workbench.query(f"{insert} SELECT n::text, {LONG}, {LONG}, now(), {LONG} FROM generate_series(1, 2) n")
    with little_is_held(), pytest.raises(MigrationDiverged) as diverged:
        await workbench.look("Prisma", FILES | {"2_b/migration.sql": "SELECT 2"})
    assert len(diverged.value.message) < 5 * bounds.NAME
    workbench.query(f"{insert} VALUES ('3', '', '3_c', NULL, 'dbbootstrap: {'y' * 10}' || {LONG})")
    with little_is_held(), pytest.raises(MigrationHalfApplied, match="yyy") as stopped:
        await workbench.look("Prisma", FILES)
    assert len(stopped.value.message) < 2 * bounds.WORDS
    # Whatever is in the table's place.
    workbench.query(
        "DROP TABLE _prisma_migrations; CREATE VIEW _prisma_migrations AS SELECT n::text AS id, '' AS checksum,"
        " n::text AS migration_name, now() AS finished_at, '' AS logs, NULL::timestamptz AS rolled_back_at,"
        f" now() AS started_at FROM generate_series(0, {bounds.ROWS}) n"
    )
    with little_is_held(), pytest.raises(TooLarge, match=f"more than {bounds.HISTORY} rows"):
        await workbench.look("Prisma", FILES)


async def test_history_in_the_ledger_is_read_as_far_as_there_is_sense_in_it(workbench: Workbench) -> None:
    await workbench.migrate("SQL", SQL_FILES)
    insert = "INSERT INTO dbbootstrap.migration (tool, name, state, error, version)"
    workbench.query(f"{insert} VALUES ('SQL', '2_b.sql', 'failed', 'yyy' || {LONG}, NULL)")
    with little_is_held(), pytest.raises(MigrationHalfApplied, match="yyy") as stopped:
        await workbench.look("SQL", SQL_FILES)
    assert len(stopped.value.message) < 2 * bounds.WORDS
    workbench.query(f"{insert} SELECT 'SQL', n::text, 'applied', NULL, NULL FROM generate_series(1, {MANY}) n")
    with little_is_held(), pytest.raises(TooLarge, match=f"more than {bounds.HISTORY} rows"):
        await workbench.look("SQL", SQL_FILES)


async def test_history_of_alembic_is_read_as_far_as_there_is_sense_in_it(workbench: Workbench) -> None:
    insert = "INSERT INTO dbbootstrap.migration (tool, name, state, error, version)"
    workbench.query(f"{insert} VALUES ('Alembic', 'a', 'failed', 'yyy' || {LONG}, NULL)")
    workbench.query(f"CREATE TABLE alembic_version AS SELECT {LONG} AS version_num")
    async with await session.connect(workbench.login, session.OBSERVER) as connection:
        with little_is_held():
            history = await alembic_table.read(connection, Options(schema="public"))
        assert [len(row.name) for row in history.rows] == [bounds.NAME, 1]
        assert history.rows[1].detail["error"] == "yyy" + (bounds.WORDS - 3) * "x"
        workbench.query(f"INSERT INTO alembic_version SELECT n FROM generate_series(1, {MANY}) n")
        with little_is_held(), pytest.raises(TooLarge, match=f"more than {bounds.HISTORY} rows"):
            await alembic_table.read(connection, Options(schema="public"))
        workbench.query(
            f"DELETE FROM alembic_version; {insert} SELECT 'Alembic', n, 'failed', NULL, NULL"
            f" FROM generate_series(1, {MANY}) n"
        )
        with little_is_held(), pytest.raises(TooLarge, match=f"more than {bounds.HISTORY} rows"):
            await alembic_table.read(connection, Options(schema="public"))


async def test_what_the_owner_makes_large_is_not_looked_at(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("SQL", {"1_a.sql": "CREATE TABLE full_table AS SELECT 1 AS id"})
    bootstrap.seed({"full_table.csv": "id\n2\n"})
    await bootstrap.ready()
    bootstrap.query(
        f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET application_name = %L', current_database(), {LONG}); END $$"
    )
    bootstrap.query(
        f"INSERT INTO dbbootstrap.seed (name, checksum, state, rows, detail, incarnation)"
        f" SELECT name, {LONG}, 'adopted', 1, {LONG}, incarnation FROM dbbootstrap.seed"
    )
    bootstrap.query(
        "DO $$ BEGIN EXECUTE format('CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS %L',"
        f" 'BEGIN END /*' || {LONG} || '*/'); END $$"
    )
    with little_is_held():
        # A mark that nobody can have written is none.
        assert (await bootstrap.ready()).changes == ("note that public.full_table has rows already, and seed nothing",)
    bootstrap.raw["database"]["parameters"] = [{"name": "application_name", "value": "shop"}]
    with little_is_held():
        report = await bootstrap.ready()
    assert [change for change in report.changes if "set parameter application_name" in change]
    bootstrap.migrate("SQL", {"1_a.sql": "CREATE TABLE full_table AS SELECT 1 AS id", "2_b.sql": "SELECT f()"})
    with little_is_held():
        trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.reason == Reason.DESTRUCTIVE_MIGRATION


async def test_ledger_of_the_roles_own_is_read_as_far_as_there_is_sense_in_it(bootstrap: Bootstrap) -> None:
    bootstrap.as_superuser(f"CREATE ROLE \"{bootstrap.role}\" LOGIN PASSWORD 'pw'")
    bootstrap.as_superuser(f'CREATE DATABASE "{bootstrap.database}" OWNER "{bootstrap.role}"')
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    bootstrap.drawer.put("own", {"password": "pw"})
    bootstrap.server.psql(
        f'SET ROLE "{bootstrap.role}"; CREATE SCHEMA dbbootstrap; {ledger.DDL};'
        "ALTER TABLE dbbootstrap.identity DROP CONSTRAINT identity_pkey;"
        "INSERT INTO dbbootstrap.identity (incarnation, cluster, namespace, name, uid, origin, database_oid)"
        f" SELECT gen_random_uuid(), {LONG}, 'n', 'n', 'u', 'Created', 1 FROM generate_series(1, 2);",
        dbname=bootstrap.database,
    )
    with little_is_held():
        await bootstrap.ready()


async def test_answer_that_is_too_large_is_told_of(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("Prisma", FILES)
    await bootstrap.ready()
    bootstrap.query(
        f"INSERT INTO _prisma_migrations SELECT n, '', now(), n, '', NULL FROM generate_series(1, {MANY}) n"
    )
    with little_is_held():
        trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.reason == Reason.ANSWER_TOO_LARGE
    assert trouble.message.startswith(
        "What the server sent when it was to read the history of Prisma is too much: there are more than 10000 rows"
    )
