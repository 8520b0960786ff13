"""Scripts on real servers, by both tools that run them: where a failure is, and what it leaves."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from database_bootstrap.errors import (
    BundleRejected,
    LockHeld,
    MigrationFailed,
    MigrationHalfApplied,
    MigrationInterrupted,
)
from database_bootstrap.postgres import locks
from database_bootstrap.tools.tool import Options
from fix_tools import TOOLS, Workbench, bundle

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text);"
LOW = locks.KEY & 0xFFFFFFFF
"""How pg_locks shows the second half of the operator's key."""


@pytest.fixture(params=list(TOOLS))
def tool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def files(tool: str, *texts: str) -> dict[str, str]:
    pattern = {"SQL": "{}_m.sql", "Prisma": "{}_m/migration.sql"}[tool]
    return {pattern.format(number): text for number, text in enumerate(texts, start=1)}


def name(tool: str, number: int) -> str:
    return {"SQL": f"{number}_m.sql", "Prisma": f"{number}_m"}[tool]


def states(workbench: Workbench) -> list[Any]:
    return workbench.query("SELECT name, mode, state, statements FROM dbbootstrap.migration ORDER BY seq")


async def failure(workbench: Workbench, tool: str, *texts: str) -> MigrationFailed:
    with pytest.raises(MigrationFailed) as caught:
        await workbench.migrate(tool, files(tool, *texts))
    assert caught.value.message.endswith("Nothing of it stayed; fix the file and apply again.")
    assert workbench.query("SELECT count(*) FROM dbbootstrap.migration WHERE state <> 'applied'") == [(0,)]
    return caught.value


async def test_applied_ones_stand_in_ledger_and_audit_log(workbench: Workbench, tool: str) -> None:
    assert await workbench.migrate(tool, files(tool, TABLE, "", "SELECT 1; SELECT 2;")) == [
        name(tool, number) for number in (1, 2, 3)
    ]
    assert states(workbench) == [
        (name(tool, 1), "transaction", "applied", 1),
        (name(tool, 2), "transaction", "applied", 0),
        (name(tool, 3), "transaction", "applied", 2),
    ]
    assert workbench.query("SELECT DISTINCT actor, login::text FROM dbbootstrap.audit_log") == [
        ("test", workbench.login.user)
    ]
    assert await workbench.migrate(tool, files(tool, TABLE, "", "SELECT 1; SELECT 2;")) == []


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param(
            "SELECT 1;\n\nSELECT missing;", 3, r'line 3 column 8: column "missing" does not exist', id="position"
        ),
        pytest.param(
            "-- ä\n-- ö\nCREATE TABLE x ();\n\n  CREATE TABLE\n t ();", 5, 'line 5: relation "t"', id="no position"
        ),
        pytest.param("SELECT 'ä'; SELECT 'é', missing;", 1, "line 1 column 25: ", id="characters, not bytes"),
        pytest.param("SELECT 1;\r\nSELECT FRM x y;", 2, 'line 2 column 14: syntax error at or near "y"', id="syntax"),
        pytest.param("BEGIN;\nSELECT missing;\nCOMMIT;", 2, "line 2 column 8: ", id="within its own transaction"),
        pytest.param("SELECT 1;\nDO $$ BEGIN\nRAISE 'no'; END $$;", 2, "line 2: no (SQLSTATE P0001)", id="raised"),
        pytest.param("INSERT INTO t\nVALUES (2), (1);", 1, "line 1: duplicate key", id="while it runs"),
        pytest.param("\ufeffSELECT missing;", 1, "line 1 column 8: ", id="byte order mark"),
    ],
)
async def test_failure_has_its_place_and_leaves_no_trace(
    workbench: Workbench, tool: str, text: str, line: int, said: str
) -> None:
    found = await failure(workbench, tool, TABLE + "INSERT INTO t VALUES (1);", f"{text}")
    assert (found.name, found.line) == (name(tool, 2), line)
    assert said in found.message
    assert f"(SQLSTATE {found.sql_state})" in found.message
    assert workbench.query("SELECT count(*), to_regclass('x') FROM t") == [(1, None)]
    assert workbench.applied == [name(tool, 1)]
    assert await workbench.migrate(tool, files(tool, TABLE + "INSERT INTO t VALUES (1);", "SELECT 1")) == [
        name(tool, 2)
    ]


