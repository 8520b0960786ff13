"""Role: there, this resource's, logging in with the password of its Secret, and without power over others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from database_bootstrap import errors
from database_bootstrap.api import status
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.postgres.ownership import Origin
from database_bootstrap.postgres.spelling import sql_name
from database_bootstrap.postgres.sqlstates import WRONG_PASSWORD
from database_bootstrap.stages import adoption, catalogue, identity, passwords, permits
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
    require_database_gone,
    require_role_gone,
    was_said_to_be_ours,
)
from database_bootstrap.stages.role_state import Role, find_role
from database_bootstrap.stages.stage import Action, Conclusion, Refusal, Stage
from database_bootstrap.stages.visit import Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The role and its password."""

    role: Role | None
    password_kept: bool
    """Its Secret is there."""
    password_published: bool
    """The connection Secret is there, and has it."""
    rotation: str | None
    """A person's word on which the password was made that is kept, or that was acted upon before."""
    is_outdated: bool
    """The connection Secret has another password than is kept."""
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
    # The database's owner writes its comment: where nothing may be adopted only the ledger speaks for the role.
    speaks = None if visit.subject.adoption_refused_by else visit.spec.database.name
    role = await find_role(await visit.view(), visit.spec.role.name, speaks)
    visit.role_mark = role.mark if role else None
    await require_role_gone(visit, role.comment if role else None)
    survey = await _survey(visit, role) if role and role.mark is None else None
    rotation = await passwords.handled(visit)
    if role and visit.role_mark and may_be_ours(visit, visit.role_mark):
        if not visit.role_is_new:
            if visit.sessions.refusal == WRONG_PASSWORD:
                # It may have been made between that login and this look, and its password be right.
                visit.sessions.forget_refusal()
            await visit.sessions.try_role()
        visit.facts.role = status.RoleStatus(
            name=visit.spec.role.name, origin=_origin(role), password_rotation=rotation
        )
    return Found(
        role=role,
        rotation=rotation,
        is_outdated=await visit.credentials.is_outdated(),
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
        await require_database_gone(visit, database, database.mark.owner)
    return {"database": database, "authority": await authority_over(visit, database) if database else None}


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
        yield actions.KeepPassword(secret=visit.credentials.password_secret, rotation=passwords.word(visit))
    elif passwords.is_asked(visit, found.rotation):
        yield passwords.replacement(visit)
    yield actions.CreateRole(name=visit.spec.role.name, connection_limit=visit.spec.role.connection_limit)


def _check(visit: Visit, found: Found, role: Role) -> None:
    name = visit.spec.role.name
    assert role.mark is not None
    if not may_take(visit, role.mark):
        raise not_owned(visit, f'Role "{name}"', role.mark)
    if role.powers:
        raise errors.RoleTooPowerful(
            f'Role "{name}" has become {" ".join(role.powers)}, which an application must not be; take it away with '
            f"ALTER ROLE {sql_name(name)} {' '.join(f'NO{power}' for power in role.powers)}"
        )
    if not (found.password_kept or found.password_published or passwords.is_due(visit, role.own_mark, found.rotation)):
        raise passwords.lost(visit, role.own_mark)


def _compare_present(visit: Visit, found: Found, role: Role) -> Iterator[Action]:
    # Before the mark: a role that was taken over is marked as adopted, and no password is set for those.
    yield from _compare_password(visit, found, role)
    yield from _compare_mark(visit, found, role)
    limit = visit.spec.role.connection_limit
    if limit is not None and limit != role.connection_limit:
        yield actions.LimitConnections(name=visit.spec.role.name, limit=limit)


def _compare_password(visit: Visit, found: Found, role: Role) -> Iterator[Action]:
    secret, is_to_rotate = visit.credentials.password_secret, passwords.is_due(visit, role.own_mark, found.rotation)
    is_refused = _is_refused(visit, found, role)
    if not (found.password_kept or found.password_published):
        passwords.check_namesake(visit, role.mark)
        yield actions.KeepPassword(secret=secret, rotation=passwords.word(visit))
    elif not found.password_kept:
        yield actions.RestorePassword(secret=secret, rotation=found.rotation)
    if is_to_rotate and (found.password_kept or found.password_published):
        yield passwords.replacement(visit)
    if is_refused or is_to_rotate:
        yield actions.SetPassword(name=visit.spec.role.name)
    is_right = is_refused or visit.sessions.as_role is not None
    if found.password_published and (is_to_rotate or (is_right and found.is_outdated)):
        yield passwords.PublishPassword(secret=visit.credentials.connection_secret)


def _is_refused(visit: Visit, found: Found, role: Role) -> bool:
    """Return whether the password does not log in and is to be set again; raise where that is no remedy."""
    name = visit.spec.role.name
    if not role.can_login:
        # It was made with LOGIN: a DBA has locked the application out, as before a dump that must miss no row.
        raise errors.RoleLoginRefused(
            f'Role "{name}" may not log in, as somebody has set with NOLOGIN; to let it in again, run '
            f"ALTER ROLE {sql_name(name)} LOGIN"
        )
    if found.refusal == WRONG_PASSWORD and role.expired:
        raise errors.RoleLoginRefused(
            f'Role "{name}" is valid until a time that has passed, so that no password logs in; a DBA set that, and '
            f"can take it away with ALTER ROLE {sql_name(name)} VALID UNTIL 'infinity'"
        )
    if found.refusal == WRONG_PASSWORD:
        passwords.check_namesake(visit, role.mark)
        passwords.check_adopted(visit, role.own_mark)
        return True
    if found.refusal == "28000":
        raise errors.RoleLoginRefused(
            f'The server lets role "{name}" not in at all (SQLSTATE 28000): pg_hba.conf has no line for it'
        )
    if found.refusal and found.refusal not in adoption.PROVEN and visit.subject.is_uid_derived:
        raise errors.ServerBusy(f'The server takes no session of role "{name}" now (SQLSTATE {found.refusal})')
    return False


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


async def permit(visit: Visit, found: Found, planned: Sequence[Action]) -> Refusal | None:
    """Refuse what the administrator may not do; no password is made that could not be set."""
    return await permits.for_role(visit, planned, makes_database=found.database is None)


def conclude(visit: Visit, found: Found) -> Conclusion:
    """Say that the role is there."""
    assert found.role is not None
    unmarked = "It carries no mark, as the administrator may not comment on it; that of its database counts for both."
    return Conclusion(
        reason=Reason.ROLE_IN_PLACE,
        message=f'Role "{visit.spec.role.name}" is there and logs in',
        warnings=(
            *(() if found.role.own_mark else (unmarked,)),
            *passwords.remarks(visit, found.role.mark, found.rotation),
        ),
    )


def _origin(role: Role) -> status.Origin | None:
    if role.mark is None:
        return None
    # What could not be marked was not made here.
    return status.Origin.ADOPTED if role.mark.role_unmarked else status.Origin(role.mark.origin)


STAGE = Stage(name=StageName.ROLE, observe=observe, compare=compare, conclude=conclude, permit=permit)
