"""What a resource remembers between two runs: its status, its generation, and the spec that was last applied."""

from dataclasses import dataclass

from database_bootstrap.api import names
from database_bootstrap.api.status import Status, parse_status
from database_bootstrap.api.v1alpha1 import parse_spec, refuse_change, without_nulls
from database_bootstrap.errors import BootstrapError
from database_bootstrap.standalone.collection import Resource
from database_bootstrap.standalone.documents import InputError
from database_bootstrap.standalone.keeper import Keeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of a resource before a visit."""

    status: Status
    generation: int


def recall(resource: Resource, keeper: Keeper | None) -> Memory:
    """Return what was kept; raise `InputError` where the spec changes what must stay, as the API server would."""
    kept = keeper.resource(resource.owner) if keeper else None
    if kept is None:
        # As it comes out of a cluster; in a file that somebody wrote there is none.
        return Memory(status=parse_status(resource.known_status), generation=1)
    spec = without_nulls(kept.get("spec") or {})
    try:
        refuse_change(resource.spec, parse_spec(kept.get("spec") or {}))
    except BootstrapError as error:
        raise InputError(f"{resource.origin}: {error.message}") from None
    generation = int((kept.get("metadata") or {}).get("generation") or 1)
    changed = spec != without_nulls(resource.manifest["spec"])
    return Memory(status=parse_status(kept.get("status") or {}), generation=generation + changed)


def keep(resource: Resource, keeper: Keeper, memory: Memory) -> None:
    """Write what is known after a visit, where it says something new."""
    owner = resource.owner
    manifest = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "name": owner.name,
            "namespace": owner.namespace,
            "uid": owner.uid,
            "generation": memory.generation,
        },
        "spec": resource.manifest["spec"],
        "status": memory.status.manifest(),
    }
    if keeper.resource(owner) != manifest:
        keeper.put_resource(owner, manifest)
