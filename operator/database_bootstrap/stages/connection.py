"""Connection: the Secret with which the application logs in, published once everything else is true."""

from collections.abc import Sequence
from dataclasses import dataclass

from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.stages.stage import Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit


async def observe(visit: Visit) -> bool:
    """Return whether the Secret says what it should; while planning for a role without a password it cannot."""
    if await visit.credentials.role() is None or not await visit.credentials.is_published():
        return False
    visit.facts.binding = visit.credentials.connection_secret
    return True


def compare(visit: Visit, is_published: bool) -> Sequence[Action]:
    """Return the writing of the Secret where it is absent or says something else."""
    return () if is_published else (Publish(name=visit.credentials.connection_secret),)


def conclude(visit: Visit, is_published: bool) -> Conclusion:
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
