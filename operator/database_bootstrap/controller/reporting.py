"""What a report means outside of the engine: the status, the events, and when to come again; pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import Enum, auto

from database_bootstrap.api import conditions, names
from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.status import BindingStatus, Condition, LastChange, Status, clean
from database_bootstrap.errors import BootstrapError, Retryable
from database_bootstrap.kube.recorder import Note, listed
from database_bootstrap.kube.resource import Resource
from database_bootstrap.stages.subject import Facts, Report

CHANGED = "Changed"
"""The reason of the event that lists what a visit changed."""


class Next(Enum):
    """When a resource is to be visited again."""

    INTERVAL = auto()
    """After the resource's own interval."""
    BACKOFF = auto()
    """After a delay that grows with each failure."""
    WAITING = auto()
    """Soon: something that nobody tells us of may arrive."""


def rejected(error: BootstrapError) -> Report:
    """Return the report of a visit that could not begin."""
    verdict = Verdict.RETRY if isinstance(error, Retryable) else Verdict.STALLED
    outcome = Outcome(stage=StageName.ROLE, verdict=verdict, reason=Reason(error.reason), message=error.message)
    return Report(outcomes=(outcome,), facts=Facts())


def final(before: Status, resource: Resource, report: Report, now: datetime) -> Status:
    """Return the status at the end of a visit to this version of the resource."""
    said = conditions.derive(report.outcomes, previous=before.conditions, generation=resource.generation, now=now)
    changes = len(report.changes)
    change = LastChange(time=now, generation=resource.generation, changes=changes) if changes else None
    requested = resource.annotations.get(names.ANNOTATION_RECONCILE_REQUESTED_AT)
    return _learned(before, report.facts).model_copy(
        update={
            "conditions": said,
            "observed_generation": resource.generation,
            "last_change": change or before.last_change,
            "last_handled_reconcile_at": clean(requested, 256) if requested else before.last_handled_reconcile_at,
        }
    )


def underway(before: Status, resource: Resource, told: tuple[Sequence[Outcome], Facts], now: datetime) -> Status:
    """Return the status in the middle of a visit."""
    (outcomes, facts) = told
    said = conditions.progress(outcomes, previous=before.conditions, generation=resource.generation, now=now)
    return _learned(before, facts).model_copy(update={"conditions": said})


def notes(before: Status, after: Status, report: Report) -> Iterator[Note]:
    """Yield the events of a visit: what it changed, and its trouble where that is not what it was before."""
    if report.changes:
        yield Note(type="Normal", reason=CHANGED, text=listed(report.changes))
    trouble = _trouble(after.conditions)
    if trouble is not None and trouble != _trouble(before.conditions):
        yield Note(type="Warning", reason=trouble[0], text=trouble[1])


def upcoming(report: Report) -> Next:
    """Return when the resource is to be visited again."""
    decisive = conditions.decisive(report.outcomes)
    if decisive is None or decisive.verdict is Verdict.STALLED:
        return Next.INTERVAL
    return Next.WAITING if decisive.reason is Reason.REFERENCE_NOT_FOUND else Next.BACKOFF


def result(report: Report) -> str:
    """Return how the metrics call the end of a visit."""
    decisive = conditions.decisive(report.outcomes)
    if decisive is None:
        return "success"
    is_error = decisive.verdict is Verdict.STALLED or decisive.reason is Reason.INTERNAL_ERROR
    return "error" if is_error else "requeue"


def is_settled(resource: Resource, status: Status) -> bool:
    """Return whether the status says that this very generation is done."""
    ready = next((each for each in status.conditions if each.type == conditions.READY), None)
    is_current = status.observed_generation == resource.generation
    return is_current and ready is not None and ready.status == "True"


def _trouble(said: Sequence[Condition]) -> tuple[str, str] | None:
    ready = next((each for each in said if each.type == conditions.READY), None)
    return (ready.reason, ready.message) if ready is not None and ready.status == "False" else None


def _learned(before: Status, facts: Facts) -> Status:
    learned = {
        "server": facts.server,
        "role": facts.role,
        "database": facts.database,
        "extensions": facts.extensions,
        "migrations": facts.migrations,
        "seed": facts.seed,
        "binding": BindingStatus(name=facts.binding) if facts.binding else None,
    }
    return before.model_copy(update={name: value for name, value in learned.items() if value is not None})
