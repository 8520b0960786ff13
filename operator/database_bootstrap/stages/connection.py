"""Connection: the Secret with which the application logs in, published once everything else is true."""

from collections.abc import Sequence
from dataclasses import dataclass

from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.api.status import BindingStatus
from database_bootstrap.stages.stage import Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the Secret says."""

    is_published: bool
    """All that it should; while planning for a role without a password it cannot."""
    is_pinned: bool
    """The incarnation of the database that is there."""


async def observe(visit: Visit) -> Found:
    """Compare the Secret with what it should say."""
    is_published = await visit.credentials.role() is not None and await visit.credentials.is_published()
    if is_published:
        wanted = await visit.credentials.wanted_connection()
        visit.facts.binding = BindingStatus(
            name=visit.credentials.connection_secret, host=wanted.host, port=wanted.port
        )
    is_pinned = visit.is_unseen or await visit.credentials.is_pinned(visit.incarnation)
    return Found(is_published=is_published, is_pinned=is_pinned)


def compare(visit: Visit, found: Found) -> Sequence[Action]:
    """Return the writing of the Secret where it is absent or says something else."""
    name = visit.credentials.connection_secret
    if found.is_published and found.is_pinned:
        return ()
    return (Pin(name=name),) if found.is_published else (Publish(name=name),)


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
        await visit.credentials.publish(visit.incarnation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Note the incarnation on the Secret, which outlives the resource: if it is gone one day, somebody will know."""

    name: str

    def __str__(self) -> str:
        return f"pin the incarnation of the database on Secret {self.name}"

    async def run(self, visit: Visit) -> None:
        await visit.credentials.publish(visit.incarnation)


STAGE = Stage(name=StageName.CONNECTION, observe=observe, compare=compare, conclude=conclude)