async def test_row_data_is_in_no_message(workbench: Workbench, tool: str) -> None:
    secret = "4111-1111"  # in the DETAIL: Key (v)=(…) already exists.
    found = await failure(
        workbench, tool, f"CREATE TABLE u (v text UNIQUE); INSERT INTO u SELECT '{secret}' FROM generate_series(1, 2);"
    )
    assert secret not in found.message + found.detail
    found = await failure(
        workbench, tool, f"CREATE TABLE u (v text CHECK (v = '')); INSERT INTO u VALUES ('{secret}');"
    )
    assert secret not in found.message + found.detail


async def test_constraint_that_is_checked_at_commit_fails_the_migration(workbench: Workbench, tool: str) -> None:
    text = TABLE + "CREATE TABLE c (t int REFERENCES t DEFERRABLE INITIALLY DEFERRED); INSERT INTO c VALUES (7);"
    found = await failure(workbench, tool, text)
    assert found.sql_state == "23503"
    assert workbench.query("SELECT to_regclass('t')") == [(None,)]


async def test_settings_of_a_script_end_with_it(workbench: Workbench, tool: str) -> None:
    workbench.server.psql(
        f'CREATE ROLE "{workbench.login.user}_x"; GRANT "{workbench.login.user}_x" TO "{workbench.login.user}"'
    )
    leaves = (
        "SELECT pg_catalog.set_config('search_path', '', false); SET standard_conforming_strings = off;"
        f'SET LOCAL lock_timeout = 1; SET statement_timeout = 0; SET ROLE "{workbench.login.user}_x";'
    )
    shows = (
        "CREATE TABLE seen AS SELECT current_user::text AS role, current_setting('search_path') AS path,"
        " current_setting('lock_timeout') AS patience, current_setting('standard_conforming_strings') AS strings;"
    )
    await workbench.migrate(tool, files(tool, leaves, shows), lock_timeout=7)
    assert workbench.query("SELECT * FROM seen") == [(workbench.login.user, '"$user", public', "7s", "on")]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("ALTER TYPE mood ADD VALUE 'new';\nINSERT INTO moods VALUES ('new');", id="55P04"),
        pytest.param("INSERT INTO moods VALUES ('old');\nCLUSTER parted USING parted_id;", id="25001"),
        pytest.param("INSERT INTO moods VALUES ('old');\nDO $$ BEGIN COMMIT; END $$;", id="2D000"),
    ],
)
async def test_what_only_the_server_refuses_in_a_transaction_runs_alone(
    workbench: Workbench, tool: str, text: str
) -> None:
    first = (
        "CREATE TYPE mood AS ENUM ('old'); CREATE TABLE moods (m mood);"
        "CREATE TABLE parted (id int) PARTITION BY RANGE (id); CREATE INDEX parted_id ON parted (id);"
    )
    assert len(await workbench.migrate(tool, files(tool, first, text))) == 2
    assert states(workbench)[1:] == [
        (name(tool, 2), "statement", "running", None),
        (name(tool, 2), "statement", "applied", 2),
    ]
    assert workbench.query("SELECT count(*) FROM moods") == [(1,)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("BEGIN;\nINSERT INTO moods VALUES ('old');\nCLUSTER parted USING parted_id;\nCOMMIT;", "has BEGIN and COMMIT"),
        ("SET LOCAL lock_timeout = '1s';\nDO $$ BEGIN COMMIT; END $$;", "holds what only one transaction"),
        ("LOCK TABLE moods;\nALTER TYPE mood ADD VALUE 'new';\nINSERT INTO moods VALUES ('new');", "holds what only"),
        ("CREATE TEMP TABLE x (a int) ON COMMIT DROP;\nCLUSTER parted USING parted_id;", "holds what only one"),
    ],
)
async def test_what_asks_for_one_transaction_never_loses_it(
    workbench: Workbench, tool: str, text: str, said: str
) -> None:
    first = (
        "CREATE TYPE mood AS ENUM ('old'); CREATE TABLE moods (m mood);"
        "CREATE TABLE parted (id int) PARTITION BY RANGE (id); CREATE INDEX parted_id ON parted (id);"
    )
    with pytest.raises(MigrationFailed, match=said) as caught:
        await workbench.migrate(tool, files(tool, first, text))
    assert "`-- dbbootstrap: transaction=off`" in caught.value.message
    assert caught.value.sql_state in ("25001", "55P04", "2D000")
    assert caught.value.line is not None
    assert workbench.query("SELECT count(*) FROM moods") == [(0,)]
    assert [row[:3] for row in states(workbench)] == [(name(tool, 1), "transaction", "applied")]
    assert (await workbench.look(tool, files(tool, first, text))).pending == (name(tool, 2),)


