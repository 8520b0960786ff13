"""What must be so before the operator acts; else it ends with a sentence that says what to do."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from database_bootstrap.api import names
from database_bootstrap.errors import AccessDenied, BootstrapError, ClusterUnavailable
from database_bootstrap.kube import access
from database_bootstrap.kube.access import Right
from database_bootstrap.kube.client import BOOTSTRAPS, CONFIG_MAPS, EVENTS, LEASES, SECRETS, SERVERS, Kube
from database_bootstrap.settings import Settings

UNREACHABLE_SECONDS = 30.0
"""For an API server that is just starting."""
REFUSED_SECONDS = 3.0
"""For definition and rights that are applied at the same moment as the operator, or that the API server just loads."""
PAUSE_SECONDS = 0.5
UNDEFINED = (
    f"The API server does not know {names.KIND} and {names.SERVER_KIND} ({names.API_VERSION}): apply the "
    f"CustomResourceDefinitions {names.CRD_NAME} and {names.SERVER_CRD_NAME} first "
    "(`database-bootstrap crd | kubectl apply --server-side -f -`)."
)

WATCH_SERVERS = tuple(Right(verb, SERVERS) for verb in ("get", "list", "watch"))
TELL_OF_SERVERS = Right("patch", SERVERS, "status")
"""Where the operator serves the whole cluster it must have these; elsewhere it does without."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What the operator stands on."""

    cluster_id: str
    watches_servers: bool
    """It may list and watch DatabaseServers."""
    tells_of_servers: bool
    """It may write their status."""


async def check(kube: Kube, settings: Settings) -> Grounds:
    """Return what is so; raise `AccessDenied` or `ClusterUnavailable` for what stays as it must not be."""
    if settings.leader_elect:
        lease_namespace(settings)
    loop = asyncio.get_running_loop()
    began = loop.time()
    said = ""
    while True:
        try:
            return await _grounds(kube, settings)
        except (AccessDenied, ClusterUnavailable) as error:
            patience = REFUSED_SECONDS if isinstance(error, AccessDenied) else UNREACHABLE_SECONDS
            if loop.time() - began > patience:
                raise
            if error.message != said:
                log.warning("Not ready yet: %s", error)
            said = error.message
        await asyncio.sleep(PAUSE_SECONDS)


async def wait(kube: Kube, settings: Settings) -> bool:
    """Return True once all is as it must be, however long that takes."""
    said = ""
    while True:
        await asyncio.sleep(PAUSE_SECONDS)
        try:
            await _check(kube, settings)
        except BootstrapError as error:
            if error.message != said:
                log.warning("Not ready yet: %s", error)
            said = error.message
        else:
            return True


async def _check(kube: Kube, settings: Settings) -> str:
    if not await access.is_served(kube):
        raise AccessDenied(UNDEFINED)
    await _check_rights(kube, settings)
    return settings.cluster_id or await _cluster_uid(kube)


async def _grounds(kube: Kube, settings: Settings) -> Grounds:
    cluster_id = await _check(kube, settings)
    # Who serves the whole cluster lacks none of them, or has been refused.
    lacking = await _lacking_of_servers(kube) if settings.namespaces else ()
    watches = not set(WATCH_SERVERS) & set(lacking)
    return Grounds(
        cluster_id=cluster_id, watches_servers=watches, tells_of_servers=watches and TELL_OF_SERVERS not in lacking
    )


async def _lacking_of_servers(kube: Kube) -> tuple[Right, ...]:
    return await access.missing(kube, (*WATCH_SERVERS, TELL_OF_SERVERS), None)


async def _check_rights(kube: Kube, settings: Settings) -> None:
    for namespace in settings.namespaces or (None,):
        lacking = await access.missing(kube, rights(watch_secrets=settings.watch_secrets), namespace)
        _refuse(lacking, f"in namespace {namespace}" if namespace else "in all namespaces")
    if not settings.namespaces:
        _refuse(await _lacking_of_servers(kube), "in the cluster")
    if settings.leader_elect:
        place = lease_namespace(settings)
        wanted = (Right(verb, LEASES) for verb in ("get", "create", "update"))
        _refuse(await access.missing(kube, wanted, place), f"in namespace {place}")


async def _cluster_uid(kube: Kube) -> str:
    try:
        return await access.cluster_uid(kube)
    except ClusterUnavailable as error:
        if not error.forbidden:
            raise
        raise AccessDenied(
            "The operator may not read the namespace kube-system, whose uid names the cluster in ownership marks: "
            "grant `get namespaces` for it, or pass --cluster-id with a name that no other cluster has."
        ) from None


def rights(*, watch_secrets: bool) -> Iterator[Right]:
    """Yield what the operator must be allowed to do in the namespaces that it serves."""
    yield from (Right(verb, BOOTSTRAPS) for verb in ("get", "list", "watch", "patch"))
    yield Right("patch", BOOTSTRAPS, "status")
    yield from (Right(verb, CONFIG_MAPS) for verb in ("get", "list", "watch"))
    yield from (Right(verb, SECRETS) for verb in ("get", "create", "patch", "delete"))
    yield Right("create", EVENTS)
    if watch_secrets:
        yield from (Right(verb, SECRETS) for verb in ("list", "watch"))


def lease_namespace(settings: Settings) -> str:
    """Return where the Lease is; raise `AccessDenied` where nothing says so."""
    found = settings.lease_namespace or access.own_namespace()
    if found is None:
        raise AccessDenied("Outside of a Pod --leader-elect needs --lease-namespace.")
    return found


def _refuse(lacking: tuple[Right, ...], where: str) -> None:
    if lacking:
        raise AccessDenied(f"The operator may not {', '.join(map(str, lacking))} {where}: apply its RBAC rules.")
