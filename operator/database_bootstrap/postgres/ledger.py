"""The ledger: schema `dbbootstrap` in the target database, owned by the administrator, rows immutable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg import sql

from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ownership import Origin, Owner

SCHEMA = "dbbootstrap"
TABLES = ("identity", "migration", "seed", "audit_log")
ASIDE = "dbbootstrap_restored"
"""Where a ledger is set aside that a restore has left owned by the role, until its rows are copied."""
WRITABLE = ("migration", "seed", "audit_log")
"""What the role may INSERT into; `identity` is the administrator's alone."""

DDL = """
CREATE TABLE dbbootstrap.identity (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    incarnation uuid NOT NULL,
    cluster text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    uid text NOT NULL,
    system_identifier text,
    database_oid oid NOT NULL,
    origin text NOT NULL CHECK (origin IN ('Created', 'Adopted')),
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE dbbootstrap.migration (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tool text NOT NULL,
    version text,
    name text NOT NULL,
    checksum text,
    mode text,
    state text NOT NULL CHECK (state IN ('running', 'applied', 'baselined', 'failed', 'resolved')),
    statements integer,
    sql_state text,
    error text,
    time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX migration_name ON dbbootstrap.migration (tool, name, seq);
CREATE TABLE dbbootstrap.seed (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    state text NOT NULL CHECK (state IN ('seeded', 'adopted')),
    rows bigint NOT NULL,
    detail text,
    incarnation uuid NOT NULL,
    time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX seed_once ON dbbootstrap.seed (name) WHERE state = 'seeded';
CREATE TABLE dbbootstrap.audit_log (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stage text NOT NULL,
    action text NOT NULL,
    actor text NOT NULL,
    login name NOT NULL DEFAULT session_user,
    time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX audit_log_time ON dbbootstrap.audit_log (time);
CREATE INDEX audit_log_stage ON dbbootstrap.audit_log (stage, time)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which database this is, whatever server it stands on."""

    incarnation: UUID
    cluster: str
    namespace: str
    name: str
    uid: str
    origin: Origin
    """The mark in the comment says it too; but that the database's owner may write, and this not."""

    @property
    def owner(self) -> str:
        """Whose it is, as the audit log names it."""
        return str(Owner(cluster=self.cluster, namespace=self.namespace, name=self.name, uid=self.uid))


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationRow:
    """One row of the ledger's migration table."""

    tool: str
    name: str
    state: str
    version: str | None = None
    checksum: str | None = None
    mode: str | None = None
    statements: int | None = None
    sql_state: str | None = None
    error: str | None = None
    losses: tuple[str, ...] = ()
    """What it was allowed to destroy, for the audit log."""


async def make(
    connection: Connection,
    identity: Identity,
    role: str,
    entries: Sequence[tuple[str, str]] = (),
    ends: Mapping[str, int] | None = None,
) -> None:
    """Make schema, tables, grants, the identity row and the first audit entries in one transaction.

    As the administrator. What led to this incarnation, as a person's word, is in the log from the first moment.
    `ends` says for each table after which number its rows begin.
    """
    row = sql.SQL(
        "INSERT INTO dbbootstrap.identity"
        " (incarnation, cluster, namespace, name, uid, system_identifier, origin, database_oid)"
        " SELECT {}, {}, {}, {}, {}, {}, {}, oid FROM pg_catalog.pg_database"
        " WHERE datname = pg_catalog.current_database()"
    ).format(
        identity.incarnation,
        identity.cluster,
        identity.namespace,
        identity.name,
        identity.uid,
        await system_identifier(connection),
        identity.origin.value,
    )
    # The statements of one message are one transaction.
    history = [audit_statement(stage, action, identity.owner) for stage, action in entries]
    starts = [
        sql.SQL("ALTER TABLE {} ALTER COLUMN seq RESTART WITH {}").format(sql.Identifier(SCHEMA, table), end + 1)
        for table, end in (ends or {}).items()
    ]
    made = [sql.SQL("CREATE SCHEMA dbbootstrap"), sql.SQL(DDL), *starts, _grants(role), row, *history]
    everything = sql.SQL(";").join(made)
    await connection.execute(everything.as_bytes(connection))


def audit_statement(stage: str, action: str, actor: str) -> sql.Composed:
    """Return what appends one row to the audit log, in one transaction with what it tells of."""
    return sql.SQL("INSERT INTO dbbootstrap.audit_log (stage, action, actor) VALUES ({}, {}, {})").format(
        stage, action, actor
    )


async def system_identifier(connection: Connection) -> str | None:
    """Return the number that initdb gave the server, or None where the session may not ask for it.

    Asked in two steps: PostgreSQL checks the right to call a function even where the call is never reached.
    """
    query = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"
    allowed = await (await connection.execute(query)).fetchone()
    if not allowed or not allowed[0]:
        return None
    asked = await connection.execute("SELECT system_identifier::text FROM pg_catalog.pg_control_system()")
    answer = await asked.fetchone()
    return str(answer[0]) if answer else None


def grants(role: str) -> str:
    """Return the grants that the role needs, as a person can run them."""
    return _grants(role).as_string().replace(";", "; ")


def _grants(role: str) -> sql.Composed:
    tables = sql.SQL(", ").join(sql.Identifier(SCHEMA, table) for table in WRITABLE)
    return sql.SQL(
        "GRANT USAGE ON SCHEMA dbbootstrap TO {role};"
        "GRANT SELECT ON ALL TABLES IN SCHEMA dbbootstrap TO {role};"
        # Without the sequences the role's own pg_dump fails.
        "GRANT SELECT ON ALL SEQUENCES IN SCHEMA dbbootstrap TO {role};"
        "GRANT INSERT ON {tables} TO {role}"
    ).format(role=sql.Identifier(role), tables=tables)


def migration_statement(row: MigrationRow, actor: str) -> sql.Composed:
    """Return what appends one row to the migration table, and one to the audit log; it ends with a semicolon."""
    return sql.SQL(
        "WITH row AS (INSERT INTO dbbootstrap.migration"
        " (tool, version, name, checksum, mode, state, statements, sql_state, error)"
        " VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {}) RETURNING name, state, mode)"
        " INSERT INTO dbbootstrap.audit_log (stage, action, actor)"
        " SELECT 'migrations', 'migration ' || name || ' ' || said, {} FROM row, pg_catalog.unnest("
        "ARRAY[state || CASE WHEN state = 'resolved' THEN ' as ' || mode ELSE '' END] || {}::text[]) AS said;"
    ).format(
        row.tool,
        row.version,
        row.name,
        row.checksum,
        row.mode,
        row.state,
        row.statements,
        row.sql_state,
        row.error,
        actor,
        [f"allowed to {loss}" for loss in row.losses],
    )


async def record_migration(connection: Connection, row: MigrationRow, actor: str) -> None:
    """Append one row to the migration table, and one to the audit log, within the transaction that is open."""
    await connection.execute(migration_statement(row, actor))


async def record_audit(connection: Connection, actor: str, entries: list[tuple[str, str]]) -> None:
    """Append (stage, action) entries to the audit log."""
    if entries:
        stages, actions = zip(*entries, strict=True)
        await connection.execute(
            "INSERT INTO dbbootstrap.audit_log (stage, action, actor)"
            " SELECT stage, action, %s"
            " FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) AS entry (stage, action)",
            (actor, list(stages), list(actions)),
        )
