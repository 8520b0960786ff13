"""A DatabaseBootstrap as the API server keeps it: what the operator needs of it, and no more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from database_bootstrap.api import names


class Key(NamedTuple):
    """What a resource is called; after a deletion the next one may be called the same."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


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

    @property
    def suspended(self) -> bool:
        """Somebody asked to leave it alone for now."""
        return self.spec.get("suspend") is True

    def is_newer_than(self, other: "Resource") -> bool:
        """Return whether this was written after the other; versions of one kind are ordered numbers."""
        return int(self.version) > int(other.version)


def resource_of(raw: Mapping[str, Any]) -> Resource:
    """Return what matters of an object; the rest of it is not kept in memory."""
    metadata = raw["metadata"]
    annotations = metadata.get("annotations") or {}
    return Resource(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        generation=metadata["generation"],
        annotations={key: value for key, value in annotations.items() if key.startswith(f"{names.GROUP}/")},
        deleting="deletionTimestamp" in metadata,
        spec=raw.get("spec") or {},
        status=raw.get("status") or {},
    )
