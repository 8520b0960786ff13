"""The manifests on a real API server: they render, are accepted strictly, and grant what is needed and no more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localservers import ControlPlane

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
NAMESPACE = "database-bootstrap-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:database-bootstrap-operator"
SAMPLES = sorted(path.parent.name for path in (MANIFESTS / "samples").glob("*/kustomization.yaml"))
INSTALLS = (".", "namespaced", "overlays/watch-secrets")
LABELS = {"app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/part-of"}
GROUPS = {
    "databasebootstraps": "dbbootstrap.io",
    "databaseservers": "dbbootstrap.io",
    "events": "events.k8s.io",
    "leases": "coordination.k8s.io",
    "deployments": "apps",
    "clusterroles": "rbac.authorization.k8s.io",
    "customresourcedefinitions": "apiextensions.k8s.io",
}


def render(plane: ControlPlane, folder: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(plane.kubectl("kustomize", folder)))


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane with all that `kubectl apply -k manifests` brings; definition and rights stay there."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "--kustomize", MANIFESTS)
    control_plane.kubectl(
        "wait", "--for=condition=Established", "--timeout=30s", "crd/databasebootstraps.dbbootstrap.io"
    )
    yield control_plane
    control_plane.kubectl("delete", "deployment,service", "--all", "--namespace", NAMESPACE, "--wait=false")


def is_allowed(plane: ControlPlane, user: str, asked: str, namespace: str) -> bool:
    verb, _, what = asked.partition(" ")
    what, _, name = what.partition(" ")
    resource, _, subresource = what.partition("/")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "resourceAttributes": {
                "verb": verb,
                "group": GROUPS.get(resource, ""),
                "resource": resource,
                "subresource": subresource,
                "name": name,
                "namespace": namespace,
            },
        },
    }
    answer = plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize(
    "asked",
    [
        "get databasebootstraps",
        "list databasebootstraps",
        "watch databasebootstraps",
        "patch databasebootstraps",
        "patch databasebootstraps/status",
        "get databaseservers",
        "list databaseservers",
        "watch databaseservers",
        "patch databaseservers/status",
        "get configmaps",
        "list configmaps",
        "watch configmaps",
        "get secrets",
        "create secrets",
        "patch secrets",
        "delete secrets",
        "create events",
        "get namespaces kube-system",
        "get namespaces any",
        "get customresourcedefinitions databasebootstraps.dbbootstrap.io",
    ],
)
def test_operator_may_do_what_it_does_in_every_namespace(installed: ControlPlane, asked: str) -> None:
    is_of_the_cluster = any(word in asked for word in ("namespaces", "definitions", "databaseservers"))
    assert is_allowed(installed, OPERATOR, asked, "" if is_of_the_cluster else "any")


@pytest.mark.parametrize("verb", ["get", "create", "update"])
def test_operator_may_hold_its_lease_and_nobody_elses(installed: ControlPlane, verb: str) -> None:
    assert is_allowed(installed, OPERATOR, f"{verb} leases database-bootstrap-operator", NAMESPACE)
    assert not is_allowed(installed, OPERATOR, f"{verb} leases database-bootstrap-operator", "kube-system")


@pytest.mark.parametrize(
    "asked",
    [
        "list secrets",
        "watch secrets",
        "update secrets",
        "create databasebootstraps",
        "update databasebootstraps",
        "delete databasebootstraps",
        "update databasebootstraps/status",
        "create databaseservers",
        "patch databaseservers",
        "update databaseservers",
        "delete databaseservers",
        "create configmaps",
        "patch configmaps",
        "delete configmaps",
        "list namespaces",
        "watch namespaces",
        "delete namespaces",
        "get customresourcedefinitions other.example.org",
        "list customresourcedefinitions",
        "delete customresourcedefinitions databasebootstraps.dbbootstrap.io",
        "get pods",
        "create pods",
        "create pods/exec",
        "get deployments",
        "create serviceaccounts/token",
        "create clusterroles",
        "escalate clusterroles",
    ],
)
def test_operator_may_not_do_more(installed: ControlPlane, asked: str) -> None:
    assert not is_allowed(installed, OPERATOR, asked, "any")


@pytest.mark.parametrize(
    ("role", "asked", "expected"),
    [
        ("view", "get databasebootstraps", True),
        ("view", "create databasebootstraps", False),
        ("edit", "get databasebootstraps", True),
        ("edit", "create databasebootstraps", True),
        ("edit", "patch databasebootstraps/status", False),
        ("admin", "delete databasebootstraps", True),
        ("admin", "get databaseservers", False),
    ],
)
def test_people_of_a_namespace_get_their_rights_through_the_built_in_roles(
    installed: ControlPlane, role: str, asked: str, expected: bool
) -> None:
    # Aggregation is the work of kube-controller-manager; what it would add is what these selectors find.
    verb, _, what = asked.partition(" ")
    label = f"rbac.authorization.k8s.io/aggregate-to-{role}=true"
    found = installed.request("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles?labelSelector={label}")
    inherited = {"view": ["view"], "edit": ["view", "edit"], "admin": ["view", "edit"]}[role]
    ours = [
        rule
        for item in render(installed, MANIFESTS)
        if item["kind"] == "ClusterRole"
        and item["metadata"]["name"] in {f"database-bootstrap-{it}" for it in inherited}
        for rule in item["rules"]
    ]
    assert any(item["metadata"]["name"].startswith("database-bootstrap") for item in found["items"])
    assert any(what in rule["resources"] and verb in rule["verbs"] for rule in ours) is expected


@pytest.mark.parametrize("folder", INSTALLS)
def test_no_wildcards_in_rights(control_plane: ControlPlane, folder: str) -> None:
    for item in render(control_plane, MANIFESTS / folder):
        for rule in item.get("rules", []):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], item["metadata"]["name"]


@pytest.mark.parametrize("folder", INSTALLS)
def test_everything_carries_the_recommended_labels(control_plane: ControlPlane, folder: str) -> None:
    for item in render(control_plane, MANIFESTS / folder):
        assert item["metadata"]["labels"].keys() >= LABELS, item["kind"]


def test_namespaced_install_is_accepted_and_has_nothing_of_the_cluster(
    installed: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    items = render(installed, MANIFESTS / "namespaced")
    assert not [item["kind"] for item in items if item["kind"].startswith("Cluster")]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(items).replace("namespace: shop", f"namespace: {namespace}"))
    installed.kubectl("apply", "--server-side", "--validate=strict", "--filename", tmp_path / "all.yaml")
    user = f"system:serviceaccount:{namespace}:database-bootstrap-operator"
    assert is_allowed(installed, user, "get secrets", namespace)
    assert not is_allowed(installed, user, "get secrets", "default")
    assert not is_allowed(installed, user, "list secrets", namespace)
    assert not is_allowed(installed, user, "get databaseservers", "")
    # A namespace is in itself, so a Role in it can let somebody read it.
    assert is_allowed(installed, user, f"get namespaces {namespace}", namespace)
    assert not is_allowed(installed, user, "get namespaces default", "default")
    installed.kubectl("delete", "--filename", tmp_path / "all.yaml", "--wait=false")


@pytest.fixture
def watching(installed: ControlPlane) -> Iterator[ControlPlane]:
    """The same with the overlay that lets the operator watch Secrets; others' tests find the shipped rights again."""
    overlay = MANIFESTS / "overlays" / "watch-secrets"
    installed.kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "--kustomize", overlay)
    yield installed
    installed.kubectl("delete", "--filename", overlay / "role.yaml")
    installed.kubectl("apply", "--server-side", "--force-conflicts", "--kustomize", MANIFESTS)


