"""What the catalogues say of a database: reads only, every name qualified."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from database_bootstrap.api.status import ServerStatus
from database_bootstrap.errors import AccessDenied, SpecRejected
from database_bootstrap.postgres import ledger
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ownership import LONGEST, Mark, Owner, mark_in
from database_bootstrap.postgres.spelling import cure
from database_bootstrap.stages import ledger_shape, leftovers
from database_bootstrap.stages.leftovers import Leftover
from database_bootstrap.stages.sessions import rows

_LOCALE_BEFORE_17 = "daticulocale"
_LOCALE = "datlocale"
"""pg_database.daticulocale was renamed in PostgreSQL 17, when the builtin provider came."""

_DATABASE = """
    SELECT d.oid, pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding),
           d.datlocprovider::text, d.datcollate, d.{locale}, d.datconnlimit,
           pg_catalog.right(pg_catalog.shobj_description(d.oid, 'pg_database'), {longest}),
           pg_catalog.has_database_privilege('public', d.oid, 'CONNECT')
    FROM pg_catalog.pg_database d WHERE d.datname = %s
"""
_INSIDE = """
    SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
           (SELECT pg_catalog.json_object_agg(nspname, pg_catalog.pg_get_userbyid(nspowner))
            FROM pg_catalog.pg_namespace),
           (SELECT pg_catalog.json_object_agg(relname, pg_catalog.json_build_array(
                pg_catalog.pg_get_userbyid(relowner),
                pg_catalog.has_schema_privilege(relnamespace, 'USAGE')
                AND pg_catalog.has_table_privilege(c.oid, 'SELECT')))
            FROM pg_catalog.pg_class c
            WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'dbbootstrap')
              AND relkind IN ('r', 'p', 'v', 'm', 'f')),
           ({leftovers}),
           ({ledgers})
