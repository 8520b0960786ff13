"""Prisma: the rows are those of `prisma migrate deploy`, and either can follow the other, as Prisma itself confirms."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from database_bootstrap.errors import LockHeld, MigrationHalfApplied, SchemaHasOtherOwner
from database_bootstrap.tools.migrators import Migrator, held, quiet
from database_bootstrap.tools.tool import Applied, Options
from fix_prisma import PrismaCommand
from fix_tools import Workbench, cure_in

INIT, USERS, ORDERS = "20240101000000_init", "20240102000000_Add.Users v2", "20240103000000_orders"
TEXTS = {
    INIT: "-- CreateTable\nCREATE TABLE users (id SERIAL PRIMARY KEY);\n",
    USERS: "ALTER TABLE users ADD COLUMN name TEXT;\r\nCREATE INDEX users_name ON users (name);\r\n",
    ORDERS: 'CREATE TABLE "Order" (id INT);\n',
}
LAYOUT = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 ORDER BY a.attnum
"""
INDEXES = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass"
WAITS_FOR_THE_LOCK = "SELECT pg_advisory_lock(72707369)"
HOLD, FREE = "SELECT pg_advisory_lock(72707369)", "SELECT pg_advisory_unlock(72707369)"


def files(*names: str, **more: str) -> dict[str, str]:
    return {f"{name}/migration.sql": text for name, text in ({name: TEXTS[name] for name in names} | more).items()}


def rows(workbench: Workbench, schema: str = "public") -> list[dict[str, Any]]:
    with psycopg.connect(workbench.dsn(), row_factory=psycopg.rows.dict_row) as connection:
        query = f'SELECT * FROM "{schema}"._prisma_migrations ORDER BY started_at'
        return connection.execute(query.encode()).fetchall()


def check_rows(found: list[dict[str, Any]], names: list[str]) -> None:
    """Fail unless these are the rows that a deploy of the migrations leaves."""
    assert [row["migration_name"] for row in found] == names
    assert len({row["id"] for row in found}) == len(names)
    for row in found:
        assert list(row) == [
            "id",
            "checksum",
            "finished_at",
            "migration_name",
            "logs",
            "rolled_back_at",
            "started_at",
            "applied_steps_count",
        ]
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", row["id"])
        assert row["checksum"] == hashlib.sha256(TEXTS[row["migration_name"]].encode()).hexdigest()
        assert row["started_at"] <= row["finished_at"]
        assert (row["logs"], row["rolled_back_at"], row["applied_steps_count"]) == (None, None, 1)


async def test_rows_are_those_of_a_deploy(workbench: Workbench) -> None:
    assert await workbench.migrate("Prisma", files(INIT, USERS, ORDERS)) == [INIT, USERS, ORDERS]
    check_rows(rows(workbench), [INIT, USERS, ORDERS])
    assert (await workbench.look("Prisma", files(INIT, USERS, ORDERS))).pending == ()


async def test_nothing_of_ours_is_in_the_application_s_schema(workbench: Workbench) -> None:
    await workbench.migrate("Prisma", files(INIT))
    assert workbench.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1") == [
        ("_prisma_migrations",),
        ("users",),
    ]


async def test_schema_that_is_named_is_made_and_used(workbench: Workbench) -> None:
    await workbench.migrate("Prisma", files(INIT), schema="Shop")
    check_rows(rows(workbench, "Shop"), [INIT])
    assert workbench.query('SELECT count(*) FROM "Shop".users') == [(0,)]
    assert (await workbench.look("Prisma", files(INIT), schema="Shop")).pending == ()
    assert (await workbench.look("Prisma", files(INIT))).pending == (INIT,)


