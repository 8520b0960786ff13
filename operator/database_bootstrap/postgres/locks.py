"""The advisory lock under which one database is migrated and seeded: tried, never waited for."""

import asyncio
import random
import time

from psycopg import sql

from database_bootstrap.errors import LockHeld
from database_bootstrap.postgres.connection import Connection

KEY = 4918566651442769969
"""The bytes of `DBBOOT01`; advisory locks belong to one database, so one key serves all."""
_PATIENCE_SECONDS = 30.0
HELD = sql.SQL("""
    SELECT true FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() AND granted
      AND classid = {} AND objid = {} AND objsubid = 1
""").format(KEY >> 32, KEY & 0xFFFFFFFF)
"""Gives a row as long as the session holds the lock."""


async def acquire(connection: Connection) -> None:
    """Take the lock for the session; raise `LockHeld` when another has kept it for half a minute.

    A session that waits in pg_advisory_lock() holds a snapshot, on which a CREATE INDEX CONCURRENTLY of the lock's
    holder waits in turn: a deadlock. So the lock is tried for again and again.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    pause = 0.25
    while not await _try(connection):
        if time.monotonic() > deadline:
            raise LockHeld("Another session is migrating this database; it is tried again later")
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 no secret
        pause = min(2.0, pause * 1.5)


async def _try(connection: Connection) -> bool:
    cursor = await connection.execute("SELECT pg_catalog.pg_try_advisory_lock(%s)", (KEY,))
    row = await cursor.fetchone()
    return bool(row and row[0])


async def verify(connection: Connection) -> None:
    """Raise `LockHeld` when the session does not hold the lock: a pooler in between has changed the session."""
    cursor = await connection.execute(HELD)
    if await cursor.fetchone() is None:
        raise lost()


def lost() -> LockHeld:
    """Return the error for a session that does not hold the lock any more."""
    return LockHeld("The session's advisory lock is gone; is a transaction pooler in between? Name the server itself")


async def release(connection: Connection) -> None:
    """Give the lock back."""
    await connection.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", (KEY,))