"""
_PARAMETERS = """
    SELECT pg_catalog.lower(pg_catalog.split_part(setting, '=', 1)),
           pg_catalog.substr(setting, pg_catalog.strpos(setting, '=') + 1)
    FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS setting
    WHERE s.setrole = 0 AND s.setdatabase =
        (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""
_SYSTEM_IDENTIFIER = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"
_LEDGER_SEQ = "SELECT coalesce(pg_catalog.max(seq), 0) FROM dbbootstrap.audit_log"
_LEDGER = f"SELECT incarnation::text, cluster, namespace, name, uid, ({_LEDGER_SEQ}) FROM dbbootstrap.identity"  # noqa: S608 constants
_LEDGER_ASIDE = _LEDGER.replace("dbbootstrap.", f"{ledger.ASIDE}.")
_USER_TABLES = """
    SELECT n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'dbbootstrap') AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.objid = c.oid AND d.deptype = 'e')
"""
_IS_PROVIDED = sql.SQL("""
    n.nspname IN ({}) AND (
        EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extnamespace = n.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                     AND d.objid = n.oid AND d.deptype = 'e')
        OR NOT (pg_catalog.pg_has_role(n.nspowner, 'USAGE') OR pg_catalog.pg_has_role(c.relowner, 'USAGE')))
""").format(sql.SQL(", ").join(map(sql.Literal, leftovers.PROVIDER_SCHEMAS)))
"""The name alone does not make a schema a provider's: an extension is behind it, or nothing of it is the role's."""
_WITHOUT_PROVIDERS = sql.SQL("{} AND NOT ({}) ORDER BY 1, 2").format(sql.SQL(_USER_TABLES), _IS_PROVIDED).as_string()
_OTHER_DATA = """
    SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata), (
        SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('m', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            AND d.objid = c.oid AND d.deptype = 'e'))
"""
"""Large objects, and what is a materialized view or a foreign table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A row of pg_database."""

    name: str
    oid: int
    owner: str
    encoding: str
    provider: str
    """libc, icu or builtin, as one letter: c, i, b."""
    collate: str
    locale: str | None
    """Of the providers icu and builtin."""
    connection_limit: int
    comment: str | None
    public_may_connect: bool = False

    @property
    def mark(self) -> Mark | None:
        """Whose it is."""
        return mark_in(self.comment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """How many tables there are that are no system's, no extension's and not ours."""

    count: int
    first: tuple[str, ...]
    owners: tuple[str, ...]
    """Of those that the role does not own."""
    large_objects: int = 0
    views: int = 0
    """Materialized ones, and foreign tables."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could hold somebody's data."""
        return not (self.count or self.large_objects or self.views)

    def __str__(self) -> str:
        others = f", materialized views and foreign tables: {self.views}" if self.views else ""
        others += f", large objects: {self.large_objects}" if self.large_objects else ""
        return self._tables() + others

    def _tables(self) -> str:
        if not self.count:
            return "no tables"
        more = ", …" if self.count > len(self.first) else ""
        owners = f", some owned by {', '.join(self.owners)}" if self.owners else ""
        return f"{self.count} table{'s' * (self.count > 1)}: {', '.join(self.first)}{more}{owners}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What only a session in the database can see."""

    server: ServerStatus = field(default_factory=ServerStatus)
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Name in lower case → value; the server writes timezone as TimeZone."""
    schemas: Mapping[str, str] = field(default_factory=dict)
    """Name → owner."""
    leftovers: tuple[Leftover, ...] = ()
    """What keeps later migrations from working."""
    incarnation: str | None = None
    """None where there is no ledger."""
    cluster: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None
    """Whose the ledger is."""
    ledger_seq: int | None = None
    has_ledger: bool = False
    """There is one with all columns, whoever made it."""
    has_ledger_of_role: bool = False
    """The session's role can do what it likes to it, as after a restore that it has run itself."""
    ledger_in_the_way: bool = False
    """The name under which a ledger is set aside is taken."""
    is_aside: bool = False
    """There is a ledger that was set aside, and its rows are not copied yet."""

    @property
    def owner(self) -> Owner | None:
        """Whose the ledger is, as it says."""
        if self.cluster is None or self.namespace is None or self.name is None or self.uid is None:
            return None
        return Owner(cluster=self.cluster, namespace=self.namespace, name=self.name, uid=self.uid)

    def is_ledger_of(self, owner: Owner) -> bool:
        """Whether the ledger names this very resource, by its uid too."""
        return self.owner == owner


async def find_database(connection: Connection, name: str) -> Database | None:
    """Return the database of this name, if there is one."""
    locale = _LOCALE if connection.info.server_version >= 170000 else _LOCALE_BEFORE_17
    found = await rows(
        connection, _DATABASE.format(locale=locale, longest=LONGEST + 1), (name,), doing="look for the database"
    )
    if not found:
        return None
    oid, owner, encoding, provider, collate, locale_name, limit, comment, public = found[0]
    if comment and len(comment) > LONGEST:
        raise SpecRejected(
            f'The comment of database "{name}" is longer than {LONGEST} characters, and is kept as it is; shorten it '
            f"with COMMENT ON DATABASE \"{name}\" IS '…', its last line as it is now"
        )
    return Database(
        name=name,
        oid=oid,
        owner=owner,
        encoding=encoding,
        provider=provider,
        collate=collate,
        locale=locale_name,
        connection_limit=limit,
        comment=comment,
        public_may_connect=public,
    )


async def look_inside(connection: Connection, *, with_ledger: bool = True) -> Inside:
    """Return what the session's database holds; its ledger may be the role's work, and is read as the role only."""
    doing = "look into the database"
    query = _INSIDE.format(leftovers=leftovers.QUERY, ledgers=ledger_shape.QUERY)
    ((may_ask, schemas, tables, left, ledgers),) = await rows(connection, query, doing=doing)
    # Asked by itself: PostgreSQL checks the right to call a function even where the call is never reached.
    system = (await rows(connection, _SYSTEM_IDENTIFIER, doing=doing))[0][0] if may_ask else None
    return Inside(
        server=ServerStatus(version=_version(connection), system_identifier=system),
        parameters=dict(await rows(connection, _PARAMETERS, doing=doing)),
        schemas=schemas,
        leftovers=leftovers.leftovers_of(left),
        **(await _read_ledger(connection, schemas, tables or {}, ledgers or {}) if with_ledger else {}),
    )


async def _read_ledger(
    connection: Connection,
    schemas: Mapping[str, str],
    tables: Mapping[str, tuple[str, bool]],
    ledgers: Mapping[str, tuple[bool, list[str]]],
) -> dict[str, Any]:
    if "identity" in tables:
        _check_readable(connection, tables)
    is_of_role, columns = ledgers.get(ledger.SCHEMA, (False, []))
    has_ledger = set(columns) >= ledger_shape.READ
    aside_is_of_role, columns = ledgers.get(ledger.ASIDE, (False, []))
    is_aside = aside_is_of_role and set(columns) >= ledger_shape.COPIED
    known: dict[str, Any] = {
        "is_aside": is_aside,
        "has_ledger": has_ledger,
        "has_ledger_of_role": has_ledger and is_of_role,
        "ledger_in_the_way": ledger.ASIDE in schemas,
    }
    if has_ledger:
        query = _LEDGER
    elif is_aside and ledger.SCHEMA not in schemas:
        query = _LEDGER_ASIDE
    else:
        return known
    found = await rows(connection, query, doing="read the ledger")
    return known | (ledger_shape.identity_in(found[0]) if found else {})


def _check_readable(connection: Connection, tables: Mapping[str, tuple[str, bool]]) -> None:
    hidden = [name for name in ledger.TABLES if name in tables and not tables[name][1]]
    if hidden:
        user = connection.info.user
        raise AccessDenied(
            f'Role "{user}" may not read the ledger (schema dbbootstrap: {", ".join(hidden)}), as after restoring a '
            f'dump without its rights; its owner, "{tables[hidden[0]][0]}", can let it, or '
            + cure(ledger.grants(user), database=connection.info.dbname)
        )


def _version(connection: Connection) -> str:
    """Return the server's version as it told it at the start of the session, without its packager's words."""
    told = connection.pgconn.parameter_status(b"server_version") or b""
    return told.decode().split(" ")[0]


async def user_tables(connection: Connection) -> list[tuple[str, str]]:
    """Return (schema, table) of all that is no system's, no extension's and not ours; partitions with their parent."""
    found = await rows(connection, f"{_USER_TABLES} ORDER BY 1, 2", doing="look for tables")
    return [(schema, table) for schema, table, _ in found]


async def tables_for_rows(connection: Connection) -> list[tuple[str, str]]:
    """Return those of `user_tables` whose rows are data, and not what extensions and cloud providers put in."""
    found = await rows(connection, _WITHOUT_PROVIDERS, doing="look for tables")
    return [(schema, table) for schema, table, _ in found]


async def count_tables(connection: Connection, role: str) -> Tables:
    """Return what `user_tables` finds, for people, and what else may hold data."""
    found = await rows(connection, f"{_USER_TABLES} ORDER BY 1, 2", doing="look for tables")
    ((large_objects, views),) = await rows(connection, _OTHER_DATA, doing="look for other data")
    return Tables(
        count=len(found),
        first=tuple(f"{schema}.{table}" for schema, table, _ in found[:5]),
        owners=tuple(sorted({owner for _, _, owner in found} - {role})),
        large_objects=large_objects,
        views=views,
    )


async def ledger_seq(connection: Connection) -> int:
    """Return the number of the audit log's last row; every change has one."""
    return int((await rows(connection, _LEDGER_SEQ, doing="read the ledger"))[0][0])
