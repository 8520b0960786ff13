"""Tables as files: names, first lines, and the row that some servers take for the end of the data."""

import csv
import io
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from database_bootstrap.bundles.bundle import HEAD_BYTES, File
from database_bootstrap.bundles.tables import EndMark, columns_of, row_ends, table_of
from database_bootstrap.errors import BundleRejected


@pytest.mark.parametrize(
    ("path", "table"),
    [
        pytest.param("users.csv", ("app", "users"), id="in the tool's schema"),
        pytest.param("1/shop.users.CSV", ("shop", "users"), id="schema and table"),
        pytest.param("shop.users.part-0012.csv", ("shop", "users"), id="part of a table"),
        pytest.param("users.part-1.csv", ("app", "users"), id="part of a table in the tool's schema"),
        pytest.param("shop.2024.csv", ("shop", "2024"), id="a number is a name"),
        pytest.param("shop.part-x.csv", ("shop", "part-x"), id="no part"),
        pytest.param("Odd Name.csv", ("app", "Odd Name"), id="blank"),
    ],
)
def test_file_is_named_after_its_table(path: str, table: tuple[str, str]) -> None:
    assert table_of(path, "app") == table


@pytest.mark.parametrize("path", ["a.b.c.csv", "a..csv", ".csv", ".part-1.csv", "a.b.c.part-1.csv"])
def test_file_of_no_table_is_refused(path: str) -> None:
    with pytest.raises(BundleRejected, match="name it after its table"):
        table_of(path, "app")


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        pytest.param(b"id", ["id"], id="no line break at all"),
        pytest.param(b"id,email\n1,x", ["id", "email"], id="line feed"),
        pytest.param(b"id,email\r\n1,x", ["id", "email"], id="carriage return and line feed"),
        pytest.param(b"id,email\r1,x", ["id", "email"], id="carriage return"),
        pytest.param(b"\xef\xbb\xbfid\n", ["id"], id="byte order mark"),
        pytest.param('"a ""b""","c\nd",ü\n1'.encode(), ['a "b"', "c\nd", "ü"], id="quotes, a line break, letters"),
        pytest.param(b"id\n" + b"\xff" * HEAD_BYTES, ["id"], id="rows that are not UTF-8 are the server's to refuse"),
    ],
)
def test_first_line_names_the_columns(content: bytes, columns: list[str]) -> None:
    assert columns_of(File(path="t.csv", content=content)) == columns


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "must name the columns", id="nothing"),
        pytest.param(b"\nid", "must name the columns", id="empty line"),
        pytest.param(b"a,,b\n", "must name the columns", id="column without a name"),
        pytest.param(b"a\0b\n", "must name the columns", id="NUL"),
        pytest.param(b"\xff\xfei\0d\0\n\0", "is UTF-16 text; save it as UTF-8", id="UTF-16"),
        pytest.param(b"\xe9\n", "is not UTF-8 text", id="another encoding"),
        pytest.param(b'"' + b"x" * 2 * HEAD_BYTES, "does not end within", id="without end"),
    ],
)
def test_first_line_that_names_nothing_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(BundleRejected, match=said):
        columns_of(File(path="t.csv", content=content))


CELLS = st.lists(st.text('ab",\n\r\\.ü', max_size=4), min_size=1, max_size=3)


@given(st.lists(CELLS, min_size=1, max_size=6), st.sampled_from(["\n", "\r\n", "\r"]))
def test_rows_end_where_they_were_written_to(rows: list[list[str]], line_break: str) -> None:
    written = []
    for row in rows:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator=line_break, quoting=csv.QUOTE_ALL).writerow(row)
        written.append(line.getvalue().encode())
    whole, places = b"".join(written), [0, *row_ends(b"".join(written))]
    assert [whole[start:end] for start, end in pairwise(places)] == written


def blocks(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def found(content: bytes, size: int) -> int | None:
    mark = EndMark()
    return next((line for block in (*blocks(content, size), b"\n") if (line := mark.find(block))), None)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(b"a\n1\n\\.\n2\n", 3, id="in the middle"),
        pytest.param(b"a\r\n1\r\n\\.\r\n2", 3, id="with carriage returns"),
        pytest.param(b"a\n\\.", 2, id="at the end, without a line break"),
        pytest.param(b"\\.\n1\n", 1, id="in the first line"),
        pytest.param(b'a\n"x\n\\.\ny"\n1\n', None, id="within quotes"),
        pytest.param(b'a\n"x ""y"" z"\n\\.\n', 3, id="behind quotes"),
        pytest.param(b'a\n"\\."\nb\\.\n\\.c\n', None, id="quoted, and not alone"),
    ],
)
def test_mark_that_ends_the_data_is_found_wherever_blocks_end(content: bytes, line: int | None, size: int) -> None:
    assert found(content, size) == line


@given(st.text('a"\n\\.', max_size=30).map(str.encode), st.integers(1, 9))
@example(b"\n\\.\n\\.\n", 3)
def test_mark_does_not_depend_on_blocks(content: bytes, size: int) -> None:
    assert found(content, size) == found(content, 1000)
