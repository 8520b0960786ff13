"""Rights: what a level of access is made of, and how far the catalogues are from it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import LiteralString

from psycopg import sql

from database_bootstrap.api.access import AccessLevel
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.stages.sessions import rows

_WRITES = ("INSERT", "UPDATE", "DELETE")
RIGHTS: Mapping[AccessLevel, Mapping[str, tuple[str, ...]]] = {
    AccessLevel.READ_ONLY: {
        "DATABASE": ("CONNECT",),
        "SCHEMA": ("USAGE",),
        "TABLE": ("SELECT",),
        "HISTORY": ("SELECT",),
        # USAGE would let it take the next number.
        "SEQUENCE": ("SELECT",),
        "NEW TABLES": ("SELECT",),
        "NEW SEQUENCES": ("SELECT",),
    },
    AccessLevel.READ_WRITE: {
        "DATABASE": ("CONNECT",),
        "SCHEMA": ("USAGE",),
        "TABLE": ("SELECT", *_WRITES),
        "HISTORY": ("SELECT",),
        "SEQUENCE": ("SELECT", "USAGE"),
        "NEW TABLES": ("SELECT", *_WRITES),
        "NEW SEQUENCES": ("SELECT", "USAGE"),
    },
}
"""What a role with this level has, for each kind of thing; a history is a table in which a migration tool keeps one."""
_HISTORIES = ("_prisma_migrations", "alembic_version")
"""Tables that are one whatever the schema, and whether the resource has migrations now or not."""

_QUERY = """
    WITH wish AS (
        SELECT r.oid, w.* FROM pg_catalog.json_to_recordset(%(wishes)s::json)
            AS w (role text, kind text, wanted text[], loose text[])
        JOIN pg_catalog.pg_roles r ON r.rolname = w.role
        WHERE r.oid IS DISTINCT FROM
            (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'dbbootstrap')
    ), me AS (
        SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user
    ), spaces AS (
        SELECT oid, nspname::text, nspowner, nspacl FROM pg_catalog.pg_namespace WHERE nspname = ANY(%(schemas)s)
    ), things AS (
        SELECT 'DATABASE' AS kind, ARRAY[datname::text] AS name, datacl AS acl, datdba AS owner, NULL::oid AS closed
        FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
        UNION ALL
        SELECT 'SCHEMA', ARRAY[nspname], nspacl, nspowner,
               CASE WHEN NOT pg_catalog.pg_has_role(nspowner, 'USAGE') THEN oid END
        FROM spaces
        UNION ALL
        SELECT CASE WHEN c.relkind = 'S' THEN 'SEQUENCE'
                    WHEN c.relname = ANY(%(names)s) OR s.nspname || '.' || c.relname = ANY(%(histories)s) THEN 'HISTORY'
                    ELSE 'TABLE' END,
               ARRAY[s.nspname, c.relname], c.relacl, c.relowner, NULL
        FROM pg_catalog.pg_class c JOIN spaces s ON s.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            AND d.objid = c.oid AND d.deptype = 'e')
        UNION ALL
        SELECT later.kind, ARRAY[s.nspname], d.defaclacl, me.oid, NULL
        FROM (VALUES ('NEW TABLES', 'r'::"char"), ('NEW SEQUENCES', 'S')) AS later (kind, type) CROSS JOIN spaces s
        CROSS JOIN me LEFT JOIN pg_catalog.pg_default_acl d
             ON d.defaclrole = me.oid AND d.defaclnamespace = s.oid AND d.defaclobjtype = later.type
    ), gaps AS (
        SELECT w.role, t.kind, t.name, t.closed IS NOT NULL AS closed,
            ARRAY(SELECT pg_catalog.unnest(w.wanted) EXCEPT
                  SELECT a.privilege_type FROM pg_catalog.aclexplode(t.acl) a WHERE a.grantee = w.oid
                  ORDER BY 1) AS missing,
            ARRAY(SELECT a.privilege_type FROM pg_catalog.aclexplode(t.acl) a
                  WHERE a.grantee = w.oid AND a.grantor = t.owner AND a.privilege_type = ANY(w.loose)
                  ORDER BY 1) AS surplus
        FROM things t JOIN wish w ON w.kind = t.kind
        -- What PUBLIC has in a schema that is not the role's to grant is enough.
        WHERE t.closed IS NULL OR NOT pg_catalog.has_schema_privilege(w.oid, t.closed, 'USAGE')
    )
    SELECT role, kind, name, closed, missing, surplus FROM gaps WHERE missing <> '{}' OR surplus <> '{}'
    ORDER BY role, kind, missing, surplus, name
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a role is to have, and what it was given before."""

    role: str
    wanted: AccessLevel | None
    """None: nothing any more."""
    had: AccessLevel | None
    """None: nothing was ever given by this operator."""

    def loose(self, kind: str) -> tuple[str, ...]:
        """Return the rights that are taken back where they are found: given once, and not wanted any more."""
        # A new history is a new table, and comes with what was said of those.
        given = "TABLE" if kind == "HISTORY" else kind
        levels = [level for level in (self.had, self.wanted) if level]
        known = {right for level in levels for right in RIGHTS[level][given]}
        return tuple(sorted(known - set(self.rights(kind))))

    def rights(self, kind: str) -> tuple[str, ...]:
        """Return the rights that are to be there."""
        return RIGHTS[self.wanted][kind] if self.wanted else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One thing on which a role has not what it should have."""

    role: str
    kind: str
    name: tuple[str, ...]
    """One part, or schema and name."""
    closed: bool = False
    """A schema in which the owner of the database cannot grant anything."""
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()


