"""What a report means outside of the engine: the status, the events, and when to come again; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from enum import Enum, auto
from typing import TypeVar

from database_bootstrap.api import conditions, names
from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.server_status import ServerObjectStatus
from database_bootstrap.api.status import Condition, Status, clean
from database_bootstrap.controller.queue import LAST_DELAY
from database_bootstrap.errors import BootstrapError, Retryable
from database_bootstrap.kube.recorder import Note, listed
from database_bootstrap.kube.resource import Resource
from database_bootstrap.stages.subject import Facts, Report

INTERVAL_SECONDS = 600.0
PATIENCE_SECONDS = 120.0
"""For so long what is missing, or wrong, is looked for as often as at first."""
AWAY_SECONDS = 30.0
"""The longest delay where a server is not to be had now: it comes back at any time, and applications wait for it."""
AWAY = {
    Reason.SERVER_UNREACHABLE,
    Reason.SERVER_BUSY,
    Reason.SERVER_READ_ONLY,
    Reason.ADMIN_LOGIN_REFUSED,
    Reason.CLUSTER_UNAVAILABLE,
}
MENDED_IN_POSTGRESQL = {
    Reason.ACCESS_DENIED,
    Reason.DATA_LOSS_DETECTED,
    Reason.EXTENSION_UNAVAILABLE,
    Reason.FOREIGN_DATABASE,
    Reason.NOT_OWNED,
    Reason.ROLE_LOGIN_REFUSED,
    Reason.ROLE_OWNS_OBJECTS,
    Reason.ROLE_TOO_POWERFUL,
    Reason.SCHEMA_HAS_OTHER_OWNER,
    Reason.SETTING_MISMATCH,
}
"""What a person may put right on the server, of which nothing tells the operator."""
CHANGED = "Changed"
"""The reason of the event that lists what a visit changed."""

Told = TypeVar("Told", Status, ServerObjectStatus)


class Next(Enum):
    """When a resource is to be visited again."""

    INTERVAL = auto()
    """After the resource's own interval."""
    BACKOFF = auto()
    """After a delay that grows with each failure."""
    RETURN = auto()
    """When the server is of use again, which one finds out for all; or after a while, if that does not come."""
    WAITING = auto()
    """Soon: something that nobody tells us of may arrive."""
    CORRECTION = auto()
    """A little later: a Secret may be corrected, and nobody tells us of that either."""


def rejected(error: BootstrapError) -> Report:
    """Return the report of a visit that could not begin."""
    verdict = Verdict.RETRY if isinstance(error, Retryable) else Verdict.STALLED
    outcome = Outcome(stage=StageName.ROLE, verdict=verdict, reason=Reason(error.reason), message=error.message)
    return Report(outcomes=(outcome,), facts=Facts())


def held(error: BootstrapError, resource: Resource) -> Report:
    """Return the report of a deletion that did not reach its end, with the way out that a person always has."""
    (namespace, name) = resource.key
    let_go = (
        "To let the resource go and keep what is there: "
        f"kubectl patch {names.SHORT_NAME}/{name} --namespace {namespace} "
        '--type merge --patch \'{"spec": {"deletionPolicy": "Retain"}}\''
    )
    report = _with_way_back(rejected(error), resource)
    (outcome,) = report.outcomes
    message = f"The resource is being deleted, and stays until this is settled: {outcome.message.rstrip('.')}. {let_go}"
    return replace(report, outcomes=(replace(outcome, message=message),))


def final(before: Status, resource: Resource, report: Report, now: datetime) -> Status:
    """Return the status at the end of a visit to this version of the resource."""
    after = (
        before
        if _says_nothing_new(before, resource, report)
        else _with_way_back(report, resource).over(before, generation=resource.generation, now=now)
    )
    return acknowledged(after, resource)


def acknowledged(status: Told, resource: Resource) -> Told:
    """Return the status with the word on which this version was looked at, if there was one."""
    requested = resource.annotations.get(names.ANNOTATION_RECONCILE_REQUESTED_AT)
    return status.model_copy(update={"last_handled_reconcile_at": clean(requested, 256)}) if requested else status


def underway(before: Status, resource: Resource, told: tuple[Sequence[Outcome], Facts], now: datetime) -> Status:
    """Return the status in the middle of a visit."""
    (outcomes, facts) = told
    said = conditions.progress(
        outcomes, previous=before.conditions, generation=resource.generation, now=now, detail=facts.doing
    )
    return facts.over(before).model_copy(update={"conditions": said})


