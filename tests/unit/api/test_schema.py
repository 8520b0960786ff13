"""The definition: structural, complete, bounded, and the same as the file that is committed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from database_bootstrap.api import names, schema

CRDS = Path(__file__).parents[3] / "crds"
ROOT = schema.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SERVER = schema.server_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")


FIELDS = [
    pytest.param(node, id=f"{kind}{path}")
    for kind, root in (("bootstrap", ROOT), ("server", SERVER))
    for path, node in walk(root)
    if path and path not in (".metadata", ".apiVersion", ".kind")
]
"""All but those that the API server itself defines."""


def node_at(path: str) -> dict[str, Any]:
    return dict(walk(ROOT))[path]


@pytest.mark.parametrize("name", [names.CRD_NAME, names.SERVER_CRD_NAME])
def test_the_committed_file_is_the_one_that_the_models_make(name: str) -> None:
    assert (CRDS / f"{name}.yaml").read_text() == schema.render_one(name), "run `make crds`, and commit crds/"


def test_rendering_is_the_same_every_time_and_says_what_it_is() -> None:
    assert schema.render() == schema.render()
    assert schema.render().startswith("# Generated")
    assert list(yaml.safe_load_all(schema.render())) == [schema.definition(), schema.server_definition()]


@pytest.mark.parametrize("node", [it for it in FIELDS if not str(it.id).endswith("[]")])
def test_every_field_is_described(node: dict[str, Any]) -> None:
    assert node.get("description", "").endswith(".")
    assert "\n" not in node["description"]


@pytest.mark.parametrize("node", FIELDS)
def test_every_field_is_structural_and_bounded(node: dict[str, Any]) -> None:
    assert not {"$ref", "$defs", "anyOf", "allOf", "oneOf", "title", "propertyNames", "const"} & node.keys()
    if "additionalProperties" in node:
        assert node["maxProperties"]
        assert node["additionalProperties"]["maxLength"]
    if node["type"] == "string":
        assert node.get("maxLength") or node.get("enum") or node.get("format") == "date-time"
    elif node["type"] == "array":
        assert node["maxItems"]
        # `atomic` as all of Kubernetes has the expressions of a selector.
        is_selector = set(node["items"].get("properties", ())) == {"key", "operator", "values"}
        assert node["x-kubernetes-list-type"] in (("atomic",) if is_selector else ("map", "set"))
    elif node["type"] == "integer":
        assert {"minimum", "maximum"} <= node.keys()
        assert node["format"] == "int64"
    else:
        assert node["type"] in ("object", "boolean")


@pytest.mark.parametrize("node", FIELDS)
def test_no_default_is_null_or_empty(node: dict[str, Any]) -> None:
    assert node.get("default", "some") not in (None, [], {})


def test_optional_objects_keep_the_words_of_the_field() -> None:
    assert node_at(".spec.seed")["description"] == "The first-run data."
    assert node_at(".spec.schemas[]")["description"] == "A schema that the role owns."


def test_conditions_are_those_of_kubernetes() -> None:
    conditions = node_at(".status.conditions")
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    item = conditions["items"]
    assert set(item["required"]) >= {"type", "status", "lastTransitionTime", "reason", "message"}
    limits = {name: (it.get("minLength"), it.get("maxLength")) for name, it in item["properties"].items()}
    assert limits["type"] == (1, 316)
    assert limits["reason"] == (1, 1024)
    assert limits["message"] == (None, 32_768)
    assert item["properties"]["status"]["enum"] == ["True", "False", "Unknown"]
    assert item["properties"]["observedGeneration"]["minimum"] == 0
    assert item["properties"]["reason"]["pattern"] == "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"


def test_nobody_has_looked_yet_is_the_default_of_the_status_alone() -> None:
    assert node_at(".status")["default"] == {"observedGeneration": -1}
    assert "default" not in node_at(".status.observedGeneration")


def test_a_server_belongs_to_the_cluster_and_shows_how_it_stands() -> None:
    definition = schema.server_definition()
    assert definition["spec"]["scope"] == "Cluster"
    assert definition["spec"]["names"]["shortNames"] == ["dbs"]
    assert definition["spec"]["names"]["categories"] == ["dbbootstrap"]
    assert dict(walk(SERVER))[".status"]["default"] == {"observedGeneration": -1}
    columns = definition["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    assert shown == ["Ready", "Reason", "Version", "Databases", "Age"]


def test_columns() -> None:
    columns = schema.definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    assert shown == ["Ready", "Reason", "Database", "Migration", "Age"]
    wide = {column["name"]: (column["type"], column["jsonPath"]) for column in columns if column.get("priority")}
    assert wide["Suspend"] == ("boolean", ".spec.suspend")


def test_the_kind_is_a_provisioned_service() -> None:
    definition = schema.definition()
    assert definition["metadata"]["labels"]["servicebinding.io/provisioned-service"] == "true"
    assert definition["spec"]["scope"] == "Namespaced"
    assert definition["spec"]["names"]["shortNames"] == ["dbb"]
    assert definition["spec"]["names"]["categories"] == ["dbbootstrap"]
    assert node_at(".status.binding.name")["type"] == "string"


def test_fields_of_later_work_are_not_there_yet() -> None:
    later = {"phase"}
    assert {path.rpartition(".")[2] for path, _ in walk(ROOT)} & later == set()


def test_a_field_of_two_types_is_refused() -> None:
    with pytest.raises(ValueError, match="one type"):
        schema.structural({"anyOf": [{"type": "string"}, {"type": "integer"}]})
