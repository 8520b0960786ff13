"""The definition on a real API server: it is taken, explained, and enforced as the models enforce it.

tests/unit/api/test_rules.py puts the same objects to the models.
"""

import json
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from database_bootstrap.api import names, schema
from fix_status import StatusWatch
from localservers import ControlPlane
from rule_cases import (
    BASE,
    MORE_BAD,
    MORE_GOOD,
    RULES,
    SERVER,
    SERVER_BAD,
    SERVER_CASES,
    TRANSITIONS,
    Case,
    Changes,
    changed,
    each,
)

FILE = Path(__file__).parents[2] / "crds" / f"{names.CRD_NAME}.yaml"
SERVER_FILE = FILE.with_name(f"{names.SERVER_CRD_NAME}.yaml")
SERVER_CRD_PATH = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names.SERVER_CRD_NAME}"
CRD_PATH = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names.CRD_NAME}"


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with our definition on it; it stays there, as others may use it."""
    both = ("--filename", FILE, "--filename", SERVER_FILE)
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", *both)
    for name in (names.CRD_NAME, names.SERVER_CRD_NAME):
        control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{name}")
    return control_plane


def path(namespace: str, name: str = "", query: str = "") -> str:
    whole = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"
    return f"{whole}/{name}{query}" if name else whole + query


def words(refusal: urllib.error.HTTPError) -> str:
    with refusal:
        return str(json.load(refusal)["message"])


def create(plane: ControlPlane, obj: dict[str, Any], namespace: str = "default", *, dry: bool = True) -> dict[str, Any]:
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
    created: dict[str, Any] = plane.request("POST", path(namespace, query=query), obj)
    return created


def create_server(plane: ControlPlane, obj: dict[str, Any]) -> dict[str, Any]:
    whole = f"/apis/{names.API_VERSION}/{names.SERVER_PLURAL}?fieldValidation=Strict&dryRun=All"
    created: dict[str, Any] = plane.request("POST", whole, obj)
    return created


def put(plane: ControlPlane, namespace: str, obj: dict[str, Any]) -> None:
    stored = plane.request("GET", path(namespace, obj["metadata"]["name"]))
    wanted = obj | {"metadata": stored["metadata"]}
    plane.request("PUT", path(namespace, obj["metadata"]["name"], "?dryRun=All&fieldValidation=Strict"), wanted)


def test_definition_is_established_and_structural(plane: ControlPlane) -> None:
    told = {it["type"]: it["status"] for it in plane.request("GET", CRD_PATH)["status"]["conditions"]}
    assert told["Established"] == "True"
    assert told["NamesAccepted"] == "True"
    assert told.get("NonStructuralSchema", "False") == "False"


def test_definition_applies_from_the_client_and_then_from_the_server(plane: ControlPlane) -> None:
    copy, name = FILE.read_text().replace(names.GROUP, "copy.example"), f"{names.PLURAL}.copy.example"
    try:
        for how in (["--validate=strict"], ["--server-side", "--force-conflicts"]):
            said = plane.kubectl("apply", *how, "--filename", "-", input=copy, check=False)
            assert said.startswith(f"customresourcedefinition.apiextensions.k8s.io/{name} ")
            assert said.count("\n") == 1, "a warning"
    finally:
        plane.kubectl("delete", "crd", name, "--ignore-not-found")


def test_server_keeps_the_schema_as_it_was_written(plane: ControlPlane) -> None:
    stored = plane.request("GET", CRD_PATH)["spec"]["versions"][0]
    ours = schema.definition()["spec"]["versions"][0]
    assert stored["schema"] == ours["schema"]
    assert [it["name"] for it in stored["additionalPrinterColumns"]] == [
        it["name"] for it in ours["additionalPrinterColumns"]
    ]


def fields(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, child in node.get("properties", {}).items():
        yield f"{path}{name}", child.get("description", "")
        yield from fields(child.get("items", child), f"{path}{name}.")


OURS = dict(fields(schema.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))


@pytest.fixture(scope="module")
def explained(plane: ControlPlane) -> ControlPlane:
    """The control plane, once `kubectl explain` knows our kind: a moment after the definition is established."""
    deadline = time.monotonic() + 30
    while "KIND:" not in plane.kubectl("explain", names.PLURAL, check=False) and time.monotonic() < deadline:
        time.sleep(0.2)
    return plane


def published(plane: ControlPlane) -> dict[str, Any]:
    """Return what `kubectl explain` reads."""
    document = plane.request("GET", f"/openapi/v3/apis/{names.API_VERSION}")
    return dict(document["components"]["schemas"][f"io.dbbootstrap.{names.VERSION}.{names.KIND}"])


def test_every_field_is_explained_in_the_words_of_the_models(explained: ControlPlane) -> None:
    told = {name: words for name, words in fields(published(explained)) if name.startswith(("spec", "status"))}
    assert told == {name: words for name, words in OURS.items() if name.startswith(("spec", "status"))}
    assert len(told) > 90
    assert all(told.values())


@pytest.mark.parametrize("field", ["spec", "spec.seed.ignoreTables", "spec.extensions.schema", "status.conditions"])
def test_explain_says_what_the_models_say(explained: ControlPlane, field: str) -> None:
    said = " ".join(explained.kubectl("explain", f"{names.PLURAL}.{field}").split())
    assert OURS[field] in said


@pytest.mark.parametrize(("case", "changes"), each(RULES, "good"))
def test_server_accepts_what_a_rule_lets_through(plane: ControlPlane, case: Case, changes: Changes) -> None:
    create(plane, changed(changes))


@pytest.mark.parametrize(("case", "changes"), each(RULES, "bad"))
def test_server_rejects_with_the_words_of_the_rule(plane: ControlPlane, case: Case, changes: Changes) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        create(plane, changed(changes))
    assert case.message in words(refusal.value)


@pytest.mark.parametrize(("case", "changes"), each(TRANSITIONS, "good"))
def test_server_lets_identity_stay(plane: ControlPlane, namespace: str, case: Case, changes: Changes) -> None:
    create(plane, changed(case.before), namespace, dry=False)
    put(plane, namespace, changed(changes))


@pytest.mark.parametrize(("case", "changes"), each(TRANSITIONS, "bad"))
def test_server_keeps_identity(plane: ControlPlane, namespace: str, case: Case, changes: Changes) -> None:
    create(plane, changed(case.before), namespace, dry=False)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        put(plane, namespace, changed(changes))
    assert case.message in words(refusal.value)


@pytest.mark.parametrize("changes", MORE_GOOD, ids=str)
def test_server_accepts(plane: ControlPlane, changes: Changes) -> None:
    create(plane, changed(changes))


@pytest.mark.parametrize("changes", MORE_BAD.values(), ids=MORE_BAD.keys())
def test_server_rejects(plane: ControlPlane, changes: Changes) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        create(plane, changed(changes))
    assert refusal.value.code in (400, 422)
    refusal.value.close()


@pytest.mark.parametrize(("case", "changes"), each(SERVER_CASES, "good"))
def test_api_accepts_what_a_rule_of_servers_lets_through(plane: ControlPlane, case: Case, changes: Changes) -> None:
    create_server(plane, changed(changes, SERVER))


@pytest.mark.parametrize(("case", "changes"), each(SERVER_CASES, "bad"))
def test_api_rejects_with_the_words_of_the_rule_of_servers(plane: ControlPlane, case: Case, changes: Changes) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        create_server(plane, changed(changes, SERVER))
    assert case.message in words(refusal.value)


@pytest.mark.parametrize("changes", SERVER_BAD.values(), ids=SERVER_BAD.keys())
def test_api_rejects_servers(plane: ControlPlane, changes: Changes) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        create_server(plane, changed(changes, SERVER))
    assert refusal.value.code in (400, 422)
    refusal.value.close()


def test_api_keeps_servers_as_they_were_written_with_safe_defaults(plane: ControlPlane) -> None:
    definition = plane.request("GET", SERVER_CRD_PATH)
    ours = schema.server_definition()["spec"]["versions"][0]["schema"]
    assert definition["spec"]["versions"][0]["schema"] == ours
    least = {"spec": {"adminSecretRef": SERVER["spec"]["adminSecretRef"]}}
    spec = create_server(plane, SERVER | least)["spec"]
    assert spec == least["spec"] | {
        "allowedNames": {key: ["{namespace}", "{namespace}_*"] for key in ("roles", "databases", "accessRoles")},
        "allowAdoption": False,
        "maxConnections": 10,
        "intervalSeconds": 600,
    }


def test_identity_stays_under_server_side_apply_too(plane: ControlPlane, namespace: str) -> None:
    apply = ("apply", "--server-side", "--namespace", namespace, "--filename", "-")
    plane.kubectl(*apply, input=json.dumps(BASE))
    without = changed({"spec.database": {"name": BASE["spec"]["database"]["name"]}})
    said = plane.kubectl(*apply, input=json.dumps(without), check=False)
    assert "`database.locale` must stay as it was when the resource was made" in said


def test_defaults_are_those_of_the_models(plane: ControlPlane) -> None:
    spec = create(plane, changed({}))["spec"]
    assert (spec["database"]["encoding"], spec["database"]["template"]) == ("UTF8", "template1")
    assert (spec["suspend"], spec["intervalSeconds"]) == (False, 600)
    assert spec["role"]["passwordSecretRef"]["key"] == "password"
    assert spec["migrations"] == {
        "tool": "Prisma",
        "schema": "public",
        "source": BASE["spec"]["migrations"]["source"],
        "onDestructive": "Refuse",
        "lockTimeoutSeconds": 5,
        "statementTimeoutSeconds": 0,
        "timeoutSeconds": 600,
    }
    assert spec["seed"]["policy"] == "IfEmpty"
    assert (spec["adoption"], spec["deletionPolicy"]) == ("WithCredentials", "Retain")


def test_a_new_resource_says_that_nobody_has_looked(plane: ControlPlane, namespace: str) -> None:
    create(plane, BASE, namespace, dry=False)
    assert plane.request("GET", path(namespace, "shop"))["status"] == {"observedGeneration": -1}
    shown = plane.kubectl("get", names.SHORT_NAME, "--namespace", namespace).splitlines()
    assert shown[0].split() == ["NAME", "READY", "REASON", "DATABASE", "MIGRATION", "AGE"]
    assert shown[1].split()[:2] == ["shop", "smart_ecommerce_dev"]
    assert "shop" in plane.kubectl("get", names.CATEGORY, "--namespace", namespace)


def test_a_suspended_resource_says_why_nobody_looks(plane: ControlPlane, namespace: str) -> None:
    create(plane, changed({"spec.suspend": True}), namespace, dry=False)
    header, row = plane.kubectl("get", names.SHORT_NAME, "--namespace", namespace, "--output", "wide").splitlines()
    assert row[header.index("SUSPEND") :].split()[0] == "true"


def write_status(
    plane: ControlPlane, namespace: str, status: dict[str, Any], manager: str = names.FIELD_MANAGER
) -> None:
    obj = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "shop"}, "status": status}
    options = ("--server-side", "--subresource=status", f"--field-manager={manager}", "--force-conflicts")
    plane.kubectl("apply", *options, "--namespace", namespace, "--filename", "-", input=json.dumps(obj))


def test_the_linter_sees_every_status_that_was_ever_written(plane: ControlPlane, namespace: str) -> None:
    watch = StatusWatch(plane).start()
    try:
        create(plane, BASE, namespace, dry=False)
        for observed in (1, -1):
            write_status(plane, namespace, {"observedGeneration": observed})
        versions = watch.versions(namespace, "shop")
        assert [it["status"]["observedGeneration"] for it in versions] == [-1, 1, -1]
        findings = [it.partition(": ")[2] for it in watch.findings() if it.startswith(f"{namespace}/shop ")]
        assert findings[0].startswith("somebody has looked, and there is no condition")
        assert findings[1] == "observedGeneration went back from 1 to -1"
        assert watch.findings() == []
    finally:
        watch.stop()


def test_an_excused_resource_is_left_out(plane: ControlPlane, namespace: str) -> None:
    watch = StatusWatch(plane).start()
    try:
        watch.excuse(namespace, "shop")
        create(plane, BASE, namespace, dry=False)
        write_status(plane, namespace, {"observedGeneration": 1}, manager="somebody")
        assert len(watch.versions(namespace, "shop")) == 2
        assert [it for it in watch.findings() if namespace in it] == []
    finally:
        watch.stop()


@pytest.fixture
def namespace(namespace: str, status_watch: StatusWatch) -> str:
    """A namespace in which this module writes statuses of its own."""
    status_watch.excuse(namespace, "shop")
    return namespace
