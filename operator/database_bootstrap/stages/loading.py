"""How the files of a seed are put in: scripts as they are, tables by COPY, block by block."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api.v1alpha1 import Spec
from database_bootstrap.bundles import tables
from database_bootstrap.bundles.bundle import Bundle, File, Packed, is_table
from database_bootstrap.postgres.bounds import NotTaken
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.sqlstates import passing, server_words
from database_bootstrap.stages.tooling import settle
from database_bootstrap.tools import scripts
from database_bootstrap.tools.sending import Failure, send, whole

LARGE = 16 * 1024 * 1024
"""Bytes from which a seed takes long enough to say how far it is."""
_MEGABYTE = 1_000_000
_UNDEFINED_COLUMN = "42703"
_VALUE = re.compile(r"""\s*[:：]\s*["“„«»「].*""", re.DOTALL)


@dataclass(slots=True, kw_only=True)
class Meter:
    """How far a seed is."""

    total: int
    show: Callable[[str], None]
    """Takes the newest word on it."""
    done: int = 0
    said: str = ""
    """The same, within a sentence."""
    is_ending: bool = False
    """All is in, and the COMMIT may be through, whatever comes back."""

    def begin(self, file: File | Packed) -> None:
        """Say which file is next."""
        self._say(file)

    def count(self, file: File | Packed, size: int) -> None:
        """Say that so many bytes more of it are through."""
        self.done += size
        self._say(file)

    def _say(self, file: File | Packed) -> None:
        how_far = f": {self.done // _MEGABYTE} of {self.total // _MEGABYTE} MB" if self.total >= LARGE else ""
        self.said = f"{'loading' if is_table(file.path) else 'running'} {file.path}{how_far}"
        self.show(self.said[0].upper() + self.said[1:])


def check(bundle: Bundle, spec: Spec) -> None:
    """Raise `BundleRejected` for a file that cannot be part of a seed; nothing was run."""
    for file in bundle.in_order:
        if is_table(file.path):
            tables.columns_of(file)
            table_of(file, spec)
        elif isinstance(file, File) and PurePosixPath(file.path).suffix.lower() == ".sql":
            _script_of(file)
        else:
            raise errors.BundleRejected(f"{file.path}: a seed is made of .sql and .csv files")


def _script_of(file: File) -> scripts.Script:
    script = scripts.script_of(file.path, file.text, own_transactions=False)
    if script.mode is not scripts.Mode.TRANSACTION:
        raise errors.BundleRejected(f"{file.path}: a seed is one transaction, and this cannot run in one; take it out")
    return script


def table_of(file: File | Packed, spec: Spec) -> tuple[str, str]:
    """Return schema and table of a .csv file; without a schema it is the one that the migrations work in."""
    return tables.table_of(file.path, spec.migrations.schema_name if spec.migrations else "public")


async def begin(connection: Connection) -> None:
    """Let a statement of the transaction take as long as the seed may: a limit for migrations is not one for rows."""
    await connection.execute("SET LOCAL statement_timeout = 0")


async def put_in(connection: Connection, file: File | Packed, spec: Spec, meter: Meter) -> int:
    """Put one file in and return the number of rows; raise `SeedFailed` where the server refuses it."""
    meter.begin(file)
    if isinstance(file, Packed) or is_table(file.path):
        return await _load(connection, file, table_of(file, spec), meter)
    try:
        return await _run(connection, file)
    except Failure as failure:
        raise _failure(failure.error, f"{file.path}{failure.place}", failure.said) from None
    finally:
        meter.count(file, file.size)


async def _run(connection: Connection, file: File) -> int:
    tally = await send(connection, whole(_script_of(file)))
    # A script made by pg_dump leaves search_path empty for the files after it.
    await settle(connection)
    await begin(connection)
    return tally.put


async def _load(connection: Connection, file: File | Packed, table: tuple[str, str], meter: Meter) -> int:
    columns = tables.columns_of(file)
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER true)").format(sql.Identifier(*table), names)
    try:
        async with connection.cursor() as cursor:
            async with cursor.copy(statement) as copy:
                async for block in _blocks(file):
                    await copy.write(block)
                    meter.count(file, len(block))
            return cursor.rowcount
    except psycopg.Error as error:
        # Only the place: the context has the row's values as well.
        where = f"{file.path}{_place(error.diag.context or '', table[1], columns)}"
        words = _VALUE.sub("", server_words(error)) if (error.sqlstate or "").startswith("22") else server_words(error)
        if error.sqlstate == _UNDEFINED_COLUMN and not error.diag.context:  # And not in the code of a trigger.
            words += " (the first line of the file names the columns, with commas between them)"
        raise _failure(error, where, words) from None


async def _blocks(file: File | Packed) -> AsyncIterator[bytes]:
    """Yield the file without a byte order mark; it is unpacked in a thread, and only as fast as it is taken."""
    blocks, mark, first = file.blocks(), tables.EndMark(), True
    while block := await asyncio.to_thread(next, blocks, b""):
        content = block.removeprefix(tables.BOM) if first else block
        first = False
        _refuse(file, mark.find(content))
        yield content
    _refuse(file, mark.find(b"\n"))


def _refuse(file: File | Packed, line: int | None) -> None:
    if line is not None:
        raise errors.SeedFailed(
            rf"{file.path} line {line}: a row that is \. and nothing else ends the data for PostgreSQL before 18, and "
            r'the rows behind it would be lost. Nothing of the seed stayed; write "\." in quotes'
        )


def _place(context: str, table: str, columns: Sequence[str]) -> str:
    """Return line and column from COPY's context, whose words are in the server's language; no value is taken."""
    # Longer names first: one may begin like another.
    known = "|".join(re.escape(column) for column in sorted(columns, key=len, reverse=True))
    found = re.search(rf"^COPY {re.escape(table)}, \D{{1,20}}(\d+)(?:, [^\s:]+ ({known}))?\b", context, re.MULTILINE)
    if found is None:
        return ""
    return f" line {found[1]}" + (f", column {found[2]}" if found[2] else "")


def _failure(error: psycopg.Error, where: str, words: str) -> psycopg.Error | errors.SeedFailed:
    """Return the error as it is where it passes by itself, else what a person must correct."""
    if not isinstance(error, NotTaken) and (error.sqlstate is None or passing(error.sqlstate)):
        return error
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return errors.SeedFailed(f"{where}: {words}{state}. Nothing of the seed stayed; correct the file")
