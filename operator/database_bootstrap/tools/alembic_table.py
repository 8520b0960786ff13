"""Alembic's own table, wherever env.py keeps it: read, and written to on a person's word."""

from collections.abc import Mapping
from dataclasses import replace

from psycopg import sql

from database_bootstrap.errors import MigrationDiverged
from database_bootstrap.postgres import bounds, ledger
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ledger import MigrationRow
from database_bootstrap.tools.alembic_graph import Graph
from database_bootstrap.tools.resolution import How, Word, due, name_stops
from database_bootstrap.tools.tool import Applied, History, Options, Run

Table = tuple[str, str]
"""Schema and name."""
_DEFAULT_TABLE = "alembic_version"
_HAS_LEDGER = "SELECT pg_catalog.to_regclass('dbbootstrap.migration') IS NOT NULL"
_FROM_LEDGER = f"""
    (SELECT 'table' AS what, pg_catalog.parse_ident(version) AS words, NULL AS checksum, NULL AS state, NULL AS error
        FROM dbbootstrap.migration WHERE tool = 'Alembic' AND version IS NOT NULL ORDER BY seq DESC LIMIT 1)
    UNION ALL
    (SELECT 'half applied', ARRAY[pg_catalog.left(name, {bounds.NAME})], pg_catalog.left(checksum, {bounds.NAME}),
        pg_catalog.left(sql_state, {bounds.NAME}), pg_catalog.left(error, {bounds.WORDS})
    FROM dbbootstrap.migration AS failed
    WHERE tool = 'Alembic' AND state = 'failed' AND NOT EXISTS (
        SELECT FROM dbbootstrap.migration AS later
        WHERE later.tool = failed.tool AND later.name = failed.name AND later.seq > failed.seq)
    LIMIT {bounds.HISTORY + 1})
"""  # noqa: S608 constants
_EXISTS = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL"
_TOOL = "Alembic"


async def read(connection: Connection, options: Options) -> History:
    """Return what the version table says, and the revisions that the ledger knows to be half applied."""
    table, halves = await _find(connection, options)
    return await history_in(connection, table, halves)


async def locate(connection: Connection, options: Options) -> Table:
    """Return the version table's place, whether or not it is there."""
    return (await _find(connection, options))[0]


async def _find(connection: Connection, options: Options) -> tuple[Table, tuple[Applied, ...]]:
    """Return the version table's place, and the revisions that the ledger knows to be half applied.

    env.py may name a version table of its own; the ledger has what the last run told.
    """
    table: Table = (options.schema, _DEFAULT_TABLE)
    halves: list[Applied] = []
    if await one(connection, _HAS_LEDGER):
        cursor = await connection.execute(_FROM_LEDGER)
        for what, words, checksum, state, error in bounds.history(await cursor.fetchall()):
            if what == "half applied":
                detail = {"state": state, "error": error}
                halves.append(Applied(name=words[0], checksum=checksum, finished=False, detail=detail))
            elif await one(connection, _EXISTS, (quoted((words[0], words[1])),)):
                table = (words[0], words[1])
    return table, await name_stops(connection, _TOOL, halves)


async def history_in(connection: Connection, table: Table, halves: tuple[Applied, ...] = ()) -> History:
    """Return what this table says."""
    if not await one(connection, _EXISTS, (quoted(table),)):
        return History(table_exists=False, rows=halves)
    query = sql.SQL("SELECT pg_catalog.left(version_num, {}) FROM {} ORDER BY 1 LIMIT {}").format(
        bounds.NAME, sql.Identifier(*table), bounds.HISTORY + 1
    )
    cursor = await connection.execute(query)
    rows = tuple(Applied(name=name) for (name,) in bounds.history(await cursor.fetchall()))
    return History(table_exists=True, rows=(*rows, *halves), tables=(".".join(table),))


def assume(graph: Graph, history: History, word: Word) -> History:
    """Return the history as a person's word will leave it; raise `MigrationDiverged` where it cannot be."""
    rows = tuple(row for row in history.rows if row.finished)
    others = tuple(row for row in history.rows if not row.finished and row.name != word.name)
    if word.how is How.APPLIED:
        rows = tuple(Applied(name=name) for name in _stamped(graph, [row.name for row in rows], word.name))
    return replace(history, rows=(*rows, *others))


async def resolve(graph: Graph, checksums: Mapping[str, str], word: Word, run: Run) -> bool:
    """Write a person's word down; where the revision is applied, into the version table too, as its step would."""
    connection = run.connection
    table = await locate(connection, run.options)
    async with connection.transaction():
        if await one(connection, _EXISTS, (quoted(table),)):
            # An `alembic upgrade` that begins now waits at its first SELECT, and then finds our rows.
            await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(*table)))
        history = await read(connection, run.options)
        if due(str(word), history) != word:
            return False
        if word.how is How.APPLIED:
            await _stamp(connection, table, graph, history, word.name)
        row = MigrationRow(tool=_TOOL, name=word.name, state="resolved", version=quoted(table), mode=word.how.value)
        await ledger.record_migration(connection, replace(row, checksum=checksums.get(word.name)), run.actor)
    return True


def _stamped(graph: Graph, rows: list[str], name: str) -> tuple[str, ...]:
    if name not in graph.revisions:
        raise MigrationDiverged(
            f"Revision {name}, which a person calls applied, is not in the source; nothing was done"
        )
    if missing := graph.closure([name]) - graph.closure(rows) - {name}:
        raise MigrationDiverged(
            f"A person calls revision {name} applied, and {', '.join(sorted(missing)[:5])}, on which it rests, is not; "
            "nothing was done"
        )
    return graph.stamped(rows, name)


async def _stamp(connection: Connection, table: Table, graph: Graph, history: History, name: str) -> None:
    """Write into the version table what the step that applies the revision would have written."""
    if not history.table_exists:
        raise MigrationDiverged(
            f"There is no version table {quoted(table)} to write revision {name} into; run `alembic stamp {name}`"
        )
    before = [row.name for row in history.rows if row.finished]
    after = _stamped(graph, before, name)
    identifier = sql.Identifier(*table)
    await connection.execute(
        sql.SQL("DELETE FROM {} WHERE version_num = ANY (%s)").format(identifier), (sorted({*before} - {*after}),)
    )
    for row in set(after) - set(before):
        await connection.execute(sql.SQL("INSERT INTO {} (version_num) VALUES (%s)").format(identifier), (row,))


async def one(connection: Connection, query: str, values: tuple[str | int, ...] = ()) -> bool:
    """Return the one answer of a query, a yes or a no."""
    cursor = await connection.execute(query, values)
    row = await cursor.fetchone()
    return bool(row and row[0])


def quoted(table: Table) -> str:
    """Return the table's name as SQL has it."""
    return sql.Identifier(*table).as_string()
