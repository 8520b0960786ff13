"""Conditions: for every possible end of a visit they obey the linter, and kstatus gives the answer of the table.

| the first stage that is not done | Ready | beside it | kstatus |
| --- | --- | --- | --- |
| none | True/Succeeded | nothing | Current |
| retry | False/its reason | Reconciling/ProgressingWithRetry | InProgress |
| stalled | False/its reason | Stalled/its reason | Failed |
| (in the middle) | Unknown/Progressing | Reconciling/Progressing | InProgress |
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.api import conditions
from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.status import MESSAGE_LENGTH, Condition, Status
from status_linter import kstatus, lint_history, lint_status

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAGES = list(StageName)

ends = st.builds(
    Outcome,
    stage=st.sampled_from(STAGES),
    verdict=st.sampled_from(Verdict),
    reason=st.sampled_from([Reason.ROLE_IN_PLACE, Reason.LOCK_HELD, Reason.MIGRATION_FAILED, Reason.NOT_REQUESTED]),
    message=st.text(min_size=1),
    warnings=st.lists(st.text(), max_size=2).map(tuple),
)
visits = st.lists(ends, max_size=8)


def done(stage: StageName) -> Outcome:
    return Outcome(stage=stage, verdict=Verdict.DONE, reason=Reason.ROLE_IN_PLACE, message="It is there.")


def ended(stage: StageName, verdict: Verdict, reason: Reason, message: str = "It is not.") -> Outcome:
    return Outcome(stage=stage, verdict=verdict, reason=reason, message=message)


ALL_DONE = [done(stage) for stage in STAGES]
LOCKED = [*ALL_DONE[:3], ended(StageName.MIGRATIONS, Verdict.RETRY, Reason.LOCK_HELD)]
FAILED = [*ALL_DONE[:3], ended(StageName.MIGRATIONS, Verdict.STALLED, Reason.MIGRATION_FAILED)]


def derive(outcomes: Sequence[Outcome], previous: Sequence[Condition] = (), hours: int = 0) -> tuple[Condition, ...]:
    return conditions.derive(outcomes, previous=previous, generation=2, now=NOW + timedelta(hours=hours))


def progress(outcomes: Sequence[Outcome], previous: Sequence[Condition] = (), hours: int = 0) -> tuple[Condition, ...]:
    return conditions.progress(outcomes, previous=previous, generation=2, now=NOW + timedelta(hours=hours))


def obj(told: tuple[Condition, ...], *, observed: int = 2, generation: int = 2) -> dict[str, Any]:
    status = Status(observed_generation=observed, conditions=told).manifest()
    return {"metadata": {"generation": generation}, "status": status}


def brief(told: tuple[Condition, ...]) -> dict[str, str]:
    return {condition.type: f"{condition.status}/{condition.reason}" for condition in told}


@pytest.mark.parametrize(
    ("outcomes", "summary", "verdict"),
    [
        pytest.param(ALL_DONE, {"Ready": "True/Succeeded"}, "Current", id="done"),
        pytest.param(
            LOCKED,
            {"Ready": "False/LockHeld", "Reconciling": "True/ProgressingWithRetry"},
            "InProgress",
            id="will heal by itself",
        ),
        pytest.param(
            FAILED, {"Ready": "False/MigrationFailed", "Stalled": "True/MigrationFailed"}, "Failed", id="needs a person"
        ),
    ],
)
def test_summary_is_that_of_the_table(outcomes: list[Outcome], summary: dict[str, str], verdict: str) -> None:
    told = derive(outcomes)
    assert {kind: it for kind, it in brief(told).items() if kind in conditions.TYPES[:3]} == summary
    assert kstatus(obj(told)) == verdict


def test_just_created_is_in_progress() -> None:
    assert kstatus({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}}) == "InProgress"


def test_a_changed_spec_is_in_progress_until_it_was_looked_at() -> None:
    assert kstatus(obj(derive(ALL_DONE), generation=3)) == "InProgress"


def test_stages_before_a_failure_stay_true_and_those_after_it_are_blocked() -> None:
    told = brief(derive(FAILED))
    stages = [told[stage.condition] for stage in STAGES]
    assert stages[:4] == [*["True/RoleInPlace"] * 3, "False/MigrationFailed"]
    assert set(stages[4:]) == {"Unknown/Blocked"}
    assert derive(FAILED)[-1].message == "Waits for MigrationsApplied."


def test_what_is_said_after_a_failure_does_not_count() -> None:
    assert derive([*FAILED, done(StageName.SEED)]) == derive(FAILED)


@pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.RETRY, Verdict.STALLED])
def test_access_is_seen_to_although_another_stage_waits_for_a_person(verdict: Verdict) -> None:
    told = derive([*FAILED, ended(StageName.ACCESS, verdict, Reason.ACCESS_ROLE_NOT_FOUND)])
    assert brief(told)["AccessReady"] == f"{conditions.TRUTH[verdict]}/AccessRoleNotFound"
    assert brief(told)["Ready"] == "False/MigrationFailed"
    assert brief(told)["Seeded"] == "Unknown/Blocked"
    assert lint_status(obj(told)) == []
    locked = brief(derive([*LOCKED, done(StageName.ACCESS)]))
    assert locked["AccessReady"] == "Unknown/Blocked"


def test_a_stage_that_says_nothing_is_a_defect() -> None:
    assert brief(derive(ALL_DONE[:2]))["Ready"] == "False/InternalError"
    assert brief(derive([]))["RoleReady"] == "False/InternalError"


def test_decisive_is_what_the_visit_stopped_at() -> None:
    assert conditions.decisive(FAILED) == FAILED[-1]
    assert conditions.decisive(ALL_DONE) is None


def test_warnings_stay_visible_in_the_stage_but_not_in_ready() -> None:
    warned = Outcome(
        stage=StageName.SEED, verdict=Verdict.DONE, reason=Reason.DATABASE_SEEDED, message="Done.", warnings=("Note.",)
    )
    told = derive([*ALL_DONE, warned])
    assert {it.type: it.message for it in told}["Seeded"] == "Done. Note."
    assert "Note." not in told[0].message


def test_order_is_fixed() -> None:
    assert [it.type for it in derive(list(reversed(FAILED)))] == [
        kind for kind in conditions.TYPES if kind != "Reconciling"
    ]


def test_the_middle_of_a_visit() -> None:
    told = progress(ALL_DONE[:3])
    assert brief(told) == {
        "Ready": "Unknown/Progressing",
        "Reconciling": "True/Progressing",
        "RoleReady": "True/RoleInPlace",
        "DatabaseReady": "True/RoleInPlace",
        "ExtensionsReady": "True/RoleInPlace",
        "MigrationsApplied": "Unknown/Progressing",
        "Seeded": "Unknown/Progressing",
        "ConnectionPublished": "Unknown/Progressing",
        "AccessReady": "Unknown/Progressing",
    }
    assert told[0].message == "Working on stage migrations."
    assert kstatus(obj(told)) == "InProgress"


def test_the_middle_of_a_first_visit_may_have_no_observed_generation_yet() -> None:
    assert lint_status(obj(progress([]), observed=-1)) == []


def test_time_moves_only_with_the_status() -> None:
    first = derive(LOCKED)
    second = derive(FAILED, first, hours=1)
    times = {it.type: it.last_transition_time for it in second}
    assert times["Ready"] == times["MigrationsApplied"] == NOW
    assert times["Stalled"] == NOW + timedelta(hours=1)
    third = derive(ALL_DONE, second, hours=2)
    assert {it.type: it.last_transition_time for it in third}["Ready"] == NOW + timedelta(hours=2)
    assert {it.type: it.last_transition_time for it in third}["RoleReady"] == NOW


def test_a_visit_that_ends_as_the_last_one_changes_nothing() -> None:
    assert derive(FAILED, derive(FAILED), hours=5) == derive(FAILED)


@given(st.text(min_size=1, alphabet=st.characters(codec=None)) | st.just("x" * 40_000))
def test_messages_are_cleaned_and_cut(message: str) -> None:
    told = derive([ended(StageName.ROLE, Verdict.STALLED, Reason.ACCESS_DENIED, message)])
    assert lint_status(obj(told)) == []
    assert all(len(it.message) <= MESSAGE_LENGTH for it in told)


@given(visits)
def test_every_end_of_a_visit_obeys_the_linter_and_the_table(outcomes: list[Outcome]) -> None:
    told = derive(outcomes)
    assert lint_status(obj(told)) == []
    decisive = conditions.decisive(outcomes)
    expected = "Current" if decisive is None else "Failed" if decisive.verdict is Verdict.STALLED else "InProgress"
    assert kstatus(obj(told)) == expected


@given(visits)
def test_every_middle_of_a_visit_obeys_the_linter(outcomes: list[Outcome]) -> None:
    told = progress(outcomes)
    assert lint_status(obj(told)) == []
    assert kstatus(obj(told)) == "InProgress"


@given(st.lists(st.tuples(st.booleans(), visits), max_size=6))
def test_every_history_obeys_the_linter(history: list[tuple[bool, list[Outcome]]]) -> None:
    versions, previous = [], derive(ALL_DONE)
    for hours, (ends_here, outcomes) in enumerate(history):
        previous = (derive if ends_here else progress)(outcomes, previous, hours)
        versions.append(obj(previous))
    assert lint_history(versions) == []
