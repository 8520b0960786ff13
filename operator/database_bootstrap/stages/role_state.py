"""The role as the catalogues have it: reads only, every name qualified."""

from dataclasses import dataclass

from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ownership import Mark, mark_in
from database_bootstrap.stages.sessions import rows

_QUERY = """
    SELECT rolcanlogin, rolconnlimit, pg_catalog.shobj_description(oid, 'pg_authid'),
           (SELECT pg_catalog.right(pg_catalog.shobj_description(d.oid, 'pg_database'), 4096)
            FROM pg_catalog.pg_database d WHERE d.datname = %s AND d.datdba = r.oid),
           rolvaliduntil < pg_catalog.now(),
           pg_catalog.array_remove(ARRAY[
               CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
               CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END], NULL),
           pg_catalog.array_remove(ARRAY[
               CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN NOT rolinherit THEN 'NOINHERIT' END,
               CASE WHEN rolcreatedb THEN 'CREATEDB' END,
               CASE WHEN rolconnlimit >= 0 THEN 'CONNECTION LIMIT ' || rolconnlimit END,
               CASE WHEN rolvaliduntil IS NOT NULL THEN 'VALID UNTIL ' || rolvaliduntil END], NULL)
    FROM pg_catalog.pg_roles r WHERE rolname = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A row of pg_roles, as the server reports it."""

    can_login: bool
    connection_limit: int
    comment: str | None
    database_comment: str | None
    """Of the database that the resource wants, where the role owns it."""
    expired: bool
    """VALID UNTIL lies in the past: no password logs in."""
    powers: tuple[str, ...]
    attributes: tuple[str, ...]
    """What CREATE ROLE would have to say to make it."""

    @property
    def own_mark(self) -> Mark | None:
        """Whose it is, as its own comment says."""
        return mark_in(self.comment)

    @property
    def mark(self) -> Mark | None:
        """Whose it is; where it says nothing itself, its database speaks for it."""
        return self.own_mark or mark_in(self.database_comment)


async def find_role(connection: Connection, name: str, speaks: str | None) -> Role | None:
    """Return the role of this name, if there is one; `speaks` is the database whose comment counts for it as well."""
    found = await rows(connection, _QUERY, (speaks, name), doing="look for the role")
    if not found:
        return None
    can_login, limit, comment, database_comment, expired, powers, attributes = found[0]
    return Role(
        can_login=can_login,
        connection_limit=limit,
        comment=comment,
        database_comment=database_comment,
        expired=bool(expired),
        powers=tuple(powers),
        attributes=tuple(attributes),
    )
