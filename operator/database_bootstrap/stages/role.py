"""Role: there, this resource's, logging in with the password of its Secret, and without power over others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from database_bootstrap import errors
from database_bootstrap.api import names, status
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.postgres.ownership import Mark, Origin, mark_in
from database_bootstrap.stages import adoption, catalogue, identity
from database_bootstrap.stages import role_actions as actions
from database_bootstrap.stages.adoption_actions import AdoptRole
from database_bootstrap.stages.authority import Authority, authority_over
from database_bootstrap.stages.catalogue import Database
from database_bootstrap.stages.claims import (
    is_ours,
    may_be_ours,
    may_take,
    not_owned,
    origin_after,
    require_gone,
    was_said_to_be_ours,
)
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.stage import Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit

_QUERY = """
    SELECT rolcanlogin, rolconnlimit, pg_catalog.shobj_description(oid, 'pg_authid'),
           (SELECT pg_catalog.shobj_description(d.oid, 'pg_database')
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
_REFUSED = "28P01"
"""What the server says of a role that is not there as well."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The role and its password."""

    role: Role | None
    password_kept: bool
    """Its Secret is there."""
    password_published: bool
    """The connection Secret is there, and has it."""
    refusal: str | None
    """The SQLSTATE with which the server refused the role's login; None when it was let in, or was not tried."""
    survey: adoption.Survey | None = None
    """Of a role that carries no mark."""
    database: Database | None = None
    """Only looked for where there is no role: it cannot be this resource's."""
    authority: Authority | None = None


async def observe(visit: Visit) -> Found:
    """Look for the role, and whether its password logs in: no catalogue tells that to a managed administrator."""
    published = await visit.credentials.published()
    kept = await visit.credentials.password()
    if published:
        await visit.sessions.try_role()
    names_wanted = (visit.spec.database.name, visit.spec.role.name)
    found = await rows(await visit.view(), _QUERY, names_wanted, doing="look for the role")
    role = _role(*found[0]) if found else None
    visit.role_mark = role.mark if role else None
    if visit.role_mark:
        await require_gone(visit, f'Role "{visit.spec.role.name}"', visit.role_mark.owner)
    survey = await _survey(visit, role) if role and role.mark is None else None
    if role and visit.role_mark and may_be_ours(visit, visit.role_mark):
        if not visit.role_is_new:
            if visit.sessions.refusal == _REFUSED:
                # It may have been made between that login and this look, and its password be right.
                visit.sessions.forget_refusal()
            await visit.sessions.try_role()
        visit.facts.role = status.RoleStatus(name=visit.spec.role.name, origin=_origin(role))
    return Found(
        role=role,
        password_kept=kept is not None,
        password_published=published is not None,
        refusal=visit.sessions.refusal,
        survey=survey,
        **({} if role else await _squatter(visit)),
    )


async def _survey(visit: Visit, role: Role) -> adoption.Survey:
    candidate = adoption.Candidate(
        name=visit.spec.role.name, can_login=role.can_login, attributes=role.attributes, powers=role.powers
    )
    found = await adoption.survey(visit, candidate)
    visit.adopting = adoption.announcement(found)
    visit.may_mark_role = found.authority.may_mark
    return found


async def _squatter(visit: Visit) -> dict[str, Any]:
    """Return the database that is there without the role, if any, and what the administrator may do to it."""
    database = await catalogue.find_database(await visit.view(), visit.spec.database.name)
    if database and database.mark:
        await require_gone(visit, f'Database "{database.name}"', database.mark.owner)
    return {"database": database, "authority": await authority_over(visit, database) if database else None}


def _role(can_login: bool, limit: int, *rest: Any) -> Role:
    comment, database_comment, expired, powers, attributes = rest
    return Role(
        can_login=can_login,
        connection_limit=limit,
        comment=comment,
        database_comment=database_comment,
        expired=bool(expired),
        powers=tuple(powers),
        attributes=tuple(attributes),
    )


def compare(visit: Visit, found: Found) -> Sequence[Action]:
    """Return what makes the role as wanted; raise `NotOwned` and its kin for one that must not be touched."""
    if found.role is None:
        return tuple(_compare_absent(visit, found))
    if found.survey:
        adoption.check(visit, found.survey)
    else:
        _check(visit, found, found.role)
    return tuple(_compare_present(visit, found, found.role))


def _compare_absent(visit: Visit, found: Found) -> Iterator[Action]:
    if visit.pin and not identity.is_acknowledged(visit.subject, visit.pin):
        raise identity.lost(visit.pin, f'Role "{visit.spec.role.name}" is gone, and with it the database')
    # What the role owns was made, with the role, between the two looks; the next visit sees both.
    if found.database and found.database.mark is None and found.database.owner != visit.spec.role.name:
        adoption.check_database(visit, found.database, found.authority)
    if found.database and found.database.mark and not may_take(visit, found.database.mark):
        raise not_owned(visit, f'Database "{found.database.name}"', found.database.mark)
    if not found.password_kept:
        yield actions.KeepPassword(secret=visit.credentials.password_secret)
    yield actions.CreateRole(name=visit.spec.role.name, connection_limit=visit.spec.role.connection_limit)


def _check(visit: Visit, found: Found, role: Role) -> None:
    name = visit.spec.role.name
    assert role.mark is not None
    if not may_take(visit, role.mark):
        raise not_owned(visit, f'Role "{name}"', role.mark)
    if role.powers:
        raise errors.RoleTooPowerful(
            f'Role "{name}" has become {" ".join(role.powers)}, which an application must not be; take it away with '
            f'ALTER ROLE "{name}" {" ".join(f"NO{power}" for power in role.powers)}'
        )
    if not found.password_kept and not found.password_published:
        raise errors.PasswordLost(
            f'Role "{name}" exists, and neither Secret {visit.credentials.password_secret} nor Secret '
            f"{visit.credentials.connection_secret} has its password; write one into a Secret and name it in "
            "role.passwordSecretRef"
        )


def _compare_present(visit: Visit, found: Found, role: Role) -> Iterator[Action]:
    name = visit.spec.role.name
    if not found.password_kept:
        yield actions.RestorePassword(secret=visit.credentials.password_secret)
    # Before the mark: a role that was taken over is marked as adopted, and no password is set for those.
    yield from _compare_login(visit, found, role)
    yield from _compare_mark(visit, found, role)
    limit = visit.spec.role.connection_limit
    if limit is not None and limit != role.connection_limit:
        yield actions.LimitConnections(name=name, limit=limit)


def _compare_login(visit: Visit, found: Found, role: Role) -> Iterator[Action]:
    name = visit.spec.role.name
    if not role.can_login:
        # It was made with LOGIN: a DBA has locked the application out, as before a dump that must miss no row.
        raise errors.RoleLoginRefused(
            f'Role "{name}" may not log in, as somebody has set with NOLOGIN; to let it in again, run '
            f'ALTER ROLE "{name}" LOGIN'
        )
    if found.refusal == _REFUSED and role.expired:
        raise errors.RoleLoginRefused(
            f'Role "{name}" is valid until a time that has passed, so that no password logs in; a DBA set that, and '
            f"can take it away with ALTER ROLE \"{name}\" VALID UNTIL 'infinity'"
        )
    elif found.refusal == _REFUSED:
        _check_namesake(visit, role)
        _check_rotation(visit, role)
        yield actions.SetPassword(name=name)
    elif found.refusal == "28000":
        raise errors.RoleLoginRefused(
            f'The server lets role "{name}" not in at all (SQLSTATE 28000): pg_hba.conf has no line for it'
        )
    elif found.refusal and found.refusal not in adoption.PROVEN and visit.subject.is_uid_derived:
        raise errors.ServerBusy(f'The server takes no session of role "{name}" now (SQLSTATE {found.refusal})')


def _compare_mark(visit: Visit, found: Found, role: Role) -> Iterator[Action]:
    name, known = visit.spec.role.name, visit.subject.status.role
    # Where nobody knows any more it is called adopted, and so never dropped.
    origin = Origin(known.origin) if known and known.origin else Origin.ADOPTED
    if role.own_mark:
        if not is_ours(visit, role.own_mark):
            is_said = was_said_to_be_ours(visit, role.own_mark)
            came = origin_after(visit, role.own_mark)
            yield actions.MarkRole(name=name, comment=role.comment, origin=came, is_said=is_said)
    elif found.survey is None:
        if role.mark and not role.mark.role_unmarked:
            yield actions.MarkRole(name=name, comment=role.comment, origin=origin)
    elif found.survey.authority.may_mark:
        if adoption.is_ours_by_ledger(visit, found.survey):
            yield actions.MarkRole(name=name, comment=role.comment, origin=origin)
        else:
            words = adoption.describe_role(found.survey)
            yield AdoptRole(
                name=name, comment=role.comment, found=words, announcement=adoption.announcement(found.survey)
            )


def _check_namesake(visit: Visit, role: Role) -> None:
    """Raise where the role may be that of another project's resource of this name: only its password tells."""
    if role.mark is None or not visit.subject.is_uid_derived or was_said_to_be_ours(visit, role.mark):
        return
    name, reference = visit.spec.role.name, visit.spec.role.password_secret_ref
    secret = reference.name if reference else visit.credentials.password_secret
    raise errors.NotOwned(
        f'Role "{name}" belongs to {role.mark.owner}, as every resource of this name is called where there is no '
        f"cluster, and the password in Secret {secret} does not log in: it may be another project's. It is left alone. "
        f'If it is this one\'s, write the right password into the Secret, or set it with ALTER ROLE "{name}" PASSWORD, '
        f"or annotate this one with {names.ANNOTATION_TAKE_OVER}={role.mark.owner.uid}"
    )


def _check_rotation(visit: Visit, role: Role) -> None:
    """Raise for an adopted role: its password is set by whoever has made it."""
    if role.mark and role.mark.origin is Origin.ADOPTED:
        name, reference = visit.spec.role.name, visit.spec.role.password_secret_ref
        secret = reference.name if reference else visit.credentials.password_secret
        raise errors.RoleLoginRefused(
            f'Role "{name}" is adopted, and the password in Secret {secret} does not log in; adoption never sets one. '
            f'Write the right one into the Secret, or set it with ALTER ROLE "{name}" PASSWORD'
        )


def conclude(visit: Visit, found: Found) -> Conclusion:
    """Say that the role is there."""
    assert found.role is not None
    unmarked = "It carries no mark, as the administrator may not comment on it; that of its database counts for both."
    return Conclusion(
        reason=Reason.ROLE_IN_PLACE,
        message=f'Role "{visit.spec.role.name}" is there and logs in',
        warnings=() if found.role.own_mark else (unmarked,),
    )


def _origin(role: Role) -> status.Origin | None:
    if role.mark is None:
        return None
    # What could not be marked was not made here.
    return status.Origin.ADOPTED if role.mark.role_unmarked else status.Origin(role.mark.origin)


STAGE = Stage(name=StageName.ROLE, observe=observe, compare=compare, conclude=conclude)
