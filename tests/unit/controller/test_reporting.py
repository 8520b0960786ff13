"""What a report becomes: status, events, the next visit."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.status import MigrationsStatus, RoleStatus, Status, parse_status
from database_bootstrap.controller import reporting
from database_bootstrap.controller.queue import JITTER
from database_bootstrap.controller.reporting import Next
from database_bootstrap.errors import ServerUnreachable, SpecRejected
from database_bootstrap.kube.resource import Key, Resource
from database_bootstrap.postgres.outage import Outage
from database_bootstrap.stages.subject import Facts, Report

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
RESOURCE = Resource(
    key=Key("shop", "db"), uid="u", version="1", generation=3, annotations={}, deleting=False, spec={}, status={}
)


def done(*changes: str) -> Report:
    outcomes = [
        Outcome(stage=stage, verdict=Verdict.DONE, reason=Reason.SUCCEEDED, message="Done.") for stage in StageName
    ]
    outcomes[0] = replace(outcomes[0], changes=changes)
    return Report(outcomes=tuple(outcomes), facts=Facts(role=RoleStatus(name="r")))


def trouble(verdict: Verdict, reason: Reason, message: str = "Away.") -> Report:
    first = Outcome(stage=StageName.ROLE, verdict=verdict, reason=reason, message=message)
    return Report(outcomes=(first,), facts=Facts())


def away(reason: Reason = Reason.SERVER_UNREACHABLE, *, refused: bool = False) -> Report:
    found = trouble(Verdict.RETRY, reason, "It is asked every second or two.")
    return replace(found, outage=Outage("away", lambda: 0.0), refused=refused)


def unpublished(reason: Reason) -> Report:
    last = Outcome(stage=StageName.CONNECTION, verdict=Verdict.STALLED, reason=reason, message="Another's.")
    return Report(outcomes=(*done().outcomes[:-1], last), facts=Facts())


OTHERS_PASSWORD = trouble(Verdict.STALLED, Reason.NOT_OWNED, "Secret shop-role exists and is not this resource's")


def test_final_status_has_the_generation_that_was_visited() -> None:
    status = reporting.final(Status(), RESOURCE, done(), NOW)
    assert status.observed_generation == 3
    assert {each.observed_generation for each in status.conditions} == {3}


def test_facts_that_a_visit_did_not_learn_are_kept() -> None:
    before = Status(role=RoleStatus(name="r"), migrations=MigrationsStatus(applied=4))
    status = reporting.final(before, RESOURCE, trouble(Verdict.RETRY, Reason.SERVER_UNREACHABLE), NOW)
    assert status.role == before.role
    assert status.migrations == before.migrations


def test_last_change_is_that_of_the_last_visit_that_changed_something() -> None:
    first = reporting.final(Status(), RESOURCE, done("a", "b"), NOW)
    second = reporting.final(first, RESOURCE, done(), LATER)
    assert second.last_change == first.last_change
    assert first.last_change is not None
    assert (first.last_change.changes, first.last_change.time) == (2, NOW)


def test_second_visit_that_finds_the_same_writes_the_same() -> None:
    first = reporting.final(Status(), RESOURCE, done("a"), NOW).manifest()
    second = reporting.final(parse_status(first), RESOURCE, done(), LATER).manifest()
    assert second == first


def test_request_for_a_visit_is_acknowledged_and_stays_so() -> None:
    asked = replace(RESOURCE, annotations={"dbbootstrap.io/reconcile-requested-at": "tuesday"})
    first = reporting.final(Status(), asked, done(), NOW)
    assert first.last_handled_reconcile_at == "tuesday"
    assert reporting.final(first, RESOURCE, done(), NOW).last_handled_reconcile_at == "tuesday"


def test_request_of_any_length_can_be_acknowledged() -> None:
    asked = replace(RESOURCE, annotations={"dbbootstrap.io/reconcile-requested-at": "x" * 10_000})
    said = reporting.final(Status(), asked, done(), NOW).last_handled_reconcile_at
    assert said is not None
    assert len(said) == 256


def test_visit_that_could_not_even_look_does_not_say_less_than_is_known() -> None:
    last = Outcome(stage=StageName.SEED, verdict=Verdict.RETRY, reason=Reason.SERVER_UNREACHABLE, message="Broke off.")
    known = reporting.final(Status(), RESOURCE, Report(outcomes=(*done().outcomes[:4], last), facts=Facts()), NOW)
    assert reporting.final(known, RESOURCE, away(refused=True), LATER) == known
    asked = replace(RESOURCE, annotations={"dbbootstrap.io/reconcile-requested-at": "tuesday"})
    assert reporting.final(known, asked, away(refused=True), LATER).last_handled_reconcile_at == "tuesday"


@pytest.mark.parametrize(
    ("before", "generation"),
    [
        pytest.param(Status(), 3, id="nothing is known"),
        pytest.param(reporting.final(Status(), RESOURCE, done(), NOW), 3, id="all was well"),
        pytest.param(
            reporting.final(Status(), RESOURCE, trouble(Verdict.RETRY, Reason.LOCK_HELD), NOW), 3, id="other trouble"
        ),
        pytest.param(reporting.final(Status(), RESOURCE, away(), NOW), 4, id="another generation"),
    ],
)
def test_visit_that_could_not_even_look_is_told_where_it_is_news(before: Status, generation: int) -> None:
    after = reporting.final(before, replace(RESOURCE, generation=generation), away(refused=True), LATER)
    assert after.observed_generation == generation
    (ready,) = (each for each in after.conditions if each.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "ServerUnreachable")
    assert ready.message == "It is asked every second or two."
    assert [each.status for each in after.conditions if each.type == "Reconciling"] == ["True"]


def test_progress_does_not_say_that_the_generation_is_done() -> None:
    status = reporting.underway(Status(observed_generation=2), RESOURCE, ((), Facts()), NOW)
    assert status.observed_generation == 2
    assert [each.type for each in status.conditions if each.status == "True"] == ["Reconciling"]


def test_event_lists_what_was_changed() -> None:
    report = done("create role", "create database")
    after = reporting.final(Status(), RESOURCE, report, NOW)
    (note,) = reporting.notes(Status(), after, report)
    assert (note.type, note.text) == ("Normal", "create role; create database")


def test_quiet_visit_has_no_event() -> None:
    after = reporting.final(Status(), RESOURCE, done(), NOW)
    assert not list(reporting.notes(after, after, done()))


def test_trouble_is_told_once_and_again_when_it_changes() -> None:
    away = trouble(Verdict.RETRY, Reason.SERVER_UNREACHABLE)
    first = reporting.final(Status(), RESOURCE, away, NOW)
    (note,) = reporting.notes(Status(), first, away)
    assert (note.type, note.reason) == ("Warning", "ServerUnreachable")
    assert not list(reporting.notes(first, reporting.final(first, RESOURCE, away, LATER), away))
    other = trouble(Verdict.RETRY, Reason.SERVER_UNREACHABLE, "Away too, but elsewhere.")
    assert list(reporting.notes(first, reporting.final(first, RESOURCE, other, LATER), other))


@pytest.mark.parametrize(
    ("report", "upcoming", "result"),
    [
        pytest.param(done(), Next.INTERVAL, "success", id="done"),
        pytest.param(trouble(Verdict.STALLED, Reason.NOT_OWNED), Next.INTERVAL, "error", id="needs a person"),
        pytest.param(trouble(Verdict.STALLED, Reason.REFERENCE_REJECTED), Next.CORRECTION, "error", id="wrong Secret"),
        pytest.param(trouble(Verdict.STALLED, Reason.PASSWORD_LOST), Next.CORRECTION, "error", id="lost Secret"),
        pytest.param(unpublished(Reason.NOT_OWNED), Next.CORRECTION, "error", id="another's Secret"),
        pytest.param(OTHERS_PASSWORD, Next.CORRECTION, "error", id="another's password"),
        pytest.param(unpublished(Reason.ACCESS_DENIED), Next.INTERVAL, "error", id="no Secret's fault"),
        pytest.param(trouble(Verdict.RETRY, Reason.SERVER_UNREACHABLE), Next.BACKOFF, "requeue", id="heals"),
        pytest.param(away(refused=True), Next.BACKOFF, "requeue", id="away: another Secret may name another server"),
        pytest.param(away(refused=False), Next.BACKOFF, "requeue", id="found away"),
        pytest.param(away(Reason.SERVER_BUSY), Next.RETURN, "requeue", id="one asks for all"),
        pytest.param(away(Reason.SERVER_READ_ONLY), Next.RETURN, "requeue", id="one asks a standby for all"),
        pytest.param(trouble(Verdict.RETRY, Reason.SERVER_BUSY), Next.BACKOFF, "requeue", id="nobody asks"),
        pytest.param(trouble(Verdict.RETRY, Reason.REFERENCE_NOT_FOUND), Next.WAITING, "requeue", id="may arrive"),
        pytest.param(trouble(Verdict.RETRY, Reason.INTERNAL_ERROR), Next.BACKOFF, "error", id="a defect"),
        pytest.param(Report(outcomes=(), facts=Facts()), Next.BACKOFF, "error", id="silence"),
    ],
)
def test_next_visit_and_result(report: Report, upcoming: Next, result: str) -> None:
    assert reporting.upcoming(report) is upcoming
    assert reporting.result(report) == result


@pytest.mark.parametrize(
    ("upcoming", "lasted", "delay"),
    [
        (Next.WAITING, 0, 4),
        (Next.WAITING, 120, 4),
        (Next.WAITING, 300, 10),
        (Next.WAITING, 900, 30),
        (Next.WAITING, 1e6, 30),
        (Next.CORRECTION, 0, 15),
        (Next.CORRECTION, 120, 15),
        (Next.CORRECTION, 480, 60),
        (Next.CORRECTION, 1e6, 60),
    ],
)
def test_what_has_been_missing_for_long_is_looked_for_less_often(upcoming: Next, lasted: float, delay: float) -> None:
    assert reporting.soon(upcoming, lasted) == delay


def test_secret_that_is_waited_for_is_found_within_five_seconds() -> None:
    assert reporting.soon(Next.WAITING, reporting.PATIENCE_SECONDS) * (1 + JITTER) < 5


@pytest.mark.parametrize(
    ("reason", "delay"),
    [
        (Reason.SERVER_UNREACHABLE, 30),
        (Reason.SERVER_BUSY, 30),
        (Reason.SERVER_READ_ONLY, 30),
        (Reason.ADMIN_LOGIN_REFUSED, 30),
        (Reason.CLUSTER_UNAVAILABLE, 30),
        (Reason.INTERNAL_ERROR, 300),
        (Reason.NOT_CONVERGING, 300),
    ],
)
def test_delay_is_short_where_something_comes_back_by_itself(reason: Reason, delay: float) -> None:
    assert reporting.longest_delay(reason) == delay


@pytest.mark.parametrize(
    ("report", "hinted"),
    [
        pytest.param(trouble(Verdict.STALLED, Reason.ROLE_OWNS_OBJECTS), True, id="mended on the server"),
        pytest.param(trouble(Verdict.STALLED, Reason.NOT_OWNED), True, id="a role that is another's"),
        pytest.param(unpublished(Reason.NOT_OWNED), False, id="a Secret that is another's"),
        pytest.param(OTHERS_PASSWORD, False, id="a password that is another's"),
        pytest.param(trouble(Verdict.STALLED, Reason.SPEC_REJECTED), False, id="mended in the resource"),
        pytest.param(trouble(Verdict.RETRY, Reason.ACCESS_DENIED), False, id="goes on by itself"),
    ],
)
def test_whoever_mends_something_on_the_server_is_told_how_to_be_looked_at(report: Report, hinted: bool) -> None:
    often = replace(RESOURCE, spec={"intervalSeconds": 30})
    ready = reporting.final(Status(), often, report, NOW).conditions[0]
    assert ("dbbootstrap.io/reconcile-requested-at=<any new value>" in ready.message) is hinted
    assert ("up to 30 s." in ready.message) is hinted


def test_visit_that_could_not_begin_blocks_all_stages() -> None:
    status = reporting.final(Status(), RESOURCE, reporting.rejected(SpecRejected("`role.name` is no name")), NOW)
    said = {each.type: (each.status, each.reason) for each in status.conditions}
    assert said["Stalled"] == ("True", "SpecRejected")
    assert said["RoleReady"] == ("False", "SpecRejected")
    assert said["Seeded"] == ("Unknown", "Blocked")
    assert reporting.upcoming(reporting.rejected(ServerUnreachable("away"))) is Next.BACKOFF


@pytest.mark.parametrize(
    ("observed", "report", "settled"),
    [
        pytest.param(3, done(), True, id="current and ready"),
        pytest.param(2, done(), False, id="of an older generation"),
        pytest.param(3, trouble(Verdict.STALLED, Reason.NOT_OWNED), False, id="not ready"),
    ],
)
def test_only_a_current_and_ready_resource_is_settled(observed: int, report: Report, settled: bool) -> None:
    status = reporting.final(Status(), replace(RESOURCE, generation=observed), report, NOW)
    assert reporting.is_settled(RESOURCE, status) is settled


def test_nothing_is_settled_before_the_first_visit() -> None:
    assert not reporting.is_settled(RESOURCE, Status())
