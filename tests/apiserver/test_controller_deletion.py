"""Deletion on a real API server, with an engine that the test plays: what keeps a resource, and what lets it go."""

import asyncio
import urllib.error
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from database_bootstrap.api import names
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.errors import RoleOwnsObjects, ServerUnreachable
from database_bootstrap.kube.client import BOOTSTRAPS as BOOTSTRAPS_KIND
from database_bootstrap.kube.client import Call, Kube
from database_bootstrap.stages.deletion import Ending
from database_bootstrap.stages.departure import Drop
from database_bootstrap.stages.subject import Report
from fix_operator import BOOTSTRAPS, Stage, all_done, soon
from localservers import ControlPlane

MakeStage = Callable[..., Awaitable[Stage]]
THEIRS = "example.org/somebody-elses"
LET_GO = {"spec": {"deletionPolicy": "Retain"}}


def finalizers(stage: Stage, name: str = "shop") -> list[str]:
    found: list[str] = stage.get(name)["metadata"].get("finalizers", [])
    return found


def is_gone(stage: Stage, name: str = "shop") -> bool:
    try:
        stage.get(name)
    except urllib.error.HTTPError as error:
        return error.code == 404
    return False


def message(stage: Stage) -> str:
    return next(str(it["message"]) for it in stage.get()["status"]["conditions"] if it["type"] == "Ready")


def told(stage: Stage) -> list[tuple[str, str, str]]:
    return [(it["action"], it["reason"], it["note"]) for it in stage.events()]


async def made(stage: Stage, **spec: Any) -> None:
    stage.create(**{"deletionPolicy": "Delete"} | spec)
    await soon(lambda: stage.ready() == ("True", "Succeeded"))


async def quiet(stage: Stage) -> None:
    """Wait until whatever follows from the events so far was done: there is one worker, and a queue."""
    for name in ("last-of-all", "really-last"):
        stage.create(name)
        await soon(lambda: name in [visit.owner.name for visit in stage.line.visits])  # noqa: B023 awaited here


async def test_retain_has_no_finalizer_and_goes_at_once(stage: Stage) -> None:
    await made(stage, deletionPolicy="Retain")
    assert finalizers(stage) == []
    stage.delete()
    assert is_gone(stage)
    await quiet(stage)
    assert stage.line.deletions == []
    assert stage.events() == []


async def test_finalizer_is_there_before_anything_is_made_and_leaves_others_alone(stage: Stage) -> None:
    seen = []

    async def play(*_: object) -> Report:
        seen.append(finalizers(stage))
        return all_done()

    stage.line.play = play
    await made(stage)
    stage.patch({"metadata": {"finalizers": [THEIRS, names.FINALIZER]}})
    await quiet(stage)
    assert seen[0] == [names.FINALIZER]
    writes = [line for line in stage.writes() if "shop" in line]
    assert writes == ["patch databasebootstraps shop 200", "patch databasebootstraps/status shop 200"]
    stage.patch(LET_GO)
    await soon(lambda: finalizers(stage) == [THEIRS])
    stage.patch({"spec": {"deletionPolicy": "Delete"}})
    await soon(lambda: finalizers(stage) == [THEIRS, names.FINALIZER])
    stage.patch({"metadata": {"finalizers": None}})


async def test_finalizer_is_put_on_where_the_resource_was_changed_behind_the_watch(stage: Stage) -> None:
    await made(stage, deletionPolicy="Retain")
    stage.patch({"spec": {"deletionPolicy": "Delete"}})
    stage.patch({"metadata": {"finalizers": [THEIRS]}})  # before the operator has seen the other change
    await soon(lambda: finalizers(stage) == [THEIRS, names.FINALIZER])
    stage.patch({"metadata": {"finalizers": None}})


async def test_deletion_drops_once_tells_once_and_nothing_is_made_again(stage: Stage) -> None:
    await made(stage)
    uid, visits = stage.get()["metadata"]["uid"], len(stage.line.visits)
    stage.delete()
    await soon(lambda: is_gone(stage))
    await quiet(stage)
    assert [subject.owner.uid for subject in stage.line.deletions] == [uid]
    assert [visit.owner.name for visit in stage.line.visits[visits:]] == ["last-of-all", "really-last"]
    assert told(stage) == [("Delete", "Deleted", 'drop database "d"')]


async def test_kept_things_are_in_the_event_and_in_the_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def play(*_: object) -> Ending:
        return Ending(drops=(Drop(stage=StageName.ROLE, text='drop role "r"'),), kept=('Database "d" is kept: theirs',))

    caplog.set_level("INFO")
    stage.line.play_deletion = play
    await made(stage)
    stage.delete()
    await soon(lambda: is_gone(stage))
    assert told(stage) == [("Delete", "Deleted", 'drop role "r"; Database "d" is kept: theirs')]
    assert {'Deleted: drop role "r"', 'Kept: Database "d" is kept: theirs'} <= {
        it.getMessage() for it in caplog.records
    }


