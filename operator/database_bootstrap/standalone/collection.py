"""Documents → what `apply` works with: the resources, and the Secrets and ConfigMaps that they may refer to."""

import base64
import binascii
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from database_bootstrap.api import names, rules
from database_bootstrap.api.servers import DatabaseServerSpec, parse_server
from database_bootstrap.api.status import Status
from database_bootstrap.api.v1alpha1 import Spec, check_root, parse_spec
from database_bootstrap.bundles.sources import ConfigMapData
from database_bootstrap.errors import BootstrapError
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.settings import is_id
from database_bootstrap.stages.subject import Subject
from database_bootstrap.standalone.documents import Document, InputError

CLUSTER = "standalone"
DEFAULT_NAMESPACE = "default"
UIDS = uuid.UUID("a9f1c0de-0000-5000-8000-646262737472")
"""The name space of the uids that resources without one get: the same one on every run and every machine."""

NAME_LENGTH = 253

Key = tuple[str, str]
"""Namespace and name."""
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A DatabaseBootstrap from a file."""

    owner: Owner
    is_uid_derived: bool
    """The manifest has none."""
    spec: Spec
    annotations: Mapping[str, str]
    """Those of our group: a person's word."""
    manifest: Mapping[str, Any]
    """As it was written."""
    folder: Path
    origin: str

    @property
    def connection_secret(self) -> str:
        """Where the application finds its connection."""
        return self.spec.connection_secret_name(self.owner.name)

    def subject(self, status: Status) -> Subject:
        """Return what the engine is told, with what was known before."""
        return Subject(
            owner=self.owner,
            spec=self.spec,
            status=status,
            annotations=self.annotations,
            is_uid_derived=self.is_uid_derived,
        )

    @property
    def known_status(self) -> Mapping[str, Any]:
        """The status that came with it, if any."""
        status = self.manifest.get("status")
        return status if isinstance(status, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretData:
    """A Secret from a file."""

    data: Mapping[str, bytes] = field(repr=False)
    uid: str | None = None
    """Of the resource that made it, where one of ours did."""
    incarnation: str | None = None
    """Pinned on a connection Secret."""
    rotation: str | None = None
    """On the Secret of a generated password: the word on which it was made."""


@dataclass(slots=True, kw_only=True)
class Collection:
    """All that the files hold."""

    resources: dict[Key, Resource] = field(default_factory=dict)
    secrets: dict[Key, SecretData] = field(default_factory=dict)
    config_maps: dict[Key, ConfigMapData] = field(default_factory=dict)
    servers: dict[str, DatabaseServerSpec] = field(default_factory=dict)
    """What a platform team offers, which belongs to no namespace."""
    notes: list[str] = field(default_factory=list)
    """What was left out, each in a sentence."""


def collect(documents: Iterable[Document], cluster: str = CLUSTER) -> Collection:
    """Return what the documents hold; raise `InputError` for one that cannot be what it says it is."""
    found = Collection()
    for document in documents:
        match (_text(document, "apiVersion"), _text(document, "kind")):
            case (names.API_VERSION, names.KIND):
                _put(found.resources, document, partial(_resource, cluster))
            case (names.API_VERSION, names.SERVER_KIND):
                _put_server(found, document)
            case ("v1", "Secret"):
                _put(found.secrets, document, secret_data)
            case ("v1", "ConfigMap"):
                _put(found.config_maps, document, _config_map)
            case (version, kind) if version.partition("/")[0] == names.GROUP:
                known = f"{names.KIND} and {names.SERVER_KIND} of {names.API_VERSION}"
                raise InputError(f"{document.origin}: {kind} of {version} is not known; {known} are")
            case (version, kind):
                found.notes.append(f"{document.origin}: ignored, a {kind} of {version} is nothing for this program")
    return found


def key_of(document: Document) -> Key:
    """Return namespace and name; what a cluster would not accept as one is refused, as they become names of files."""
    metadata = _mapping(document, document.manifest.get("metadata"), "metadata")
    name, namespace = metadata.get("name"), metadata.get("namespace") or DEFAULT_NAMESPACE
    if not isinstance(name, str) or not is_object_name(name):
        raise InputError(f"{document.origin}: metadata.name must be a name as Kubernetes has them (a-z, 0-9, - and .)")
    if not isinstance(namespace, str) or not is_namespace(namespace):
        raise InputError(f"{document.origin}: metadata.namespace must be a name as Kubernetes has them (a-z, 0-9, -)")
    return namespace, name


def is_object_name(text: str) -> bool:
    """Return whether an object in a cluster can have this name."""
    return len(text) <= NAME_LENGTH and re.fullmatch(rules.DNS_SUBDOMAIN, text) is not None


def is_namespace(text: str) -> bool:
    """Return whether a namespace can have this name."""
    return re.fullmatch(rules.DNS_LABEL, text) is not None


def secret_data(document: Document) -> SecretData:
    """Return what a Secret holds; `stringData` wins over `data`, as in a cluster."""
    encoded = _strings(document, "data")
    plain = _strings(document, "stringData")
    data = {key: _decoded(document, "data", key, value) for key, value in encoded.items()}
    annotations = _mapping(document, document.manifest["metadata"].get("annotations"), "metadata.annotations")
    return SecretData(
        data=data | {key: value.encode() for key, value in plain.items()},
        uid=annotations.get(names.ANNOTATION_UID),
        incarnation=annotations.get(names.ANNOTATION_INCARNATION),
        rotation=annotations.get(names.ANNOTATION_ROTATED),
    )


def _put(into: dict[Key, Kept], document: Document, make: Callable[[Document], Kept]) -> None:
    key = key_of(document)
    if key in into:
        raise InputError(f"{document.origin}: {document.manifest['kind']} {'/'.join(key)} is there twice")
    into[key] = make(document)


def _put_server(found: Collection, document: Document) -> None:
    (_, name) = key_of(document)
    if name in found.servers:
        raise InputError(f"{document.origin}: {names.SERVER_KIND} {name} is there twice")
    try:
        found.servers[name] = parse_server(_mapping(document, document.manifest.get("spec"), "spec"))
    except BootstrapError as error:
        raise InputError(f"{document.origin}: {error.message}") from None
    if found.servers[name].allowed_namespaces is not None:
        found.notes.append(
            f"{document.origin}: allowedNamespaces is taken as kept, as labels of namespaces are not known without a "
            "cluster; all other rules count"
        )


def _resource(cluster: str, document: Document) -> Resource:
    namespace, name = key_of(document)
    unknown = document.manifest.keys() - {"apiVersion", "kind", "metadata", "spec", "status"}
    if unknown:
        raise InputError(f"{document.origin}: {min(map(str, unknown))} is not a field of a {names.KIND}")
    try:
        spec = parse_spec(_mapping(document, document.manifest.get("spec"), "spec"))
        check_root(name, spec)
    except BootstrapError as error:
        raise InputError(f"{document.origin}: {error.message}") from None
    uid = document.manifest["metadata"].get("uid")
    derived = uuid.uuid5(UIDS, f"{cluster}/{namespace}/{name}")
    if uid and not is_id(str(uid)):
        raise InputError(f"{document.origin}: metadata.uid is no uid of a resource")
    return Resource(
        owner=Owner(cluster=cluster, namespace=namespace, name=name, uid=str(uid or derived)),
        is_uid_derived=not uid,
        spec=spec,
        annotations=_annotations(document),
        manifest=document.manifest,
        folder=document.folder,
        origin=document.origin,
    )


def _annotations(document: Document) -> dict[str, str]:
    every = _mapping(document, document.manifest["metadata"].get("annotations"), "metadata.annotations")
    ours = {key: value for key, value in every.items() if key.startswith(f"{names.GROUP}/")}
    for key, value in ours.items():
        if not isinstance(value, str):
            raise InputError(f"{document.origin}: metadata.annotations.{key} must be text; put it in quotes")
    return ours


def _config_map(document: Document) -> ConfigMapData:
    encoded = _strings(document, "binaryData")
    return ConfigMapData(
        name=key_of(document)[1],
        data=_strings(document, "data"),
        binary_data={key: _decoded(document, "binaryData", key, value) for key, value in encoded.items()},
        part=_annotations(document).get(names.ANNOTATION_BUNDLE),
    )


def _text(document: Document, field_name: str) -> str:
    value = document.manifest.get(field_name)
    if not isinstance(value, str) or not value:
        raise InputError(f"{document.origin}: {field_name} is missing")
    return value


def _mapping(document: Document, value: object, field_name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{document.origin}: {field_name} must be an object")
    return value


def _strings(document: Document, field_name: str) -> dict[str, str]:
    values = _mapping(document, document.manifest.get(field_name), field_name)
    for key, value in values.items():
        # Never the value: it may be a password that YAML read as a number.
        if not isinstance(value, str):
            raise InputError(f"{document.origin}: {field_name}.{key} must be text; put it in quotes")
    return values


def _decoded(document: Document, field_name: str, key: str, value: str) -> bytes:
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{document.origin}: {field_name}.{key} is not base64") from None
