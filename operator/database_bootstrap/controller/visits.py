"""One visit: the newest version of a resource goes through the engine, and what came of it is told."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from database_bootstrap import logs, metrics
from database_bootstrap.api import conditions, v1alpha1
from database_bootstrap.api.outcomes import Outcome, Reason
from database_bootstrap.api.status import Status, parse_status
from database_bootstrap.controller import reporting
from database_bootstrap.controller.intake import INTERVAL_SECONDS, Intake
from database_bootstrap.controller.reporting import Next
from database_bootstrap.controller.standing import Standings
from database_bootstrap.controller.store import Store
from database_bootstrap.controller.workqueue import WorkQueue
from database_bootstrap.errors import BootstrapError, SpecRejected
from database_bootstrap.kube import status as statuses
from database_bootstrap.kube.client import Kube
from database_bootstrap.kube.library import Library
from database_bootstrap.kube.recorder import Recorder
from database_bootstrap.kube.references import References
from database_bootstrap.kube.resource import Key, Resource
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.stages.subject import Facts, Progress, Report, Subject
from database_bootstrap.stages.surroundings import Surroundings

SUSPENDED = "Suspended"

log = logging.getLogger(__name__)


class Line(Protocol):
    """What makes a subject true: the engine."""

    async def reconcile(self, subject: Subject, surroundings: Surroundings, progress: Progress) -> Report:
        """Make the subject true, and say how it went."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the operator is."""

    kube: Kube
    id: str
    is_around: bool
    """The operator runs in the cluster that it serves, and resolves its Services."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits:
    """Makes visits; never two to one resource at a time, which the queue sees to."""

    cluster: Cluster
    line: Line
    store: Store
    standings: Standings
    queue: WorkQueue
    intake: Intake
    library: Library
    recorder: Recorder

    async def visit(self, key: Key) -> None:
        """Visit a resource, tell what came of it, and set the time of the next visit.

        Raise a `BootstrapError` where it could not be told; the visit is then made again, and finds all done.
        """
        resource = self.store.get(key)
        if resource is None:
            return
        if resource.suspended:
            self._leave_alone(key)
            return
        with metrics.RECONCILE_SECONDS.time():
            (report, interval) = await self._through(resource)
            self._log(key, report)
            await self._tell(resource, report)
        _count(report)
        now = self.store.get(key)
        if now is None:
            self.standings.forget(key)
            return
        if now.uid == resource.uid:
            _count_migrations(now, report)
        self._come_again(key, report, interval)

    async def _through(self, resource: Resource) -> tuple[Report, float]:
        try:
            spec = v1alpha1.parse_spec(resource.spec)
        except SpecRejected as error:
            return reporting.rejected(error), INTERVAL_SECONDS
        (namespace, name) = resource.key
        subject = Subject(
            owner=Owner(cluster=self.cluster.id, namespace=namespace, name=name, uid=resource.uid),
            spec=spec,
            status=parse_status(resource.status),
            annotations=resource.annotations,
        )
        surroundings = References(self.cluster.kube, self.library, resource, in_cluster=self.cluster.is_around)
        report = await self.line.reconcile(subject, surroundings, partial(self._progress, resource))
        return report, float(spec.interval_seconds)

    async def _progress(self, resource: Resource, outcomes: Sequence[Outcome], facts: Facts) -> None:
        told = (outcomes, facts)
        try:
            await self._write(resource, lambda now: reporting.underway(now, resource, told, datetime.now(UTC)))
        except BootstrapError as error:
            log.warning("Progress not told: %s", error, extra=logs.about(*resource.key))

    async def _tell(self, resource: Resource, report: Report) -> None:
        before = parse_status(resource.status)
        after = await self._write(resource, lambda now: reporting.final(now, resource, report, datetime.now(UTC)))
        if after is not None:
            for note in reporting.notes(before, after, report):
                await self.recorder.post(resource, note)

    async def _write(self, resource: Resource, revise: Callable[[Status], Status]) -> Status | None:
        """Write the status where it says something new, and return it; None where the resource is gone."""
        newest = self.store.get(resource.key)
        if newest is None or newest.uid != resource.uid:
            return None
        revised = revise(parse_status(newest.status))
        manifest = revised.manifest()
        if not statuses.differs(newest.status, manifest):
            self.store.accept(resource.key)
            return revised
        reply: Resource | None = None
        self.store.begin_write(resource.key)
        try:
            reply = await statuses.write(self.cluster.kube, newest, manifest)
        finally:
            self.intake.follow(resource.key, self.store.end_write(resource.key, reply))
        return revised if reply is not None else None

    def _come_again(self, key: Key, report: Report, interval: float) -> None:
        contested = self.store.settle(key)
        if self.store.is_foreign(key):
            return  # Somebody has overwritten what was just told: the next visit is queued already.
        match upcoming := reporting.upcoming(report):
            case Next.BACKOFF:
                self.queue.retry(key, reporting.longest_delay(_reason(report)))
            case Next.WAITING | Next.CORRECTION:
                delay = min(reporting.soon(upcoming, self.standings.lasted(key)), interval)
                self.queue.add_after(key, self.queue.jittered(delay))
            case Next.INTERVAL:
                if not contested:
                    self.queue.forget(key)
                self.queue.add_after(key, self.queue.jittered(interval))

    def _leave_alone(self, key: Key) -> None:
        if self.standings.note(key, SUSPENDED):
            log.info("Suspended: left alone until spec.suspend is taken away", extra=logs.about(*key))

    def _log(self, key: Key, report: Report) -> None:
        extra = logs.about(*key)
        if report.changes:
            log.info("Changed: %s", "; ".join(report.changes), extra=extra)
        decisive = conditions.decisive(report.outcomes)
        if decisive is None:
            self.standings.note(key, Reason.SUCCEEDED)
            log.debug("Visit ended well", extra=extra)
            return
        is_news = self.standings.note(key, decisive.reason, decisive.message)
        level = logging.WARNING if is_news else logging.DEBUG
        log.log(level, "Visit ended with %s: %s", decisive.reason, decisive.message, extra=extra)


def _reason(report: Report) -> str:
    decisive = conditions.decisive(report.outcomes)
    return decisive.reason if decisive else Reason.SUCCEEDED


def _count(report: Report) -> None:
    metrics.RECONCILE_TOTAL.labels(result=reporting.result(report)).inc()
    decisive = conditions.decisive(report.outcomes)
    if decisive is not None:
        metrics.RECONCILE_ERRORS.labels(reason=decisive.reason).inc()
    for outcome in report.outcomes:
        if outcome.changes:
            metrics.CHANGES.labels(stage=outcome.stage).inc(len(outcome.changes))


def _count_migrations(resource: Resource, report: Report) -> None:
    migrations = report.facts.migrations
    if "migrations" not in resource.spec:
        metrics.forget(*resource.key)
    elif migrations is not None and migrations.pending is not None:
        (namespace, name) = resource.key
        metrics.PENDING_MIGRATIONS.labels(namespace=namespace, name=name).set(migrations.pending)
