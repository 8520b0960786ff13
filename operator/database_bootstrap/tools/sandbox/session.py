"""Our own statements in the migrating session; every name is qualified: the project sets the search path."""

import time
from collections.abc import Iterable
from typing import Any

import sqlalchemy
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, exc, text

from database_bootstrap.postgres import locks
from database_bootstrap.tools.sandbox import wire

_KEY_TRIES = 10
_KEY_SECONDS = 0.2
"""Together the time that the server may need to end a session whose client was killed."""

_WHERE = text("""
    SELECT pg_catalog.current_database() AS database, session_user AS login, pg_catalog.pg_backend_pid() AS pid,
        EXISTS (SELECT FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_database AS d ON d.oid = l.database
            WHERE l.locktype = 'advisory' AND l.granted AND l.pid = :owner AND d.datname = pg_catalog.current_database()
            AND l.classid = :high AND l.objid = :low AND l.objsubid = 1) AS owned
""")
_TRY_KEY = text("SELECT pg_catalog.pg_try_advisory_lock(:key)")
_HOLDER = text("""
    SELECT l.pid FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_database AS d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND l.granted AND d.datname = pg_catalog.current_database()
    AND l.classid = :high AND l.objid = :low AND l.objsubid = 1
""")
# Makes the server notice within a second that this process was killed in the middle of a statement. On systems that
# cannot tell, PostgreSQL refuses the value (src/backend/storage/ipc/latch.c, WaitEventSetCanReportClosed).
_NOTICE_DEATH = text("""
    SELECT pg_catalog.set_config('client_connection_check_interval', '1s', false)
    WHERE pg_catalog.version() !~* 'windows|mingw|visual c'
""")
_SURROUNDINGS = text("""
    SELECT pg_catalog.current_setting('search_path') AS path, pg_catalog.current_setting('role') AS role,
        pg_catalog.current_schema() AS schema
""")
_BECOME = text("SELECT pg_catalog.set_config('search_path', :path, false), pg_catalog.set_config('role', :role, false)")
_SCHEMA = text("SELECT pg_catalog.current_schema()")
_NAME = text("""
    SELECT n.nspname, c.relname
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass(:table)
""")
_RECORD = text("""
    WITH row AS (
        INSERT INTO dbbootstrap.migration (tool, version, name, checksum, mode, state)
        VALUES ('Alembic', pg_catalog.quote_ident(:schema) || '.' || pg_catalog.quote_ident(:table), :name, :checksum,
            :mode, :state)
        RETURNING name, state
    )
    INSERT INTO dbbootstrap.audit_log (stage, action, actor)
    SELECT 'migrations', 'migration ' || name || ' ' || state, :actor FROM row
""")


_RECORD_LOSS = text("""
    INSERT INTO dbbootstrap.audit_log (stage, action, actor)
    VALUES ('migrations', 'migration ' || :name || ' allowed to ' || :loss, :actor)
""")


def _halves(key: int) -> dict[str, int]:
    """Return a bigint key as pg_locks shows it."""
    return {"high": key >> 32, "low": key & 0xFFFFFFFF}


def locate(connection: Connection, target: wire.Target) -> tuple[int, str | None]:
    """Return the session's backend, and what is wrong with where it is, if anything."""
    found = connection.execute(_WHERE, {"owner": target.owner_pid, **_halves(locks.KEY)}).one()
    if (found.database, found.login) != (target.database, target.user):
        return found.pid, f"to database {found.database} as {found.login}"
    return found.pid, None if found.owned else "to another server"


def take_key(connection: Connection, ours: set[int]) -> bool:
    """Take the sandbox's own lock for the session, or see that a session of this process has it."""
    connection.execute(_NOTICE_DEATH)
    for attempt in range(_KEY_TRIES):
        if attempt:
            time.sleep(_KEY_SECONDS)
        if connection.execute(_TRY_KEY, {"key": locks.CHILD_KEY}).scalar_one():
            return True
        if connection.execute(_HOLDER, _halves(locks.CHILD_KEY)).scalar() in ours:
            return True
    return False


def make_table(context: MigrationContext, url: str) -> None:
    """Make the version table in a transaction of its own.

    Made within the migrating one it would be invisible to an `alembic upgrade` that starts at the same time, which
    would make it too and fail.
    """
    if context._has_version_table():
        return
    main = context.connection
    assert main is not None
    around = main.execute(_SURROUNDINGS).one()
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    try:
        with engine.connect() as side:
            side.execute(_BECOME, {"path": around.path, "role": around.role})
            # A schema that env.py has made and not committed is not there for the other session.
            if side.execute(_SCHEMA).scalar() == around.schema:
                context._version.create(side, checkfirst=True)
                side.commit()
    except exc.DBAPIError:
        pass  # Somebody was faster, or it can only be made where the migrations run.
    context._ensure_version_table()


def lock_table(context: MigrationContext) -> None:
    """Keep every other Alembic out until the transaction ends; it waits at its first SELECT and then finds our rows."""
    if not is_autocommit(context):
        _connection(context).execute(text(f"LOCK TABLE {_table(context)} IN ACCESS EXCLUSIVE MODE"))


def is_autocommit(context: MigrationContext) -> bool:
    """Whether env.py's engine has no transactions."""
    dbapi = _connection(context).connection.dbapi_connection
    return bool(getattr(dbapi, "autocommit", False))


def name_of_table(context: MigrationContext) -> tuple[str, str]:
    """Return schema and name of the version table as the server has them."""
    schema, name = _connection(context).execute(_NAME, {"table": _table(context)}).one()
    return schema, name


def record(context: MigrationContext, values: dict[str, Any]) -> None:
    """Write a ledger row in the transaction in which the version row was written."""
    _connection(context).execute(_RECORD, values)


def record_losses(context: MigrationContext, name: str, losses: Iterable[str], actor: str) -> None:
    """Write what a revision was allowed to destroy into the audit log, in the same transaction."""
    for loss in losses:
        _connection(context).execute(_RECORD_LOSS, {"name": name, "loss": loss, "actor": actor})


def _connection(context: MigrationContext) -> Connection:
    assert context.connection is not None
    return context.connection


def _table(context: MigrationContext) -> str:
    preparer = context.dialect.identifier_preparer
    return preparer.format_table(context._version).replace(":", r"\:")
