"""How a seed is run: emptiness, files, sequences and marker, in one transaction as the role."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api.v1alpha1 import SeedSpec, Spec
from database_bootstrap.bundles.bundle import Bundle
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.sqlstates import error_of, server_words
from database_bootstrap.stages import contents, loading, tooling
from database_bootstrap.stages.tooling import options_of
from database_bootstrap.stages.visit import Visit

_TABLES_AT_ONCE = 100
Judge = Callable[[Connection, tuple[str, str]], Awaitable[bool]]
"""Decides of a table that cannot be read whether it may be passed over."""
_OWNED_SEQUENCES = """
    SELECT s.oid::pg_catalog.int8, q.seqmax, sn.nspname, s.relname, tn.nspname, t.relname, a.attname
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
    JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
    JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
        AND a.atttypid IN ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype)
    JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid AND q.seqincrement > 0
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid
      AND d.deptype IN ('a', 'i') AND tn.nspname <> 'dbbootstrap'
      AND pg_catalog.pg_has_role(t.relowner, 'USAGE') AND pg_catalog.pg_has_role(s.relowner, 'USAGE')
"""
_RAISE_SEQUENCE = """
    SELECT pg_catalog.setval({sequence}::pg_catalog.regclass, top)
    FROM (SELECT least(pg_catalog.max({column}), {greatest}) AS top FROM {table}) t
    WHERE top > (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence_name})
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What is put in, and who is told how far it is."""

    bundle: Bundle
    spec: Spec
    meter: loading.Meter


def ignored(seed: SeedSpec, history_tables: Iterable[str]) -> frozenset[str]:
    """Return the tables whose rows do not count."""
    return frozenset([*seed.ignore_tables, *history_tables])


async def history_tables(visit: Visit) -> tuple[str, ...]:
    """Return the migration tool's own tables: their rows are nobody's data."""
    spec = visit.spec.migrations
    if spec is None or visit.sessions.as_role is None:
        return ()
    history = await tooling.read(visit.tools[spec.tool.value], visit.sessions.as_role, options_of(spec))
    return history.tables


async def find_row(connection: Connection, ignore: frozenset[str]) -> str | None:
    """Return a user table that has a row, or None where all are empty; one that cannot be read counts as not empty.

    Of a table with FORCE ROW LEVEL SECURITY a session that only reads learns nothing: it is passed over here, and asked
    about under the lock.
    """
    return await _find_row(connection, ignore, _is_forced)


async def _find_row(connection: Connection, ignore: frozenset[str], judge: Judge) -> str | None:
    tables = await _asked(connection, ignore)
    for start in range(0, len(tables), _TABLES_AT_ONCE):
        if found := await _first_with_a_row(connection, tables[start : start + _TABLES_AT_ONCE], judge):
            return found
    return None


async def _is_forced(connection: Connection, table: tuple[str, str]) -> bool:
    """Whether the table hides its rows from its owner too, and nothing else keeps them from being read."""
    query = (
        "SELECT relforcerowsecurity AND pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class"
        " WHERE oid = pg_catalog.to_regclass(pg_catalog.format('%%I.%%I', %s::text, %s::text))"
    )
    row = await (await connection.execute(query, table)).fetchone()
    return bool(row and row[0])


async def _is_empty_behind_its_policies(connection: Connection, table: tuple[str, str]) -> bool:
    """Whether a table with FORCE ROW LEVEL SECURITY has no row; it is asked without, in what is then rolled back."""
    if not await _is_forced(connection, table):
        return False
    name = sql.Identifier(*table)
    async with connection.transaction(force_rollback=True):
        await connection.execute(sql.SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(name))
        row = await (await connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(name))).fetchone()
    return row is not None and not row[0]


async def _first_with_a_row(connection: Connection, tables: Sequence[tuple[str, str]], judge: Judge) -> str | None:
    """Ask about several tables in one statement; where one cannot be read, about each by itself, and then the judge."""
    cases = sql.SQL(" ").join(
        sql.SQL("WHEN EXISTS (SELECT FROM {}) THEN {}").format(sql.Identifier(*table), sql.Literal(".".join(table)))
        for table in tables
    )
    try:
        async with connection.transaction():
            row = await (await connection.execute(sql.SQL("SELECT CASE {} END").format(cases))).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        if len(tables) == 1:
            return None if await judge(connection, tables[0]) else ".".join(tables[0])
        for table in tables:
            if found := await _first_with_a_row(connection, [table], judge):
                return found
        return None
    return str(row[0]) if row and row[0] else None


async def _asked(connection: Connection, ignore: frozenset[str]) -> list[tuple[str, str]]:
    tables = await contents.tables_for_rows(connection)
    return [table for table in tables if ".".join(table) not in ignore]


async def run(connection: Connection, seed: Seed, ignore: frozenset[str] | None) -> str | None:
    """Seed in one transaction; with `ignore` only where every other table is empty, else return one that is not."""
    try:
        async with connection.transaction():
            await loading.begin(connection)
            if ignore is not None and (occupied := await _lock_and_find_row(connection, ignore)):
                return occupied
            total = 0
            for file in seed.bundle.in_order:
                total += await loading.put_in(connection, file, seed.spec, seed.meter)
            await _raise_sequences(connection)
            await mark(connection, seed.bundle, "seeded", total, None)
            seed.meter.is_ending = True
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name != "seed_once":
            raise _failure(error) from None
    except psycopg.Error as error:
        raise _failure(error) from None
    return None


def _failure(error: psycopg.Error) -> errors.BootstrapError:
    """Return our error for one that is no single file's: a constraint that waits for the end of the transaction."""
    if (error.sqlstate or "").startswith("23"):
        return errors.SeedFailed(
            f"{server_words(error)} (SQLSTATE {error.sqlstate}), which shows only when all files are in. Nothing of "
            "the seed stayed; correct the files"
        )
    return error_of(error, "seed the database")


