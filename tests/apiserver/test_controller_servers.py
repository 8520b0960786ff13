"""DatabaseServers on a real API server: who is woken by them, what is read for them, and what is written."""

import json
import secrets
import time
import urllib.error
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from database_bootstrap.api.outcomes import StageName
from database_bootstrap.api.server_status import ServerObjectStatus
from database_bootstrap.errors import ReferenceNotFound, ServerRefused
from database_bootstrap.kube import access
from database_bootstrap.kube.resource import Key
from database_bootstrap.stages.inspection import Inspection
from database_bootstrap.stages.subject import Progress, Report, Subject
from database_bootstrap.stages.surroundings import SharedServer, Surroundings
from fix_operator import SERVICE_ACCOUNT, Stage, all_done, soon
from localservers import ControlPlane

SERVERS = "/apis/dbbootstrap.io/v1alpha1/databaseservers"
SPEC = {"adminSecretRef": {"namespace": "platform", "name": "postgres"}, "allowedNamespaces": {}}


@pytest.fixture
def name(control_plane: ControlPlane) -> Iterator[str]:
    """A name for a DatabaseServer, which is gone afterwards."""
    found = f"main-{secrets.token_hex(4)}"
    yield found
    with suppress(urllib.error.HTTPError):
        control_plane.request("DELETE", f"{SERVERS}/{found}")


def put(plane: ControlPlane, name: str, **spec: Any) -> dict[str, Any]:
    """Make a DatabaseServer, or change it."""
    body = {"apiVersion": "dbbootstrap.io/v1alpha1", "kind": "DatabaseServer", "metadata": {"name": name}}
    with suppress(urllib.error.HTTPError):
        plane.request("GET", f"{SERVERS}/{name}")
        changed: dict[str, Any] = plane.request("PATCH", f"{SERVERS}/{name}", {"spec": SPEC | spec})
        return changed
    made: dict[str, Any] = plane.request("POST", SERVERS, body | {"spec": SPEC | spec})
    return made


def get(plane: ControlPlane, name: str) -> dict[str, Any]:
    found: dict[str, Any] = plane.request("GET", f"{SERVERS}/{name}")
    return found


def looks(stage: Stage, name: str) -> list[SharedServer]:
    """Return the looks at one server; those of other tests may be there too."""
    return [it for it in stage.line.inspections if it.name == name]


async def test_status_is_written_by_us_alone_and_only_when_it_says_something_new(stage: Stage, name: str) -> None:
    put(stage.plane, name)
    await soon(lambda: get(stage.plane, name)["status"].get("observedGeneration") == 1)
    written = get(stage.plane, name)
    assert written["status"]["databases"] == 0
    owners = {it["manager"] for it in written["metadata"]["managedFields"] if it.get("subresource") == "status"}
    assert owners == {"database-bootstrap-operator"}
    assert not written["metadata"].get("finalizers")
    # An annotation asks for a look, which finds nothing new but that it was asked for.
    await look(stage, name, "1")
    assert len(looks(stage, name)) == 2
    # What changes is looked at, and told: so the look before it was through, and had not written.
    put(stage.plane, name, intervalSeconds=601)
    await soon(lambda: get(stage.plane, name)["status"]["observedGeneration"] == 2)
    assert len(looks(stage, name)) == 3
    assert get(stage.plane, name)["status"]["lastHandledReconcileAt"] == "1"
    assert writes_to(stage, name) == 3


def writes_to(stage: Stage, name: str) -> int:
    """Return how often the operator wrote a server's status, as the API server's own audit log has it."""
    entries = (json.loads(line) for line in stage.plane.audit_log.read_text().splitlines())
    ours = (it["objectRef"] for it in entries if it["user"]["username"] == SERVICE_ACCOUNT and it["verb"] == "patch")
    return sum(it["resource"] == "databaseservers" and it.get("name") == name for it in ours)


async def test_trouble_of_a_server_is_told_in_an_event_once(stage: Stage, name: str) -> None:
    troubled = ReferenceNotFound("Secret platform/postgres is not there")
    stage.line.inspection = Inspection(found=ServerObjectStatus(), error=troubled)
    made = put(stage.plane, name)
    await soon(lambda: events(stage, name))
    for word in ("1", "2"):
        await look(stage, name, word)
    (event,) = events(stage, name)
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "ReferenceNotFound", troubled.message)
    assert event["regarding"]["uid"] == made["metadata"]["uid"]
    assert event["regarding"]["kind"] == "DatabaseServer"


async def look(stage: Stage, name: str, word: str) -> None:
    """Have a server looked at, and wait until that is acknowledged."""
    asked = {"metadata": {"annotations": {"dbbootstrap.io/reconcile-requested-at": word}}}
    stage.plane.request("PATCH", f"{SERVERS}/{name}", asked)
    await soon(lambda: get(stage.plane, name)["status"].get("lastHandledReconcileAt") == word)


