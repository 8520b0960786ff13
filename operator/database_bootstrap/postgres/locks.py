"""The advisory locks under which one database is migrated and seeded: tried, never waited for."""

import asyncio
import random
import time

from psycopg import sql

from database_bootstrap.errors import LockHeld
from database_bootstrap.postgres.connection import Connection

KEY = 4918566651442769969
"""The bytes of `DBBOOT01`; advisory locks belong to one database, so one key serves all."""
CHILD_KEY = 4918566651442769970
"""The lock of the session in which Alembic's child migrates ("DBBOOT02"): it outlives an operator that was killed."""
_PATIENCE_SECONDS = 30.0


def _held(key: int) -> sql.Composed:
    return sql.SQL("""
    SELECT true FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() AND granted
      AND classid = {} AND objid = {} AND objsubid = 1
""").format(key >> 32, key & 0xFFFFFFFF)


HELD = _held(KEY)
"""Gives a row as long as the session holds the lock."""


async def acquire(connection: Connection) -> None:
    """Take both locks for the session; raise `LockHeld` when another has kept one of them for half a minute.

    A session that waits in pg_advisory_lock() holds a snapshot, on which a CREATE INDEX CONCURRENTLY of the lock's
    holder waits in turn: a deadlock. So the locks are tried for again and again. With the child's lock free, and held
    here, no child of an operator that was killed is still at work, and none begins.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for key, who in ((KEY, "Another session"), (CHILD_KEY, "Alembic, begun by an operator that is gone,")):
        pause = 0.25
        while not await _try(connection, key):
            if time.monotonic() > deadline:
                raise LockHeld(f"{who} is migrating this database; it is tried again later")
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 no secret
            pause = min(2.0, pause * 1.5)


async def _try(connection: Connection, key: int) -> bool:
    """Take a lock unless the session has it: taken twice it would have to be given back twice."""
    query = sql.SQL("SELECT CASE WHEN EXISTS ({}) THEN true ELSE pg_catalog.pg_try_advisory_lock({}) END")
    row = await (await connection.execute(query.format(_held(key), key))).fetchone()
    return bool(row and row[0])


async def leave_to_child(connection: Connection) -> None:
    """Give the child's lock back, for Alembic's child to take it; nobody else does who does not hold the first one."""
    query = sql.SQL("SELECT pg_catalog.pg_advisory_unlock({}) WHERE EXISTS ({})")
    await connection.execute(query.format(CHILD_KEY, _held(CHILD_KEY)))


async def verify(connection: Connection) -> None:
    """Raise `LockHeld` when the session does not hold the lock: a pooler in between has changed the session."""
    cursor = await connection.execute(HELD)
    if await cursor.fetchone() is None:
        raise lost()


def lost() -> LockHeld:
    """Return the error for a session that does not hold the lock any more."""
    return LockHeld("The session's advisory lock is gone; is a transaction pooler in between? Name the server itself")


async def release(connection: Connection) -> None:
    """Give both locks back."""
    await leave_to_child(connection)
    await connection.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", (KEY,))