async def test_concurrent_index_is_made_outside_a_transaction(workbench: Workbench, tool: str) -> None:
    text = "ALTER TABLE t ADD w int;\nCREATE INDEX CONCURRENTLY i ON t (v);\nVACUUM t;"
    await workbench.migrate(tool, files(tool, TABLE, text))
    assert [row[1:] for row in states(workbench)] == [
        ("transaction", "applied", 1),
        ("statement", "running", None),
        ("statement", "applied", 3),
    ]
    assert workbench.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


async def test_half_applied_one_is_described_now_and_at_every_later_visit(workbench: Workbench, tool: str) -> None:
    broken = files(
        tool,
        TABLE + "INSERT INTO t VALUES (1, 'secret'), (2, 'secret');",
        "ALTER TABLE t ADD w int;\nCREATE UNIQUE INDEX CONCURRENTLY i\n ON t (v);\nSELECT 1;",
        "CREATE TABLE never ();",
    )
    with pytest.raises(MigrationHalfApplied) as now:
        await workbench.migrate(tool, broken)
    words = now.value.message
    assert re.search(r"statement 2 of 3 line 2: could not create unique index .* \(SQLSTATE 23505\)", words)
    assert "INVALID indexes: public.i" in words
    assert "secret" not in words
    assert workbench.applied == [name(tool, 1)]
    assert workbench.query(
        "SELECT state, statements, sql_state FROM dbbootstrap.migration ORDER BY seq DESC LIMIT 1"
    ) == [("failed", 1, "23505")]
    for _ in range(2):
        with pytest.raises(MigrationHalfApplied) as later:
            await workbench.look(tool, broken)
        assert later.value.message.removeprefix(name(tool, 2)) == words.removeprefix(name(tool, 2)).removeprefix(
            "/migration.sql"
        )
        with pytest.raises(MigrationHalfApplied):
            await workbench.migrate(tool, broken)
    assert workbench.query("SELECT to_regclass('never')") == [(None,)]


_HIDDEN = "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case; END; INSERT INTO t VALUES (1);"
"""What follows is taken for a part of the function: here CASE is but a label."""


@pytest.mark.parametrize(
    ("end", "kept"),
    [("COMMIT; INSERT INTO t VALUES (2)", 2), ("COMMIT; BEGIN; SELECT missing", 1), ("ROLLBACK; SELECT 1", 0)],
)
async def test_script_that_ends_its_transaction_unseen_is_half_applied_and_never_run_twice(
    workbench: Workbench, tool: str, end: str, kept: int
) -> None:
    hidden = files(tool, TABLE.replace(" PRIMARY KEY", ""), f"{_HIDDEN} {end};", "CREATE TABLE never ();")
    with pytest.raises(MigrationHalfApplied) as now:
        await workbench.migrate(tool, hidden)
    assert f"{name(tool, 2)}=applied" in now.value.message and "What ran before that" in now.value.message
    for _ in range(2):
        with pytest.raises(MigrationHalfApplied):
            await workbench.migrate(tool, hidden)
    assert workbench.query("SELECT count(*), to_regclass('never') FROM t") == [(kept, None)]
    assert [row[2] for row in states(workbench)] == ["applied", "running", "failed"]


