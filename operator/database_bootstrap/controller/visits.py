"""One visit: the newest version of a resource goes through the engine, and what came of it is told."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from database_bootstrap import logs, metrics
from database_bootstrap.api import conditions, v1alpha1
from database_bootstrap.api.outcomes import Outcome, Reason, StageName
from database_bootstrap.api.status import Status, parse_status
from database_bootstrap.controller import reporting
from database_bootstrap.controller.absence import Absence
from database_bootstrap.controller.cluster import Cluster
from database_bootstrap.controller.departures import Departures, Undertaker
from database_bootstrap.controller.intake import Intake
from database_bootstrap.controller.reporting import Next
from database_bootstrap.controller.server_visits import Inspector, ServerVisits
from database_bootstrap.controller.standing import Standings
from database_bootstrap.controller.store import Store
from database_bootstrap.controller.workqueue import WorkQueue
from database_bootstrap.errors import BootstrapError, ClusterUnavailable
from database_bootstrap.kube import finalizer
from database_bootstrap.kube import status as statuses
from database_bootstrap.kube.library import Library
from database_bootstrap.kube.recorder import Recorder
from database_bootstrap.kube.references import References
from database_bootstrap.kube.resource import Key, Resource
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.stages.subject import Facts, Progress, Report, Subject
from database_bootstrap.stages.surroundings import Surroundings

SUSPENDED = "Suspended"

log = logging.getLogger(__name__)


class Line(Undertaker, Inspector, Protocol):
    """What makes a subject true, what drops it, and what looks at servers: the engine."""

    async def reconcile(self, subject: Subject, surroundings: Surroundings, progress: Progress) -> Report:
        """Make the subject true, and say how it went."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits:
    """Makes visits; never two to one resource at a time, which the queue sees to."""

    cluster: Cluster
    absence: Absence
    line: Line
    store: Store
    standings: Standings
    queue: WorkQueue
    intake: Intake
    library: Library
    recorder: Recorder
    servers: ServerVisits

    async def visit(self, key: Key) -> None:
        """Visit a resource, tell what came of it, and set the time of the next visit.

        Raise a `BootstrapError` where it could not be told; the visit is then made again, and finds all done. While the
        API server is away none begins, and at its return all that could not be told, or made, are made.
        """
        if outage := self.absence.outage:
            self.queue.park(key, outage)
            self.queue.add_after(key, self.queue.jittered(reporting.AWAY_SECONDS))
            return
        try:
            await self._visit(key)
        except ClusterUnavailable as error:
            if outage := await self.absence.doubt(error):
                self.queue.park(key, outage)
            raise

    async def _visit(self, key: Key) -> None:
        if key.is_server:
            await self.servers.visit(key)
            return
        resource = self.store.get(key)
        if resource is None or resource.is_let_go:
            return
        if resource.suspended and not resource.deleting:
            self._leave_alone(key)
            return
        with metrics.RECONCILE_SECONDS.time():
            report = await (self._see_off if resource.deleting else self._through)(resource)
            if report is None:
                return
            self._log(key, report)
            await self._tell(resource, report)
        _count(report)
        if any(it.stage is StageName.DATABASE and it.changes for it in report.outcomes):
            self.servers.claims_have_changed(resource)
        now = self.store.get(key)
        if now is None or now.is_let_go:
            self.standings.forget(key)
            return
        if now.uid == resource.uid:
            _count_migrations(now, report)
        self._come_again(now, report)

    async def _through(self, resource: Resource) -> Report | None:
        """Make the resource true; return None where it is being deleted by now, and another visit has to see to it."""
        try:
            spec = v1alpha1.parse_spec(resource.spec)
            if not await self._is_held_as_it_should_be(resource):
                return None
        except BootstrapError as error:
            return reporting.rejected(error)
        subject, surroundings = self._introduce(resource, spec)
        return await self.line.reconcile(subject, surroundings, partial(self._progress, resource))

    async def _see_off(self, resource: Resource) -> Report | None:
        """Let a resource go that is being deleted, or return what keeps it."""
        newest = await statuses.read(self.cluster.kube, resource)  # A person may have changed the policy just now.
        if newest is None or newest.is_let_go:
            return None
        departures = Departures(
            kube=self.cluster.kube, line=self.line, introduce=self._introduce, recorder=self.recorder
        )
        ending = await departures.see_off(newest)
        if ending.drops:
            self.servers.claims_have_changed(newest)
        if ending.error is not None:
            return replace(reporting.held(ending.error, newest), outage=ending.outage)
        await self._written(resource.key, finalizer.take_off(self.cluster.kube, newest))
        metrics.RECONCILE_TOTAL.labels(result="success").inc()
        return None

    async def _is_held_as_it_should_be(self, resource: Resource) -> bool:
        """Put our finalizer on, or take it off; False where the resource is gone, or being deleted."""
        if resource.is_held is resource.drops:
            return True
        change = finalizer.put_on if resource.drops else finalizer.take_off
        newest = await self._written(resource.key, change(self.cluster.kube, resource))
        return newest is not None and not newest.deleting

    def _introduce(self, resource: Resource, spec: v1alpha1.Spec) -> tuple[Subject, References]:
        (namespace, name) = resource.key
        subject = Subject(
            owner=Owner(cluster=self.cluster.id, namespace=namespace, name=name, uid=resource.uid),
            spec=spec,
            status=parse_status(resource.status),
            annotations=resource.annotations,
        )
        return subject, References(
            self.cluster.kube,
            self.library,
            resource,
            in_cluster=self.cluster.is_around,
            offered=lambda name: self.servers.store.get(Key("", name)),
        )

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
        if newest is None or newest.uid != resource.uid or newest.is_let_go:
            return None
        revised = revise(parse_status(newest.status))
        manifest = revised.manifest()
        if not statuses.differs(newest.status, manifest):
            self.store.accept(resource.key)
            return revised
        reply = await self._written(resource.key, statuses.write(self.cluster.kube, newest, manifest))
        return revised if reply is not None else None

    async def _written(self, key: Key, write: Awaitable[Resource | None]) -> Resource | None:
        """Return the reply to a write, once the store knows of it."""
        reply: Resource | None = None
        self.store.begin_write(key)
        try:
            reply = await write
        finally:
            self.intake.follow(key, self.store.end_write(key, reply))
        return reply

    def _come_again(self, resource: Resource, report: Report) -> None:
        key, interval = resource.key, float(resource.spec.get("intervalSeconds", reporting.INTERVAL_SECONDS))
        contested = self.store.settle(key)
        if self.store.is_foreign(key):
            return  # Somebody has overwritten what was just told: the next visit is queued already.
        if report.outage is not None:
            self.queue.park(key, report.outage)
        match upcoming := reporting.upcoming(report):
            case Next.RETURN:
                self.queue.add_after(key, self.queue.jittered(reporting.AWAY_SECONDS))
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
