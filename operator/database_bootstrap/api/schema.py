"""The CustomResourceDefinitions, made from the models: what `database-bootstrap crd` prints and crds/ holds."""

from collections.abc import Iterable
from typing import Any

import yaml

from database_bootstrap.api import names
from database_bootstrap.api.rules import VALIDATIONS, Rule
from database_bootstrap.api.server_status import ServerObjectStatus
from database_bootstrap.api.servers import DatabaseServerSpec
from database_bootstrap.api.status import Status
from database_bootstrap.api.v1alpha1 import ROOT_RULES, Spec

HEADER = "# Generated from operator/database_bootstrap/api by `database-bootstrap crd`; do not edit.\n"

Schema = dict[str, Any]

_DROPPED = {"title", "additionalProperties", "$defs"}
"""What pydantic writes and a structural schema must not have, or has no use for."""


def render() -> str:
    """Return the definitions as YAML, the same on every run."""
    return HEADER + "---\n".join(_dumped(one) for one in (definition(), server_definition()))


def render_one(name: str) -> str:
    """Return the definition of this name, as the file of that name has it."""
    return HEADER + next(_dumped(one) for one in (definition(), server_definition()) if one["metadata"]["name"] == name)


def _dumped(one: dict[str, Any]) -> str:
    return yaml.dump(one, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)


def definition() -> dict[str, Any]:
    """Return the definition of DatabaseBootstrap as an object."""
    called = {
        "kind": names.KIND,
        "listKind": names.LIST_KIND,
        "plural": names.PLURAL,
        "singular": names.SINGULAR,
        "shortNames": [names.SHORT_NAME],
    }
    labels = {names.LABEL_PROVISIONED_SERVICE: "true"}
    return _definition(names.CRD_NAME, labels, called, "Namespaced", _version(_columns(), _resource()))


def server_definition() -> dict[str, Any]:
    """Return the definition of DatabaseServer as an object."""
    called = {
        "kind": names.SERVER_KIND,
        "listKind": names.SERVER_LIST_KIND,
        "plural": names.SERVER_PLURAL,
        "singular": names.SERVER_SINGULAR,
        "shortNames": [names.SERVER_SHORT_NAME],
    }
    return _definition(names.SERVER_CRD_NAME, {}, called, "Cluster", _version(_server_columns(), _server()))


def _definition(name: str, labels: Schema, called: Schema, scope: str, version: Schema) -> Schema:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": names.OPERATOR, **labels}},
        "spec": {
            "group": names.GROUP,
            "names": called | {"categories": [names.CATEGORY]},
            "scope": scope,
            "versions": [version],
        },
    }


def _version(columns: list[Schema], resource: Schema) -> Schema:
    return {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": resource},
    }


def _columns() -> list[Schema]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        _column("Ready", f"{ready}.status", "Whether all that the resource asks for is there."),
        _column("Reason", f"{ready}.reason", "Why it is ready or not, in one word."),
        _column("Database", ".spec.database.name", "The database."),
        _column("Migration", ".status.migrations.current", "The last migration applied."),
        _column("Role", ".spec.role.name", "The application's login role.", priority=1),
        _column("Server", ".status.binding.host", "Where applications reach the server.", priority=1),
        _column("Message", f"{ready}.message", "Why it is ready or not, in a sentence.", priority=1),
        _column("Suspend", ".spec.suspend", "Whether it is left alone for now.", kind="boolean", priority=1),
        _column("Age", ".metadata.creationTimestamp", "Time since the resource was made.", kind="date"),
    ]


def _server_columns() -> list[Schema]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        _column("Ready", f"{ready}.status", "Whether resources can be served from it."),
        _column("Reason", f"{ready}.reason", "Why, in one word."),
        _column("Version", ".status.server.version", "PostgreSQL's version."),
        _column("Databases", ".status.databases", "How many databases resources have there.", kind="integer"),
        _column("Host", ".status.server.host", "Where the operator reaches it.", priority=1),
        _column("Message", f"{ready}.message", "Why, in a sentence.", priority=1),
        _column("Age", ".metadata.creationTimestamp", "Time since it was made.", kind="date"),
    ]


def _column(name: str, path: str, description: str, *, kind: str = "string", priority: int = 0) -> Schema:
    column = {"name": name, "type": kind, "description": description, "jsonPath": path}
    return column | ({"priority": priority} if priority else {})


def _resource() -> Schema:
    return _object(
        "A role, a database, its extensions, migrations and first-run data in a PostgreSQL server.",
        names.KIND,
        Spec.model_json_schema(),
        Status.model_json_schema(),
        rules=ROOT_RULES,
    )


def _server() -> Schema:
    return _object(
        "A PostgreSQL server that a platform team offers, and what resources may ask of it.",
        names.SERVER_KIND,
        DatabaseServerSpec.model_json_schema(),
        ServerObjectStatus.model_json_schema(),
    )


def _object(about: str, kind: str, spec: Schema, status: Schema, *, rules: Iterable[Rule] = ()) -> Schema:
    told = structural(status)
    # Nobody has looked yet: visible to kstatus from the first moment on. A field's own default would appear in every
    # status that leaves it out.
    del told["properties"]["observedGeneration"]["default"]
    rooted = [rule.told() for rule in rules]
    return {
        "description": about,
        "type": "object",
        "required": ["spec"],
        **({VALIDATIONS: rooted} if rooted else {}),
        "properties": {
            "apiVersion": {"description": f"Always {names.API_VERSION}.", "type": "string"},
            "kind": {"description": f"Always {kind}.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(spec),
            "status": told | {"default": {"observedGeneration": -1}},
        },
    }


def structural(schema: Schema) -> Schema:
    """Return a pydantic schema as the API server wants it: no references, no null, no titles."""
    return _structural(schema, schema.get("$defs", {}))


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    whole = _resolved(node, definitions)
    result = {key: value for key, value in whole.items() if key not in _DROPPED}
    if result.get("default", ...) in (None, [], {}):
        # Absent and empty are the same to us, and a default would be written into everybody's object.
        del result["default"]
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "properties" in result:
        result["properties"] = {name: _structural(it, definitions) for name, it in result["properties"].items()}
    if "items" in result:
        result["items"] = _structural(result["items"], definitions)
    if isinstance(
        values := whole.get("additionalProperties"), dict
    ):  # A map; elsewhere it says that there are no more.
        result["additionalProperties"] = _structural(values, definitions)
    if VALIDATIONS in result:
        result[VALIDATIONS] = [{"rule": rule["rule"], "message": rule["message"]} for rule in result[VALIDATIONS]]
    if result.get("type") == "integer":
        result["format"] = "int64"
    return {key: result[key] for key in sorted(result, key=_rank)}


def _resolved(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return the node with what it refers to; its own description and default win."""
    own = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    if "$ref" in node:
        return _resolved(definitions[node["$ref"].rpartition("/")[2]], definitions) | own
    if "anyOf" in node:
        present = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(present) != 1:
            raise ValueError("a structural schema has one type for each field")
        return _resolved(present[0], definitions) | own
    return own


_ORDER = ("description", "type", "format", "enum", "default", VALIDATIONS, "required", "properties", "items")


def _rank(key: str) -> tuple[int, str]:
    return (_ORDER.index(key) if key in _ORDER else _ORDER.index("default"), key)


class _Plain(yaml.SafeDumper):
    """YAML without anchors, with lists set in under their key."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)
