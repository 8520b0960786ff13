"""Connection: the Secret with which the application logs in, published once everything else is true."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from database_bootstrap.api.binding import Connection
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.stages.stage import Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the application is to be told, and what it is told."""

    wanted: Connection | None = field(repr=False)
    """None while planning for a role that has no password yet."""
    published: Connection | None = field(repr=False)


async def observe(visit: Visit) -> Found:
    """Read the Secret as it is kept."""
    published = await visit.credentials.published()
    if published:
        visit.facts.binding = visit.credentials.connection_secret
    login = await visit.credentials.role()
    return Found(wanted=await visit.credentials.wanted_connection() if login else None, published=published)


def compare(visit: Visit, found: Found) -> Sequence[Action]:
    """Return the writing of the Secret where it is absent or says something else."""
    if found.published is not None and found.published == found.wanted:
        return ()
    return (Publish(name=visit.credentials.connection_secret),)


def conclude(visit: Visit, found: Found) -> Conclusion:
    """Say where the application finds its connection."""
    return Conclusion(
        reason=Reason.CONNECTION_PUBLISHED, message=f"Secret {visit.credentials.connection_secret} has the connection"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Write the Secret; Pods that refer to it cannot start before it is there, which is the application's gate."""

    name: str

    def __str__(self) -> str:
        return f"publish the connection in Secret {self.name}"

    async def run(self, visit: Visit) -> None:
        await visit.credentials.publish()


STAGE = Stage(name=StageName.CONNECTION, observe=observe, compare=compare, conclude=conclude)
