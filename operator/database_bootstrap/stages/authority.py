"""Authority: what the server lets the administrator do to a role, and to a database, that others have made."""

from dataclasses import dataclass
from typing import Any

from database_bootstrap.api.v1alpha1 import Adoption
from database_bootstrap.stages import catalogue, contents
from database_bootstrap.stages.catalogue import Database, Inside
from database_bootstrap.stages.contents import Tables
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.visit import Visit

_QUERY = """
    SELECT a.rolname, r.oid IS NOT NULL AND a.oid = r.oid,
           a.rolsuper OR (a.rolcreaterole AND {is_admin}),
           a.rolsuper OR (r.oid IS NOT NULL AND pg_catalog.pg_has_role(a.oid, r.oid, {member})),
           coalesce(o.rolsuper OR o.oid = a.oid, false),
           coalesce(a.rolsuper OR (o.oid = a.oid AND a.rolcreatedb), false)
    FROM pg_catalog.pg_roles a
         LEFT JOIN pg_catalog.pg_roles r ON r.rolname = %s
         LEFT JOIN pg_catalog.pg_roles o ON o.rolname = %s
    WHERE a.rolname = current_user
"""
_IS_ADMIN = "(r.oid IS NOT NULL AND pg_catalog.pg_has_role(a.oid, r.oid, 'MEMBER WITH ADMIN OPTION'))"
"""Since 16; before, CREATEROLE is power over every role that is no superuser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The administrator's word, as far as the server lets it be done."""

    administrator: str
    is_the_role: bool
    may_mark: bool
    """It may comment on the role, and make itself a member of it."""
    may_own: bool
    """It may make what the role owns."""
    is_owner_general: bool
    """The database's owner is a superuser or the administrator itself, and so no other application."""
    may_hand_over: bool
    """It may give the database to the role."""
    finds_ledger: bool = False
    """There is a schema dbbootstrap in the database; this and the rest are only looked for in one to be handed over."""
    inside: Inside | None = None
    tables: Tables | None = None


async def authority_over(visit: Visit, database: Database | None) -> Authority:
    """Ask the server what the administrator may do to the resource's role and to a database that was found."""
    connection = await visit.sessions.administrator()
    since_16 = connection.info.server_version >= 160000
    query = _QUERY.format(is_admin=_IS_ADMIN if since_16 else "true", member="'SET'" if since_16 else "'MEMBER'")
    owner = database.owner if database else None
    doing = "look at what the administrator may do"
    ((name, is_self, may_mark, member, general, gives),) = await rows(
        connection, query, (visit.spec.role.name, owner), doing=doing
    )
    is_to_give = database and owner != visit.spec.role.name and gives and visit.spec.adoption is Adoption.FORCE
    return Authority(
        administrator=name,
        is_the_role=is_self,
        may_mark=may_mark,
        may_own=member or may_mark,
        is_owner_general=general,
        may_hand_over=gives and (member or may_mark),
        **(await _inside(visit, database) if database and is_to_give else {}),
    )


async def _inside(visit: Visit, database: Database) -> dict[str, Any]:
    """Look into a database of another owner: the catalogues only, as everything else may be the work of others."""
    connection = await visit.sessions.administrator(database.name)
    query = "SELECT pg_catalog.to_regnamespace('dbbootstrap') IS NOT NULL"
    ((finds_ledger,),) = await rows(connection, query, doing="look for a ledger")
    return {
        "finds_ledger": finds_ledger,
        "inside": None if finds_ledger else await catalogue.look_inside(connection, visit.spec, with_ledger=False),
        "tables": await contents.count_tables(connection, visit.spec.role.name),
    }
