"""Prisma's own table: `_prisma_migrations`, read and written as its schema engine does."""

from functools import partial
from uuid import uuid4

from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.tools.migrators import Migrator, quiet
from database_bootstrap.tools.running import Records
from database_bootstrap.tools.tool import Applied, History

TABLE = "_prisma_migrations"
_MARK = "dbbootstrap: "
"""Begins the logs that we write; Prisma's own hold the failed statement and row data, and are not shown."""
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


def records_of(schema: str, name: str, checksum: str) -> Records:
    """Return what `migrate deploy` writes; times are the server's, so that one order holds for all."""
    names = {"table": sql.Identifier(schema, TABLE), "id": str(uuid4()), "name": name, "checksum": checksum}
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
            "SELECT migration_name, checksum, finished_at IS NOT NULL, rolled_back_at IS NOT NULL,"
            " CASE WHEN finished_at IS NULL THEN logs END FROM {} ORDER BY started_at"
        ).format(sql.Identifier(schema, TABLE))
    )
    return tuple(
        Applied(name=name, checksum=checksum, finished=finished, rolled_back=rolled_back, detail=_detail(logs))
        for name, checksum, finished, rolled_back, logs in await cursor.fetchall()
    )


def _detail(logs: str | None) -> dict[str, str]:
    return {"words": logs.removeprefix(_MARK)} if logs and logs.startswith(_MARK) else {}


async def make(connection: Connection, schema: str) -> None:
    """Make the table, and the schema where it is missing, as Prisma would."""
    cursor = await connection.execute("SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s", (schema,))
    if await cursor.fetchone() is None:
        await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    await connection.execute(sql.SQL(_CREATE).format(table=sql.Identifier(schema, TABLE)))
