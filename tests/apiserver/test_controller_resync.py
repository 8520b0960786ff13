"""The authoritative list finds what a watch has swallowed."""

import time

import pytest

from database_bootstrap.controller.intake import Intake
from database_bootstrap.controller.resync import Resync
from database_bootstrap.controller.standing import Standings
from database_bootstrap.controller.store import Store
from database_bootstrap.controller.workqueue import WorkQueue
from database_bootstrap.kube.client import CONFIG_MAPS, METADATA_LIST, Kube
from database_bootstrap.kube.library import Library
from database_bootstrap.kube.resource import Key
from fix_operator import BOOTSTRAPS, manifest
from localservers import ControlPlane


class Parts:
    """What the list is compared with."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.store = Store()
        self.queue = WorkQueue(workers=1)
        self.library = Library(kube)
        self.intake = Intake(self.store, Store(), self.queue, self.library, Standings(time.monotonic))
        self.resync = Resync(
            kube=kube, store=self.store, intake=self.intake, library=self.library, namespaces=[namespace]
        )


@pytest.fixture
def parts(kube: Kube, namespace: str) -> Parts:
    return Parts(kube, namespace)


async def test_resource_whose_deletion_was_swallowed_is_forgotten(
    parts: Parts, control_plane: ControlPlane, namespace: str
) -> None:
    for name in ("stays", "goes"):
        parts.intake.bootstrap(None, control_plane.request("POST", BOOTSTRAPS.format(namespace), manifest(name)))
    control_plane.request("DELETE", f"{BOOTSTRAPS.format(namespace)}/goes")
    await parts.resync.look()
    assert parts.store.get(Key(namespace, "goes")) is None
    assert parts.store.get(Key(namespace, "stays")) is not None


async def test_resource_that_was_made_again_under_its_name_is_not_forgotten(
    parts: Parts, control_plane: ControlPlane, namespace: str
) -> None:
    parts.intake.bootstrap(None, control_plane.request("POST", BOOTSTRAPS.format(namespace), manifest()))
    control_plane.request("DELETE", f"{BOOTSTRAPS.format(namespace)}/shop")
    again = control_plane.request("POST", BOOTSTRAPS.format(namespace), manifest())
    parts.intake.bootstrap("ADDED", again)
    await parts.resync.look()
    kept = parts.store.get(Key(namespace, "shop"))
    assert kept is not None
    assert kept.uid == again["metadata"]["uid"]


async def test_watched_config_map_that_is_gone_is_out_of_sight(
    parts: Parts, control_plane: ControlPlane, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    labels = {"dbbootstrap.io/watch": "true"}
    for name in ("stays", "goes"):
        made = control_plane.request("POST", path, {"metadata": {"name": name, "labels": labels}})
        parts.intake.config_map("ADDED", made)
    control_plane.request("PATCH", f"{path}/goes", {"metadata": {"labels": None}})
    await parts.resync.look()
    assert parts.library.watched() == {(namespace, "stays")}


async def test_pages_are_read_to_the_end(kube: Kube, control_plane: ControlPlane, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for number in range(3):
        control_plane.request("POST", path, {"metadata": {"name": f"c{number}"}})
    found = [
        item["metadata"]["name"]
        async for page in kube.pages(CONFIG_MAPS, namespace, query={}, accept=METADATA_LIST, size=2)
        for item in page["items"]
    ]
    assert sorted(found) == ["c0", "c1", "c2"]