async def test_statement_that_is_alone_fails_within_its_own_transaction_and_ends_it(
    workbench: Workbench, tool: str
) -> None:
    text = "-- dbbootstrap: transaction=off\nBEGIN;\nCREATE TABLE a ();\nSELECT missing;\nCOMMIT;"
    with pytest.raises(MigrationHalfApplied, match=r"statement 3 of 4 line 4 column 8: .* \(SQLSTATE 42703\)"):
        await workbench.migrate(tool, files(tool, text))
    assert workbench.query("SELECT to_regclass('a')") == [(None,)]
    assert workbench.query("SELECT state FROM dbbootstrap.migration ORDER BY seq") == [("running",), ("failed",)]


async def test_script_beyond_the_grammar_is_still_run(workbench: Workbench, tool: str) -> None:
    deep = "SELECT 1" + "+1" * 1000
    await workbench.migrate(tool, files(tool, TABLE, f"{deep};\nINSERT INTO t VALUES (1);"))
    assert workbench.query("SELECT count(*) FROM t") == [(1,)]
    assert states(workbench)[1] == (name(tool, 2), "transaction", "applied", 2)


@pytest.mark.pg(">= 18")
async def test_syntax_of_18_is_run_on_18(workbench: Workbench, tool: str) -> None:
    text = "CREATE TABLE v (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL);"
    await workbench.migrate(tool, files(tool, text, f"{text.replace('v', 'w')}\nCREATE INDEX CONCURRENTLY i ON w (a);"))
    assert [row[1] for row in states(workbench)] == ["transaction", "statement", "statement"]


