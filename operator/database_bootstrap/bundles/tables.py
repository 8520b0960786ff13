"""Tables as files: which table a .csv file is for, which columns it has, and where its rows end; pure."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from database_bootstrap.bundles.bundle import HEAD_BYTES, File, Packed
from database_bootstrap.errors import BundleRejected

BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_PART = re.compile(r"(\.part-[0-9]+)+$")
_QUOTE_OR_BREAK = re.compile(rb'["\r\n]')
_END_MARK = re.compile(rb"[\r\n]\\\.(?=[\r\n])")
_END_MARK_BYTES = 3


def table_of(path: str, default_schema: str) -> tuple[str, str]:
    """Return schema and table that a .csv file is named after: `public.users.csv`, `users.csv`, `users.part-2.csv`."""
    name = _PART.sub("", PurePosixPath(path).stem)
    parts = name.split(".")
    if len(parts) == 1 and name:
        return default_schema, name
    if len(parts) != 2 or not all(parts):
        raise BundleRejected(f"{path}: name it after its table, `schema.table.csv`")
    return parts[0], parts[1]


def columns_of(file: File | Packed) -> list[str]:
    """Return the first line of a .csv file, which names the columns."""
    head = file.head.removeprefix(BOM)
    if head.startswith(_UTF_16):
        raise BundleRejected(f"{file.path} is UTF-16 text; save it as UTF-8")
    end = next(row_ends(head), None)
    if end is None and len(file.head) < file.size:
        raise BundleRejected(f"{file.path}: its first line does not end within {HEAD_BYTES} bytes")
    try:
        columns = next(csv.reader(io.StringIO(head[:end].decode(), newline="")), [])
    except (UnicodeDecodeError, csv.Error):
        raise BundleRejected(f"{file.path}: its first line is not UTF-8 text with commas") from None
    if not columns or not all(columns) or "\0" in "".join(columns):
        raise BundleRejected(f"{file.path}: its first line must name the columns")
    return columns


def parts_of(file: File, size: int) -> list[File]:
    """Return a .csv file as several, cut between rows, each of about this size and with the first line of the whole.

    They are numbered by the place of their first row, which keeps their order however often they are cut.
    """
    if file.size <= size:
        return [file]
    content = file.content.removeprefix(BOM)
    body = start = next(row_ends(content), len(content))
    name, suffix = file.path[:-4], file.path[-4:]
    parts: list[File] = []
    while start < len(content) or not parts:
        end = _row_end(content, start, start + max(size - body, 1))
        path = f"{name}.part-{start:010}{suffix}"
        parts.append(File(path=path, content=content[:body] + content[start:end]))
        start = end
    return parts


def _row_end(content: bytes, start: int, at_least: int) -> int:
    quoted = content.count(b'"', start, at_least) % 2 == 1
    return next(row_ends(content, at_least, quoted=quoted), len(content))


def row_ends(content: bytes, start: int = 0, *, quoted: bool = False) -> Iterator[int]:
    """Yield where each row ends, behind its line break, from a place on that may be within quotes."""
    for found in _QUOTE_OR_BREAK.finditer(content, start):
        if found[0] == b'"':
            quoted = not quoted
        elif not quoted and content[found.end() : found.end() + 1] != b"\n":
            # Of a carriage return and a line feed the latter ends the row.
            yield found.end()


class EndMark:
    r"""Looks for a row that is `\.` and nothing else, in blocks as they come.

    PostgreSQL before 18 takes it for the end of the data, and says nothing of the rows behind it.
    """

    def __init__(self) -> None:
        self._carry = b"\n"
        self._quotes = 0
        self._line = 0

    def find(self, block: bytes) -> int | None:
        """Return the line of the mark, or None; the last block is followed by one of a line break."""
        seen = self._carry + block
        for found in _END_MARK.finditer(seen):
            before = seen[: found.start() + 1]
            if (self._quotes + before.count(b'"')) % 2 == 0:
                return self._line + before.count(b"\n")
        through = max(len(seen) - _END_MARK_BYTES, 0)
        self._quotes += seen.count(b'"', 0, through)
        self._line += seen.count(b"\n", 0, through)
        self._carry = seen[through:]
        return None
