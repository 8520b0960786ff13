"""The role of a deletion: it goes, whatever rights others have given it; what it owns elsewhere keeps it."""

import logging
from collections.abc import Awaitable
from enum import Enum, auto
from typing import TypeVar

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api.outcomes import StageName
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages import deletion_compare as compare
from database_bootstrap.stages import deletion_state as state
from database_bootstrap.stages import marking, permits
from database_bootstrap.stages.departure import Departure, Drop
from database_bootstrap.stages.sessions import execute, rows

_END_SESSIONS = """
    SELECT pg_catalog.pg_terminate_backend(pid, 1000) FROM pg_catalog.pg_stat_activity
    WHERE usename = %s AND pg_catalog.pg_has_role(current_user, usesysid, 'USAGE')
"""
_HELD_BY_OTHERS = {"2BP01", "55P03"}
"""dependent_objects_still_exist, lock_not_available: a GRANT that is not committed yet has the role locked."""
_log = logging.getLogger(__name__)

Value = TypeVar("Value")


class Fate(Enum):
    """What has become of the role."""

    GONE = auto()
    KEPT = auto()
    """It is not this resource's to drop; its Secrets stay with it."""
    LEFT_BEHIND = auto()
    """It cannot be dropped, as others have given it rights; it can do nothing with them, and waits for `let_go`."""


async def see_to(departure: Departure, kept_database: str | None) -> Fate:
    """Drop the role; raise `RoleOwnsObjects` where it owns something that is not its database's.

    The owner of any other database may give rights to it, and must not keep it from being dropped by that. They are
    taken away; those that are not the administrator's to take leave a role behind that nobody can log in as.
    """
    role = await state.find_role(await departure.aside(), departure.role)
    if role is None:
        return Fate.GONE
    if kept := compare.keep_role(departure.subject, role, kept_database):
        departure.kept.append(kept)
        return Fate.KEPT
    if role.dependents:
        await _lock_out(departure)
        await _take_rights(departure, role)
    if await with_admin_option(departure, _drop(departure)):
        departure.drops.append(Drop(stage=StageName.ROLE, text=_doing(departure)))
        return Fate.GONE
    await _lock_out(departure)
    await _find(departure)
    return Fate.LEFT_BEHIND


async def let_go(departure: Departure) -> None:
    """Take the mark off a role that is left behind, as the last step: nobody finds it by anything else."""
    role = await _find(departure)
    if role is None:
        return
    statement = marking.role_of_nobody(departure.role, role.comment)
    doing = f'unmark role "{departure.role}"'
    await with_admin_option(departure, execute(await departure.aside(), statement, doing=doing))
    departure.kept.append(compare.left_behind(departure.role, role.dependents))


async def _find(departure: Departure) -> state.Role | None:
    """Return the role; raise `RoleOwnsObjects` where it has come to own something meanwhile."""
    role = await state.find_role(await departure.aside(), departure.role)
    if role is not None:
        compare.keep_role(departure.subject, role, None)
    return role


async def with_admin_option(departure: Departure, work: Awaitable[Value]) -> Value:
    """Do what since PostgreSQL 16 only whoever made a role, or was given it, may do."""
    try:
        return await work
    except errors.AccessDenied:
        await permits.require_power_to_drop(await departure.aside(), departure.role)
        raise


async def _lock_out(departure: Departure) -> None:
    """Let nobody log in as the role any more, and end its sessions: nothing can become its own meanwhile."""
    connection = await departure.aside()
    doing = f'lock out role "{departure.role}"'
    statement = sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(departure.role))
    await with_admin_option(departure, execute(connection, statement, doing=doing))
    await rows(connection, _END_SESSIONS, (departure.role,), doing=doing)


async def _take_rights(departure: Departure, role: state.Role) -> None:
    """Take the role's rights away wherever the administrator may; what fails in another's database is no matter."""
    usual = (await departure.aside()).info.dbname
    for database in sorted({it.database or usual for it in role.dependents}):
        try:
            await _disown(departure, database)
        except errors.BootstrapError as error:
            # Its owner can close it, lock what is in it, and spoil its settings. A server that is away shows next.
            _log.info('Rights of role "%s" in database "%s" stay: %s', departure.role, database, error)


async def _disown(departure: Departure, database: str) -> None:
    connection = await departure.sessions.administrator(database)
    role = await state.find_role(connection, departure.role)
    if role is None or compare.keep_role(departure.subject, role, None):
        return
    statement = sql.SQL("DROP OWNED BY {}").format(sql.Identifier(departure.role))
    await execute(connection, statement, doing=f'take the rights of role "{departure.role}" away')


async def _drop(departure: Departure) -> bool:
    """Drop the role; False where others hold it."""
    try:
        statement = sql.SQL("DROP ROLE {}").format(sql.Identifier(departure.role))
        await (await departure.aside()).execute(statement)
    except psycopg.Error as error:
        if error.sqlstate in _HELD_BY_OTHERS:
            return False
        raise error_of(error, _doing(departure)) from None
    return True


def _doing(departure: Departure) -> str:
    return f'drop role "{departure.role}"'
