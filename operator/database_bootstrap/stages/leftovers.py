"""What keeps later migrations from working: INVALID indexes, and objects that belong to another role."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from database_bootstrap.postgres.connection import Connection
from database_bootstrap.stages.sessions import rows

INVALID = "INVALID INDEX"
PROVIDER_SCHEMAS = (
    "cron",
    "pgagent",
    "topology",
    "tiger",
    "tiger_data",
    "aws_s3",
    "aws_commons",
    "google_vacuum_mgmt",
)
"""What extensions and cloud providers fill themselves."""
_LIMIT = 20
"""Objects that are looked for."""
_SHOWN = 5
"""Objects that are named, each with its statement."""

# Routines are none: one of a DBA's that is SECURITY DEFINER lends just those rights that the role must not have.
_FROM_CATALOGUES = sql.SQL("""
    SELECT pg_catalog.json_agg(pg_catalog.json_build_array(kind, name, owner) ORDER BY kind, name) FROM (
        WITH mine AS (
            SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
        ), spaces AS (
            SELECT oid, pg_catalog.quote_ident(nspname) AS name FROM pg_catalog.pg_namespace
            WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'dbbootstrap', {})
        ), objects AS (
            SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid, c.relowner AS owner,
                CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                    WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind,
                s.name || '.' || pg_catalog.quote_ident(c.relname) AS name
            FROM pg_catalog.pg_class c JOIN spaces s ON s.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'S', 'v', 'm', 'f') AND c.relowner <> (SELECT datdba FROM mine)
            UNION ALL
            SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typowner,
                CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END,
                s.name || '.' || pg_catalog.quote_ident(t.typname)
            FROM pg_catalog.pg_type t JOIN spaces s ON s.oid = t.typnamespace
            LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
            WHERE (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c') AND t.typowner <> (SELECT datdba FROM mine)
        )
        (SELECT kind, name, pg_catalog.pg_get_userbyid(owner) AS owner FROM objects o
        WHERE NOT EXISTS (
            -- A member of an extension, or the sequence of a column, which goes with its table.
            SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.class AND d.objid = o.oid
            AND (d.deptype = 'e' OR o.kind = 'SEQUENCE' AND d.deptype IN ('a', 'i')))
        LIMIT {})
        UNION ALL
        (SELECT 'INVALID INDEX', s.name || '.' || pg_catalog.quote_ident(c.relname), NULL
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        JOIN spaces s ON s.oid = c.relnamespace
        -- An index of a partitioned table is invalid until each partition has its own; and one may be in the making.
        WHERE NOT i.indisvalid AND c.relkind = 'i' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' AND l.relation = i.indrelid
            AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
        LIMIT {})
    ) AS found
""").format(sql.SQL(", ").join(map(sql.Literal, PROVIDER_SCHEMAS)), sql.Literal(_LIMIT), sql.Literal(_LIMIT))
QUERY = _FROM_CATALOGUES.as_string()
"""Gives one value, for `leftovers_of`; part of a query that is made anyway, it costs no round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """One object that is not as it should be."""

    kind: str
    """As in ALTER; or `INVALID`."""
    name: str
    """As SQL has it."""
    owner: str | None
    """The role whose it is; None for an index."""


def leftovers_of(found: Iterable[Sequence[Any]] | None) -> tuple[Leftover, ...]:
    """Return what the query has found."""
    return tuple(Leftover(kind=kind, name=name, owner=owner) for kind, name, owner in found or ())


async def look(connection: Connection) -> tuple[Leftover, ...]:
    """Ask by itself, after something was changed."""
    return leftovers_of((await rows(connection, QUERY, doing="look at what the migrations have left"))[0][0])


def warnings(found: Sequence[Leftover], role: str) -> Iterator[str]:
    """Yield what to say, with the statements that mend it."""
    if indexes := [each.name for each in found if each.kind == INVALID]:
        mend = _listed(f"REINDEX INDEX CONCURRENTLY {name}, or DROP INDEX CONCURRENTLY {name}" for name in indexes)
        yield f"INVALID, as a failed CREATE INDEX CONCURRENTLY leaves an index: {_listed(indexes)}. Mend it: {mend}."
    if others := [each for each in found if each.kind != INVALID]:
        named = _listed(f"{each.kind.lower()} {each.name} ({each.owner})" for each in others)
        owner = sql.Identifier(role).as_string()
        mend = _listed(f"ALTER {each.kind} {each.name} OWNER TO {owner}" for each in others)
        yield f"Not the role's own, so later migrations may fail at it: {named}. As a superuser: {mend}."


def _listed(things: Iterable[str]) -> str:
    known = list(things)
    return "; ".join(known[:_SHOWN]) + (f"; and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
