"""What can be done to the ledger: made, taken over, and made anew where a restore left it in the role's hands."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.postgres import ledger
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ownership import Origin
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages import ledger_trust
from database_bootstrap.stages.sessions import execute, rows
from database_bootstrap.stages.visit import Visit

_LARGEST_SEQ = 2**52
"""What the role's own rows say is not to be trusted further: a sequence at its end would take no row any more."""
IN_THE_WAY = (
    f"The ledger (schema dbbootstrap) belongs to the role, as after a restore, and is to be renamed to {ledger.ASIDE}; "
    "a schema of that name is in the way, and both are left alone. Rename that one, and the ledger is set aside: "
    f"ALTER SCHEMA {ledger.ASIDE} RENAME TO {ledger.ASIDE}_kept"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeLedger:
    """Make schema dbbootstrap with the ledger and the audit log; the database's incarnation is born here.

    Or goes on, where there was a ledger that a restore has left owned by the role.
    """

    origin: Origin
    incarnation: str | None = None
    goes_on: bool = False
    """There is one that was set aside, whose rows are still to be copied."""

    def __str__(self) -> str:
        return "create the ledger and the audit log (schema dbbootstrap)"

    async def run(self, visit: Visit) -> None:
        spec, owner = visit.spec, visit.subject.owner
        administrator = (await visit.credentials.administrator()).user
        await _let_in(await visit.sessions.owner(), administrator, spec.database.name)
        identity = ledger.Identity(
            incarnation=UUID(self.incarnation) if self.incarnation else uuid4(),
            cluster=owner.cluster,
            namespace=owner.namespace,
            name=owner.name,
            uid=owner.uid,
            origin=self.origin,
        )
        ends = await _ends(await visit.sessions.owner()) if self.goes_on else {}
        connection = await visit.sessions.administrator(spec.database.name)
        try:
            await ledger.make(connection, identity, spec.role.name, visit.unaudited, ends)
        except psycopg.errors.DuplicateSchema as error:
            if await ledger_trust.read(connection, spec.role.name):  # another visit was faster
                raise error_of(error, str(self)) from None
            raise errors.NotOwned(
                'Schema "dbbootstrap" exists and has no ledger of this operator; it is left alone. Rename it, and the '
                "ledger is made: ALTER SCHEMA dbbootstrap RENAME TO dbbootstrap_kept"
            ) from None
        except psycopg.Error as error:
            raise error_of(error, str(self)) from None
        visit.unaudited.clear()
        visit.incarnation = str(identity.incarnation)
        visit.ledger_is_new = True


async def _let_in(owner: Connection, administrator: str, database: str) -> None:
    """Grant the administrator what it needs in the database, where it has it not: it may be no superuser."""
    query = (
        "SELECT bool_and(pg_catalog.has_database_privilege(%s, pg_catalog.current_database(), privilege))"
        " FROM pg_catalog.unnest(ARRAY['CONNECT', 'CREATE']) AS privilege"
    )
    ((enough,),) = await rows(owner, query, (administrator,), doing="look at the administrator's rights")
    if not enough:
        statement = sql.SQL("GRANT CONNECT, CREATE ON DATABASE {} TO {}").format(
            sql.Identifier(database), sql.Identifier(administrator)
        )
        await execute(owner, statement, doing="let the administrator in")


async def _ends(owner: Connection) -> Mapping[str, int]:
    """Return the last number of each table that is set aside, so that the new ones go on from there."""
    ends = {}
    for table in ledger.WRITABLE:
        query = sql.SQL("SELECT coalesce(pg_catalog.max(seq), 0)::bigint FROM {}").format(
            sql.Identifier(ledger.ASIDE, table)
        )
        ((end,),) = await rows(owner, query, doing="read the restored ledger")
        ends[table] = min(int(end), _LARGEST_SEQ)
    return ends


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLedgerAside:
    """Rename a ledger that the role owns: a trigger that it puts there would run as whoever writes into it."""

    def __str__(self) -> str:
        return f"set the restored ledger aside, which the role owns (schema {ledger.ASIDE})"

    async def run(self, visit: Visit) -> None:
        statement = sql.SQL("ALTER SCHEMA dbbootstrap RENAME TO {}").format(sql.Identifier(ledger.ASIDE))
        try:
            await execute(await visit.sessions.owner(), statement, doing=str(self))
        except errors.AccessDenied as error:
            rename = f"ALTER SCHEMA dbbootstrap RENAME TO {ledger.ASIDE}"
            give = f"ALTER SCHEMA {ledger.ASIDE} OWNER TO {sql_name(visit.spec.role.name)}"
            raise errors.AccessDenied(
                f"{error.message}. To go on, {cure(rename, give, database=visit.spec.database.name)}"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLedger:
    """Copy the rows of a ledger that was set aside, as the role; and say in its name, with them, that it was done."""

    def __str__(self) -> str:
        return "copy the rows of the restored ledger into the new one"

    async def run(self, visit: Visit) -> None:
        connection = await visit.sessions.owner()
        copies = [await _copy(connection, table) for table in ledger.WRITABLE]
        done = f"{ledger.ASIDE}_{datetime.now(UTC):%Y%m%d%H%M%S%f}"
        rename = sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(ledger.ASIDE), sql.Identifier(done))
        try:
            await execute(connection, *copies, rename, doing=str(self))
        except (errors.SpecRejected, errors.AccessDenied) as error:
            raise errors.NotOwned(
                f"{error.message}. What schema {ledger.ASIDE} holds is no ledger that can be copied; it is left alone. "
                f"Rename it, and it counts no more: ALTER SCHEMA {ledger.ASIDE} RENAME TO {ledger.ASIDE}_kept"
            ) from None


async def _copy(connection: Connection, table: str) -> sql.Composed:
    query = (
        "SELECT attname FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = attrelid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace"
        " WHERE attnum > 0 AND NOT attisdropped AND relname = %s AND nspname IN ('dbbootstrap', %s)"
        " GROUP BY 1 HAVING count(*) = 2 ORDER BY 1"
    )
    found = await rows(connection, query, (table, ledger.ASIDE), doing="look at the restored ledger")
    columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in found)
    return sql.SQL(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} ORDER BY seq ON CONFLICT DO NOTHING"
    ).format(sql.Identifier(ledger.SCHEMA, table), columns, columns, sql.Identifier(ledger.ASIDE, table))


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeLedger:
    """Write into the ledger whose it is now; its incarnation stays, and how it came to be the same resource's."""

    origin: Origin
    """Of what another resource has made."""

    def __str__(self) -> str:
        return "take over the ledger"

    async def run(self, visit: Visit) -> None:
        owner = visit.subject.owner
        statement = sql.SQL(
            "UPDATE dbbootstrap.identity SET origin = CASE WHEN (cluster, namespace, name) = ({0}, {1}, {2})"
            " THEN origin ELSE {4} END, cluster = {0}, namespace = {1}, name = {2}, uid = {3}"
        ).format(owner.cluster, owner.namespace, owner.name, owner.uid, self.origin.value)
        connection = await visit.sessions.administrator(visit.spec.database.name)
        try:
            async with connection.transaction():
                await ledger_trust.require_lasting(connection, visit.spec.role.name)
                await connection.execute(statement)
        except psycopg.Error as error:
            raise error_of(error, str(self)) from None


_MAY_TAKE = """
    SELECT NOT c.relhastriggers AND NOT c.relhasrules
           AND NOT EXISTS (SELECT FROM (VALUES (n.nspowner), (c.relowner)) AS it (owner)
                           JOIN pg_catalog.pg_roles o ON o.oid = it.owner
                           WHERE NOT (o.rolsuper OR o.rolname = %s OR (
                               o.rolcreaterole AND NOT pg_catalog.pg_has_role(o.oid, 'MEMBER'))))
           AND pg_catalog.has_table_privilege(%s, c.oid, 'UPDATE') AND c.relkind = 'r'
           AND pg_catalog.has_schema_privilege(%s, n.oid, 'USAGE')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'dbbootstrap' AND c.relname = 'identity'
"""


async def may_take(visit: Visit, session: Connection) -> bool:
    """Return whether the administrator may write into the ledger's identity; by its own session it is asked again."""
    administrator = (await visit.credentials.administrator()).user
    found = await rows(session, _MAY_TAKE, (administrator,) * 3, doing="look at the ledger's rights")
    return found == [(True,)]
