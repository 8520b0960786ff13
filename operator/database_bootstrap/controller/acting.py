"""The operator while it acts: watches, queue and workers, from the first event to the last visit."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from database_bootstrap import metrics
from database_bootstrap.controller import handlers
from database_bootstrap.controller.absence import Absence
from database_bootstrap.controller.cluster import Cluster
from database_bootstrap.controller.handlers import Login
from database_bootstrap.controller.intake import Intake
from database_bootstrap.controller.resync import Resync
from database_bootstrap.controller.server_visits import ServerVisits
from database_bootstrap.controller.standing import Standings
from database_bootstrap.controller.store import Store
from database_bootstrap.controller.visits import Line, Visits
from database_bootstrap.controller.workqueue import WorkQueue
from database_bootstrap.kube.library import Library
from database_bootstrap.kube.recorder import Recorder
from database_bootstrap.settings import Settings

WATCH_END_SECONDS = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the operator acts with."""

    settings: Settings
    cluster: Cluster
    line: Line
    recorder: Recorder
    login: Login


class Acting:
    """Everything that runs while the operator acts."""

    def __init__(self, means: Means) -> None:
        settings, cluster = means.settings, means.cluster
        self._namespaces = settings.namespaces
        self._store = Store()
        servers = Store()
        self._queue = WorkQueue(settings.workers)
        library = Library(cluster.kube)
        standings = Standings(time.monotonic)
        intake = Intake(self._store, servers, self._queue, library, standings)
        self._absence = Absence(cluster.kube, settings.namespaces)
        self._visits = Visits(
            cluster=cluster,
            absence=self._absence,
            line=means.line,
            store=self._store,
            standings=standings,
            queue=self._queue,
            intake=intake,
            library=library,
            recorder=means.recorder,
            servers=self._server_visits(means, servers, standings, intake),
        )
        self._resync = Resync(
            kube=cluster.kube,
            store=self._store,
            intake=intake,
            library=library,
            namespaces=settings.namespaces,
            servers=servers if cluster.watches_servers else None,
        )
        watched = {"watch_secrets": settings.watch_secrets, "watch_servers": cluster.watches_servers}
        self._handlers = handlers.registry(intake, means.login, **watched)
        self._end_watching = asyncio.Event()
        self.watching = asyncio.Event()
        """Set once kopf is up."""
        self._pillars: list[asyncio.Task[None]] = []

    def _server_visits(self, means: Means, servers: Store, standings: Standings, intake: Intake) -> ServerVisits:
        return ServerVisits(
            cluster=means.cluster,
            line=means.line,
            store=servers,
            standings=standings,
            queue=self._queue,
            intake=intake,
            recorder=means.recorder,
        )

    async def start(self, take_signals: Callable[[], None]) -> Sequence[asyncio.Task[None]]:
        """Start all, and return the tasks without which it cannot go on: none of them ends by itself."""
        self._queue.start(self._visits.visit)
        watch = await handlers.begin(self._handlers, self._namespaces, self._end_watching, self.watching)
        take_signals()
        self._pillars += [
            asyncio.create_task(watch(), name="watch"),
            asyncio.create_task(self._resync.run(), name="list"),
        ]
        return self._pillars

    async def stop(self, grace: float) -> None:
        """Let visits end within the grace period, cancel the others, and end the watches."""
        await self._queue.stop(grace)
        await self._absence.stop()
        self._end_watching.set()
        for watch in self._pillars[:1]:
            await asyncio.wait({watch}, timeout=WATCH_END_SECONDS)
        for task in self._pillars:
            task.cancel()
        await asyncio.gather(*self._pillars, return_exceptions=True)
        metrics.forget_all()