async def test_character_that_the_database_cannot_hold_is_named(
    make_workbench: Callable[[str], Awaitable[Workbench]], tool: str
) -> None:
    workbench = await make_workbench("ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    assert await workbench.migrate(tool, files(tool, "CREATE TABLE t AS SELECT 'ä' AS v;")) == [name(tool, 1)]
    assert workbench.query("SELECT v, octet_length(v) FROM t") == [("ä", 1)]
    found = await failure(workbench, tool, "CREATE TABLE t AS SELECT 'ä' AS v;", "SELECT 1;\nSELECT '10 €';")
    assert (found.sql_state, found.line) == ("22P05", None)
    assert ".sql: character with byte sequence 0xe2 0x82 0xac" in found.message


async def test_encoding_that_a_script_sets_counts_for_its_next_statements(workbench: Workbench, tool: str) -> None:
    sets = "-- dbbootstrap: transaction=off\nSET client_encoding = LATIN1;\n"
    await workbench.migrate(tool, files(tool, f"{sets}CREATE TABLE t AS SELECT 'ä' AS v;"))
    assert workbench.query("SELECT v FROM t") == [("ä",)]
    with pytest.raises(MigrationHalfApplied, match=r"statement 2 of 2 line 3: .* has no character U\+20AC"):
        await workbench.migrate(tool, files(tool, f"{sets}CREATE TABLE t AS SELECT 'ä' AS v;", f"{sets}SELECT '€';"))


async def test_lock_that_is_not_to_be_had_is_tried_three_times(workbench: Workbench, tool: str) -> None:
    await workbench.migrate(tool, files(tool, TABLE))
    begin = workbench.server.log.stat().st_size
    async with await workbench.connect() as application, application.transaction():
        await application.execute("LOCK TABLE t")
        with pytest.raises(
            MigrationInterrupted, match=r"SQLSTATE 55P03\)\. Nothing of it stayed, and it will be tried"
        ):
            await workbench.migrate(tool, files(tool, TABLE, "SELECT 1;\nALTER TABLE t ADD w int;"), lock_timeout=1)
    assert workbench.server.said(begin).count("canceling statement due to lock timeout") == 3
    assert await workbench.migrate(tool, files(tool, TABLE, "SELECT 1;\nALTER TABLE t ADD w int;")) == [name(tool, 2)]


async def test_lock_that_is_freed_meanwhile_needs_no_visit(workbench: Workbench, tool: str) -> None:
    await workbench.migrate(tool, files(tool, TABLE))
    async with await workbench.connect() as application:
        await application.execute("BEGIN; LOCK TABLE t")
        run = asyncio.create_task(
            workbench.migrate(tool, files(tool, TABLE, "ALTER TABLE t ADD w int;"), lock_timeout=1)
        )
        await asyncio.sleep(1.2)
        await application.execute("COMMIT")
        assert await run == [name(tool, 2)]


async def test_deadlock_is_tried_again(workbench: Workbench, tool: str) -> None:
    await workbench.migrate(tool, files(tool, TABLE + "CREATE TABLE u ();"))
    async with await workbench.connect() as application:
        await application.execute("BEGIN; LOCK TABLE t")
        run = asyncio.create_task(
            workbench.migrate(
                tool, files(tool, TABLE + "CREATE TABLE u ();", "LOCK TABLE u; SELECT pg_sleep(0.3); LOCK TABLE t;")
            )
        )
        await asyncio.sleep(0.2)
        # One of the two is the victim; when it is we, the second attempt succeeds.
        try:
            await application.execute("LOCK TABLE u")
            await application.execute("COMMIT")
        except psycopg.errors.DeadlockDetected:
            await application.execute("ROLLBACK")
        assert await run == [name(tool, 2)]


async def test_statement_timeout_is_named_and_not_tried_again(workbench: Workbench, tool: str) -> None:
    with pytest.raises(MigrationFailed, match="statementTimeoutSeconds is 1") as caught:
        await workbench.migrate(tool, files(tool, TABLE + "SELECT pg_sleep(30);"), statement_timeout=1)
    assert caught.value.sql_state == "57014"
    assert workbench.query("SELECT to_regclass('t')") == [(None,)]


async def test_session_that_is_ended_is_interrupted_and_goes_on_next_time(workbench: Workbench, tool: str) -> None:
    run = asyncio.create_task(workbench.migrate(tool, files(tool, TABLE, "CREATE TABLE u (); SELECT pg_sleep(30);")))
    await terminate_sleeper(workbench)
    with pytest.raises(MigrationInterrupted):
        await run
    assert workbench.query("SELECT to_regclass('t')::text, to_regclass('u')") == [("t", None)]
    assert await workbench.migrate(tool, files(tool, TABLE, "CREATE TABLE u ();")) == [name(tool, 2)]


async def test_session_that_is_ended_between_statements_leaves_it_half_applied(workbench: Workbench, tool: str) -> None:
    text = "-- dbbootstrap: transaction=off\nCREATE TABLE u ();\nSELECT pg_sleep(30);"
    run = asyncio.create_task(workbench.migrate(tool, files(tool, text)))
    await terminate_sleeper(workbench)
    # Where the word that a person has to say is read from the ledger, the next look has it, which comes soon.
    with pytest.raises((MigrationHalfApplied, MigrationInterrupted), match="statement 2 of 2"):
        await run
    with pytest.raises(MigrationHalfApplied, match=r"dbbootstrap\.io/resolve="):
        await workbench.look(tool, files(tool, text))


async def test_operator_that_is_stopped_between_statements_says_where(workbench: Workbench, tool: str) -> None:
    text = "-- dbbootstrap: transaction=off\nCREATE TABLE u ();\nSELECT pg_sleep(30);"
    run = asyncio.create_task(workbench.migrate(tool, files(tool, text)))
    await sleeping(workbench)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    with pytest.raises(MigrationHalfApplied, match=r"statement 2 of 2 line 3: stopped by the operator"):
        await workbench.look(tool, files(tool, text))


async def test_operator_that_is_stopped_while_it_records_has_recorded(workbench: Workbench, tool: str) -> None:
    """The migration is done; what is not written down now would be half-applied for ever."""
    text = "-- dbbootstrap: transaction=off\nCREATE TABLE u ();"
    workbench.server.psql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.state = 'applied' THEN PERFORM pg_sleep(1); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON dbbootstrap.migration FOR EACH ROW EXECUTE FUNCTION slow()",
        dbname=workbench.login.database,
    )
    run = asyncio.create_task(workbench.migrate(tool, files(tool, text)))
    await sleeping(workbench)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (await workbench.look(tool, files(tool, text))).pending == ()