async def test_keys_of_a_config_map_stand_for_directories(workbench: Workbench) -> None:
    await workbench.migrate("Prisma", files(INIT))
    assert (await workbench.look("Prisma", {f"{INIT}.sql": TEXTS[INIT]})).pending == ()


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        pytest.param("CREATE TABLE a ();\nCREATE INDEX CONCURRENTLY i ON users (id);", "statement", id="alone"),
        pytest.param("CREATE TABLE a ();\nBEGIN;\nCREATE TABLE b ();\nCOMMIT;", "script", id="its own transaction"),
        pytest.param("BEGIN;\nCREATE TABLE a ();\nCOMMIT;", "transaction", id="wholly in a transaction"),
    ],
)
async def test_every_mode_leaves_the_same_row(workbench: Workbench, text: str, mode: str) -> None:
    await workbench.migrate("Prisma", files(INIT, x=text))
    (_, row) = rows(workbench)
    assert (row["migration_name"], row["logs"], row["rolled_back_at"], row["applied_steps_count"]) == (
        "x",
        None,
        None,
        1,
    )
    assert row["started_at"] <= row["finished_at"]
    assert workbench.query("SELECT mode FROM dbbootstrap.migration WHERE name = 'x' AND state = 'applied'") == [(mode,)]


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        pytest.param("CREATE TABLE a ();\nBEGIN;\nSELECT missing;\nCOMMIT;", False, id="before its transaction too"),
        pytest.param("BEGIN;\nCREATE TABLE a ();\nCOMMIT;\nSELECT missing;", True, id="after its transaction"),
    ],
)
async def test_script_with_its_own_transaction_fails_as_prisma_leaves_it(
    workbench: Workbench, text: str, stays: bool
) -> None:
    with pytest.raises(MigrationHalfApplied, match=r"statement \d of 4 line \d column 8: .*SQLSTATE 42703"):
        await workbench.migrate("Prisma", files(INIT, x=text))
    assert workbench.query("SELECT to_regclass('a') IS NOT NULL") == [(stays,)]
    row = rows(workbench)[-1]
    assert (row["finished_at"], row["rolled_back_at"], row["applied_steps_count"]) == (None, None, 0)
    assert "42703" in row["logs"]


async def test_logs_of_prisma_are_not_shown(workbench: Workbench) -> None:
    await workbench.migrate("Prisma", files(INIT))
    workbench.query("UPDATE _prisma_migrations SET finished_at = NULL, logs = 'Key (card)=(4111) already exists'")
    with pytest.raises(MigrationHalfApplied) as caught:
        await workbench.look("Prisma", files(INIT))
    assert "4111" not in caught.value.message


async def test_deploy_that_holds_its_lock_is_waited_for(workbench: Workbench) -> None:
    async with await workbench.connect() as deploy:
        await deploy.execute(HOLD)
        run = asyncio.create_task(workbench.migrate("Prisma", files(INIT, USERS)))
        await asyncio.sleep(0.6)
        assert workbench.query("SELECT to_regclass('users')") == [(None,)]
        # What the deploy applied meanwhile is not applied again.
        await deploy.execute(
            "CREATE TABLE _prisma_migrations (id VARCHAR(36) PRIMARY KEY NOT NULL, checksum VARCHAR(64) NOT NULL,"
            " finished_at TIMESTAMPTZ, migration_name VARCHAR(255) NOT NULL, logs TEXT, rolled_back_at TIMESTAMPTZ,"
            " started_at TIMESTAMPTZ NOT NULL DEFAULT now(), applied_steps_count INTEGER NOT NULL DEFAULT 0)"
        )
        await deploy.execute(TEXTS[INIT].encode())
        checksum = hashlib.sha256(TEXTS[INIT].encode()).hexdigest()
        await deploy.execute(
            "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)"
            " VALUES (gen_random_uuid(), %s, %s, now(), 1)",
            (checksum, INIT),
        )
        await deploy.execute(FREE)
        assert await run == [USERS]
    check_rows(rows(workbench), [INIT, USERS])


async def test_deploy_in_the_middle_is_no_failure(workbench: Workbench) -> None:
    await workbench.migrate("Prisma", files(INIT))
    async with await workbench.connect() as deploy:
        await deploy.execute(HOLD)
        await deploy.execute("UPDATE _prisma_migrations SET finished_at = NULL")
        with pytest.raises(LockHeld, match="right now"):
            await workbench.look("Prisma", files(INIT))
        await deploy.execute(FREE)
        with pytest.raises(MigrationHalfApplied):
            await workbench.look("Prisma", files(INIT))


async def test_deploy_that_ends_between_two_looks_is_no_failure(workbench: Workbench) -> None:
    looks = [(Applied(name=INIT, finished=False),), (Applied(name=INIT),)]

    async def read() -> tuple[Applied, ...]:
        return looks.pop(0)

    async with workbench.session(Options(schema="public")) as connection:
        assert await quiet(connection, read, Migrator.PRISMA) == (Applied(name=INIT),)


