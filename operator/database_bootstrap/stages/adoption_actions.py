"""What adoption does: it says whose things are, and changes nothing else of them; each action is one transaction."""

from dataclasses import dataclass

from psycopg import sql

from database_bootstrap.api.outcomes import StageName
from database_bootstrap.postgres.ownership import Mark, Origin
from database_bootstrap.stages import marking
from database_bootstrap.stages.database_actions import join_role
from database_bootstrap.stages.sessions import execute
from database_bootstrap.stages.visit import Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptRole:
    """Say in the role's comment whose it is from now on."""

    name: str
    comment: str | None
    found: str
    """The role in a few words."""
    announcement: str

    def __str__(self) -> str:
        return f"adopt {self.found}"

    async def run(self, visit: Visit) -> None:
        await visit.announce(StageName.ROLE, self.announcement)
        mark = Mark(owner=visit.subject.owner, database=visit.spec.database.name, origin=Origin.ADOPTED)
        statement = marking.role(self.name, self.comment, mark)
        await execute(await visit.sessions.administrator(), statement, doing=str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptDatabase:
    """Say in the database's comment whose it is from now on; nothing is revoked from PUBLIC."""

    name: str
    comment: str | None
    found: str
    """The database in a few words."""
    announcement: str
    role_unmarked: bool
    """The administrator may not comment on the role, so this mark speaks for both."""

    def __str__(self) -> str:
        both = ", whose mark counts for the role as well: the administrator may not comment on it"
        return f"adopt {self.found}{both if self.role_unmarked else ''}"

    async def run(self, visit: Visit) -> None:
        await visit.announce(StageName.DATABASE, self.announcement)
        await execute(await visit.sessions.owner(), _claim(self, visit), doing=str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOverDatabase:
    """Adopt a database and give it to the role, on the administrator's word.

    The comment comes with it in one transaction: a crash must not leave what looks as if it had been made here.
    """

    name: str
    comment: str | None
    found: str
    announcement: str
    role_unmarked: bool

    def __str__(self) -> str:
        return f"adopt {self.found}, and hand it over to the role"

    async def run(self, visit: Visit) -> None:
        await visit.announce(StageName.DATABASE, self.announcement)
        connection = await visit.sessions.administrator()
        await join_role(connection, visit.spec.role.name)
        give = sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
            sql.Identifier(self.name), sql.Identifier(visit.spec.role.name)
        )
        await execute(connection, _claim(self, visit), give, doing=str(self))
        visit.sessions.forget_refusal()


def _claim(action: AdoptDatabase | HandOverDatabase, visit: Visit) -> sql.Composed:
    mark = Mark(
        owner=visit.subject.owner,
        database=action.name,
        origin=Origin.ADOPTED,
        role_unmarked=action.role_unmarked,
    )
    return marking.database(action.name, action.comment, mark)
