"""Role: there, this resource's, logging in with the password of its Secret, and without power over others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from database_bootstrap import errors
from database_bootstrap.api import names, status
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.postgres.ownership import Mark, mark_in
from database_bootstrap.stages import identity
from database_bootstrap.stages import role_actions as actions
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.stage import Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit

_QUERY = """
    SELECT rolcanlogin, rolconnlimit, pg_catalog.shobj_description(oid, 'pg_authid'),
           rolvaliduntil < pg_catalog.now(),
           pg_catalog.array_remove(ARRAY[
               CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
               CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END], NULL)
    FROM pg_catalog.pg_roles WHERE rolname = %s
"""
_REFUSED = "28P01"
"""What the server says of a role that is not there as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A row of pg_roles, as the server reports it."""

    can_login: bool
    connection_limit: int
    comment: str | None
    expired: bool
    """VALID UNTIL lies in the past: no password logs in."""
    powers: tuple[str, ...]


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


async def observe(visit: Visit) -> Found:
    """Look for the role, and whether its password logs in: no catalogue tells that to a managed administrator."""
    published = await visit.credentials.published()
    kept = await visit.credentials.password()
    if published:
        await visit.sessions.try_role()
    found = await rows(await visit.view(), _QUERY, (visit.spec.role.name,), doing="look for the role")
    role = _role(*found[0]) if found else None
    visit.role_mark = mark_in(role.comment) if role else None
    if role and visit.role_mark and _may_be_ours(visit, visit.role_mark):
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
    )


def _role(can_login: bool, limit: int, comment: str | None, expired: bool | None, powers: list[str]) -> Role:
    return Role(
        can_login=can_login, connection_limit=limit, comment=comment, expired=bool(expired), powers=tuple(powers)
    )


def is_ours(visit: Visit, mark: Mark | None) -> bool:
    """Whether the mark names this very resource."""
    return mark is not None and mark.owner == visit.subject.owner


def _has_our_name(visit: Visit, mark: Mark) -> bool:
    """Whether the mark names a resource of our cluster, namespace and name that is not there any more."""
    owner = visit.subject.owner
    return replace(mark.owner, uid=owner.uid) == owner


def _may_be_ours(visit: Visit, mark: Mark) -> bool:
    """Whether it is worth asking if the role's password is this resource's."""
    return _has_our_name(visit, mark) or _was_said_to_be_ours(visit, mark)


def _was_said_to_be_ours(visit: Visit, mark: Mark) -> bool:
    return visit.subject.annotations.get(names.ANNOTATION_TAKE_OVER) == mark.owner.uid


def may_take(visit: Visit, mark: Mark) -> bool:
    """Whether what is marked so is this resource's to take.

    It is its own; or it was, under another uid, and the role's password proves it; or a person has said so.
    """
    if is_ours(visit, mark) or _was_said_to_be_ours(visit, mark):
        return True
    return _has_our_name(visit, mark) and visit.sessions.as_role is not None


def not_owned(what: str, mark: Mark) -> errors.NotOwned:
    """Return the error for what is marked as another's."""
    return errors.NotOwned(
        f"{what} belongs to {mark.owner}; it is left alone. If that resource is gone for good, annotate this one with "
        f"{names.ANNOTATION_TAKE_OVER}={mark.owner.uid}"
    )


def compare(visit: Visit, found: Found) -> Sequence[Action]:
    """Return what makes the role as wanted; raise `NotOwned` and its kin for one that must not be touched."""
    if found.role is None:
        return tuple(_compare_absent(visit, found))
    _check(visit, found, found.role)
    return tuple(_compare_present(visit, found, found.role))


def _compare_absent(visit: Visit, found: Found) -> Iterator[Action]:
    if visit.pin and not identity.is_acknowledged(visit.subject, visit.pin):
        raise identity.lost(visit.pin, f'Role "{visit.spec.role.name}" is gone, and with it the database')
    if not found.password_kept:
        yield actions.KeepPassword(secret=visit.credentials.password_secret)
    yield actions.CreateRole(name=visit.spec.role.name, connection_limit=visit.spec.role.connection_limit)


def _check(visit: Visit, found: Found, role: Role) -> None:
    name = visit.spec.role.name
    mark = mark_in(role.comment)
    if mark is None:
        raise errors.NotOwned(
            f'Role "{name}" exists and was not made by this operator; it is left alone. Choose another role.name'
        )
    if not may_take(visit, mark):
        raise not_owned(f'Role "{name}"', mark)
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
    if not is_ours(visit, visit.role_mark):
        yield actions.MarkRole(name=name, comment=role.comment)
    if not found.password_kept:
        yield actions.RestorePassword(secret=visit.credentials.password_secret)
    if not role.can_login:
        yield actions.AllowLogin(name=name)
    elif found.refusal == _REFUSED and role.expired:
        raise errors.RoleLoginRefused(
            f'Role "{name}" is valid until a time that has passed, so that no password logs in; a DBA set that, and '
            f"can take it away with ALTER ROLE \"{name}\" VALID UNTIL 'infinity'"
        )
    elif found.refusal == _REFUSED:
        yield actions.SetPassword(name=name)
    elif found.refusal == "28000":
        raise errors.RoleLoginRefused(
            f'The server lets role "{name}" not in at all (SQLSTATE 28000): pg_hba.conf has no line for it'
        )
    limit = visit.spec.role.connection_limit
    if limit is not None and limit != role.connection_limit:
        yield actions.LimitConnections(name=name, limit=limit)


def conclude(visit: Visit, found: Found) -> Conclusion:
    """Say that the role is there."""
    assert found.role is not None
    return Conclusion(reason=Reason.ROLE_IN_PLACE, message=f'Role "{visit.spec.role.name}" is there and logs in')


def _origin(role: Role) -> status.Origin | None:
    mark = mark_in(role.comment)
    return status.Origin(mark.origin) if mark else None


STAGE = Stage(name=StageName.ROLE, observe=observe, compare=compare, conclude=conclude)
