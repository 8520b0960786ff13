"""Role: there, this resource's, logging in with the password of its Secret, and without power over others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api import names, status
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.postgres import scram
from database_bootstrap.postgres.ownership import Mark, Origin, mark_in, with_mark
from database_bootstrap.stages import identity
from database_bootstrap.stages.sessions import execute, rows
from database_bootstrap.stages.stage import Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit

_QUERY = """
    SELECT rolcanlogin, rolconnlimit, pg_catalog.shobj_description(oid, 'pg_authid'),
           pg_catalog.array_remove(ARRAY[
               CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
               CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END], NULL)
    FROM pg_catalog.pg_roles WHERE rolname = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A row of pg_roles, as the server reports it."""

    can_login: bool
    connection_limit: int
    comment: str | None
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
    role = (
        Role(can_login=found[0][0], connection_limit=found[0][1], comment=found[0][2], powers=tuple(found[0][3]))
        if found
        else None
    )
    visit.role_mark = mark_in(role.comment) if role else None
    if role and visit.role_mark and (is_ours(visit, visit.role_mark) or _has_our_name(visit, visit.role_mark)):
        if not visit.role_is_new:
            await visit.sessions.try_role()
        visit.facts.role = status.RoleStatus(name=visit.spec.role.name, origin=_origin(role))
    return Found(
        role=role,
        password_kept=kept is not None,
        password_published=published is not None,
        refusal=visit.sessions.refusal,
    )


def is_ours(visit: Visit, mark: Mark | None) -> bool:
    """Whether the mark names this very resource."""
    return mark is not None and mark.owner == visit.subject.owner


def _has_our_name(visit: Visit, mark: Mark) -> bool:
    """Whether the mark names a resource of our cluster, namespace and name that is not there any more."""
    owner = visit.subject.owner
    return replace(mark.owner, uid=owner.uid) == owner


def may_take(visit: Visit, mark: Mark) -> bool:
    """Whether what is marked so is this resource's to take.

    It is its own; or it was, under another uid, and the role's password proves it; or a person has said so.
    """
    if is_ours(visit, mark):
        return True
    if visit.subject.annotations.get(names.ANNOTATION_TAKE_OVER) == mark.owner.uid:
        return True
    return _has_our_name(visit, mark) and visit.sessions.as_role is not None


def not_owned(what: str, mark: Mark) -> errors.NotOwned:
    """Return the error for what is marked as another's."""
    return errors.NotOwned(
        f"{what} belongs to {mark.owner}; it is left alone. If that resource is gone for good, annotate this one with "
        f" {names.ANNOTATION_TAKE_OVER}={mark.owner.uid}"
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
        yield KeepPassword(secret=visit.credentials.password_secret)
    yield CreateRole(name=visit.spec.role.name, connection_limit=visit.spec.role.connection_limit)


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
        yield MarkRole(name=name, comment=role.comment)
    if not found.password_kept:
        yield RestorePassword(secret=visit.credentials.password_secret)
    if not role.can_login:
        yield AllowLogin(name=name)
    elif found.refusal == "28P01":
        yield SetPassword(name=name)
    elif found.refusal == "28000":
        raise errors.RoleLoginRefused(
            f'The server lets role "{name}" not in at all (SQLSTATE 28000): pg_hba.conf has no line for it'
        )
    limit = visit.spec.role.connection_limit
    if limit is not None and limit != role.connection_limit:
        yield LimitConnections(name=name, limit=limit)


def conclude(visit: Visit, found: Found) -> Conclusion:
    """Say that the role is there."""
    assert found.role is not None
    return Conclusion(reason=Reason.ROLE_IN_PLACE, message=f'Role "{visit.spec.role.name}" is there and logs in')


def _origin(role: Role) -> status.Origin | None:
    mark = mark_in(role.comment)
    return status.Origin(mark.origin) if mark else None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPassword:
    """Generate a password, and keep it before anybody sets it: no crash leaves one that nobody knows."""

    secret: str

    def __str__(self) -> str:
        return f"generate a password into Secret {self.secret}"

    async def run(self, visit: Visit) -> None:
        await visit.credentials.keep_password(scram.generate_password())


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePassword:
    """Put the password back into its Secret from the connection Secret, where it still is."""

    secret: str

    def __str__(self) -> str:
        return f"restore Secret {self.secret} from the connection Secret"

    async def run(self, visit: Visit) -> None:
        published = await visit.credentials.published()
        assert published is not None
        await visit.credentials.keep_password(published.password)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRole:
    """CREATE ROLE and its COMMENT in one transaction: the comment says which database is about to be made."""

    name: str
    connection_limit: int | None

    def __str__(self) -> str:
        return f'create role "{self.name}"'

    async def run(self, visit: Visit) -> None:
        connection = await visit.sessions.administrator()
        await require_rights(visit)
        mark = Mark(owner=visit.subject.owner, database=visit.spec.database.name, origin=Origin.CREATED)
        name = sql.Identifier(self.name)
        await execute(
            connection,
            sql.SQL(
                "CREATE ROLE {} LOGIN NOSUPERUSER NOREPLICATION NOBYPASSRLS NOCREATEROLE NOCREATEDB"
                " CONNECTION LIMIT {} PASSWORD {}"
            ).format(name, sql.Literal(self.connection_limit or -1), sql.Literal(await _verifier(visit))),
            sql.SQL("COMMENT ON ROLE {} IS {}").format(name, sql.Literal(with_mark(None, mark))),
            doing=f'create role "{self.name}"',
        )
        visit.role_is_new = True
        # Where the connection Secret outlived the server, the role was tried before it was there.
        visit.sessions.forget_refusal()


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRole:
    """Take the role over: its comment names this resource from now on."""

    name: str
    comment: str | None

    def __str__(self) -> str:
        return f'take over role "{self.name}"'

    async def run(self, visit: Visit) -> None:
        before = mark_in(self.comment)
        origin = before.origin if before else Origin.ADOPTED
        mark = Mark(owner=visit.subject.owner, database=visit.spec.database.name, origin=origin)
        statement = sql.SQL("COMMENT ON ROLE {} IS {}").format(
            sql.Identifier(self.name), sql.Literal(with_mark(self.comment, mark))
        )
        await execute(await visit.sessions.administrator(), statement, doing=str(self))


async def require_rights(visit: Visit) -> None:
    """Raise `AccessDenied` with the cure where the administrator may not create roles and databases."""
    if visit.rights_known:
        return
    connection = await visit.sessions.administrator()
    query = (
        "SELECT rolsuper OR (rolcreaterole AND rolcreatedb), rolname FROM pg_catalog.pg_roles"
        " WHERE rolname = current_user"
    )
    ((sufficient, name),) = await rows(connection, query, doing="look at the administrator's rights")
    if not sufficient:
        raise errors.AccessDenied(
            f'The administrator "{name}" may not create roles and databases; let a superuser run: '
            f'ALTER ROLE "{name}" CREATEROLE CREATEDB'
        )
    visit.rights_known = True


async def _verifier(visit: Visit) -> str:
    login = await visit.credentials.role()
    assert login is not None
    return scram.verifier(login.password)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPassword:
    """Set the password of the Secret again: somebody has changed the one or the other."""

    name: str

    def __str__(self) -> str:
        return f'set the password of role "{self.name}" to that of its Secret'

    async def run(self, visit: Visit) -> None:
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(self.name), sql.Literal(await _verifier(visit))
        )
        await execute(await visit.sessions.administrator(), statement, doing=str(self))
        visit.sessions.forget_refusal()


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowLogin:
    """Let the role log in again."""

    name: str

    def __str__(self) -> str:
        return f'let role "{self.name}" log in'

    async def run(self, visit: Visit) -> None:
        statement = sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(self.name))
        await execute(await visit.sessions.administrator(), statement, doing=str(self))
        visit.sessions.forget_refusal()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitConnections:
    """Set the role's connection limit."""

    name: str
    limit: int

    def __str__(self) -> str:
        return f'limit role "{self.name}" to {self.limit} connections'

    async def run(self, visit: Visit) -> None:
        statement = sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(
            sql.Identifier(self.name), sql.Literal(self.limit)
        )
        await execute(await visit.sessions.administrator(), statement, doing=str(self))


STAGE = Stage(name=StageName.ROLE, observe=observe, compare=compare, conclude=conclude)
