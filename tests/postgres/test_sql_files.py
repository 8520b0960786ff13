"""Plain SQL files on a real server: the ledger is their history, and its newest row about a file is what counts."""

import pytest

from database_bootstrap.errors import MigrationDiverged, MigrationHalfApplied
from database_bootstrap.tools.sql_files import SqlFiles, checksum_of
from database_bootstrap.tools.tool import Options
from fix_tools import Workbench, cure_in

FILES = {"V1__users.sql": "CREATE TABLE users (id int);", "V2__name.sql": "ALTER TABLE users ADD name text;\r\n"}
BROKEN = {**FILES, "V3__it's.sql": "-- dbbootstrap: transaction=off\nCREATE TABLE half ();\nSELECT missing;"}


async def test_ledger_is_the_history(workbench: Workbench) -> None:
    assert await workbench.migrate("SQL", FILES) == ["V1__users.sql", "V2__name.sql"]
    columns = "tool, version, name, checksum, mode, state, statements, sql_state, error"
    assert workbench.query(f"SELECT {columns} FROM dbbootstrap.migration ORDER BY seq") == [
        ("SQL", version, name, checksum_of(FILES[name].encode()), "transaction", "applied", 1, None, None)
        for version, name in (("1", "V1__users.sql"), ("2", "V2__name.sql"))
    ]
    assert (await workbench.look("SQL", FILES)).applied == 2


async def test_line_ends_of_another_checkout_are_no_edit(workbench: Workbench) -> None:
    await workbench.migrate("SQL", FILES)
    checked_out = {name: "\ufeff" + text.replace("\r\n", "\n") for name, text in FILES.items()}
    assert (await workbench.look("SQL", checked_out)).pending == ()


async def test_files_that_move_between_folders_are_no_divergence(workbench: Workbench) -> None:
    first = {"v1/001_a.sql": "CREATE TABLE a ();"}
    await workbench.migrate("SQL", first)
    grown = {**first, "v2/002_b.sql": "CREATE TABLE b ();", "README.md": "read me"}
    assert await workbench.migrate("SQL", grown) == ["002_b.sql"]
    moved = {f"db/{path.replace('v1', 'old')}": text for path, text in grown.items()}
    assert (await workbench.look("SQL", moved)).pending == ()


async def test_edited_file_stops(workbench: Workbench) -> None:
    await workbench.migrate("SQL", FILES)
    with pytest.raises(MigrationDiverged, match=r"edited: V1__users\.sql"):
        await workbench.look("SQL", {**FILES, "V1__users.sql": "CREATE TABLE users (id bigint);"})


async def test_database_without_our_ledger_has_no_history(workbench: Workbench) -> None:
    workbench.server.psql("DROP SCHEMA dbbootstrap CASCADE", dbname=workbench.login.database)
    found = await workbench.look("SQL", FILES)
    assert (found.pending, found.applied) == (tuple(FILES), 0)


async def test_rows_of_another_tool_are_not_ours(workbench: Workbench) -> None:
    await workbench.migrate("Prisma", {"1_a/migration.sql": "SELECT 1"})
    assert (await workbench.look("SQL", FILES)).applied == 0


async def test_late_file_runs_when_it_is_named(workbench: Workbench) -> None:
    await workbench.migrate("SQL", FILES)
    late = {**FILES, "V1.5__late.sql": "CREATE TABLE late ();"}
    with pytest.raises(MigrationDiverged, match="allowOutOfOrder"):
        await workbench.look("SQL", late)
    assert await workbench.migrate("SQL", late, allow_out_of_order=frozenset({"V1.5__late.sql"})) == ["V1.5__late.sql"]
    # Once applied it needs no permission any more.
    assert (await workbench.look("SQL", late)).pending == ()


@pytest.mark.parametrize(("how", "pending"), [("applied", ()), ("rolled-back", ("V3__it's.sql",))])
async def test_what_a_half_applied_one_says_to_do_works(
    workbench: Workbench, how: str, pending: tuple[str, ...]
) -> None:
    with pytest.raises(MigrationHalfApplied) as caught:
        await workbench.migrate("SQL", BROKEN)
    assert workbench.query("SELECT to_regclass('half')::text") == [("half",)]
    text = cure_in(caught.value.message, how)
    assert await workbench.resolve("SQL", BROKEN, text)
    assert (await workbench.look("SQL", BROKEN)).pending == pending
    assert not await workbench.resolve("SQL", BROKEN, text)


async def test_observer_writes_nothing(workbench: Workbench) -> None:
    await workbench.migrate("SQL", FILES)
    before = workbench.query("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    await workbench.look("SQL", FILES)
    await workbench.look("Prisma", {"1_a/migration.sql": "SELECT 1"})
    assert workbench.query("SELECT pg_snapshot_xmax(pg_current_snapshot())::text") == before


async def test_history_knows_no_table_of_the_application(workbench: Workbench) -> None:
    await workbench.migrate("SQL", FILES)
    async with workbench.session(Options(schema="public")) as connection:
        history = await SqlFiles().read(connection, Options(schema="public"))
    assert (history.table_exists, history.tables) == (True, ())
