"""SQL text: split where psql splits it; PostgreSQL's own grammar is the judge wherever it can parse."""

import time
from contextlib import suppress

import pgparse
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from database_bootstrap.tools.sql_text import CONCURRENT_INDEX, TooIntricate, first_outside, outside, pieces


def split(text: str) -> list[str]:
    return [text[piece.start : piece.end] for piece in pieces(text)]


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param(" ; ;-- only this\n;", [], id="empty statements"),
        pytest.param("SELECT 1", ["SELECT 1"], id="no semicolon"),
        pytest.param("SELECT ';';SELECT 2;", ["SELECT ';'", "SELECT 2"], id="string"),
        pytest.param("SELECT 'a''; b' ; c", ["SELECT 'a''; b'", "c"], id="doubled quote"),
        pytest.param(r"SELECT E'\'; b'; c", [r"SELECT E'\'; b'", "c"], id="escaped quote"),
        pytest.param(r"SELECT '\'; b", [r"SELECT '\'", "b"], id="backslash is an ordinary character"),
        pytest.param('SELECT "a;""b"; c', ['SELECT "a;""b"', "c"], id="quoted identifier"),
        pytest.param("SELECT $$;$x$;$$; b", ["SELECT $$;$x$;$$", "b"], id="dollar quotes"),
        pytest.param("SELECT $ä$;$$;$ä$; b", ["SELECT $ä$;$$;$ä$", "b"], id="dollar tag"),
        pytest.param("SELECT a$b$; c$b$", ["SELECT a$b$", "c$b$"], id="dollar within a name"),
        pytest.param("SELECT $1; b", ["SELECT $1", "b"], id="parameter"),
        pytest.param("SELECT 1 -- ;\n; b", ["SELECT 1", "b"], id="comment"),
        pytest.param("SELECT /* ; /* ; */ ; */ 1; b", ["SELECT /* ; /* ; */ ; */ 1", "b"], id="nested comment"),
        pytest.param(
            "CREATE RULE r AS ON DELETE TO t DO (a; b); c",
            ["CREATE RULE r AS ON DELETE TO t DO (a; b)", "c"],
            id="rule",
        ),
        pytest.param(
            "CREATE OR REPLACE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN b END; SELECT 2; END; c",
            ["CREATE OR REPLACE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN b END; SELECT 2; END", "c"],
            id="body of a function in SQL",
        ),
        pytest.param("BEGIN; SELECT 1; END; c", ["BEGIN", "SELECT 1", "END", "c"], id="transaction"),
        pytest.param("SELECT 'open; b", ["SELECT 'open; b"], id="string that never ends"),
        pytest.param("SELECT $$open; b", ["SELECT $$open; b"], id="dollar quote that never ends"),
        pytest.param("SELECT 1 /* open; b", ["SELECT 1"], id="comment that never ends"),
        pytest.param("SELECT\u00a0'; b", ["SELECT\u00a0'; b"], id="a blank that is none"),
    ],
)
def test_script_is_split_at_its_semicolons(text: str, statements: list[str]) -> None:
    assert split(text) == statements


PARTS = st.sampled_from(
    [
        "SELECT 1", "'a;b'", "''", "E'\\''", '"x;"', "$$;$$", "$t$;$t$", "--;\n", "/*;/**/*/", ";", " ", "\n", "(", ")",
        ",", "a", "+", "CREATE FUNCTION f() RETURNS int", "BEGIN ATOMIC", "END", "CASE WHEN true THEN 1 END", "BEGIN",
        "COMMIT", "é", "::int", "[1]", "UNION SELECT 2", "VALUES (1)", "1.5e3", "$1",
    ]
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.lists(PARTS, max_size=14).map(" ".join))
def test_what_postgresql_parses_is_split_as_it_splits(text: str) -> None:
    try:
        entries = pgparse.parse(text)
    except pgparse.PGQueryError:
        return
    raw = text.encode()
    found = list(pieces(text))
    assert len(found) == len(entries)
    for piece, entry in zip(found, entries, strict=True):
        begin = entry.get("stmt_location", 0)
        theirs = raw[begin : begin + entry["stmt_len"]] if "stmt_len" in entry else raw[begin:]
        # Theirs keeps the blanks and comments around it.
        assert text[piece.start : piece.end] in theirs.decode()


@settings(deadline=None)
@given(st.text(max_size=60) | st.lists(PARTS, max_size=10).map("".join))
def test_pieces_lie_one_behind_the_other(text: str) -> None:
    position = 0
    for piece in pieces(text):
        assert position <= piece.start < piece.end <= len(text)
        position = piece.end


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)", ("create", "unique", "index", "concurrently")),
        ("-- no\n/* /* no */ */ Create /* /*no*/ */ Table -- no\n t ()", ("create", "table", "t")),
        ("select E'x'", ("select",)),
        ('COPY "t" FROM STDIN', ("copy",)),
        ("(SELECT 1)", ()),
        ("COMMIT -- ;\n;", ("commit",)),
    ],
)
def test_first_words_are_known(text: str, words: tuple[str, ...]) -> None:
    assert [piece.words for piece in pieces(text)] == [words]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"SELECT 1 \g", 9),
        (r"SELECT E'\'\\', '\', $$\$$, $a$\$$\$a$, /* \ /* \ */ \ */ 1 -- \ ", None),
        ("'a' \\", 4),
        ("/* /* */ */ \\", 12),
        ("'open \\", None),
    ],
)
def test_what_is_looked_for_is_found_outside_strings_and_comments(text: str, found: int | None) -> None:
    assert first_outside(text, outside(r"\\")) == found


@pytest.mark.parametrize(
    "unit",
    [
        "SELECT 1;", ";", "()", "((", "(a(a(a)a)a)", "(a(", "$$ $$", "/* */", "/*/*", "--\n", "(;", "x/**/", "E''", "'",
        '"', "CREATE FUNCTION f() BEGIN ", "CREATE FUNCTION f() END; CASE ", "select/*/**/*/", "- / $ ", "a,", r"E'\'",
    ],
)  # fmt: skip
def test_no_text_takes_long(unit: str) -> None:
    """A token at a time, most of these take seconds a megabyte; the bound is loose, for machines that are busy."""
    text = unit * (2_000_000 // len(unit))
    begun = time.process_time()
    with suppress(TooIntricate):
        for _ in pieces(text):
            pass
    with suppress(TooIntricate):
        first_outside(text, outside(r"\\"))
    assert time.process_time() - begun < 3


def test_long_list_is_not_intricate() -> None:
    (piece,) = pieces("INSERT INTO t (a, b) VALUES " + ", ".join("(1, f('x' || 'y'))" for _ in range(50_000)))
    assert piece.steps < 3


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (v)", True),
        ("-- why\n/* and */ create unique\nindex concurrently ON t (v)", True),
        ("DROP INDEX CONCURRENTLY IF EXISTS i", True),
        ("REINDEX (VERBOSE) TABLE CONCURRENTLY t", True),
        ("REINDEX INDEX CONCURRENTLY i", True),
        ("CREATE INDEX i ON t (v)", False),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", False),
        ("SELECT 'CREATE INDEX CONCURRENTLY'", False),
        ("-- CREATE INDEX CONCURRENTLY i ON t (v)", False),
    ],
)
def test_statement_that_makes_nobody_wait_is_known(text: str, found: bool) -> None:
    assert bool(CONCURRENT_INDEX.match(text)) == found
