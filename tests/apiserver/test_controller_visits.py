"""From a watch event to a status: the controller on a real API server, with an engine that the test plays."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.kube.client import Call, Kube
from database_bootstrap.stages.subject import Facts, Progress, Report, Subject
from database_bootstrap.stages.surroundings import Surroundings
from fix_operator import BOOTSTRAPS, Stage, all_done, soon, stopped
from fix_status import StatusWatch

Play = Callable[[Subject, Surroundings, Progress], Awaitable[Report]]
REQUESTED = "dbbootstrap.io/reconcile-requested-at"
WATCHED = {"metadata": {"name": "files", "labels": {"dbbootstrap.io/watch": "true"}}, "data": {"V1__a.sql": "SELECT 1"}}
FILES = {"tool": "SQL", "source": {"configMapRefs": [{"name": "files"}]}}


def says(*reports: Report) -> Play:
    """Return an engine's part: these reports, one a visit; the last one stays."""
    left = list(reports)

    async def play(*_: object) -> Report:
        return left.pop(0) if len(left) > 1 else left[0]

    return play


async def settled(stage: Stage, visits: int) -> None:
    """Wait until so many visits were made, and make sure that no further one follows from what they wrote."""
    await soon(lambda: len(stage.line.visits) >= visits)
    # There is one worker, and a queue. Once the first of these is visited, all echoes have come in; once the second is,
    # whatever followed from them was visited too.
    for name in ("last-of-all", "really-last"):
        stage.create(name)
        await soon(lambda: name in visited(stage))  # noqa: B023 awaited here
    assert visited(stage).count("shop") == visits


def visited(stage: Stage) -> list[str]:
    """Return the names of the resources that were visited, in order."""
    return [visit.owner.name for visit in stage.line.visits]


async def test_new_resource_is_visited_once_and_its_status_written_once(stage: Stage) -> None:
    made = stage.create()
    await soon(lambda: stage.ready() == ("True", "Succeeded"))
    await settled(stage, 1)
    assert stage.writes()[0] == "patch databasebootstraps/status shop 200"
    assert [line for line in stage.writes() if "shop" in line] == ["patch databasebootstraps/status shop 200"]
    (subject, *_) = stage.line.visits
    assert subject.owner.uid == made["metadata"]["uid"]
    assert (subject.owner.cluster, subject.owner.namespace) == ("tests", stage.namespace)


async def test_kopf_leaves_no_trace_on_the_resource(stage: Stage) -> None:
    stage.create()
    await soon(stage.ready)
    metadata = stage.get()["metadata"]
    assert "finalizers" not in metadata
    assert "annotations" not in metadata
    status_owners = {
        (it["manager"], it["operation"]) for it in metadata["managedFields"] if it.get("subresource") == "status"
    }
    assert status_owners == {("database-bootstrap-operator", "Apply")}
    assert {it["manager"] for it in metadata["managedFields"]} <= {"database-bootstrap-operator", "Python-urllib"}


async def test_visit_that_finds_nothing_to_do_writes_nothing(stage: Stage) -> None:
    stage.plane.request("POST", f"/api/v1/namespaces/{stage.namespace}/configmaps", WATCHED)
    stage.create(migrations=FILES)
    await soon(stage.ready)
    before, writes = stage.get(), stage.writes()
    stage.plane.request("PATCH", f"/api/v1/namespaces/{stage.namespace}/configmaps/files", {"data": {"x": "y"}})
    await soon(lambda: len(stage.line.visits) == 2)
    await settled(stage, 2)
    assert stage.get()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert [line for line in stage.writes() if "last" not in line] == writes


class LateReplies(Kube):
    """A client to which the watch tells of a write before the reply to it is there."""

    async def send(self, call: Call) -> Any:
        reply = await super().send(call)
        await asyncio.sleep(0.3 if call.subresource == "status" else 0)
        return reply


async def test_echo_that_comes_before_the_reply_causes_no_visit(
    make_stage: Callable[..., Awaitable[Stage]],
) -> None:
    stage = await make_stage(client=LateReplies)
    stage.create()
    await soon(stage.ready)
    await settled(stage, 1)


async def test_change_of_the_spec_is_visited_and_of_a_label_is_not(stage: Stage) -> None:
    stage.create()
    await soon(stage.ready)
    stage.patch({"metadata": {"labels": {"team": "a"}}})
    stage.patch({"spec": {"role": {"connectionLimit": 7}}})
    await soon(lambda: stage.get()["status"]["observedGeneration"] == 2)
    assert stage.line.visits[-1].spec.role.connection_limit == 7
    await settled(stage, 2)


async def test_requested_visit_is_made_and_acknowledged(stage: Stage) -> None:
    stage.create()
    await soon(stage.ready)
    stage.patch({"metadata": {"annotations": {REQUESTED: "tuesday"}}})
    await soon(lambda: stage.get()["status"].get("lastHandledReconcileAt") == "tuesday")
    await settled(stage, 2)


