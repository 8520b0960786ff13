"""Inspection: what a platform team's server is, what its administrator may do there, and how much of it is used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api.server_status import AdministratorStatus, MissingRight, ServerObjectStatus
from database_bootstrap.api.status import ServerStatus
from database_bootstrap.postgres import ledger, session
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.login import Login
from database_bootstrap.postgres.outage import Outage
from database_bootstrap.postgres.ownership import Mark, Origin, mark_in
from database_bootstrap.postgres.sqlstates import error_of, refusal_of
from database_bootstrap.stages.extension_permits import IS_LENT_POWER
from database_bootstrap.stages.permits import Attributes
from database_bootstrap.stages.sessions import Door, rows
from database_bootstrap.stages.subject import Turn
from database_bootstrap.stages.surroundings import Platform, SharedServer

OLDEST = 15
SHOWN = 8
"""Roles that are named one by one; the others are named when these are seen to."""
_ADMINISTRATOR = f"""
    SELECT rolname, rolsuper, rolcreaterole, rolcreatedb,
           rolsuper OR coalesce((SELECT d.datistemplate OR pg_catalog.pg_has_role(d.datdba, 'USAGE')
                                 FROM pg_catalog.pg_database d WHERE d.datname = 'template1'), true),
           rolsuper OR {IS_LENT_POWER},
           pg_catalog.pg_is_in_recovery()
    FROM pg_catalog.pg_roles WHERE rolname = current_user
"""  # noqa: S608 constants
_FOR_SUPERUSERS = """
    SELECT v.name FROM pg_catalog.pg_available_extension_versions v
    JOIN pg_catalog.pg_available_extensions e ON e.name = v.name AND e.default_version = v.version
    WHERE v.name = ANY(%s) AND v.superuser AND NOT v.trusted ORDER BY 1
"""
_DATABASES = """
    SELECT said.comment, o.rolname, pg_catalog.pg_has_role(current_user, o.oid, 'MEMBER WITH ADMIN OPTION')
    FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles o ON o.oid = d.datdba
    CROSS JOIN LATERAL pg_catalog.right(pg_catalog.shobj_description(d.oid, 'pg_database'), 4096) AS said (comment)
    WHERE said.comment LIKE '%dbbootstrap.io/owner %'
    ORDER BY o.rolname
