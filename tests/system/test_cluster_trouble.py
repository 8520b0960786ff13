"""What a cluster takes away while the operator runs, and gives back: the definition, a right."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from database_bootstrap.api import names
from fix_operator import BOOTSTRAPS, ROOT, Operator, manifest, ready, until
from localservers import ControlPlane

MakeOperator = Callable[..., Operator]
REQUESTED = {"metadata": {"annotations": {"dbbootstrap.io/reconcile-requested-at": "now"}}}


def get(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = plane.request("GET", f"{BOOTSTRAPS.format(namespace)}/shop")
    return found


def define(plane: ControlPlane) -> None:
    plane.kubectl("apply", "--server-side", "-k", ROOT / "crds")
    plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{names.CRD_NAME}")


def waits(plane: ControlPlane, operator: Operator) -> int:
    return operator.log.count(f"The CustomResourceDefinition {names.CRD_NAME} is gone; waiting for it")


def test_operator_waits_for_a_definition_that_was_taken_away(make_operator: MakeOperator, tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path / "plane") as plane:
        define(plane)
        operator = make_operator(kubeconfig=plane.kubeconfig).start()
        for times in (1, 2):
            plane.request("POST", BOOTSTRAPS.format("default"), manifest())
            until(15, lambda: ready(get(plane, "default")) == ("False", "ReferenceNotFound"))
            plane.kubectl("delete", "crd", names.CRD_NAME)
            until(30, lambda: waits(plane, operator) == times)  # noqa: B023 awaited here
            until(10, lambda: operator.get("/readyz")[0] == 503)
            assert operator.get("/healthz")[0] == 200
            assert operator.metrics()["dbbootstrap_resources"] == 0
            if times == 1:
                define(plane)
                until(20, lambda: operator.get("/readyz")[0] == 200)
        assert operator.stop() == 0
    assert "raceback" not in operator.log
    assert not [it for it in operator.messages if it["level"] not in {"info", "warning"}]


RIGHTS = {
    "see": ("get,list,watch,patch", "databasebootstraps.dbbootstrap.io"),
    "read": ("get,list,watch", "configmaps"),
    "tell": ("patch", "databasebootstraps.dbbootstrap.io/status"),
    "post": ("create", "events.events.k8s.io"),
    "secrets": ("get,create,patch,delete", "secrets"),
}


def bind(plane: ControlPlane, namespace: str, name: str) -> None:
    within, account = ("--namespace", namespace), f"--serviceaccount={namespace}:own"
    plane.kubectl("create", "rolebinding", name, *within, f"--role={name}", account)


def test_right_that_is_taken_away_is_named_and_all_goes_on_when_it_is_back(
    make_operator: MakeOperator, operator_access: Path, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.kubectl("create", "serviceaccount", "own", "--namespace", namespace)
    for name, (verbs, resources) in RIGHTS.items():
        what = (f"--verb={verbs}", f"--resource={resources}")
        control_plane.kubectl("create", "role", name, "--namespace", namespace, *what)
        bind(control_plane, namespace, name)
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "own")
    make_operator("--namespace", namespace, "--cluster-id", "tests", kubeconfig=kubeconfig).start()
    control_plane.request("POST", BOOTSTRAPS.format(namespace), manifest())
    until(10, lambda: ready(get(control_plane, namespace)) == ("False", "ReferenceNotFound"))

    control_plane.kubectl("delete", "rolebinding", "secrets", "--namespace", namespace)
    control_plane.request("PATCH", f"{BOOTSTRAPS.format(namespace)}/shop", REQUESTED)
    until(10, lambda: ready(get(control_plane, namespace)) == ("False", "ClusterUnavailable"))
    conditions = get(control_plane, namespace)["status"]["conditions"]
    (said,) = (it["message"] for it in conditions if it["type"] == "Ready")
    assert re.search(f'get secrets "[a-z-]+" in namespace {namespace}', said)
    assert "True" not in {it["status"] for it in conditions if it["type"] == "Stalled"}

    bind(control_plane, namespace, "secrets")
    until(40, lambda: ready(get(control_plane, namespace)) == ("False", "ReferenceNotFound"))
