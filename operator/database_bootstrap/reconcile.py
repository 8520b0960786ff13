"""The line: one public function, which knows no Kubernetes."""

from dataclasses import dataclass

from database_bootstrap.stages.subject import Progress, Report, Subject
from database_bootstrap.stages.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What all visits share: the budget of connections per server, and the process that runs Alembic's revisions."""

    max_connections: int = 8
    """Per server."""

    async def reconcile(self, subject: Subject, surroundings: Surroundings, progress: Progress) -> Report:
        """Make the subject true, and say how it went; never raises but for cancellation."""
        raise NotImplementedError

    async def plan(self, subject: Subject, surroundings: Surroundings) -> Report:
        """Return what `reconcile` would do, as changes of its outcomes; nothing is written anywhere."""
        raise NotImplementedError