async def test_lock_is_given_back(workbench: Workbench) -> None:
    await workbench.migrate("Prisma", files(INIT))
    with pytest.raises(Exception, match="backslash"):
        await workbench.migrate("Prisma", files(INIT, x="\\q"))
    assert workbench.query(f"SELECT pg_try_advisory_lock({Migrator.PRISMA.value})") == [(True,)]


async def test_deploy_that_waits_for_its_lock_does_not_spoil_a_concurrent_index(workbench: Workbench) -> None:
    """Who waits in pg_advisory_lock() holds a snapshot, for which CREATE INDEX CONCURRENTLY waits in turn."""
    slow = "SELECT pg_sleep(2);\nCREATE INDEX CONCURRENTLY i ON users (id);\nSELECT 1;"
    await workbench.migrate("Prisma", files(INIT))
    run = asyncio.create_task(workbench.migrate("Prisma", files(INIT, x=f"-- waits\n{slow}")))
    async with await workbench.connect() as deploy:
        await asyncio.sleep(0.5)
        async with asyncio.timeout(20):
            await deploy.execute(WAITS_FOR_THE_LOCK)
            # It has the lock while the index is made; the unfinished row keeps it from going on (P3009).
            cursor = await deploy.execute("SELECT count(*) FROM _prisma_migrations WHERE finished_at IS NULL")
            assert await cursor.fetchone() == (1,)
            await deploy.execute(FREE)
            assert await run == ["x"]
    assert workbench.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


async def test_finished_one_is_recorded_before_the_lock_is_taken_again(workbench: Workbench) -> None:
    """A deploy that takes the lock meanwhile, and keeps it, must not make a finished migration a half-applied one."""
    alone = "-- dbbootstrap: transaction=off\nSELECT pg_sleep(1);\nCREATE TABLE done ();"
    run = asyncio.create_task(workbench.migrate("Prisma", files(INIT, x=alone, y="CREATE TABLE next ();")))
    async with await workbench.connect() as deploy:
        async with asyncio.timeout(20):
            while not workbench.query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
                await asyncio.sleep(0.05)
            await deploy.execute(HOLD)
        with pytest.raises(LockHeld):
            await run
    assert workbench.applied == [INIT, "x"]
    assert workbench.query("SELECT to_regclass('next')") == [(None,)]
    found = await workbench.look("Prisma", files(INIT, x=alone, y="CREATE TABLE next ();"))
    assert found.pending == ("y",)
    assert await workbench.migrate("Prisma", files(INIT, x=alone, y="CREATE TABLE next ();")) == ["y"]


async def test_lock_is_the_one_that_a_deploy_takes(
    workbench: Workbench, make_prisma: Callable[[Workbench], PrismaCommand]
) -> None:
    prisma = make_prisma(workbench)
    prisma.project(files(INIT))
    async with workbench.session(Options(schema="public")) as connection, held(connection, Migrator.PRISMA, "test"):
        refused = await asyncio.to_thread(prisma.run, "migrate", "deploy")
    assert refused.returncode != 0
    assert "advisory lock" in refused.stdout


async def test_prisma_next_is_refused(workbench: Workbench) -> None:
    workbench.query("CREATE SCHEMA prisma_contract")
    with pytest.raises(SchemaHasOtherOwner, match="Prisma Next"):
        await workbench.look("Prisma", files(INIT))


async def test_prisma_finds_nothing_to_do_after_us(
    workbench: Workbench, make_prisma: Callable[[Workbench], PrismaCommand]
) -> None:
    await workbench.migrate("Prisma", files(INIT, USERS))
    prisma = make_prisma(workbench)
    prisma.project(files(INIT, USERS))
    assert "Database schema is up to date" in prisma.succeed("migrate", "status")
    assert "No pending migrations" in prisma.succeed("migrate", "deploy")
    prisma.project(files(INIT, USERS, ORDERS))
    prisma.succeed("migrate", "deploy")
    check_rows(rows(workbench), [INIT, USERS, ORDERS])


