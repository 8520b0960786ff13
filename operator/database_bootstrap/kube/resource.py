"""A DatabaseBootstrap or DatabaseServer as the API server keeps it: what the operator needs of it, and no more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from database_bootstrap.api import names
from database_bootstrap.api.v1alpha1 import DeletionPolicy


class Key(NamedTuple):
    """What a resource is called; after a deletion the next one may be called the same."""

    namespace: str
    """Empty for a DatabaseServer, which is in none."""
    name: str

    @property
    def is_server(self) -> bool:
        """Whether it is a DatabaseServer."""
        return not self.namespace

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource at one resourceVersion."""

    key: Key
    uid: str
    version: str
    """Its resourceVersion."""
    generation: int
    annotations: Mapping[str, str]
    """Ours only: what people ask of the operator."""
    deleting: bool
    spec: Mapping[str, Any] = field(repr=False)
    status: Mapping[str, Any] = field(repr=False)
    finalizers: tuple[str, ...] = ()
    """Everybody's, in their order."""

    @property
    def suspended(self) -> bool:
        """Somebody asked to leave it alone for now."""
        return self.spec.get("suspend") is True

    @property
    def drops(self) -> bool:
        """What it has made is to go with it; the word itself, which counts even where the rest cannot be understood."""
        return self.spec.get("deletionPolicy") == DeletionPolicy.DELETE

    @property
    def is_held(self) -> bool:
        """It carries our finalizer."""
        return names.FINALIZER in self.finalizers

    @property
    def is_let_go(self) -> bool:
        """It is being deleted, and nothing of ours keeps it: from now on it is none of the operator's business."""
        return self.deleting and not self.is_held

    def is_newer_than(self, other: "Resource") -> bool:
        """Return whether this was written after the other; versions of one kind are ordered numbers."""
        return int(self.version) > int(other.version)


def resource_of(raw: Mapping[str, Any]) -> Resource:
    """Return what matters of an object; the rest of it is not kept in memory."""
    metadata = raw["metadata"]
    annotations = metadata.get("annotations") or {}
    return Resource(
        key=Key(metadata.get("namespace", ""), metadata["name"]),
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        generation=metadata["generation"],
        annotations={key: value for key, value in annotations.items() if key.startswith(f"{names.GROUP}/")},
        deleting="deletionTimestamp" in metadata,
        finalizers=tuple(metadata.get("finalizers") or ()),
        spec=raw.get("spec") or {},
        status=raw.get("status") or {},
    )
