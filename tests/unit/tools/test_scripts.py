"""Scripts: how each is sent, and what is refused before anything runs."""

import time
import tracemalloc

import pytest

from database_bootstrap.errors import BundleRejected
from database_bootstrap.tools.scripts import BYTES_LIMIT, Mode, Script, judge, line_of, script_of


def script(text: str, *, own_transactions: bool = False) -> Script:
    return script_of("1_a.sql", text, own_transactions=own_transactions)


def parts(found: Script) -> list[str]:
    return [found.text[piece.start : piece.end] for piece in found.pieces()]


def refusal(text: str, *, own_transactions: bool = False) -> str:
    with pytest.raises(BundleRejected) as caught:
        script(text, own_transactions=own_transactions)
    assert caught.value.message.startswith("1_a.sql line ")
    return caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE a (b int); ALTER TYPE c ADD VALUE 'd'; REFRESH MATERIALIZED VIEW CONCURRENTLY m",
        "REINDEX TABLE t; CLUSTER t; ANALYZE; DISCARD TEMP; REINDEX (CONCURRENTLY off) INDEX i",
        "CREATE INDEX i ON t (a); DROP INDEX i; ALTER TABLE t DETACH PARTITION p; CREATE EXTENSION e",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (create_slot = false)",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = 0)",
        "ALTER DATABASE d SET work_mem = '1MB'; COPY t FROM '/x'; COPY t TO PROGRAM 'x'",
        "DO $$ BEGIN COMMIT; END $$",
        "SAVEPOINT a; ROLLBACK TO a; RELEASE a",
        "SELECT 'VACUUM', $$CREATE INDEX CONCURRENTLY$$ -- VACUUM",
        "",
        "-- only a comment",
    ],
)
def test_script_runs_in_one_transaction(text: str) -> None:
    assert script(text).mode is Mode.TRANSACTION


@pytest.mark.parametrize("head", ["f(begin int) RETURNS int", "f() RETURNS TABLE (begin int)", "begin() RETURNS int"])
def test_parameter_named_begin_hides_nothing(head: str) -> None:
    text = f"CREATE FUNCTION {head} LANGUAGE sql AS 'SELECT 1'; DROP TABLE a;\nCOMMIT; SELECT 1"
    assert "line 2: the file begins or ends a transaction itself" in refusal(text)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX CONCURRENTLY i ON t (a)",
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)",
        "DROP INDEX CONCURRENTLY i",
        "REINDEX INDEX CONCURRENTLY i",
        "REINDEX (VERBOSE, CONCURRENTLY) TABLE t",
        "REINDEX (CONCURRENTLY true) TABLE t",
        "REINDEX SCHEMA s",
        "REINDEX DATABASE d",
        "REINDEX SYSTEM d",
        "VACUUM",
        "VACUUM (ANALYZE) t",
        "CLUSTER",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "ALTER TABLE t DETACH PARTITION p CONCURRENTLY",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p",
        "CREATE DATABASE d",
        "DROP DATABASE d",
        "ALTER DATABASE d SET TABLESPACE t",
        "CREATE TABLESPACE t LOCATION '/t'",
        "DROP TABLESPACE t",
        "DISCARD ALL",
    ],
)
def test_statement_that_no_transaction_takes_makes_all_run_alone(statement: str) -> None:
    found = script(f"SELECT 1;\n{statement};")
    assert found.mode is Mode.STATEMENT
    assert parts(found) == ["SELECT 1", statement]


def test_first_line_forces_statements_alone() -> None:
    assert script("-- dbbootstrap: transaction=off\nSELECT 1").mode is Mode.STATEMENT
    assert script("--DBBootstrap:  transaction = off  \r\nSELECT 1").mode is Mode.STATEMENT
    assert script("SELECT 1; -- dbbootstrap: transaction=off").mode is Mode.TRANSACTION


def test_directive_that_is_unknown_is_refused() -> None:
    assert "the only directive is" in refusal("-- dbbootstrap: transactions=off\nSELECT 1")