async def test_we_find_nothing_to_do_after_prisma(
    workbench: Workbench, make_prisma: Callable[[Workbench], PrismaCommand]
) -> None:
    prisma = make_prisma(workbench)
    prisma.project(files(INIT, USERS))
    prisma.succeed("migrate", "deploy")
    check_rows(rows(workbench), [INIT, USERS])
    assert (await workbench.look("Prisma", files(INIT, USERS))).pending == ()
    assert await workbench.migrate("Prisma", files(INIT, USERS, ORDERS)) == [ORDERS]
    check_rows(rows(workbench), [INIT, USERS, ORDERS])
    prisma.project(files(INIT, USERS, ORDERS))
    assert "Database schema is up to date" in prisma.succeed("migrate", "status")


async def test_table_is_the_one_that_prisma_makes(
    workbench: Workbench, make_prisma: Callable[[Workbench], PrismaCommand]
) -> None:
    await workbench.migrate("Prisma", files(INIT), schema="ours")
    workbench.query("CREATE SCHEMA theirs")
    prisma = make_prisma(workbench)
    prisma.schema = "theirs"
    prisma.project({f"{INIT}/migration.sql": "SELECT 1"})
    prisma.succeed("migrate", "deploy")
    for query in (LAYOUT, INDEXES):
        ours, theirs = (
            str(workbench.query(query, f"{schema}._prisma_migrations")).replace(f"{schema}.", "")
            for schema in ("ours", "theirs")
        )
        assert ours == theirs


def shape(workbench: Workbench) -> list[tuple[Any, ...]]:
    """Return what must be equal in rows that Prisma and we have written."""
    return [
        (
            row["migration_name"],
            row["checksum"],
            row["applied_steps_count"],
            row["logs"] if row["finished_at"] else None,
            row["finished_at"] == row["started_at"] if row["finished_at"] else None,
            row["rolled_back_at"] is not None,
        )
        for row in rows(workbench)
    ]


async def test_baseline_is_what_prisma_resolves_as_applied(
    make_workbench: Callable[[str], Awaitable[Workbench]], make_prisma: Callable[[Workbench], PrismaCommand]
) -> None:
    theirs, ours = await make_workbench(""), await make_workbench("")
    prisma = make_prisma(theirs)
    prisma.project(files(INIT, USERS, ORDERS))
    for workbench in (theirs, ours):
        workbench.query("CREATE TABLE users (id SERIAL PRIMARY KEY, name TEXT)")
    assert "P3005" in prisma.run("migrate", "deploy").stdout
    for name in (INIT, USERS):
        prisma.succeed("migrate", "resolve", "--applied", name)
    assert await ours.migrate("Prisma", files(INIT, USERS), baseline=USERS) == []
    assert shape(ours) == shape(theirs)
    # Either goes on from what the other has adopted.
    assert await theirs.migrate("Prisma", files(INIT, USERS, ORDERS)) == [ORDERS]
    prisma.workbench = ours
    assert ORDERS in prisma.succeed("migrate", "deploy")
    assert shape(ours) == shape(theirs)


@pytest.mark.parametrize("how", ["applied", "rolled-back"])
async def test_person_s_word_is_what_prisma_resolves(
    make_workbench: Callable[[str], Awaitable[Workbench]],
    make_prisma: Callable[[Workbench], PrismaCommand],
    how: str,
) -> None:
    theirs, ours = await make_workbench(""), await make_workbench("")
    broken = files(INIT, x="CREATE TABLE a ();\nCREATE INDEX CONCURRENTLY i ON missing (id);")
    said = []
    for workbench in (theirs, ours):
        with pytest.raises(MigrationHalfApplied) as caught:
            await workbench.migrate("Prisma", broken)
        said.append(cure_in(caught.value.message, how))
    assert not await ours.resolve("Prisma", broken, said[0])
    prisma = make_prisma(theirs)
    prisma.project(broken)
    prisma.succeed("migrate", "resolve", f"--{how}", "x")
    assert await ours.resolve("Prisma", broken, said[1])
    assert shape(ours) == shape(theirs)
    assert not await ours.resolve("Prisma", broken, said[1])
    # What stopped is left as it is by a deploy too, until it was resolved.
    prisma.workbench = ours
    assert ("No pending" in prisma.run("migrate", "deploy").stdout) == (how == "applied")


