"""The Kubernetes API for tests: one real control plane for the run, one namespace for each test."""

import secrets
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from fix_servers import missing
from localservers import BinariesNotFound, ControlPlane

BUILT_IN = (
    "/api/v1/{}/configmaps",
    "/api/v1/{}/events",
    "/api/v1/{}/pods",
    "/api/v1/{}/secrets",
    "/api/v1/{}/serviceaccounts",
    "/apis/batch/v1/{}/jobs",
    "/apis/coordination.k8s.io/v1/{}/leases",
)


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real kube-apiserver with etcd, RBAC and an audit log; nothing collects garbage unless a test starts it."""
    try:
        plane = ControlPlane.start(tmp_path_factory.mktemp("control-plane", numbered=False))
    except BinariesNotFound as error:
        missing(request.config, "KUBERNETES API", str(error))
    with plane:
        yield plane


@pytest.fixture
def make_namespace(control_plane: ControlPlane) -> Iterator[Callable[[], str]]:
    """Return a function that makes one more namespace; all that is in it is gone afterwards, finalizers or not."""
    made: list[str] = []

    def make() -> str:
        name = f"test-{secrets.token_hex(4)}"
        control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        made.append(name)
        return name

    yield make
    for name in made:
        empty_namespace(control_plane, name)
        _remove(control_plane, name)


@pytest.fixture
def namespace(make_namespace: Callable[[], str]) -> str:
    """A namespace of the test's own."""
    return make_namespace()


def empty_namespace(plane: ControlPlane, name: str) -> None:
    """Delete all that tests put into a namespace, finalizers or not."""
    for pattern in (*BUILT_IN, *_custom_resources(plane)):
        path = pattern.format(f"namespaces/{name}")
        plane.request("DELETE", path)
        for left in plane.request("GET", path)["items"]:
            with suppress(urllib.error.HTTPError):
                plane.request("PATCH", f"{path}/{left['metadata']['name']}", {"metadata": {"finalizers": None}})


def _custom_resources(plane: ControlPlane) -> Iterator[str]:
    crds: dict[str, Any] = plane.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    for crd in (item["spec"] for item in crds["items"] if item["spec"]["scope"] == "Namespaced"):
        version = next(each["name"] for each in crd["versions"] if each["served"])
        yield f"/apis/{crd['group']}/{version}/{{}}/{crd['names']['plural']}"


def _remove(plane: ControlPlane, name: str) -> None:
    """Remove the namespace at once; without a controller manager it would be terminating for ever."""
    path = f"/api/v1/namespaces/{name}"
    with suppress(urllib.error.HTTPError):
        plane.request("DELETE", path)
        plane.request("PUT", f"{path}/finalize", {"metadata": {"name": name}, "spec": {"finalizers": []}})
