"""The summary of a visit, derived in one place from what its stages say; pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.status import Condition

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
TYPES = (READY, RECONCILING, STALLED, *(stage.condition for stage in StageName))
"""Every condition there is, in the order in which they are written."""

IN_PLACE = "Role, database, extensions, migrations, seed, connection and access are as the resource wants them."
WILL_RETRY = "The operator tries again by itself."

Truth = Literal["True", "False", "Unknown"]
TRUTH: dict[Verdict, Truth] = {
    Verdict.DONE: "True",
    Verdict.RETRY: "False",
    Verdict.STALLED: "False",
    Verdict.BLOCKED: "Unknown",
    Verdict.UNDERWAY: "Unknown",
}


def derive(
    outcomes: Iterable[Outcome], *, previous: Sequence[Condition], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return all conditions at the end of a visit; a condition that is not among them is not true any more."""
    line = in_line(outcomes)
    pen = Pen(previous, generation, now)
    return (*_summary(decisive(line), pen), *(_of_stage(outcome, pen) for outcome in line))


def progress(
    outcomes: Iterable[Outcome], *, previous: Sequence[Condition], generation: int, now: datetime, detail: str = ""
) -> tuple[Condition, ...]:
    """Return the conditions in the middle of a visit; `outcomes` are those of the stages that have ended.

    The one that is under way may be among them, to say what it is about to do; `detail` says how far it is.
    """
    outcomes = tuple(outcomes)
    about = next((outcome.message for outcome in outcomes if outcome.verdict is Verdict.UNDERWAY), None)
    ended = {outcome.stage: outcome for outcome in in_line(outcomes) if outcome.verdict is Verdict.DONE}
    ahead = [stage for stage in StageName if stage not in ended]
    doing = detail or about or (f"Working on stage {ahead[0]}." if ahead else "Publishing what was done.")
    pen = Pen(previous, generation, now)
    summary = (
        pen.write(READY, "Unknown", Reason.PROGRESSING, doing),
        pen.write(RECONCILING, "True", Reason.PROGRESSING, doing),
    )
    return (*summary, *(_underway(stage, ended.get(stage), doing, pen) for stage in StageName))


def in_order(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Return the outcomes in the order of their stages."""
    order = list(StageName)
    return tuple(sorted(outcomes, key=lambda outcome: order.index(outcome.stage)))


def in_line(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Return one outcome for each stage, in order; what comes after a failure was not looked at.

    But for the access of others: what needs a person, once the database is there, does not keep anybody from that.
    """
    return tuple(_lined_up({outcome.stage: outcome for outcome in outcomes}))


def decisive(outcomes: Iterable[Outcome]) -> Outcome | None:
    """Return the outcome that a visit stopped at; None when all ended well."""
    return next((outcome for outcome in in_line(outcomes) if outcome.verdict is not Verdict.DONE), None)


def _lined_up(said: dict[StageName, Outcome]) -> Iterator[Outcome]:
    failed: Outcome | None = None
    for stage in StageName:
        if failed is not None and not (stage is StageName.ACCESS and _lets_others_in(failed) and stage in said):
            yield _blocked(stage, failed)
            continue
        outcome = said.get(stage) or _silent(stage)
        if outcome.verdict in {Verdict.BLOCKED, Verdict.UNDERWAY}:
            outcome = replace(outcome, verdict=Verdict.RETRY)  # By nothing that anybody told of; or it has no end.
        if outcome.verdict is not Verdict.DONE:
            failed = failed or outcome
        yield outcome


def _lets_others_in(failed: Outcome) -> bool:
    return failed.verdict is Verdict.STALLED and failed.stage not in {StageName.ROLE, StageName.DATABASE}


def _blocked(stage: StageName, failed: Outcome) -> Outcome:
    message = f"Waits for {failed.stage.condition}."
    return Outcome(stage=stage, verdict=Verdict.BLOCKED, reason=Reason.BLOCKED, message=message)


def _silent(stage: StageName) -> Outcome:
    message = f"The stage {stage} said nothing."
    return Outcome(stage=stage, verdict=Verdict.RETRY, reason=Reason.INTERNAL_ERROR, message=message)


def _summary(failed: Outcome | None, pen: "Pen") -> Iterator[Condition]:
    if failed is None:
        yield pen.write(READY, "True", Reason.SUCCEEDED, IN_PLACE)
        return
    yield pen.write(READY, "False", failed.reason, failed.message)
    if failed.verdict is Verdict.STALLED:
        yield pen.write(STALLED, "True", failed.reason, failed.message)
    else:
        yield pen.write(RECONCILING, "True", Reason.PROGRESSING_WITH_RETRY, WILL_RETRY)


def _of_stage(outcome: Outcome, pen: "Pen") -> Condition:
    # A warning belongs to the state as long as it is true, so it stays visible after its event is gone.
    message = " ".join((outcome.message, *outcome.warnings))
    return pen.write(outcome.stage.condition, TRUTH[outcome.verdict], outcome.reason, message)


def _underway(stage: StageName, ended: Outcome | None, doing: str, pen: "Pen") -> Condition:
    if ended is not None:
        return _of_stage(ended, pen)
    return pen.write(stage.condition, "Unknown", Reason.PROGRESSING, doing)


class Pen:
    """Writes conditions of one visit; the time of a transition is that of the last change of `status`."""

    def __init__(self, previous: Sequence[Condition], generation: int, now: datetime) -> None:
        self._before = {condition.type: condition for condition in previous}
        self._generation = generation
        self._now = now.astimezone(UTC).replace(microsecond=0)

    def write(self, kind: str, truth: Truth, reason: Reason, message: str) -> Condition:
        before = self._before.get(kind)
        since = before.last_transition_time if before is not None and before.status == truth else self._now
        return Condition(
            type=kind,
            status=truth,
            observed_generation=self._generation,
            last_transition_time=since,
            reason=reason,
            message=message,
        )
