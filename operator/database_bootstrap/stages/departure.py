"""A departure: what the steps of a deletion share, and what they have come to."""

from dataclasses import dataclass, field

from database_bootstrap.api.outcomes import StageName
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.stages.credentials import Credentials
from database_bootstrap.stages.sessions import Sessions
from database_bootstrap.stages.subject import Subject, Turn
from database_bootstrap.stages.surroundings import Belongings


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """One thing that is gone now."""

    stage: StageName
    """Whose work it was."""
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True, kw_only=True)
class Departure:
    """What the steps of a deletion share."""

    subject: Subject
    surroundings: Belongings
    credentials: Credentials
    sessions: Sessions
    turn: Turn = field(default_factory=Turn)
    drops: list[Drop] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    @property
    def role(self) -> str:
        """The role's name."""
        return self.subject.spec.role.name

    @property
    def database(self) -> str:
        """The database's name."""
        return self.subject.spec.database.name

    async def aside(self) -> Connection:
        """Return the administrator's session in another database than the one that is to go."""
        usual = (await self.credentials.administrator()).database
        return await self.sessions.administrator("postgres" if usual == self.database else usual)