"""
"""Its end is enough: the mark is the last line, and the rest is as long as any tenant likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What came of a look at a server."""

    found: ServerObjectStatus
    """What was learned, without conditions."""
    error: errors.BootstrapError | None = None
    """What kept the look from its end."""
    outage: Outage | None = None
    """What it ended by; its end is the time for the next one."""


@dataclass(slots=True, kw_only=True)
class Look:
    """What one look is about, and what it has come to."""

    server: SharedServer
    platform: Platform
    cluster: str
    """Whose resources' databases are counted."""
    turn: Turn = field(default_factory=Turn)
    found: ServerObjectStatus = field(default_factory=ServerObjectStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator(Attributes):
    """What the server lets the administrator do for any resource."""

    copies_template: bool = True
    """It may make databases from template1, as is the default."""
    creates_extensions: bool = False
    """Such as are not trusted: it is a superuser, or a provider lends it the power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A database that a resource has, by its mark."""

    mark: Mark
    role: str
    is_administered: bool
    """The administrator has the admin option on its role, which since PostgreSQL 16 everything takes."""


async def run(look: Look, login: Login, door: Door) -> None:
    """Look at the server; raise our errors only."""
    async with door(login) as entry:
        try:
            connection = await session.connect_administrator(entry.login)
        except psycopg.OperationalError as error:
            raise refusal_of(error, login) from None
        entry.address = connection.info.hostaddr
    try:
        look.found = await _observe(look, login, connection)
    except psycopg.Error as error:
        raise error_of(error, "look at the server") from None
    finally:
        await connection.close()


async def _observe(look: Look, login: Login, connection: Connection) -> ServerObjectStatus:
    major = connection.info.server_version // 10_000
    if major < OLDEST:
        raise errors.SpecRejected(f"{login.endpoint} is PostgreSQL {major}; {OLDEST} or newer is needed")
    me = await _administrator(login, connection)
    claims = list(_claims(await rows(connection, _DATABASES, doing="look for databases"), look.cluster))
    return ServerObjectStatus(
        server=ServerStatus(
            host=login.endpoint.host,
            port=login.endpoint.port,
            version=connection.info.parameter_status("server_version"),
            system_identifier=await ledger.system_identifier(connection),
        ),
        administrator=AdministratorStatus(name=me.name, superuser=me.is_superuser),
        missing_rights=missing_rights(me, claims, major),
        extensions_for_superusers=await _for_superusers(look, connection, me),
        databases=len(claims),
    )


async def _administrator(login: Login, connection: Connection) -> Administrator:
    ((name, is_superuser, roles, databases, template, extensions, is_standby),) = await rows(
        connection, _ADMINISTRATOR, doing="look for rights"
    )
    if is_standby:
        raise errors.ServerReadOnly(f"{login.endpoint} is a standby: point the admin Secret at the primary")
    return Administrator(
        name=name,
        is_superuser=is_superuser,
        creates_roles=roles,
        creates_databases=databases,
        copies_template=template,
        creates_extensions=extensions,
    )


async def _for_superusers(look: Look, connection: Connection, me: Administrator) -> tuple[str, ...]:
    """Return which of the allowed extensions this administrator cannot create; `*` names none."""
    if me.creates_extensions:
        return ()
    allowed = list(look.server.spec.allowed_extensions)
    return tuple(name for (name,) in await rows(connection, _FOR_SUPERUSERS, (allowed,), doing="ask for extensions"))


def _claims(found: Sequence[Any], cluster: str) -> Iterator[Claim]:
    for comment, role, is_administered in found:
        mark = mark_in(comment)
        if mark and mark.owner.cluster == cluster:
            yield Claim(mark=mark, role=role, is_administered=is_administered)


def missing_rights(me: Administrator, claims: Sequence[Claim], major: int) -> tuple[MissingRight, ...]:
    """Return what the administrator lacks, each with the statement that gives it; pure."""
    if me.is_superuser:
        return ()
    attributes = [
        *([] if me.creates_roles else ["CREATEROLE"]),
        *([] if me.creates_databases else ["CREATEDB"]),
    ]
    lacking = [
        MissingRight(
            right=f"{' and '.join(attributes)}, to make roles and databases",
            sql=_text("ALTER ROLE {} " + " ".join(attributes), me.name),
        )
    ][: len(attributes)]
    if not me.copies_template:
        statement = _text("ALTER DATABASE {} IS_TEMPLATE true", "template1")
        lacking.append(MissingRight(right="copying template1, which is not marked as a template", sql=statement))
    # Before 16 CREATEROLE is power over every role that is no superuser. What was adopted was never in its power.
    foreign = dict.fromkeys(
        claim.role
        for claim in claims
        if major >= 16 and not claim.is_administered and claim.mark.origin is Origin.CREATED and claim.role != me.name
    )
    return (*lacking, *_over_roles(me, list(foreign)))


def _over_roles(me: Administrator, roles: Sequence[str]) -> Iterator[MissingRight]:
    more = len(roles) - SHOWN
    for number, role in enumerate(roles[:SHOWN], start=1):
        rest = f" (and {more} more, which are named when these are seen to)" if number == SHOWN and more > 0 else ""
        yield MissingRight(
            right=f'power over role "{role}", which another administrator has made{rest}',
            sql=_text("GRANT {} TO {} WITH ADMIN OPTION", role, me.name),
        )


def _text(statement: str, *names: str) -> str:
    return sql.SQL(statement).format(*map(sql.Identifier, names)).as_string()