async def test_deletion_that_waits_says_why_and_how_to_let_go(stage: Stage) -> None:
    async def play(*_: object) -> Ending:
        return Ending(
            drops=(Drop(stage=StageName.DATABASE, text='drop database "d"'),) if len(stage.line.deletions) == 1 else (),
            error=RoleOwnsObjects('Role "r" owns things.'),
        )

    stage.line.play_deletion = play
    await made(stage)
    stage.delete()
    await soon(lambda: stage.ready() == ("False", Reason.ROLE_OWNS_OBJECTS))
    assert 'Role "r" owns things' in message(stage)
    assert f"kubectl patch dbb/shop --namespace {stage.namespace} --type merge --patch" in message(stage)
    assert {it["type"] for it in stage.get()["status"]["conditions"] if it["status"] == "True"} == {"Stalled"}
    stage.patch({"metadata": {"annotations": {names.ANNOTATION_RECONCILE_REQUESTED_AT: "now"}}})
    await soon(lambda: stage.get()["status"].get("lastHandledReconcileAt") == "now")
    assert len(stage.line.deletions) == 2
    assert [it[1] for it in told(stage)] == ["Deleted", Reason.ROLE_OWNS_OBJECTS]  # once, however often it is met
    # The very command of the message, which lets go of what is there.
    command = message(stage).partition("kubectl ")[2].replace("'", "")
    before, _, patch = command.partition(" --patch ")
    stage.plane.kubectl(*before.split(), "--patch", patch)
    await soon(lambda: is_gone(stage))
    assert len(stage.line.deletions) == 2
    await soon(lambda: len(stage.events()) == 3)
    assert told(stage)[-1] == ("Delete", "Kept", "Role, database and Secrets are kept: deletionPolicy is Retain")


async def test_deletion_heals_by_itself(stage: Stage) -> None:
    async def play(*_: object) -> Ending:
        return Ending(error=ServerUnreachable("Away.")) if len(stage.line.deletions) == 1 else Ending()

    stage.line.play_deletion = play
    await made(stage)
    stage.delete()
    await soon(lambda: is_gone(stage) or stage.ready() == ("False", "ServerUnreachable"))
    await soon(lambda: is_gone(stage), seconds=4)
    assert len(stage.line.deletions) == 2
    assert told(stage)[-1] == ("Delete", "Kept", "Nothing was left to drop")


async def test_suspended_resource_goes_and_leaves_everything(stage: Stage) -> None:
    await made(stage)
    stage.patch({"spec": {"suspend": True}})
    stage.delete()
    await soon(lambda: is_gone(stage))
    assert stage.line.deletions == []
    assert "suspend" in told(stage)[-1][2]


async def test_namespace_that_is_being_deleted_keeps_everything(stage: Stage) -> None:
    await made(stage)
    stage.plane.request("DELETE", f"/api/v1/namespaces/{stage.namespace}")
    stage.delete()  # as the namespace's controller does
    await soon(lambda: is_gone(stage))
    assert stage.line.deletions == []
    assert all("delete secrets" not in line for line in stage.writes())


async def test_deletion_during_a_visit_comes_after_it(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def play(*_: object) -> Report:
        await go_on.wait()
        return all_done()

    stage.line.play = play
    stage.create(deletionPolicy="Delete")
    await soon(lambda: stage.line.visits)
    stage.delete()
    await asyncio.sleep(0)
    assert stage.line.deletions == []
    go_on.set()
    await soon(lambda: is_gone(stage))
    assert [len(stage.line.visits), len(stage.line.deletions)] == [1, 1]


async def test_next_operator_ends_what_the_first_one_began(stage: Stage, make_stage: MakeStage) -> None:
    async def play(*_: object) -> Ending:
        await asyncio.Event().wait()
        return Ending()

    stage.line.play_deletion = play
    await made(stage)
    stage.delete()
    await soon(lambda: stage.line.deletions)
    await stage.acting.stop(0)
    second = await make_stage()
    await soon(lambda: is_gone(second))
    assert len(second.line.deletions) == 1
    assert second.line.visits == []


async def test_resource_that_somebody_else_keeps_is_none_of_our_business_any_more(stage: Stage) -> None:
    await made(stage)
    stage.patch({"metadata": {"finalizers": [names.FINALIZER, THEIRS]}})
    stage.delete()
    await soon(lambda: finalizers(stage) == [THEIRS])
    stage.patch({"metadata": {"annotations": {names.ANNOTATION_RECONCILE_REQUESTED_AT: "now"}}})
    await quiet(stage)
    assert len(stage.line.deletions) == 1
    assert [visit.owner.name for visit in stage.line.visits].count("shop") == 1
    stage.patch({"metadata": {"finalizers": None}})
    assert is_gone(stage)


async def test_word_of_a_person_that_the_watch_has_not_told_of_yet_counts(
    control_plane: ControlPlane, namespace: str, make_stage: MakeStage
) -> None:
    class Client(Kube):
        """A client that is just about to look at the resource when a person lets it go."""

        async def send(self, call: Call) -> Any:
            if (call.verb, call.kind) == ("get", BOOTSTRAPS_KIND):
                control_plane.request("PATCH", f"{BOOTSTRAPS.format(namespace)}/shop", LET_GO)
            return await super().send(call)

    stage = await make_stage(client=Client)
    await made(stage)
    stage.delete()
    await soon(lambda: is_gone(stage))
    assert stage.line.deletions == []
    assert told(stage)[-1][1] == "Kept"


async def test_resource_that_is_deleted_before_it_was_ever_seen_leaves_no_trace(
    control_plane: ControlPlane, namespace: str, make_stage: MakeStage
) -> None:
    path = BOOTSTRAPS.format(namespace)
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "shop", "finalizers": [THEIRS]},
        "spec": {
            "server": {"adminSecretRef": {"name": "admin"}},
            "role": {"name": "r"},
            "database": {"name": "d"},
            "deletionPolicy": "Delete",
        },
    }
    control_plane.request("POST", path, body)
    control_plane.request("DELETE", f"{path}/shop")
    stage = await make_stage()
    await quiet(stage)
    assert finalizers(stage) == [THEIRS]
    assert stage.line.deletions == []
    assert [visit.owner.name for visit in stage.line.visits] == ["last-of-all", "really-last"]
    stage.patch({"metadata": {"finalizers": None}})
