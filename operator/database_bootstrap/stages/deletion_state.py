"""What a deletion finds: reads only, as the administrator, in catalogues and in our own ledger."""

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

from database_bootstrap.postgres import ledger
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ownership import Mark, mark_in
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages.catalogue import Database
from database_bootstrap.stages.identity import Pin
from database_bootstrap.stages.ledger_trust import Ledger
from database_bootstrap.stages.sessions import rows

_ROLE = "SELECT pg_catalog.shobj_description(oid, 'pg_authid') FROM pg_catalog.pg_roles WHERE rolname = %s"
_DEPENDENTS = """
    SELECT d.datname, CASE WHEN s.dbid = 0 THEN pg_catalog.pg_describe_object(s.classid, s.objid, s.objsubid) END,
           s.deptype = 'o' AND s.classid NOT IN (
               'pg_catalog.pg_default_acl'::pg_catalog.regclass, 'pg_catalog.pg_user_mapping'::pg_catalog.regclass),
           pg_catalog.count(*)
    FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
    WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
      AND s.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %s)
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
"""A user mapping is its role's by name alone: whoever has the foreign server makes it, for whom he likes."""
_AT_WORK = """
    SELECT a.usename, pg_catalog.count(*)
    FROM pg_catalog.pg_stat_activity a
    JOIN pg_catalog.pg_roles o ON o.oid = a.usesysid
    JOIN pg_catalog.pg_roles me ON me.rolname = current_user
    WHERE a.datname = %s AND a.usename <> %s AND (a.state IS DISTINCT FROM 'idle' OR NOT (
        me.rolsuper OR (NOT o.rolsuper AND (
            pg_catalog.pg_has_role(me.oid, o.oid, 'USAGE')
            OR pg_catalog.pg_has_role(me.oid, 'pg_signal_backend', 'USAGE')))))
    GROUP BY 1 ORDER BY 1
"""
"""Sessions whose state the administrator may not see, and such as it may not end, count as being at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependent:
    """What depends on a role, so that it cannot be dropped."""

    database: str | None
    """None for what all databases share."""
    description: str | None
    """Of what all databases share; objects within another database can only be counted from here."""
    is_property: bool
    """The role owns it; else it is a right that somebody gave, and whoever owns a thing may give rights to anybody."""
    count: int

    def __str__(self) -> str:
        kind = "object" if self.is_property else "right"
        return self.description or f'{self.count} {kind}{"s"[: self.count > 1]} in database "{self.database}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """The role, and what keeps it from being dropped."""

    comment: str | None
    mark: Mark | None
    dependents: tuple[Dependent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a database that is marked as ours holds, and who is at work in it."""

    database: Database
    ledger: Ledger | None
    pin: Pin | None
    """What an earlier complete success has pinned."""
    at_work: Mapping[str, int]
    """Login → sessions, without those of the role."""


async def find_role(connection: Connection, name: str) -> Role | None:
    """Return the role of this name, if there is one."""
    found = await rows(connection, _ROLE, (name,), doing="look for the role")
    if not found:
        return None
    dependents = await rows(connection, _DEPENDENTS, (name,), doing="look for what depends on the role")
    return Role(
        comment=found[0][0],
        mark=mark_in(found[0][0]),
        dependents=tuple(
            Dependent(database=database, description=description, is_property=is_property, count=count)
            for database, description, is_property, count in dependents
        ),
    )


async def find_at_work(connection: Connection, database: str, role: str) -> Mapping[str, int]:
    """Return who but the role is in the middle of something in this database: a dump, a report, a replication."""
    return dict(await rows(connection, _AT_WORK, (database, role), doing="look for sessions in the database"))


async def system_identifier(connection: Connection) -> str | None:
    """Return the number that initdb gave the server, or None where the session may not ask for it."""
    try:
        return await ledger.system_identifier(connection)
    except psycopg.Error as error:
        raise error_of(error, "ask which server this is") from None