@pytest.mark.parametrize("end", ["COMMIT", "END", "COMMIT WORK", "COMMIT AND NO CHAIN"])
def test_transaction_around_everything_becomes_ours(end: str) -> None:
    text = f"/* ä */ BEGIN;\nCREATE TABLE a ();\nSAVEPOINT s;\n{end}; -- done"
    for own_transactions in (False, True):
        found = script(text, own_transactions=own_transactions)
        assert found.mode is Mode.TRANSACTION
        assert parts(found) == ["CREATE TABLE a ()", "SAVEPOINT s"]
        assert "BEGIN" not in found.text
        assert end not in found.text
        # Places stay what they are in the file.
        assert len(found.text) == len(text)
        assert found.text.index("CREATE") == text.index("CREATE")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("CREATE TABLE a (); BEGIN; DROP TABLE a; COMMIT;", id="begins later"),
        pytest.param("BEGIN; SELECT 1; COMMIT; SELECT 2;", id="ends earlier"),
        pytest.param("BEGIN; SELECT 1; COMMIT; BEGIN; SELECT 2; COMMIT;", id="two"),
        pytest.param("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1; COMMIT;", id="with options"),
        pytest.param("BEGIN; SELECT 1; ROLLBACK;", id="undone"),
        pytest.param("COMMIT", id="only an end"),
        pytest.param("SELECT FRM; COMMIT", id="unparsed"),
    ],
)
def test_own_transactions_are_sent_as_one_or_refused(text: str) -> None:
    found = script(text, own_transactions=True)
    assert (found.mode, found.text) == (Mode.SCRIPT, text)
    assert "transaction=off" in refusal(text)
    assert script(f"-- dbbootstrap: transaction=off\n{text}").mode is Mode.STATEMENT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("SELECT 1;\nBEGIN;\nSELECT 2;", "line 2: the transaction that begins here never ends", id="open"),
        pytest.param("BEGIN;\nSELECT 2;\nCOMMIT AND CHAIN;", "never ends", id="chained"),
        pytest.param(
            "BEGIN;\nVACUUM;\nCOMMIT;", "line 2: VACUUM cannot run within the transaction that line 1", id="mixed"
        ),
    ],
)
def test_transaction_that_cannot_end_well_is_refused(text: str, said: str) -> None:
    assert said in refusal(text, own_transactions=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("SELECT 1;\n\\connect other", "line 2: a backslash command", id="meta-command"),
        pytest.param("SELECT 1 \\gexec", "line 1: a backslash command", id="meta-command behind a statement"),
        pytest.param("\\restrict x\nSELECT 1", "line 1: a backslash command", id="what pg_dump begins with"),
        pytest.param("\nCOPY t FROM STDIN;\n1\t'\n\\.\n", "line 2: COPY", id="COPY FROM STDIN with data"),
        pytest.param("COPY t FROM STDIN;\n1\n\\.\n", "line 1: COPY", id="COPY FROM STDIN with plain data"),
        pytest.param("SELECT 1;\n\\.\n", "line 2: a backslash", id="end of data that nothing began"),
        pytest.param("copy t (a) from stdin with (format csv)", "line 1: COPY", id="COPY FROM STDIN"),
        pytest.param("COPY t TO STDOUT", "line 1: COPY", id="COPY TO STDOUT"),
        pytest.param("COPY (SELECT 1) TO STDOUT", "line 1: COPY", id="COPY of a query"),
        pytest.param("-- x\n-- migrate:up\nSELECT 1", "line 2: this is a file for dbmate", id="dbmate"),
        pytest.param("--migrate:down\nSELECT 1", "dbmate", id="dbmate down"),
        pytest.param("-- +goose Up\nSELECT 1", "goose", id="goose"),
        pytest.param("  -- +goose StatementBegin\nSELECT 1", "goose", id="goose, indented"),
        pytest.param("-- +migrate Down\nSELECT 1", "sql-migrate", id="sql-migrate"),
        pytest.param("-- Down Migration\nSELECT 1", "node-pg-migrate", id="node-pg-migrate"),
        pytest.param("--liquibase formatted sql\nSELECT 1", "Liquibase", id="Liquibase"),
        pytest.param("SELECT 1;\n\x00", "line 2: control character U+0000", id="NUL"),
        pytest.param("SELECT '\x1b[2J'", "control character U+001B", id="escape"),
        pytest.param("\ufeff\\q", "line 1: a backslash command", id="behind a byte order mark"),
    ],
)
def test_text_for_another_program_is_refused(text: str, said: str) -> None:
    for own_transactions in (False, True):
        assert said in refusal(text, own_transactions=own_transactions)