def notes(before: Status, after: Status, report: Report) -> Iterator[Note]:
    """Yield the events of a visit: what it changed, and its trouble where that is not what it was before."""
    if report.changes:
        yield Note(type="Normal", reason=CHANGED, text=listed(report.changes))
    yield from warnings(before.conditions, after.conditions)


def warnings(before: Sequence[Condition], after: Sequence[Condition]) -> Iterator[Note]:
    """Yield the event of a trouble that is not what it was before."""
    trouble = _trouble(after)
    if trouble is not None and trouble != _trouble(before):
        yield Note(type="Warning", reason=trouble[0], text=trouble[1])


def upcoming(report: Report) -> Next:
    """Return when the resource is to be visited again."""
    decisive = conditions.decisive(report.outcomes)
    if decisive is None:
        return Next.INTERVAL
    if decisive.verdict is Verdict.STALLED:
        return Next.CORRECTION if _is_about_a_secret(decisive) else Next.INTERVAL
    if decisive.reason in {Reason.REFERENCE_NOT_FOUND, Reason.ACCESS_ROLE_NOT_FOUND}:
        return Next.WAITING
    if report.outage is None or decisive.reason is Reason.SERVER_UNREACHABLE:
        # While a server is away a visit costs no more than a look at the Secret, which may name another one by then.
        return Next.BACKOFF
    return Next.RETURN


def soon(upcoming: Next, lasted: float) -> float:
    """Return in how many seconds to look again for what has been missing, or wrong, for so long already.

    With jitter the first delay of what is missing is less than the 5 s within which a Secret that is waited for is
    found. What is missing for longer than two minutes is looked for less and less often.
    """
    shortest, longest = (4.0, 30.0) if upcoming is Next.WAITING else (15.0, 60.0)
    return min(max(shortest, lasted * shortest / PATIENCE_SECONDS), longest)


def longest_delay(reason: str) -> float:
    """Return the limit of the delay that grows with each failure."""
    return AWAY_SECONDS if reason in AWAY else LAST_DELAY


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


def _says_nothing_new(before: Status, resource: Resource, report: Report) -> bool:
    """Return whether a visit that could not even look says no more than the one that found out."""
    ready = next((each for each in before.conditions if each.type == conditions.READY), None)
    is_current = report.refused and before.observed_generation == resource.generation
    return is_current and ready is not None and (ready.status, ready.reason) == ("False", Reason.SERVER_UNREACHABLE)


def _with_way_back(report: Report, resource: Resource) -> Report:
    """Return the report with the way to be looked at again, for whoever is about to mend something on the server."""
    interval = resource.spec.get("intervalSeconds", INTERVAL_SECONDS)
    hint = (
        "Where it is mended in PostgreSQL, annotate the resource with "
        f"{names.ANNOTATION_RECONCILE_REQUESTED_AT}=<any new value> to have it looked at now; else that takes up to "
        f"{float(interval):.0f} s"
    )
    outcomes = tuple(
        replace(each, message=f"{each.message.rstrip('.')}. {hint}.") if _may_be_mended_on_the_server(each) else each
        for each in report.outcomes
    )
    return replace(report, outcomes=outcomes)


def _may_be_mended_on_the_server(outcome: Outcome) -> bool:
    if outcome.verdict is not Verdict.STALLED or _is_about_a_secret(outcome):
        return False
    is_said = names.ANNOTATION_RECONCILE_REQUESTED_AT in outcome.message
    return outcome.reason in MENDED_IN_POSTGRESQL and not is_said


def _is_about_a_secret(outcome: Outcome) -> bool:
    if outcome.reason is Reason.NOT_OWNED:
        # Of the stage of the role it is the Secret of the generated password; elsewhere it is a role or a database.
        return outcome.stage is StageName.CONNECTION or outcome.message.startswith("Secret ")
    # A namespace's labels, which a DatabaseServer may ask for, change as quietly as a Secret does.
    return outcome.reason in {Reason.REFERENCE_REJECTED, Reason.PASSWORD_LOST, Reason.SERVER_REFUSED}


def _trouble(said: Sequence[Condition]) -> tuple[str, str] | None:
    ready = next((each for each in said if each.type == conditions.READY), None)
    return (ready.reason, ready.message) if ready is not None and ready.status == "False" else None