async def _lock_and_find_row(connection: Connection, ignore: frozenset[str]) -> str | None:
    """Keep writers out for the rest of the transaction, and ask again whether the tables are empty.

    With FORCE ROW LEVEL SECURITY even their owner would see none of their rows, unless row_security is off.
    """
    tables = await _asked(connection, ignore)
    if tables:
        names = sql.SQL(", ").join(sql.Identifier(*table) for table in tables)
        await connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE NOWAIT").format(names))
    await connection.execute("SET LOCAL row_security = off")
    occupied = await _find_row(connection, ignore, _is_empty_behind_its_policies)
    await connection.execute("SET LOCAL row_security TO DEFAULT")
    return occupied


async def _raise_sequences(connection: Connection) -> None:
    """Raise each column's sequence to the greatest value there, so that the application's first INSERT succeeds."""
    cursor = await connection.execute(_OWNED_SEQUENCES)
    statements = [
        sql.SQL(_RAISE_SEQUENCE).format(
            sequence=sql.Literal(oid),
            greatest=sql.Literal(greatest),
            column=sql.Identifier(column),
            table=sql.Identifier(schema, table),
            sequence_name=sql.Identifier(sequence_schema, sequence),
        )
        for oid, greatest, sequence_schema, sequence, schema, table, column in await cursor.fetchall()
    ]
    if statements:
        await connection.execute(sql.SQL(";").join(statements))


async def mark(connection: Connection, bundle: Bundle, state: str, count: int, detail: str | None) -> None:
    """Write the marker; a second `seeded` one is refused by a unique index."""
    await connection.execute(
        "INSERT INTO dbbootstrap.seed (name, checksum, state, rows, detail, incarnation)"
        " SELECT 'seed', %s, %s, %s, %s, incarnation FROM dbbootstrap.identity",
        (bundle.digest, state, count, detail),
    )
