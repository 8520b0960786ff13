"""Looks at DatabaseServers: each for its own status, at an interval and when something about it changes."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from database_bootstrap import logs, metrics
from database_bootstrap.api.outcomes import Reason
from database_bootstrap.api.server_status import ServerObjectStatus, derive, parse_server_status
from database_bootstrap.api.servers import DatabaseServerSpec, parse_server
from database_bootstrap.controller import reporting
from database_bootstrap.controller.cluster import Cluster
from database_bootstrap.controller.intake import Intake
from database_bootstrap.controller.standing import Standings
from database_bootstrap.controller.store import Store, named_server
from database_bootstrap.controller.workqueue import WorkQueue
from database_bootstrap.errors import BootstrapError, ReferenceNotFound, ReferenceRejected, Retryable
from database_bootstrap.kube import status as statuses
from database_bootstrap.kube.recorder import Recorder
from database_bootstrap.kube.references import Estate
from database_bootstrap.kube.resource import Key, Resource
from database_bootstrap.stages.inspection import Inspection
from database_bootstrap.stages.surroundings import Platform, SharedServer

CLAIM_SECONDS = 3.0
"""Databases are made and dropped in crowds; they are counted once for all that came in so many seconds."""
CORRECTION_SECONDS = 15.0
"""A Secret may be made or corrected, and nobody tells us of that."""

log = logging.getLogger(__name__)


class Inspector(Protocol):
    """What looks at servers: the engine."""

    async def inspect(self, server: SharedServer, platform: Platform, cluster: str) -> Inspection:
        """Look at a server, and say what was found."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerVisits:
    """Looks at servers; never twice at one at a time, which the queue sees to."""

    cluster: Cluster
    line: Inspector
    store: Store
    """Of the servers alone."""
    standings: Standings
    queue: WorkQueue
    intake: Intake
    recorder: Recorder

    async def visit(self, key: Key) -> None:
        """Look at a server, tell what came of it, and set the time of the next look.

        Raise a `BootstrapError` where it could not be told.
        """
        resource = self.store.get(key)
        if resource is None or not self.cluster.tells_of_servers:
            return
        report = await self._inspect(resource)
        status = await self._tell(resource, report)
        if status is None:
            self.intake.forget_server(key)
            return
        _count(key, status)
        self._log(key, status)
        self._come_again(resource, report)

    async def _inspect(self, resource: Resource) -> Inspection:
        try:
            spec = parse_server(resource.spec)
        except BootstrapError as error:
            return Inspection(found=ServerObjectStatus(), error=error)
        offered = SharedServer(name=resource.key.name, spec=spec, labels=None)
        return await self.line.inspect(offered, self._estate(spec), self.cluster.id)

    def _estate(self, spec: DatabaseServerSpec) -> Platform:
        return Estate(self.cluster.kube, spec.admin_secret_ref.namespace, in_cluster=self.cluster.is_around)

    async def _tell(self, resource: Resource, report: Inspection) -> ServerObjectStatus | None:
        """Write the status where it says something new, and return it; None where the server is gone."""
        key, newest = resource.key, self.store.get(resource.key)
        if newest is None or newest.uid != resource.uid:
            return None
        before = parse_server_status(newest.status)
        now = datetime.now(UTC)
        derived = derive(report.found, report.error, before=before, generation=resource.generation, now=now)
        revised = reporting.acknowledged(derived, resource)
        manifest = revised.manifest()
        if not statuses.differs(newest.status, manifest):
            self.store.accept(key)
            return revised
        reply: Resource | None = None
        self.store.begin_write(key)
        try:
            reply = await statuses.write(self.cluster.kube, newest, manifest)
        finally:
            self.intake.follow_server(key, self.store.end_write(key, reply))
        if reply is None:
            return None
        for note in reporting.warnings(before.conditions, revised.conditions):
            await self.recorder.post(reply, note)
        return revised

    def claims_have_changed(self, resource: Resource) -> None:
        """Look soon at the server that the resource refers to, if any: its status counts the databases."""
        name = named_server(resource)
        if name is not None and self.cluster.tells_of_servers and self.store.get(Key("", name)) is not None:
            self.queue.add_within(Key("", name), CLAIM_SECONDS)

    def _come_again(self, resource: Resource, report: Inspection) -> None:
        key, interval = resource.key, float(resource.spec.get("intervalSeconds", reporting.INTERVAL_SECONDS))
        if report.outage is not None:
            self.queue.park(key, report.outage)
        match report.error:
            case ReferenceNotFound() | ReferenceRejected():
                self.queue.add_after(key, self.queue.jittered(min(CORRECTION_SECONDS, interval)))
            case Retryable():
                self.queue.retry(key, reporting.AWAY_SECONDS)
            case _:
                self.queue.forget(key)
                self.queue.add_after(key, self.queue.jittered(interval))

    def _log(self, key: Key, status: ServerObjectStatus) -> None:
        ready = status.conditions[0]
        if self.standings.note(key, ready.reason, ready.message) and ready.reason != Reason.SUCCEEDED:
            log.warning("Look ended with %s: %s", ready.reason, ready.message, extra=logs.about(*key))


def _count(key: Key, status: ServerObjectStatus) -> None:
    is_ready = status.conditions[0].status == "True"
    metrics.SERVER_READY.labels(server=key.name).set(1 if is_ready else 0)
    if status.databases is not None:
        metrics.SERVER_DATABASES.labels(server=key.name).set(status.databases)
