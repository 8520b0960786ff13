"""Our finalizer: put on before anything is made that would go with the resource, and taken off as the last step."""

from functools import partial

from database_bootstrap.api import names
from database_bootstrap.kube.client import BOOTSTRAPS, MERGE, Call, Kube
from database_bootstrap.kube.resource import Resource, resource_of
from database_bootstrap.kube.status import insist


async def put_on(kube: Kube, resource: Resource) -> Resource | None:
    """Return the resource with our finalizer; without it where it is being deleted already, None where it is gone."""
    return await insist(kube, resource, partial(_put, kube, wanted=True), "finalizers")


async def take_off(kube: Kube, resource: Resource) -> Resource | None:
    """Return the resource without our finalizer; None where it is gone."""
    return await insist(kube, resource, partial(_put, kube, wanted=False), "finalizers")


async def _put(kube: Kube, resource: Resource, *, wanted: bool) -> Resource:
    if resource.is_held is wanted or (wanted and resource.deleting):
        return resource
    others = [finalizer for finalizer in resource.finalizers if finalizer != names.FINALIZER]
    # The whole list is sent; the resourceVersion makes sure that it is still the one that was read.
    metadata = {
        "resourceVersion": resource.version,
        "finalizers": [*others, names.FINALIZER] if wanted else others,
    }
    reply = await kube.send(
        Call(
            verb="patch",
            kind=BOOTSTRAPS,
            namespace=resource.key.namespace,
            name=resource.key.name,
            query={"fieldManager": names.FIELD_MANAGER},
            body={"metadata": metadata},
            content_type=MERGE,
        )
    )
    return resource_of(reply)
