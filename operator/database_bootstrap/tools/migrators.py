"""Migrators: who else may be at work in this database, by the advisory lock that each holds."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from enum import IntEnum

import psycopg
from psycopg import pq

from database_bootstrap.errors import LockHeld
from database_bootstrap.postgres import locks
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.tools.tool import Applied

_WAIT = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0


class Migrator(IntEnum):
    """The keys of session-level advisory locks."""

    US = locks.KEY
    PRISMA = 72707369
    """schema-engine/connectors/sql-schema-connector/src/flavour/postgres.rs in prisma/prisma-engines."""


async def quiet(
    connection: Connection, read: Callable[[], Awaitable[tuple[Applied, ...]]], *migrators: Migrator
) -> tuple[Applied, ...]:
    """Return a history; raise `LockHeld` when it has an unfinished migration because somebody is at it right now.

    A lock is put down after the last row is written: an unfinished row, then no lock, and still unfinished, is a
    migration that nobody will finish.
    """
    rows = await read()
    if all(row.finished or row.rolled_back for row in rows):
        return rows
    if await _busy_elsewhere(connection, *migrators):
        raise LockHeld("Another session is applying a migration to this database right now")
    return await read()


async def _busy_elsewhere(connection: Connection, *migrators: Migrator) -> bool:
    """Whether a session other than this one holds one of the locks; a key is split as pg_locks shows it."""
    cursor = await connection.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks AS held, pg_catalog.unnest(%s::bigint[]) AS key"
        " WHERE held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted"
        " AND held.pid <> pg_catalog.pg_backend_pid()"
        " AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
        " AND (held.classid::bigint << 32) + held.objid::bigint = key)",
        ([int(migrator) for migrator in migrators],),
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


@asynccontextmanager
async def held(connection: Connection, migrator: Migrator, who: str) -> AsyncIterator[None]:
    """Hold a migrator's lock; raise `LockHeld` when it is not to be had for half a minute."""
    await _take(connection, migrator, who)
    try:
        yield
    finally:
        await _put_down(connection, migrator)


@asynccontextmanager
async def put_down(connection: Connection, migrator: Migrator, who: str) -> AsyncIterator[None]:
    """Put a lock that is held down, and take it again."""
    await _put_down(connection, migrator)
    yield
    await _take(connection, migrator, who)


async def _take(connection: Connection, migrator: Migrator, who: str) -> None:
    """Try, and never wait: a session that waits for it holds a snapshot, for which CREATE INDEX CONCURRENTLY waits."""
    deadline = time.monotonic() + _WAIT
    pause = _FIRST_PAUSE
    while True:
        cursor = await connection.execute("SELECT pg_catalog.pg_try_advisory_lock(%s::bigint)", (int(migrator),))
        row = await cursor.fetchone()
        if row and row[0]:
            return
        if time.monotonic() + pause > deadline:
            raise LockHeld(f"{who} has been migrating this database for {_WAIT:.0f} seconds or more")
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 jitter
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _put_down(connection: Connection, migrator: Migrator) -> None:
    """Give the lock back; a session that is broken or in a transaction is ended by its owner, and gives it back so."""
    if connection.info.transaction_status == pq.TransactionStatus.IDLE:
        with suppress(psycopg.OperationalError):
            await connection.execute("SELECT pg_catalog.pg_advisory_unlock(%s::bigint)", (int(migrator),))
