"""Prisma's own table: `_prisma_migrations`, read and written as its schema engine does."""

import re
from functools import partial
from uuid import uuid4

from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.postgres import bounds
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.tools.job import Records
from database_bootstrap.tools.migrators import Migrator, quiet
from database_bootstrap.tools.resolution import How, Word, stop_of
from database_bootstrap.tools.tool import Applied, History

TABLE = "_prisma_migrations"
_MARK = "dbbootstrap: "
"""Begins the logs that we write; Prisma's own hold the failed statement and row data, and are not shown."""
_THEIR_STATE = re.compile(r"Database error code: ([0-9A-Z]{5})\b")
_NEXT_SCHEMA = "prisma_contract"

# schema-engine/connectors/sql-schema-connector/src/flavour/postgres.rs in prisma/prisma-engines.
_CREATE = """
CREATE TABLE {table} (
    id                      VARCHAR(36) PRIMARY KEY NOT NULL,
    checksum                VARCHAR(64) NOT NULL,
    finished_at             TIMESTAMPTZ,
    migration_name          VARCHAR(255) NOT NULL,
    logs                    TEXT,
    rolled_back_at          TIMESTAMPTZ,
    started_at              TIMESTAMPTZ NOT NULL DEFAULT now(),
    applied_steps_count     INTEGER NOT NULL DEFAULT 0
)"""


def records_of(schema: str, name: str, checksum: str, identifier: str) -> Records:
    """Return what `migrate deploy` writes; times are the server's, so that one order holds for all."""
    names = {"table": sql.Identifier(schema, TABLE), "id": identifier, "name": name, "checksum": checksum}
    return Records(
        whole=sql.SQL(
            "INSERT INTO {table} (id, checksum, migration_name, started_at, finished_at, applied_steps_count)"
            " VALUES ({id}, {checksum}, {name}, pg_catalog.now(), pg_catalog.clock_timestamp(), 1);"
        ).format(**names),
        begin=sql.SQL(
            "INSERT INTO {table} (id, checksum, started_at, migration_name)"
            " VALUES ({id}, {checksum}, pg_catalog.clock_timestamp(), {name});"
        ).format(**names),
        finish=sql.SQL(
            "UPDATE {table} SET finished_at = pg_catalog.clock_timestamp(),"
            " applied_steps_count = applied_steps_count + 1 WHERE id = {id};"
        ).format(**names),
        fail=lambda words: sql.SQL("UPDATE {table} SET logs = {logs} WHERE id = {id};").format(
            **names, logs=f"{_MARK}{words}"
        ),
    )


def applied_by_hand(schema: str, name: str, checksum: str) -> sql.Composed:
    """Return what `migrate resolve --applied` inserts."""
    return sql.SQL(
        "INSERT INTO {table} (id, checksum, migration_name, logs, started_at, finished_at, applied_steps_count)"
        " SELECT {id}, {checksum}, {name}, '', moment, moment, 0 FROM pg_catalog.clock_timestamp() AS moment;"
    ).format(table=sql.Identifier(schema, TABLE), id=str(uuid4()), checksum=checksum, name=name)


def resolution(schema: str, word: Word, checksum: str) -> sql.Composed:
    """Return what `migrate resolve` writes about a migration that began and did not end."""
    roll_back = sql.SQL(
        "UPDATE {} SET rolled_back_at = pg_catalog.clock_timestamp()"
        " WHERE migration_name = {} AND finished_at IS NULL AND rolled_back_at IS NULL;"
    ).format(sql.Identifier(schema, TABLE), word.name)
    if word.how is How.ROLLED_BACK:
        return roll_back
    return roll_back + applied_by_hand(schema, word.name, checksum)


def is_applied(schema: str, name: str) -> sql.Composed:
    """Return a query that gives a row when the migration is applied."""
    return sql.SQL(
        "SELECT FROM {} WHERE migration_name = {} AND rolled_back_at IS NULL AND finished_at IS NOT NULL"
    ).format(sql.Identifier(schema, TABLE), name)


async def read(connection: Connection, schema: str) -> History:
    """Return Prisma's history; raise `LockHeld` while somebody is in the middle of a migration."""
    cursor = await connection.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s),"
        " EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)",
        (schema, TABLE, _NEXT_SCHEMA),
    )
    table_exists, is_next = await cursor.fetchone() or (False, False)
    if is_next:
        raise errors.SchemaHasOtherOwner(
            f"The schema {_NEXT_SCHEMA} belongs to Prisma Next, which keeps another kind of history; remove migrations "
            "from this resource and let Prisma Next do them"
        )
    tables = (f"{schema}.{TABLE}",)
    if not table_exists:
        return History(table_exists=False, tables=tables)
    rows = await quiet(connection, partial(_rows, connection, schema), Migrator.US, Migrator.PRISMA)
    return History(table_exists=True, rows=rows, tables=tables)


async def _rows(connection: Connection, schema: str) -> tuple[Applied, ...]:
    cursor = await connection.execute(
        sql.SQL(
            "SELECT pg_catalog.left(migration_name, {name}), pg_catalog.left(checksum, {name}),"
            " finished_at IS NOT NULL, rolled_back_at IS NOT NULL,"
            " CASE WHEN finished_at IS NULL THEN pg_catalog.left(logs, {words}) END, pg_catalog.left(id, {name})"
            " FROM {table} ORDER BY started_at LIMIT {limit}"
        ).format(table=sql.Identifier(schema, TABLE), name=bounds.NAME, words=bounds.WORDS, limit=bounds.HISTORY + 1)
    )
    return tuple(
        Applied(
            name=name,
            checksum=checksum,
            finished=finished,
            rolled_back=rolled_back,
            stop=None if finished or rolled_back else stop_of(identifier),
            detail=_detail(logs),
        )
        for name, checksum, finished, rolled_back, logs, identifier in bounds.history(await cursor.fetchall())
    )


def _detail(logs: str | None) -> dict[str, str]:
    """Return what may be shown of the logs: our own words, or where Prisma's own are, and the SQLSTATE in them."""
    if not logs:
        return {}
    if logs.startswith(_MARK):
        return {"words": logs.removeprefix(_MARK)}
    state = _THEIR_STATE.search(logs)
    words = "what Prisma has noted in the column logs of its table _prisma_migrations"
    return {"words": f"{words} (SQLSTATE {state[1]})" if state else words}


async def make(connection: Connection, schema: str) -> None:
    """Make the table, and the schema where it is missing, as Prisma would."""
    cursor = await connection.execute("SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s", (schema,))
    if await cursor.fetchone() is None:
        await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    await connection.execute(sql.SQL(_CREATE).format(table=sql.Identifier(schema, TABLE)))
