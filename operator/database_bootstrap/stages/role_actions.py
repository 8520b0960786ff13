"""What can be done to a role; each action is one transaction."""

from dataclasses import dataclass

from psycopg import sql

from database_bootstrap.postgres import scram
from database_bootstrap.postgres.ownership import Mark, Origin, mark_in
from database_bootstrap.stages import marking
from database_bootstrap.stages.sessions import execute
from database_bootstrap.stages.visit import Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPassword:
    """Generate a password, and keep it before anybody sets it: no crash leaves one that nobody knows."""

    secret: str
    rotation: str | None = None
    """A person's word that is done with this."""

    def __str__(self) -> str:
        return f"generate a password into Secret {self.secret}"

    async def run(self, visit: Visit) -> None:
        await visit.credentials.keep_password(scram.generate_password(), self.rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePassword:
    """Put the password back into its Secret from the connection Secret, where it still is."""

    secret: str
    rotation: str | None = None
    """A person's word that was done before."""

    def __str__(self) -> str:
        return f"restore Secret {self.secret} from the connection Secret"

    async def run(self, visit: Visit) -> None:
        published = await visit.credentials.published()
        assert published is not None
        await visit.credentials.keep_password(published.password, self.rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRole:
    """CREATE ROLE and its COMMENT in one transaction: the comment says which database is about to be made."""

    name: str
    connection_limit: int | None

    def __str__(self) -> str:
        return f'create role "{self.name}"'

    async def run(self, visit: Visit) -> None:
        connection = await visit.sessions.administrator()
        mark = Mark(owner=visit.subject.owner, database=visit.spec.database.name, origin=Origin.CREATED)
        name = sql.Identifier(self.name)
        await execute(
            connection,
            sql.SQL(
                "CREATE ROLE {} LOGIN NOSUPERUSER NOREPLICATION NOBYPASSRLS NOCREATEROLE NOCREATEDB"
                " CONNECTION LIMIT {} PASSWORD {}"
            ).format(name, sql.Literal(self.connection_limit or -1), sql.Literal(await _verifier(visit))),
            marking.role(self.name, None, mark),
            doing=f'create role "{self.name}"',
        )
        visit.role_is_new = True
        # Where the connection Secret outlived the server, the role was tried before it was there.
        visit.sessions.forget_refusal()


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRole:
    """Take the role over, or back: its comment names this resource from now on."""

    name: str
    comment: str | None
    origin: Origin
    is_said: bool = False
    """By a person, whose word is noted."""

    def __str__(self) -> str:
        if mark_in(self.comment) is None:
            return f'mark role "{self.name}" again'
        return f'take over role "{self.name}"' + from_whom(self.comment, self.is_said)

    async def run(self, visit: Visit) -> None:
        mark = Mark(owner=visit.subject.owner, database=visit.spec.database.name, origin=self.origin)
        statement = marking.role(self.name, self.comment, mark)
        await execute(await visit.sessions.administrator(), statement, doing=str(self))


def from_whom(comment: str | None, is_said: bool) -> str:
    """Return the words for what a person has said, for a comment that names another resource."""
    before = mark_in(comment)
    return f" from {before.owner}, as a person said" if before and is_said else ""


async def _verifier(visit: Visit) -> str:
    login = await visit.credentials.role()
    assert login is not None
    return scram.verifier(await visit.sessions.administrator(), login.user, login.password)


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
