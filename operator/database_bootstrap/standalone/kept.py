"""What a resource remembers between two runs: its status, its generation, and the spec that was last applied."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from database_bootstrap.api import conditions, names
from database_bootstrap.api.status import BindingStatus, LastChange, Status, parse_status
from database_bootstrap.api.v1alpha1 import parse_spec, refuse_change, without_nulls
from database_bootstrap.errors import BootstrapError
from database_bootstrap.stages.subject import Facts, Report
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


def status_after(before: Status, report: Report, *, generation: int, now: datetime) -> Status:
    """Return the status at the end of a visit; what the visit did not learn stays as it was known."""
    change = LastChange(time=now, generation=generation, changes=len(report.changes))
    derived = conditions.derive(report.outcomes, previous=before.conditions, generation=generation, now=now)
    update = {
        **_learned(report.facts),
        "conditions": derived,
        "observed_generation": generation,
        "last_change": change if report.changes else before.last_change,
    }
    return before.model_copy(update=update)


def _learned(facts: Facts) -> Mapping[str, Any]:
    known = {
        "server": facts.server,
        "role": facts.role,
        "database": facts.database,
        "extensions": facts.extensions,
        "migrations": facts.migrations,
        "seed": facts.seed,
        "binding": BindingStatus(name=facts.binding) if facts.binding else None,
    }
    return {name: value for name, value in known.items() if value is not None}