async def test_requested_visit_is_made_of_a_resource_that_waits_for_a_person_too(stage: Stage) -> None:
    stalled = stopped(Verdict.STALLED, Reason.MIGRATION_HALF_APPLIED, "2_log.sql stopped in the middle.")
    stage.line.play = says(stalled, all_done())
    stage.create()
    await soon(lambda: stage.ready() == ("False", "MigrationHalfApplied"))
    assert len(stage.line.visits) == 1
    stage.patch({"metadata": {"annotations": {REQUESTED: "wednesday"}}})
    await soon(lambda: stage.ready() == ("True", "Succeeded"))
    assert stage.get()["status"]["lastHandledReconcileAt"] == "wednesday"
    await settled(stage, 2)


async def test_status_that_somebody_else_wiped_is_written_again(stage: Stage, status_watch: StatusWatch) -> None:
    status_watch.excuse(stage.namespace, "shop")
    stage.create()
    await soon(stage.ready)
    stage.plane.request("PUT", f"{BOOTSTRAPS.format(stage.namespace)}/shop/status", stage.get() | {"status": {}})
    await soon(lambda: stage.ready() == ("True", "Succeeded"))
    assert len(stage.line.visits) == 2


async def test_suspended_resource_is_left_alone_until_it_is_not(stage: Stage) -> None:
    stage.create(suspend=True)
    await settled(stage, 0)
    assert stage.ready() is None
    stage.patch({"spec": {"suspend": False}})
    await soon(lambda: stage.ready() == ("True", "Succeeded"))
    stage.patch({"spec": {"suspend": True}})
    stage.patch({"metadata": {"annotations": {REQUESTED: "now"}}})
    stage.create("another")
    await soon(lambda: stage.ready("another"))
    assert "lastHandledReconcileAt" not in stage.get()["status"]


async def test_progress_is_told_in_the_middle_of_a_visit(stage: Stage) -> None:
    go_on = asyncio.Event()
    role = Outcome(stage=StageName.ROLE, verdict=Verdict.DONE, reason=Reason.ROLE_IN_PLACE, message="In place.")

    async def play(_: Subject, __: Surroundings, progress: Progress) -> Report:
        await progress((role,), Facts(binding=None))
        await go_on.wait()
        return all_done("create role")

    stage.line.play = play
    stage.create()
    await soon(lambda: stage.ready() == ("Unknown", "Progressing"))
    assert stage.get()["status"]["observedGeneration"] == -1
    go_on.set()
    await soon(lambda: stage.ready() == ("True", "Succeeded"))
    await settled(stage, 1)


async def test_change_of_the_spec_during_a_visit_is_not_lost(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def play(*_: object) -> Report:
        await go_on.wait()
        return all_done()

    stage.line.play = play
    stage.create()
    await soon(lambda: stage.line.visits)
    stage.patch({"spec": {"role": {"connectionLimit": 9}}})
    go_on.set()
    await soon(lambda: (stage.get().get("status") or {}).get("observedGeneration") == 2)
    assert [visit.spec.role.connection_limit for visit in stage.line.visits] == [None, 9]


async def test_status_finds_its_way_when_the_resource_was_changed_behind_the_watch(stage: Stage) -> None:
    # The change is made within the visit, without giving the watch a chance to tell of it before the status is written.
    async def play(*_: object) -> Report:
        stage.line.play = None
        stage.patch({"metadata": {"labels": {"changed": "meanwhile"}}})
        return all_done()

    stage.line.play = play
    stage.create()
    await soon(lambda: stage.ready() == ("True", "Succeeded"))
    await settled(stage, 1)
    codes = [line.rsplit(" ", 1)[1] for line in stage.writes() if "status shop" in line]
    assert codes[-1] == "200"


async def test_resource_that_is_deleted_during_its_visit_is_forgotten(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def play(*_: object) -> Report:
        await go_on.wait()
        return all_done()

    stage.line.play = play
    stage.create()
    await soon(lambda: stage.line.visits)
    stage.delete()
    go_on.set()
    stage.line.play = None
    again = stage.create()
    await soon(lambda: stage.ready() == ("True", "Succeeded"))
    assert [visit.owner.uid for visit in stage.line.visits][-1] == again["metadata"]["uid"]


async def test_resource_in_deletion_is_not_visited(stage: Stage) -> None:
    stage.create()
    await soon(stage.ready)
    stage.patch({"metadata": {"finalizers": ["example.org/somebody-elses"]}})
    stage.delete()
    stage.patch({"metadata": {"annotations": {REQUESTED: "now"}}})
    await settled(stage, 1)
    stage.patch({"metadata": {"finalizers": None}})


async def test_watched_config_map_that_is_touched_leads_to_a_visit_and_another_one_does_not(stage: Stage) -> None:
    maps = f"/api/v1/namespaces/{stage.namespace}/configmaps"
    stage.plane.request("POST", maps, WATCHED)
    stage.plane.request("POST", maps, {"metadata": {"name": "quiet"}})
    both = {"tool": "SQL", "source": {"configMapRefs": [{"name": "files"}, {"name": "quiet"}]}}
    stage.create(migrations=both)
    await soon(stage.ready)
    stage.plane.request("PATCH", f"{maps}/quiet", {"data": {"a": "b"}})
    stage.plane.request("PATCH", f"{maps}/files", {"data": {"a": "b"}})
    await settled(stage, 2)


@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.STALLED])
async def test_trouble_is_one_event_however_often_it_is_met(stage: Stage, verdict: Verdict) -> None:
    away = stopped(verdict, Reason.SERVER_UNREACHABLE, "10.0.0.1:5432 does not answer.")
    stage.line.play = says(away, away, away, all_done("create role", "create database"))
    stage.create()
    await soon(lambda: stage.ready() == ("False", "ServerUnreachable"))
    for visits in (2, 3, 4):
        stage.patch({"metadata": {"annotations": {REQUESTED: str(visits)}}})
        await soon(lambda: stage.get()["status"].get("lastHandledReconcileAt") == str(visits))  # noqa: B023 awaited here
    await soon(lambda: len(stage.events()) > 1)  # Events are posted after the status.
    assert [(it["type"], it["reason"], it["note"]) for it in stage.events()] == [
        ("Warning", "ServerUnreachable", "10.0.0.1:5432 does not answer."),
        ("Normal", "Changed", "create role; create database"),
    ]
    event = stage.events()[0]
    assert event["reportingController"] == "dbbootstrap.io/database-bootstrap-operator"
    assert event["regarding"]["name"] == "shop"