async def gaps(
    connection: Connection, wishes: Sequence[Wish], schemas: Sequence[str], histories: Sequence[str]
) -> tuple[Gap, ...]:
    """Return where the rights that are there are not those of the wishes; of roles that are there."""
    asked = [
        {"role": wish.role, "kind": kind, "wanted": wish.rights(kind), "loose": wish.loose(kind)}
        for wish in wishes
        for kind in RIGHTS[AccessLevel.READ_WRITE]
    ]
    arguments = {
        "wishes": json.dumps(asked),
        "schemas": list(schemas),
        "names": list(_HISTORIES),
        "histories": list(histories),
    }
    found = await rows(connection, _QUERY, arguments, doing="look at the rights of other roles")
    return tuple(
        Gap(role=role, kind=kind, name=tuple(name), closed=closed, missing=tuple(missing), surplus=tuple(surplus))
        for role, kind, name, closed, missing, surplus in found
    )


def statements(found: Sequence[Gap], role: str, owner: str) -> Iterator[sql.Composed]:
    """Yield what closes the gaps of one role; run as the owner."""
    for (kind, rights, is_grant), group in groupby(sorted(_steps(found)), key=lambda step: step[:3]):
        yield from _statements(kind, rights, is_grant, [name for *_, name in group], role, owner)


def _steps(found: Sequence[Gap]) -> Iterator[tuple[str, tuple[str, ...], bool, tuple[str, ...]]]:
    for gap in found:
        kind = "TABLE" if gap.kind == "HISTORY" else gap.kind
        if gap.surplus:
            yield kind, gap.surplus, False, gap.name
        if gap.missing:
            yield kind, gap.missing, True, gap.name


_VERBS: Mapping[bool, tuple[LiteralString, LiteralString]] = {True: ("GRANT", "TO"), False: ("REVOKE", "FROM")}


def _statements(
    kind: str, rights: Sequence[str], is_grant: bool, names: Sequence[tuple[str, ...]], role: str, owner: str
) -> Iterator[sql.Composed]:
    verb, to = map(sql.SQL, _VERBS[is_grant])
    what = sql.SQL(", ").join(map(_word, rights))
    others = sql.Identifier(role)
    if kind.startswith("NEW "):
        for (schema,) in names:
            yield sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} {} {} ON {} {} {}").format(
                sql.Identifier(owner), sql.Identifier(schema), verb, what, _word(kind.removeprefix("NEW ")), to, others
            )
        return
    on = sql.SQL(", ").join(sql.Identifier(*name) for name in names)
    yield sql.SQL("{} {} ON {} {} {} {}").format(verb, what, _word(kind), on, to, others)


_WORDS: Mapping[str, LiteralString] = {
    "CONNECT": "CONNECT",
    "USAGE": "USAGE",
    "SELECT": "SELECT",
    "INSERT": "INSERT",
    "UPDATE": "UPDATE",
    "DELETE": "DELETE",
    "DATABASE": "DATABASE",
    "SCHEMA": "SCHEMA",
    "TABLE": "TABLE",
    "SEQUENCE": "SEQUENCE",
    "TABLES": "TABLES",
    "SEQUENCES": "SEQUENCES",
}
"""Words of SQL, and no others, whatever the catalogues say."""


def _word(word: str) -> sql.SQL:
    return sql.SQL(_WORDS[word])


_NAMES = {
    "SCHEMA": ("schema", "schemas"),
    "TABLE": ("table", "tables"),
    "HISTORY": ("history of migrations", "histories of migrations"),
    "SEQUENCE": ("sequence", "sequences"),
}


def in_words(found: Sequence[Gap]) -> str:
    """Return how much the gaps are of, without names: `1 schema, 3 tables, what comes later`."""
    counts = {kind: sum(gap.kind == kind for gap in found) for kind in _NAMES}
    parts = [f"{count} {_NAMES[kind][count > 1]}" for kind, count in counts.items() if count]
    parts = ["CONNECT"] * any(gap.kind == "DATABASE" for gap in found) + parts
    return ", ".join(parts + ["what comes later"] * any(gap.kind.startswith("NEW ") for gap in found))
