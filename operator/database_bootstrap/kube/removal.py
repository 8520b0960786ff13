"""What surrounds a resource that is being deleted: where its namespace or its kind goes too, nobody meant its data."""

from dataclasses import dataclass

from database_bootstrap.api import names
from database_bootstrap.errors import ClusterUnavailable
from database_bootstrap.kube import client
from database_bootstrap.kube.client import DEFINITIONS, METADATA_ONLY, NAMESPACES, Kind, Kube
from database_bootstrap.kube.resource import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why nothing is dropped."""

    text: str
    takes_events: bool
    """Whether events can still be made in the namespace."""


async def larger_than(kube: Kube, key: Key) -> Why | None:
    """Return why everything is to be kept: more goes than this resource, or that cannot be known; None otherwise.

    Raise `ClusterUnavailable` where the API does not answer now.
    """
    if why := await _why(kube, NAMESPACES, key.namespace, f"namespace {key.namespace}"):
        return Why(text=why, takes_events=False)
    why = await _why(kube, DEFINITIONS, names.CRD_NAME, f"CustomResourceDefinition {names.CRD_NAME}")
    return Why(text=why, takes_events=True) if why else None


async def _why(kube: Kube, kind: Kind, name: str, called: str) -> str | None:
    try:
        found = await kube.get(kind, None, name, accept=METADATA_ONLY)
    except client.NotFoundError:
        return f"the {called} is gone"
    except ClusterUnavailable as error:
        if not error.forbidden:
            raise
        return f"the operator may not look whether the {called} is being deleted (it lacks `get {kind.plural}`)"
    return f"the {called} is being deleted as well" if "deletionTimestamp" in found["metadata"] else None