async def test_what_heals_by_itself_is_tried_again_by_itself(stage: Stage) -> None:
    stage.line.play = says(stopped(Verdict.RETRY, Reason.SERVER_UNREACHABLE, "Away."), all_done())
    stage.create()
    await soon(lambda: stage.ready() == ("True", "Succeeded"), seconds=4)


async def test_secret_that_is_waited_for_is_asked_for_within_five_seconds(stage: Stage) -> None:
    async def play(_: Subject, surroundings: Surroundings, __: Progress) -> Report:
        if await surroundings.secret("admin"):
            return all_done()
        return stopped(Verdict.RETRY, Reason.REFERENCE_NOT_FOUND, 'The Secret "admin" is not there.')

    stage.line.play = play
    stage.create()
    await soon(lambda: stage.ready() == ("False", "ReferenceNotFound"))
    stage.plane.request("POST", f"/api/v1/namespaces/{stage.namespace}/secrets", {"metadata": {"name": "admin"}})
    await soon(lambda: stage.ready() == ("True", "Succeeded"), seconds=5.5)


async def test_defect_of_one_visit_does_not_end_the_others(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def play(subject: Subject, *_: object) -> Report:
        if subject.owner.name == "broken":
            raise ZeroDivisionError
        return all_done()

    stage.line.play = play
    stage.create("broken")
    await soon(lambda: len(stage.line.visits) == 2)  # tried again after a second
    stage.create()
    await soon(lambda: stage.ready() == ("True", "Succeeded"))
    assert any(record.message == "Visit failed" for record in caplog.records)


async def test_new_controller_looks_after_what_is_there(
    stage: Stage, make_stage: Callable[..., Awaitable[Stage]]
) -> None:
    stage.create("well")
    await soon(lambda: stage.ready("well") == ("True", "Succeeded"))
    stage.line.play = says(stopped(Verdict.STALLED, Reason.NOT_OWNED, "Not ours."))
    stage.create("ill")
    await soon(lambda: stage.ready("ill"))
    await stage.acting.stop(1)
    second = await make_stage()
    second.line.play = says(stopped(Verdict.STALLED, Reason.NOT_OWNED, "Not ours."))
    await soon(lambda: set(visited(second)) == {"well", "ill"})


async def test_operator_goes_on_after_the_api_server_was_away(stage: Stage) -> None:
    stage.create()
    await soon(stage.ready)
    stage.plane.restart_apiserver()
    stage.patch({"spec": {"role": {"connectionLimit": 5}}})
    await soon(lambda: stage.get()["status"]["observedGeneration"] == 2, seconds=20)


async def test_visit_that_ends_within_the_grace_period_is_told(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def play(*_: object) -> Report:
        await go_on.wait()
        return all_done()

    stage.line.play = play
    stage.create()
    stage.create("too-late", suspend=True)
    await soon(lambda: stage.line.visits)
    stop = asyncio.create_task(stage.acting.stop(10))
    stage.patch({"spec": {"suspend": False}}, "too-late")
    go_on.set()
    await asyncio.wait_for(stop, 5)
    assert stage.ready() == ("True", "Succeeded")
    assert visited(stage) == ["shop"]


async def test_visit_that_does_not_end_within_the_grace_period_is_cancelled(stage: Stage) -> None:
    rolled_back = []

    async def play(subject: Subject, *_: object) -> Report:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            rolled_back.append(subject.owner.name)
            raise
        return all_done()

    stage.line.play = play
    stage.create()
    await soon(lambda: stage.line.visits)
    await asyncio.wait_for(stage.acting.stop(0.2), 5)
    assert rolled_back == ["shop"]
    assert stage.ready() is None
