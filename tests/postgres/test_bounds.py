"""What a database sends is not kept: results, notices and notifications of scripts, and answers beyond all measure."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.errors import MigrationFailed, MigrationHalfApplied, MigrationInterrupted
from database_bootstrap.postgres import bounds, session
from database_bootstrap.postgres.bounds import TooLarge
from database_bootstrap.postgres.connection import Connection, Done
from fix_engine import Bootstrap, outcome
from fix_tools import Workbench
from process_here import little_is_held

MEBIBYTE = 1 << 20
HALF_A_GIGABYTE = "SELECT repeat('x', 1000) FROM generate_series(1, 500000);"
A_QUARTER = "SELECT repeat('x', 1000) FROM generate_series(1, 250000);"
LARGE_ROW = "SELECT repeat('x', 100000000);"
ASK = "SET client_min_messages = notice;"
"""For what the operator does not ask for."""
HIDDEN = "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case; END;"
"""What follows is taken for a part of the function: here CASE is but a label."""


@asynccontextmanager
async def others_get_their_turn() -> AsyncIterator[None]:
    """Fail when the event loop stands still for long meanwhile."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.01)
            longest = max(longest, time.perf_counter() - begun)

    ticking = asyncio.create_task(tick())
    yield
    ticking.cancel()
    assert longest < 1


async def refused(workbench: Workbench, script: str) -> MigrationFailed:
    with pytest.raises(MigrationFailed) as caught:
        await workbench.migrate("SQL", {"1_m.sql": script})
    return caught.value


async def test_rows_that_a_script_selects_are_thrown_away_as_they_come(workbench: Workbench) -> None:
    script = f"CREATE TABLE t (id int);\n{HALF_A_GIGABYTE}\nINSERT INTO t SELECT generate_series(1, 3) RETURNING id;\n"
    with little_is_held():
        async with others_get_their_turn():
            found = await refused(workbench, f"{script}\nSELECT missing;")
    assert (found.line, found.sql_state) == (5, "42703")
    with little_is_held():
        found = await refused(workbench, f"{A_QUARTER}\nDO $$ BEGIN RAISE 'no'; END $$;")
    assert "line 2: no (SQLSTATE P0001)" in found.message
    hidden = f"CREATE TABLE t (id int);\n{HIDDEN}\n{A_QUARTER} COMMIT; INSERT INTO t VALUES (1);"
    with little_is_held(), pytest.raises(MigrationHalfApplied, match="ended the transaction"):
        await workbench.migrate("SQL", {"1_m.sql": hidden})
    assert workbench.query("SELECT count(*) FROM t") == [(1,)]


async def test_a_million_small_rows_take_a_moment(workbench: Workbench) -> None:
    begun = time.perf_counter()
    async with others_get_their_turn():
        await workbench.migrate("SQL", {"1_m.sql": "SELECT generate_series(1, 1000000);"})
    assert time.perf_counter() - begun < 10


@pytest.mark.parametrize("mode", ["", "-- dbbootstrap: transaction=off\n"])
async def test_row_that_is_too_large_is_refused_before_it_is_there(workbench: Workbench, mode: str) -> None:
    script = f"{mode}CREATE TABLE t ();\n\n{LARGE_ROW}"
    with little_is_held(), pytest.raises(Exception, match="more than 32 MiB came at once") as caught:
        await workbench.migrate("SQL", {"1_m.sql": script})
    assert f"line {script.count(chr(10)) + 1}: " in str(caught.value)
    assert "so let it select less" in str(caught.value)
    if not mode:
        assert isinstance(caught.value, MigrationFailed)
        assert caught.value.message.endswith("Nothing of it stayed; fix the file and apply again.")
    assert workbench.query("SELECT to_regclass('t') IS NULL") == [(not mode,)]


@pytest.mark.parametrize(
    "flood",
    [
        f"{ASK}DO $$ BEGIN FOR i IN 1..200000 LOOP RAISE NOTICE '%', repeat('x', 1000); END LOOP; END $$;",
        "LISTEN me;\nSELECT count(pg_notify('me', i || repeat('x', 7900))) FROM generate_series(1, 25000) i;",
    ],
    ids=["notices", "notifications"],
)
async def test_floods_beside_the_rows_are_thrown_away_too(workbench: Workbench, flood: str) -> None:
    with little_is_held():
        async with others_get_their_turn():
            assert await workbench.migrate("SQL", {"1_m.sql": flood}) == ["1_m.sql"]


@pytest.mark.parametrize("what", ["EXCEPTION", "NOTICE"])
async def test_message_that_is_too_large_is_refused(workbench: Workbench, what: str) -> None:
    with little_is_held():
        found = await refused(workbench, f"{ASK}DO $$ BEGIN RAISE {what} '%', repeat('x', 100000000); END $$;")
    assert "line 1: more than 32 MiB came at once" in found.message


