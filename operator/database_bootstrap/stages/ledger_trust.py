"""The ledger in the administrator's session: looked at only where nobody can have put code into it."""

from dataclasses import dataclass

import psycopg

from database_bootstrap import errors
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages.ledger_shape import is_uuid
from database_bootstrap.stages.sessions import rows

_HAS_LEDGER = """
    SELECT pg_catalog.count(*) > 0
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'dbbootstrap' AND c.relname = 'identity' AND c.relkind = 'r'
"""
_STRANGERS = """
    SELECT DISTINCT pg_catalog.pg_get_userbyid(it.owner)
    FROM pg_catalog.pg_namespace n, LATERAL (
        SELECT n.nspowner AS owner UNION ALL SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid
    ) it JOIN pg_catalog.pg_roles o ON o.oid = it.owner
    WHERE n.nspname = 'dbbootstrap' AND NOT (o.rolsuper OR o.rolname = current_user OR o.rolcreaterole AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = %s AND pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER')))
"""
"""Who is neither a superuser, nor this session's own role, nor another administrator: an earlier one, mostly.

A role is a member of what it gives its tables to, as of pg_database_owner.
"""
_CODE = """
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_depend d ON
        d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND (d.objid = c.oid OR d.objid IN (SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid = c.oid))
        OR d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
            AND d.objid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = c.oid)
        OR d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
            AND d.objid IN (SELECT oid FROM pg_catalog.pg_attrdef WHERE adrelid = c.oid)
    WHERE c.oid = 'dbbootstrap.identity'::pg_catalog.regclass AND d.refclassid IN (
        'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
        'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass)
    UNION ALL SELECT 'trigger ' || tgname FROM pg_catalog.pg_trigger
    WHERE tgrelid = 'dbbootstrap.identity'::pg_catalog.regclass
    UNION ALL SELECT 'rule ' || rulename FROM pg_catalog.pg_rewrite
    WHERE ev_class = 'dbbootstrap.identity'::pg_catalog.regclass
    UNION ALL SELECT 'policy ' || polname FROM pg_catalog.pg_policy
    WHERE polrelid = 'dbbootstrap.identity'::pg_catalog.regclass
"""
"""What of the table calls for something that is not built in; on what is built in, nothing is noted to depend."""
_IDENTITY = "SELECT incarnation, cluster, namespace, name, uid, origin FROM dbbootstrap.identity"
"""As the columns are: a cast may be the role's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The one row of the ledger that says which database this is."""

    incarnation: str
    owner: Owner
    origin: str
    """How the database came to be its owner's, in the administrator's own words."""


async def read(connection: Connection, role: str) -> Ledger | None:
    """Return what the session's database says of itself; None where it has no ledger, or a thing that is no table.

    Raise `NotOwned` where the role, or others, could have laid out code in it.
    """
    doing = "read the ledger"
    ((has_ledger,),) = await rows(connection, _HAS_LEDGER, doing="look for the ledger")
    if not has_ledger:
        return None
    try:
        async with connection.transaction():
            await require_lasting(connection, role, "ACCESS SHARE")
            found = await rows(connection, _IDENTITY, doing=doing)
    except psycopg.Error as error:
        raise error_of(error, doing) from None
    return _ledger_in(tuple(map(str, found[0]))) if found else None


async def require_lasting(connection: Connection, role: str, mode: str = "SHARE ROW EXCLUSIVE") -> None:
    """Lock the ledger's identity for the transaction that is open; raise `NotOwned` where it may hold others' code."""
    doing = "look at whose the ledger is"
    _check(await rows(connection, _STRANGERS, (role,), doing=doing), [])
    try:
        await connection.execute(f"LOCK TABLE dbbootstrap.identity IN {mode} MODE".encode())
    except psycopg.Error as error:
        raise error_of(error, "lock the ledger") from None
    _check(await rows(connection, _STRANGERS, (role,), doing=doing), await rows(connection, _CODE, doing=doing))


def _check(strangers: list[tuple[str]], code: list[tuple[str]]) -> None:
    if strangers:
        raise _not_owned(f'belongs to "{strangers[0][0]}", who could have laid out code in it for the administrator')
    if code:
        raise _not_owned(f"has code in it that is not ours ({code[0][0]})")


def _not_owned(trouble: str) -> errors.NotOwned:
    return errors.NotOwned(
        f"The ledger (schema dbbootstrap) {trouble}; the administrator does not touch it, and it is left alone. "
        "Rename it, and it counts no more: ALTER SCHEMA dbbootstrap RENAME TO dbbootstrap_kept"
    )


def _ledger_in(row: tuple[str, ...]) -> Ledger:
    incarnation, cluster, namespace, name, uid, origin = row
    owner = Owner(cluster=cluster, namespace=namespace, name=name, uid=uid)
    if not (owner.is_plausible and is_uuid(incarnation)):
        raise _not_owned("names no resource that there can be")
    return Ledger(incarnation=incarnation, owner=owner, origin=origin)