@pytest.mark.parametrize(
    "text",
    [
        r"SELECT '\d', E'\\', $$\c$$, $x$ \q $x$ -- \i file",
        "SELECT '-- migrate:up', $$\n-- +goose Down\n$$",
        "/* -- migrate:down */ SELECT 1",
        "SELECT 'a\tb\f\r\n'",
        "COMMENT ON TABLE t IS 'COPY t FROM STDIN'",
    ],
)
def test_what_only_looks_like_it_is_accepted(text: str) -> None:
    assert script(text).mode is Mode.TRANSACTION


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a) VIRTUAL);", id="PostgreSQL 18"),
        pytest.param("SELECT FRM x y z;", id="an error, which the server names"),
        pytest.param("SELECT 1" + "+1" * 1000 + ";", id="deeper than json reads"),
    ],
)
def test_what_the_grammar_does_not_know_is_left_to_the_server(text: str) -> None:
    found = script(text)
    assert found.mode is Mode.TRANSACTION
    # What stands beside it is judged all the same.
    assert script(f"{text}\nVACUUM;").mode is Mode.STATEMENT
    assert "COPY" in refusal(f"{text}\nCOPY t FROM STDIN;")
    assert "transaction" in refusal(f"{text}\nCOMMIT;")


@pytest.mark.parametrize("begin", ["SELECT", "CREATE INDEX CONCURRENTLY i ON t", "COPY", "ALTER DATABASE d"])
def test_expression_that_would_end_the_process_is_not_parsed(begin: str) -> None:
    assert script(f"{begin} (1{'+1' * 200_000})").mode is Mode.TRANSACTION


def test_deepest_expression_that_is_parsed_ends_nothing() -> None:
    for unit in ("+1", "(", "NOT ", "::int", " UNION SELECT 1", "f("):
        assert script(f"COPY (SELECT {unit * (2900 // len(unit))}").mode is Mode.TRANSACTION


def test_size_is_limited_before_anything_is_parsed() -> None:
    begun = time.process_time()
    with pytest.raises(BundleRejected, match=rf"1_a\.sql has {BYTES_LIMIT + 1} bytes; {BYTES_LIMIT} are the limit"):
        script("SELECT 1;" + "\n" * (BYTES_LIMIT - 8))
    with pytest.raises(BundleRejected, match=r"1_a\.sql has too many statements"):
        script("BEGIN;COMMIT;" * 100_000)
    assert time.process_time() - begun < 2


def test_hundred_thousand_statements_are_judged_at_once_and_not_kept() -> None:
    text = "SELECT 1;\n" * 100_000
    tracemalloc.start()
    begun = time.process_time()
    verdict = judge("1_a.sql", text, own_transactions=False)
    elapsed, (_, most) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (verdict.count, verdict.mode) == (100_000, Mode.TRANSACTION)
    assert elapsed < 4  # 0.1 s, but for tracemalloc and a busy machine; it was 5 s without them
    assert most < 8_000_000  # it was 250 MB


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("BEGIN; SELECT 1; COMMIT", True),
        ("SET LOCAL lock_timeout = 1", True),
        ("SELECT 1; LOCK TABLE t", True),
        ("LOCK t", True),
        ("SAVEPOINT a; RELEASE a", True),
        ("SET CONSTRAINTS ALL DEFERRED", True),
        ("CREATE TEMP TABLE a (b int) ON\nCOMMIT DROP", True),
        ("SELECT set_config('search_path', '', true)", True),
        ("SELECT pg_advisory_xact_lock(1)", True),
        ("SELECT set_config('search_path', '', false); SET lock_timeout = 1; SELECT 1", False),
        ("ALTER TYPE a ADD VALUE 'b'; INSERT INTO c VALUES ('b')", False),
    ],
)
def test_what_needs_one_transaction_is_known(text: str, bound: bool) -> None:
    assert script(text).needs_one_transaction() is bound


@pytest.mark.parametrize("copy", ["COPY t FROM STDIN WHERE NEW GRAMMAR", "COPY t\nTO\tSTDOUT (NEW GRAMMAR GALORE)"])
def test_copy_of_the_client_is_seen_without_a_grammar(copy: str) -> None:
    assert "COPY" in refusal(copy)


def test_lines_and_places_count_characters() -> None:
    found = script("-- ä\r\nSELECT 'é';\n\n/* 1\n2 */ SELECT 2;")
    assert parts(found) == ["SELECT 'é'", "SELECT 2"]
    assert [line_of(found.text, piece.start) for piece in found.pieces()] == [2, 5]


def test_byte_order_mark_is_not_sent() -> None:
    assert script("\ufeffSELECT 1").text == "SELECT 1"