def test_overlay_adds_the_watching_of_secrets_and_nothing_else(watching: ControlPlane) -> None:
    shipped = {(item["kind"], item["metadata"]["name"]): item for item in render(watching, MANIFESTS)}
    overlaid = {
        (item["kind"], item["metadata"]["name"]): item
        for item in render(watching, MANIFESTS / "overlays" / "watch-secrets")
    }
    name = "database-bootstrap-operator-watch-secrets"
    assert overlaid.keys() - shipped.keys() == {("ClusterRole", name), ("ClusterRoleBinding", name)}
    changed = {key for key in shipped if overlaid[key] != shipped[key]}
    assert changed == {("Deployment", "database-bootstrap-operator")}
    environment = overlaid[changed.pop()]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "DBBOOTSTRAP_WATCH_SECRETS", "value": "true"} in environment
    assert all(is_allowed(watching, OPERATOR, f"{verb} secrets", "any") for verb in ("list", "watch"))
    assert not is_allowed(watching, OPERATOR, "update secrets", "any")


def test_namespace_that_enforces_the_restricted_standard_takes_the_pod(installed: ControlPlane) -> None:
    deployment = installed.request(
        "GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/database-bootstrap-operator"
    )
    template = deployment["spec"]["template"]
    pod = {"metadata": {"name": "operator", "labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All&fieldValidation=Strict"
    assert installed.request("POST", path, pod)["metadata"]["name"] == "operator"


def test_pod_writes_nowhere_but_to_memory(control_plane: ControlPlane) -> None:
    deployment = next(item for item in render(control_plane, MANIFESTS) if item["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsUser"] == 65532
    assert [volume["emptyDir"]["medium"] for volume in pod["volumes"]] == ["Memory"]


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples_are_accepted_strictly(installed: ControlPlane, namespace: str, sample: str) -> None:
    folder = MANIFESTS / "samples" / sample
    installed.kubectl("apply", "--server-side", "--validate=strict", "--namespace", namespace, "--kustomize", folder)
    assert "created" not in installed.kubectl("apply", "--namespace", namespace, "--kustomize", folder)
    installed.kubectl("delete", "databaseservers", "--all")


def test_health_check_for_argo_cd_is_what_its_config_map_holds(control_plane: ControlPlane) -> None:
    (config,) = render(control_plane, MANIFESTS / "gitops" / "argocd")
    script = (MANIFESTS / "gitops" / "argocd" / "health.lua").read_text()
    kinds = ("DatabaseBootstrap", "DatabaseServer")
    assert config["data"] == {f"resource.customizations.health.dbbootstrap.io_{kind}": script for kind in kinds}
