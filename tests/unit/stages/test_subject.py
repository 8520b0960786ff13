"""The end of a visit as a status: what was learned is new, and everything else stays as it was known."""

from datetime import UTC, datetime

from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.status import BindingStatus, ExtensionStatus, RoleStatus, Status
from database_bootstrap.stages.subject import Facts, Report

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEFORE = Status(
    role=RoleStatus(name="r"), binding=BindingStatus(name="b"), extensions=(ExtensionStatus(name="e"),), conditions=()
)


def report(*changes: str) -> Report:
    said = [Outcome(stage=it, verdict=Verdict.DONE, reason=Reason.SUCCEEDED, message="Done.") for it in StageName]
    first = Outcome(stage=StageName.ROLE, verdict=Verdict.DONE, reason=Reason.SUCCEEDED, message="", changes=changes)
    return Report(outcomes=(first, *said[1:]), facts=Facts(role=RoleStatus(name="new")))


def test_who_learned_nothing_knows_what_was_known() -> None:
    assert Facts().over(BEFORE) == BEFORE


def test_what_was_learned_is_new_and_an_empty_list_is_a_fact() -> None:
    after = Facts(role=RoleStatus(name="new"), extensions=(), binding=BindingStatus(name="other")).over(BEFORE)
    assert (after.role, after.extensions) == (RoleStatus(name="new"), ())
    assert after.binding == BindingStatus(name="other")


def test_status_at_the_end_of_a_visit_is_of_its_generation() -> None:
    after = report("a", "b").over(BEFORE, generation=4, now=NOW)
    assert after.role == RoleStatus(name="new")
    assert {after.observed_generation, *(each.observed_generation for each in after.conditions)} == {4}
    assert after.last_change
    assert (after.last_change.changes, after.last_change.generation) == (2, 4)


def test_visit_that_changed_nothing_leaves_the_last_change() -> None:
    first = report("a").over(BEFORE, generation=1, now=NOW)
    assert report().over(first, generation=2, now=NOW).last_change == first.last_change