async def test_session_without_the_lock_applies_nothing(workbench: Workbench, tool: str) -> None:
    options = Options(schema="public")
    for text in (TABLE, f"-- dbbootstrap: transaction=off\n{TABLE}"):
        source = TOOLS[tool].load(_bundle_of(tool, text))
        async with workbench.session(options) as connection:
            await locks.release(connection)
            with pytest.raises(LockHeld):
                await TOOLS[tool].apply(source, (name(tool, 1),), workbench.run(connection, options))
    assert workbench.query("SELECT to_regclass('t')") == [(None,)]
    assert states(workbench) == []


async def test_orphaned_child_of_alembic_is_never_overtaken(workbench: Workbench, tool: str) -> None:
    async with await workbench.connect() as orphan:
        await orphan.execute("SELECT pg_advisory_lock(%s)", (locks.CHILD_KEY,))
        run = asyncio.create_task(workbench.migrate(tool, files(tool, TABLE)))
        async with asyncio.timeout(10):
            while not workbench.query(f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {LOW}"):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        assert workbench.query("SELECT to_regclass('t')") == [(None,)]
    assert await run == [name(tool, 1)]


async def test_look_while_another_operator_is_at_work_waits(workbench: Workbench, tool: str) -> None:
    text = "-- dbbootstrap: transaction=off\nSELECT pg_sleep(1);"
    run = asyncio.create_task(workbench.migrate(tool, files(tool, text)))
    await sleeping(workbench)
    with pytest.raises(LockHeld, match="right now"):
        await workbench.look(tool, files(tool, text))
    await run
    assert (await workbench.look(tool, files(tool, text))).pending == ()


async def test_one_bad_file_stops_all_before_anything_runs(workbench: Workbench, tool: str) -> None:
    with pytest.raises(BundleRejected, match="backslash"):
        await workbench.migrate(tool, files(tool, TABLE, "SELECT 1;", "\\! true"))
    assert workbench.query("SELECT to_regclass('t')") == [(None,)]
    assert states(workbench) == []


def _bundle_of(tool: str, text: str) -> Any:
    return bundle(files(tool, text))


async def sleeping(workbench: Workbench) -> int:
    """Wait until the migration sleeps, and return the process that it sleeps in."""
    async with asyncio.timeout(10), await workbench.connect() as connection:
        while True:
            cursor = await connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
            )
            if row := await cursor.fetchone():
                return int(row[0])
            await asyncio.sleep(0.05)


async def terminate_sleeper(workbench: Workbench) -> None:
    pid = await sleeping(workbench)
    workbench.query("SELECT pg_terminate_backend(%s)", pid)


async def test_concurrent_index_waits_for_a_long_transaction_of_the_application(
    workbench: Workbench, tool: str
) -> None:
    """Longer than lockTimeoutSeconds: it keeps nobody else waiting meanwhile, and given up it would be INVALID."""
    await workbench.migrate(tool, files(tool, TABLE))
    shows = "CREATE TABLE seen AS SELECT current_setting('lock_timeout')"
    text = f"-- slow\nCREATE INDEX CONCURRENTLY i ON t (v);\n{shows};"
    async with await workbench.connect() as application:
        await application.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO t VALUES (1, 'a')")
        run = asyncio.create_task(workbench.migrate(tool, files(tool, TABLE, text), lock_timeout=1))
        async with asyncio.timeout(20):
            waits = "SELECT 1 FROM pg_locks WHERE locktype = 'virtualxid' AND NOT granted"
            while not workbench.query(waits) and not run.done():
                await asyncio.sleep(0.05)
        # A second operator that comes meanwhile only tries the lock, so that the first one never waits for it.
        second = asyncio.create_task(workbench.migrate(tool, files(tool, TABLE, text)))
        await asyncio.sleep(1.5)
        await application.execute("COMMIT")
        await asyncio.gather(run, second)
    assert [row[:3] for row in states(workbench)[1:]] == [
        (name(tool, 2), "statement", "running"),
        (name(tool, 2), "statement", "applied"),
    ]
    assert workbench.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]
    assert workbench.query("SELECT * FROM seen") == [("1s",)]