async def test_what_a_deploy_has_left_behind_is_named(
    workbench: Workbench, make_prisma: Callable[[Workbench], PrismaCommand]
) -> None:
    prisma = make_prisma(workbench)
    broken = files(INIT, x="CREATE TABLE a ();\nINSERT INTO users (id) VALUES (4111), (4111);")
    prisma.project(broken)
    assert prisma.run("migrate", "deploy").returncode != 0
    with pytest.raises(MigrationHalfApplied) as caught:
        await workbench.look("Prisma", broken)
    assert caught.value.name == "x"
    assert "in the column logs of its table _prisma_migrations" in caught.value.message
    # The native engine writes the code down, and row data beside it; the one with a driver adapter does neither.
    workbench.query("UPDATE _prisma_migrations SET logs = 'Database error code: 23505\n\nDETAIL: (id)=(4111)'")
    with pytest.raises(MigrationHalfApplied) as caught:
        await workbench.look("Prisma", broken)
    assert caught.value.sql_state == "23505"
    assert "4111" not in caught.value.message
    assert await workbench.resolve("Prisma", broken, cure_in(caught.value.message, "rolled-back"))
    assert (await workbench.look("Prisma", broken)).pending == ("x",)


@pytest.mark.parametrize(("option", "pending"), [("--applied", ()), ("--rolled-back", ("x",))])
async def test_half_applied_one_is_resolved_with_prisma(
    workbench: Workbench, make_prisma: Callable[[Workbench], PrismaCommand], option: str, pending: tuple[str, ...]
) -> None:
    broken = files(INIT, x="CREATE TABLE a ();\nCREATE INDEX CONCURRENTLY i ON missing (id);")
    with pytest.raises(MigrationHalfApplied, match=f"prisma migrate resolve {option} x"):
        await workbench.migrate("Prisma", broken)
    prisma = make_prisma(workbench)
    prisma.project(broken)
    refused = prisma.run("migrate", "deploy")
    assert refused.returncode != 0
    assert "P3009" in refused.stdout
    prisma.succeed("migrate", "resolve", option, "x")
    assert (await workbench.look("Prisma", broken)).pending == pending


WAITS_FOR_THE_GATE = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'other.gate'::regclass"
DEPLOY_WAITS = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"


@pytest.mark.parametrize("ours", [True, False], ids=["we-are-first", "deploy-is-first"])
async def test_deploy_at_the_same_moment_ends_well_too(
    workbench: Workbench, make_prisma: Callable[[Workbench], PrismaCommand], ours: bool
) -> None:
    """Whoever is first stands before a locked table, in the middle of a migration, until the other one is there."""
    workbench.query("CREATE SCHEMA other")
    workbench.query("CREATE TABLE other.gate (id int)")
    project = files(INIT, USERS, ORDERS, x="INSERT INTO other.gate VALUES (1);")
    prisma = make_prisma(workbench)
    prisma.project(project)
    async with await workbench.connect() as gate:
        await gate.execute("BEGIN; LOCK TABLE other.gate")
        if ours:
            run = asyncio.create_task(workbench.migrate("Prisma", project, lock_timeout=60))
            await holds(workbench, WAITS_FOR_THE_GATE, run)
            deploy = asyncio.create_task(asyncio.to_thread(prisma.run, "migrate", "deploy"))
            await holds(workbench, DEPLOY_WAITS, deploy)
        else:
            deploy = asyncio.create_task(asyncio.to_thread(prisma.run, "migrate", "deploy"))
            await holds(workbench, WAITS_FOR_THE_GATE, deploy)
            with pytest.raises(LockHeld, match="right now"):
                await workbench.migrate("Prisma", project)
        await gate.execute("COMMIT")
        done = await deploy
        if ours:
            await run
    assert done.returncode == 0, done.stdout
    assert (await workbench.look("Prisma", project)).pending == ()
    assert await workbench.migrate("Prisma", project) == []
    assert [row[:4] for row in shape(workbench)] == [
        (name, hashlib.sha256(project[f"{name}/migration.sql"].encode()).hexdigest(), 1, None)
        for name in (INIT, USERS, ORDERS, "x")
    ]
    assert workbench.query("SELECT count(*) FROM other.gate") == [(1,)]


async def holds(workbench: Workbench, query: str, task: asyncio.Task[Any]) -> None:
    """Wait until the query gives a row, no longer than the task runs."""
    async with asyncio.timeout(60):
        while not workbench.query(query) and not task.done():
            await asyncio.sleep(0.02)
