"""Permits: may the administrator do to role and database what is about to be done? Asked before the first of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from database_bootstrap import errors
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.stages.adoption_actions import AdoptRole
from database_bootstrap.stages.role_actions import CreateRole, LimitConnections, MarkRole, SetPassword
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.stage import Action, Refusal
from database_bootstrap.stages.visit import Visit

_QUERY = """
    SELECT a.rolname, a.rolsuper, a.rolcreaterole, a.rolcreatedb,
           r.oid IS NULL OR pg_catalog.pg_has_role(a.oid, r.oid, {member}),
           r.oid IS NULL OR {is_admin},
           (SELECT d.datistemplate OR pg_catalog.pg_has_role(a.oid, d.datdba, 'USAGE')
            FROM pg_catalog.pg_database d WHERE d.datname = %s)
    FROM pg_catalog.pg_roles a LEFT JOIN pg_catalog.pg_roles r ON r.rolname = %s
    WHERE a.rolname = current_user
"""
_SINCE_16 = {"member": "'SET'", "is_admin": "pg_catalog.pg_has_role(a.oid, r.oid, 'MEMBER WITH ADMIN OPTION')"}
_BEFORE_16 = {"member": "'MEMBER'", "is_admin": "true"}
"""CREATEROLE is power over every role that is no superuser."""

OF_THE_ADMINISTRATOR = (SetPassword, LimitConnections, MarkRole, AdoptRole)
"""What takes power over a role that is there."""
Lack = tuple[str, str]
"""What cannot be done, and the statement that lets it be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """The administrator's own row of pg_roles."""

    name: str
    is_superuser: bool
    creates_roles: bool
    creates_databases: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator(Attributes):
    """What the server lets the administrator do to one resource's role and database."""

    is_member: bool
    """Of the role, so that it may make what the role owns."""
    is_admin: bool
    """It has the admin option on the role, which since 16 everything takes that changes the role.

    Of a role that is not there yet it will have it, as whoever makes one."""
    may_copy: bool | None
    """It may copy the template; None where there is none of that name."""


async def for_role(visit: Visit, planned: Sequence[Action], *, makes_database: bool) -> Refusal | None:
    """Refuse where the administrator may not make the role, and the database after it, or not change the role."""
    if any(isinstance(action, CreateRole) for action in planned):
        return await _to_make_role(visit, makes_database)
    if changes := [str(action) for action in planned if isinstance(action, OF_THE_ADMINISTRATOR)]:
        role = visit.spec.role.name
        me = await _ask(await visit.sessions.administrator(), role)
        return _refusal(me, _power(me, role, f"{', '.join(changes)}: it has no power over"))
    return None


async def _to_make_role(visit: Visit, makes_database: bool) -> Refusal | None:
    template = visit.spec.database.template
    me = await _ask(await visit.sessions.administrator(), visit.spec.role.name, template)
    lacks = lacking_attributes(me.name, roles=me.creates_roles, databases=me.creates_databases)
    return _refusal(me, [*lacks, *(_template(me, template) if makes_database else ())])


async def to_make_database(visit: Visit) -> Refusal | None:
    """Refuse where the administrator may not make a database that the role owns."""
    role, template = visit.spec.role.name, visit.spec.database.template
    me = await _ask(await visit.sessions.administrator(), role, template)
    lacks = [*lacking_attributes(me.name, roles=True, databases=me.creates_databases), *_template(me, template)]
    if not (me.is_member or (me.is_admin and me.creates_roles)):
        lacks += _power(me, role, "make a database for")
    return _refusal(me, lacks)


async def require_power_to_drop(connection: Connection, role: str) -> None:
    """Raise `AccessDenied` where the administrator may not drop the role, before its database goes."""
    me = await _ask(connection, role)
    if refusal := _refusal(me, _power(me, role, "drop"), "Nothing of it was dropped"):
        raise refusal.error


def lacking_attributes(administrator: str, *, roles: bool, databases: bool) -> Iterator[Lack]:
    """Yield what the administrator lacks of CREATEROLE and CREATEDB, with one statement for both; pure."""
    missing = [
        *([] if roles else [("roles", "CREATEROLE")]),
        *([] if databases else [("databases", "CREATEDB")]),
    ]
    if missing:
        things = " and ".join(thing for thing, _ in missing)
        attributes = " ".join(attribute for _, attribute in missing)
        yield f"make {things}", f"ALTER ROLE {sql_name(administrator)} {attributes}"


async def _ask(connection: Connection, role: str, template: str | None = None) -> Administrator:
    since_16 = connection.info.server_version >= 160000
    query = _QUERY.format(**(_SINCE_16 if since_16 else _BEFORE_16))
    doing = "look at the administrator's rights"
    ((name, is_superuser, roles, databases, member, admin, may_copy),) = await rows(
        connection, query, (template, role), doing=doing
    )
    return Administrator(
        name=name,
        is_superuser=is_superuser,
        creates_roles=roles,
        creates_databases=databases,
        is_member=member,
        is_admin=admin,
        may_copy=may_copy,
    )


def _power(me: Administrator, role: str, doing: str) -> Iterator[Lack]:
    """Yield what is lacking to change a role: CREATEROLE, and since 16 the admin option as well."""
    what = f"{doing} role {sql_name(role)}"
    if not me.creates_roles:
        yield f"{what}, as it has no CREATEROLE", f"ALTER ROLE {sql_name(me.name)} CREATEROLE"
    if not me.is_admin:
        grant = f"GRANT {sql_name(role)} TO {sql_name(me.name)} WITH ADMIN OPTION"
        yield f"{what}, which it has not made itself", grant


def _template(me: Administrator, template: str) -> Iterator[Lack]:
    if me.may_copy is False:
        what = f"copy database {sql_name(template)}, which is not marked as a template"
        yield what, f"ALTER DATABASE {sql_name(template)} IS_TEMPLATE true"


def _refusal(me: Administrator, lacks: Iterable[Lack], so: str = "Nothing was changed") -> Refusal | None:
    found = [] if me.is_superuser else list(lacks)
    if not found:
        return None
    what = ", and not ".join(what for what, _ in found)
    statements = cure(*(statement for _, statement in found))
    return Refusal(error=errors.AccessDenied(f'The administrator "{me.name}" may not {what}. {so}; {statements}'))
