"""The status: written by server-side apply, by one manager, and only where it says something new."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from database_bootstrap.api import names
from database_bootstrap.errors import ClusterUnavailable
from database_bootstrap.kube import client
from database_bootstrap.kube.client import APPLY, BOOTSTRAPS, SERVERS, Call, Kind, Kube
from database_bootstrap.kube.resource import Resource, resource_of

ATTEMPTS = 5
QUERY = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
"""Nobody else may own a field of the status: forced, as controllers are advised to."""


async def write(kube: Kube, resource: Resource, status: Mapping[str, Any]) -> Resource | None:
    """Return the resource with this status; None where it is gone."""
    return await insist(kube, resource, partial(_apply, kube, status=status), "status")


async def insist(
    kube: Kube, resource: Resource, send: Callable[[Resource], Awaitable[Resource]], what: str
) -> Resource | None:
    """Return what came of sending a change of this resource, as it is; None where the resource is gone.

    The API server checks the resourceVersion, as it does not check the uid: on a conflict the resource is read again,
    and what was found out is still true of the same uid.
    """
    for _ in range(ATTEMPTS):
        try:
            return await send(resource)
        except client.NotFoundError:
            return None
        except client.ConflictError:
            fresh = await read(kube, resource)
            if fresh is None:
                return None
            resource = fresh
    raise ClusterUnavailable(f"The {what} of {resource.key} was changed {ATTEMPTS} times while it was written.")


async def read(kube: Kube, resource: Resource) -> Resource | None:
    """Return the resource as it is now; None where it is gone, or another one has its name."""
    try:
        found = resource_of(await kube.get(_kind(resource), resource.key.namespace, resource.key.name))
    except client.NotFoundError:
        return None
    return found if found.uid == resource.uid else None


def differs(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether writing would say anything new; the times of transitions alone do not."""
    return _without_times(found) != _without_times(wanted)


async def _apply(kube: Kube, resource: Resource, status: Mapping[str, Any]) -> Resource:
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.SERVER_KIND if resource.key.is_server else names.KIND,
        "metadata": {"name": resource.key.name, "resourceVersion": resource.version},
        "status": status,
    }
    reply = await kube.send(
        Call(
            verb="patch",
            kind=_kind(resource),
            namespace=resource.key.namespace,
            name=resource.key.name,
            subresource="status",
            query=QUERY,
            body=body,
            content_type=APPLY,
        )
    )
    return resource_of(reply)


def _kind(resource: Resource) -> Kind:
    return SERVERS if resource.key.is_server else BOOTSTRAPS


def _without_times(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = [
        {key: value for key, value in condition.items() if key != "lastTransitionTime"}
        for condition in status.get("conditions") or ()
    ]
    return {**status, "conditions": conditions}
