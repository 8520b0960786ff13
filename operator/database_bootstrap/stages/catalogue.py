"""What the catalogues say of a database: reads only, every name qualified."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from database_bootstrap.api.status import ServerStatus
from database_bootstrap.api.v1alpha1 import Spec
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
            FROM pg_catalog.pg_namespace WHERE nspname = ANY (%s)),
           (SELECT pg_catalog.json_object_agg(relname, pg_catalog.json_build_array(
                pg_catalog.pg_get_userbyid(relowner),
                pg_catalog.has_schema_privilege(relnamespace, 'USAGE')
                AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                AND (c.relname = 'identity' OR pg_catalog.has_table_privilege(c.oid, 'INSERT'))))
            FROM pg_catalog.pg_class c
            WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'dbbootstrap')
              AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relname = ANY (%s)),
           ({leftovers}),
           ({ledgers})
"""
_PARAMETERS = """
    SELECT pg_catalog.lower(pg_catalog.split_part(setting, '=', 1)),
           pg_catalog.substr(setting, pg_catalog.strpos(setting, '=') + 1, 20000)
    FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS setting
    WHERE s.setrole = 0 AND s.setdatabase =
        (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND pg_catalog.lower(pg_catalog.split_part(setting, '=', 1)) = ANY (%s)
"""
_SYSTEM_IDENTIFIER = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"
_LEDGER_SEQ = "SELECT coalesce(pg_catalog.max(seq), 0) FROM dbbootstrap.audit_log"
_LEDGER = f"""
    SELECT incarnation::text, pg_catalog.left(cluster, 1000), pg_catalog.left(namespace, 1000),
           pg_catalog.left(name, 1000), pg_catalog.left(uid, 1000), ({_LEDGER_SEQ})
    FROM dbbootstrap.identity LIMIT 1
"""  # noqa: S608 constants
_LEDGER_ASIDE = _LEDGER.replace("dbbootstrap.", f"{ledger.ASIDE}.")


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


def wanted_schemas(spec: Spec) -> tuple[str, ...]:
    """Return the schemas that the role must own: those listed, and the one in which the migration tool works."""
    tools = {spec.migrations.schema_name} if spec.migrations else set()
    return tuple(dict.fromkeys([*(schema.name for schema in spec.schemas), *sorted(tools - {"public"})]))


async def look_inside(connection: Connection, spec: Spec, *, with_ledger: bool = True) -> Inside:
    """Return what the session's database holds of what the resource asks for, and how it is.

    Its ledger may be the role's work, and is read as the role only.
    """
    doing = "look into the database"
    query = _INSIDE.format(leftovers=leftovers.QUERY, ledgers=ledger_shape.QUERY)
    asked = [*wanted_schemas(spec), ledger.SCHEMA, ledger.ASIDE]
    found = await rows(connection, query, (asked, list(ledger.TABLES)), doing=doing)
    ((may_ask, schemas, tables, left, ledgers),) = found
    parameters = [parameter.name.lower() for parameter in spec.database.parameters]
    # Asked by itself: PostgreSQL checks the right to call a function even where the call is never reached.
    system = (await rows(connection, _SYSTEM_IDENTIFIER, doing=doing))[0][0] if may_ask else None
    return Inside(
        server=ServerStatus(version=_version(connection), system_identifier=system),
        parameters=dict(await rows(connection, _PARAMETERS, (parameters,), doing=doing)),
        schemas=schemas or {},
        leftovers=leftovers.leftovers_of(left),
        **(await _read_ledger(connection, schemas or {}, tables or {}, ledgers or {}) if with_ledger else {}),
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
            f'Role "{user}" may not read the ledger and add to it (schema dbbootstrap: {", ".join(hidden)}), as after '
            f'restoring a dump without its rights; its owner, "{tables[hidden[0]][0]}", can let it, or '
            + cure(ledger.grants(user), database=connection.info.dbname)
        )


def _version(connection: Connection) -> str:
    """Return the server's version as it told it at the start of the session, without its packager's words."""
    told = connection.pgconn.parameter_status(b"server_version") or b""
    return told.decode().split(" ")[0]


async def ledger_seq(connection: Connection) -> int:
    """Return the number of the audit log's last row; every change has one."""
    return int((await rows(connection, _LEDGER_SEQ, doing="read the ledger"))[0][0])
