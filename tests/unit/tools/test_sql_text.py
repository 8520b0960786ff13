"""SQL text: split where psql splits it; PostgreSQL's own grammar is the judge wherever it can parse."""

import pgparse
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from database_bootstrap.tools.sql_text import pieces, tokens


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
    found = pieces(text)
    assert len(found) == len(entries)
    for piece, entry in zip(found, entries, strict=True):
        begin = entry.get("stmt_location", 0)
        theirs = raw[begin : begin + entry["stmt_len"]] if "stmt_len" in entry else raw[begin:]
        # Theirs keeps the blanks and comments around it.
        assert text[piece.start : piece.end] in theirs.decode()


@given(st.text(max_size=60) | st.lists(PARTS, max_size=10).map("".join))
def test_tokens_leave_no_gap(text: str) -> None:
    position = 0
    for token in tokens(text):
        assert token.start == position < token.end
        position = token.end
    assert position == len(text)


def depth_of(node: object) -> int:
    """Return how many nodes of the tree lie within each other."""
    if isinstance(node, dict):
        # A set operation holds its sides without naming their kind.
        return max((depth_of(value) + (key[:1].isupper() or key == "larg") for key, value in node.items()), default=0)
    return max(map(depth_of, node), default=0) if isinstance(node, list) else 0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("SELECT 1" + "+1" * 60, id="operators"),
        pytest.param("SELECT " + "NOT " * 60 + "true", id="prefix"),
        pytest.param("SELECT " + "(SELECT " * 30 + "1" + ")" * 30, id="subqueries"),
        pytest.param("SELECT 1, 2 " + "UNION SELECT 1, 2 " * 60, id="set operations, with commas between"),
        pytest.param("SELECT * FROM a " + "JOIN b ON f(1, 2) " * 60, id="joins, with commas between"),
        pytest.param("SELECT 1" + "::int" * 60, id="casts"),
        pytest.param("SELECT " + "f(1, " * 60 + "1" + ")" * 60, id="calls, with commas between"),
        pytest.param("SELECT " + "ARRAY[" * 60 + "]" * 60, id="arrays"),
        pytest.param("SELECT " + "CASE WHEN a THEN " * 40 + "1" + " END" * 40, id="cases"),
    ],
)
def test_no_tree_is_deeper_than_was_said(text: str) -> None:
    (piece,) = pieces(text)
    (entry,) = pgparse.parse(text)
    assert depth_of(entry["stmt"]) <= 2 * piece.depth


def test_long_list_is_not_deep() -> None:
    (piece,) = pieces("INSERT INTO t (a, b) VALUES " + ", ".join("(1, 'x' || 'y')" for _ in range(5000)))
    assert piece.depth < 30