def events(stage: Stage, name: str) -> list[dict[str, Any]]:
    """Return the events about a server, which are where Kubernetes has those about what is in no namespace."""
    items = stage.plane.request("GET", "/apis/events.k8s.io/v1/namespaces/default/events")["items"]
    return [it for it in items if it["regarding"]["name"] == name]


async def test_databases_are_counted_again_soon_after_one_was_claimed_or_dropped(stage: Stage, name: str) -> None:
    changes = [("create database",), ()]

    async def play(*_: object) -> Report:
        return all_done(*changes.pop(0), changed=StageName.DATABASE)

    stage.line.play = play
    put(stage.plane, name)
    await soon(lambda: get(stage.plane, name)["status"].get("databases") == 0)
    stage.line.inspection = Inspection(found=ServerObjectStatus(databases=1))
    stage.create("shop", server={"ref": {"name": name}}, deletionPolicy="Delete")
    await soon(lambda: get(stage.plane, name)["status"]["databases"] == 1)
    # A visit that changes nothing has nothing counted: what is due next is what the deletion brings.
    stage.patch({"metadata": {"annotations": {"dbbootstrap.io/reconcile-requested-at": "1"}}})
    await soon(lambda: stage.get()["status"].get("lastHandledReconcileAt") == "1")
    due = stage.acting._queue._queue._due[Key("", name)] - time.monotonic()
    assert due > 60
    stage.line.inspection = Inspection(found=ServerObjectStatus(databases=0))
    stage.delete("shop")
    await soon(lambda: get(stage.plane, name)["status"]["databases"] == 0)


async def test_change_of_a_server_wakes_those_who_refer_to_it(stage: Stage, name: str) -> None:
    stage.create("shop", server={"ref": {"name": name}})
    stage.create("other")
    await soon(lambda: len(stage.line.visits) == 2)
    put(stage.plane, name)
    await soon(lambda: [it.owner.name for it in stage.line.visits].count("shop") == 2)
    await soon(lambda: get(stage.plane, name)["status"].get("observedGeneration") == 1)
    put(stage.plane, name, allowedExtensions=["pg_trgm"])
    await soon(lambda: [it.owner.name for it in stage.line.visits].count("shop") == 3)
    stage.plane.request("DELETE", f"{SERVERS}/{name}")
    await soon(lambda: [it.owner.name for it in stage.line.visits].count("shop") == 4)
    assert [it.owner.name for it in stage.line.visits].count("other") == 1
    # Its own status, written twice by now, woke nobody.
    assert len(looks(stage, name)) == 2


@pytest.fixture
def offered(stage: Stage, name: str) -> Callable[[], Any]:
    """Return what asks, within a visit, for what the server is to the resource."""
    said: list[SharedServer | Exception] = []

    async def play(_: Subject, surroundings: Surroundings, __: Progress) -> Report:
        try:
            said.append(await surroundings.server(name))
        except (ReferenceNotFound, ServerRefused) as error:
            said.append(error)
        return all_done()

    stage.line.play = play

    async def ask() -> SharedServer | Exception:
        before = len(said)
        stage.create(f"asks-{before}", server={"ref": {"name": name}})
        await soon(lambda: len(said) > before)
        return said[before]

    return ask


async def test_server_comes_with_the_labels_of_the_namespace(
    stage: Stage, name: str, offered: Callable[[], Any]
) -> None:
    missing = await offered()
    assert f"DatabaseServer {name} is not there" in str(missing)
    stage.plane.request("PATCH", f"/api/v1/namespaces/{stage.namespace}", {"metadata": {"labels": {"team": "shop"}}})
    put(stage.plane, name, allowedNamespaces={"matchLabels": {"team": "shop"}})
    found = await offered()
    assert isinstance(found, SharedServer)
    assert found.labels == {"team": "shop", "kubernetes.io/metadata.name": stage.namespace}
    assert found.spec.admin_secret_ref.namespace == "platform"


async def test_server_whose_deletion_no_watch_has_shown_is_forgotten(stage: Stage, name: str) -> None:
    put(stage.plane, name)
    await soon(lambda: looks(stage, name))
    resync = stage.acting._resync
    assert resync.servers is not None
    stage.acting._end_watching.set()
    stage.plane.request("DELETE", f"{SERVERS}/{name}")
    await resync.look()
    assert name not in {known for _, known, _ in resync.servers.known()}


async def test_operator_knows_what_it_may_do_about_servers(stage: Stage) -> None:
    assert await access.is_served(stage.kube)


async def test_operator_that_may_not_tell_of_servers_watches_them_all_the_same(
    make_stage: Callable[..., Awaitable[Stage]], name: str
) -> None:
    stage = await make_stage(tells_of_servers=False)
    stage.create("shop", server={"ref": {"name": name}})
    await soon(lambda: len(stage.line.visits) == 1)
    put(stage.plane, name)
    await soon(lambda: len(stage.line.visits) == 2)
    assert stage.line.inspections == []
    assert get(stage.plane, name)["status"] == {"observedGeneration": -1}