async def test_message_that_is_too_large_at_the_commit_is_no_word_on_it(workbench: Workbench) -> None:
    script = """
        CREATE TABLE t (id int);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql SET client_min_messages = notice AS
            $$ BEGIN RAISE NOTICE '%', repeat('x', 100000000); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION f();
        INSERT INTO t VALUES (1);
    """
    with little_is_held(), pytest.raises(MigrationInterrupted, match="whether the server had committed it"):
        await workbench.migrate("SQL", {"1_m.sql": script})


async def test_data_of_copy_are_refused(workbench: Workbench) -> None:
    many = f"COPY ({A_QUARTER.removesuffix(';')}) TO STDOUT;"
    with little_is_held():
        found = await refused(workbench, f"CREATE TABLE t ();\n{HIDDEN}\n{many}")
        assert "COPY from or to the client works in psql only" in found.message
        found = await refused(workbench, f"CREATE TABLE t ();\n{HIDDEN}\nCOPY t FROM STDIN;")
        assert "COPY from or to the client works in psql only" in found.message
    assert workbench.query("SELECT to_regclass('t')") == [(None,)]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 1000])
async def test_what_is_known_of_a_statement_does_not_depend_on_its_rows(workbench: Workbench, count: int) -> None:
    done: list[Done] = []
    async with await session.connect(workbench.login, session.OWNER) as connection:
        script = (
            f"CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, {count}) RETURNING id;"
            f"SELECT generate_series(1, {count}); UPDATE t SET id = 1; BEGIN; TABLE t; COMMIT; SHOW port; SELECT 1/0"
        )
        result = await connection.run(script.encode(), done.append)
        assert result and result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"22012"
    tags = [b"CREATE TABLE", b"INSERT 0 %d", b"SELECT %d", b"UPDATE %d", b"BEGIN", b"SELECT %d", b"COMMIT", b"SHOW"]
    assert [one.tag for one in done] == [tag.replace(b"%d", b"%d" % count) for tag in tags]
    assert [one.rows for one in done if one.tag[-1:].isdigit()] == [count] * 4


async def test_seed_counts_its_rows_and_keeps_none(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("SQL", {"1_t.sql": "CREATE TABLE t (id int)"})
    rows = "INSERT INTO t SELECT generate_series(1, 20) RETURNING id, repeat('x', 1000);"
    merge = "MERGE INTO t USING t u ON false WHEN NOT MATCHED THEN INSERT VALUES (1);"
    bootstrap.seed({"1_a.sql": rows, "2_b.sql": f"SELECT 1;\n{LARGE_ROW}"})
    with little_is_held():
        said = outcome(await bootstrap.apply(), StageName.SEED)
    assert said.reason == Reason.SEED_FAILED
    assert said.message.startswith("2_b.sql line 2: more than 32 MiB came at once")
    assert bootstrap.as_superuser("SELECT count(*) FROM t", bootstrap.database) == [(0,)]
    bootstrap.seed({"1_a.sql": rows, "2_b.sql": f"{A_QUARTER}\n{rows}\n{merge}"})
    with little_is_held():
        await bootstrap.ready()
    assert bootstrap.query("SELECT rows FROM dbbootstrap.seed") == [(80,)]


async def test_answer_is_refused_that_is_too_large(workbench: Workbench) -> None:
    with little_is_held():
        for query in ("SELECT repeat('x', 100000000)", "SELECT repeat('x', 1000) FROM generate_series(1, 200000)"):
            async with await session.connect(workbench.login, session.OBSERVER) as connection:
                with pytest.raises(TooLarge, match="more than 32 MiB came at once"):
                    await connection.execute(query)
                assert connection.closed
    async with await session.connect(workbench.login, session.OBSERVER) as connection:
        fine = await connection.execute("SELECT repeat('x', 20000000)")
        assert len((await fine.fetchall())[0][0]) == 20_000_000
        many = await connection.execute(f"SELECT generate_series(0, {bounds.ROWS})".encode())
        with pytest.raises(TooLarge, match=f"more than {bounds.ROWS} rows"):
            await many.fetchall()
        assert not connection.closed


async def test_server_that_never_ends_its_greeting_is_refused() -> None:
    """A Secret may lead to a server that speaks the protocol and means no good."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1000)
            writer.write(b"R" + struct.pack("!ii", 8, 0) + b"N" + struct.pack("!i", 1 << 30))
            while True:
                writer.write(bytes(MEBIBYTE))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(greet, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        with little_is_held(), pytest.raises(TooLarge):
            await Connection.connect(host="127.0.0.1", port=port, user="u", sslmode="disable", connect_timeout=10)
