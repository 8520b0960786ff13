"""Where the API is, who the operator is there, and what it may do."""

import asyncio
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME

from database_bootstrap.api import names
from database_bootstrap.errors import AccessDenied
from database_bootstrap.kube import client
from database_bootstrap.kube.client import Call, Kind, Kube

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECTIONS = 32
"""To the API server, for all workers together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What another client of the same process needs."""

    server: str
    authority: str | None
    insecure: bool
    token: str | None = field(repr=False)
    certificate: str | None
    key: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Right:
    """Something that the operator must be allowed to do."""

    verb: str
    kind: Kind
    subresource: str = ""

    def __str__(self) -> str:
        what = f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural
        return f"{self.verb} {what}" + (f" ({self.kind.group})" if self.kind.group else "")


def in_cluster(kubeconfig: str | None, context: str | None) -> bool:
    """Return whether the access is that of a Pod: it resolves the Services of the cluster that it serves."""
    return SERVICE_HOST_ENV_NAME in os.environ and kubeconfig is None and context is None


async def configure(kubeconfig: str | None, context: str | None) -> Configuration:
    """Return the access of the Pod, or that of a kubeconfig where one is named or there is no Pod.

    Raise `AccessDenied` with a sentence where there is neither.
    """
    # Proxies and .netrc of the environment are looked up for each call otherwise, which costs more than the call.
    configuration = Configuration(client_session_kwargs={"trust_env": False}, connection_pool_maxsize=CONNECTIONS)
    try:
        if in_cluster(kubeconfig, context):
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, context=context, client_configuration=configuration, persist_config=False
            )
    except (ConfigException, OSError) as error:
        where = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        by = "of this Pod" if in_cluster(kubeconfig, context) else f"by kubeconfig {where}"
        raise AccessDenied(f"There is no access to a Kubernetes API {by}: {error}") from None
    return configuration


def connect(configuration: Configuration, kind: type[Kube] = Kube) -> Kube:
    """Return the client of this process; raise `AccessDenied` where the certificates cannot be read."""
    try:
        return kind(ApiClient(configuration))
    except (ssl.SSLError, OSError) as error:
        raise AccessDenied(f"The certificates for the Kubernetes API cannot be used: {error}") from None


async def credentials(configuration: Configuration) -> Credentials:
    """Return the access as it is now; tokens of Pods are renewed on the way."""
    header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return Credentials(
        server=configuration.host,
        authority=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=header.split(" ", 1)[-1].strip() if header else None,
        certificate=configuration.cert_file,
        key=configuration.key_file,
    )


def own_namespace() -> str | None:
    """Return the namespace of the Pod; None outside of one."""
    try:
        return OWN_NAMESPACE.read_text().strip() or None
    except OSError:
        return None


async def cluster_uid(kube: Kube) -> str:
    """Return what tells this cluster from all others."""
    return str((await kube.get(client.NAMESPACES, None, "kube-system"))["metadata"]["uid"])


async def is_served(kube: Kube) -> bool:
    """Return whether the API knows our kinds."""
    try:
        served = await kube.send(Call(verb="get", kind=Kind(names.GROUP, names.VERSION, "")))
    except client.NotFoundError:
        return False
    # kopf begins with the list of groups, in which a new one shows a moment later; it would watch nothing, for ever.
    groups = await kube.send(Call(verb="get", kind=client.GROUPS))
    if not any(each["name"] == names.GROUP for each in groups["groups"]):
        return False
    return {names.PLURAL, names.SERVER_PLURAL} <= {each["name"] for each in served["resources"]}


async def missing(kube: Kube, rights: Iterable[Right], namespace: str | None) -> tuple[Right, ...]:
    """Return those rights that the operator does not have."""
    wanted = tuple(rights)
    allowed = await asyncio.gather(*(_is_allowed(kube, right, namespace) for right in wanted))
    return tuple(right for right, is_allowed in zip(wanted, allowed, strict=True) if not is_allowed)


async def _is_allowed(kube: Kube, right: Right, namespace: str | None) -> bool:
    attributes = {
        "verb": right.verb,
        "group": right.kind.group,
        "resource": right.kind.plural,
        "subresource": right.subresource,
        "namespace": namespace or "",
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await kube.create(client.ACCESS_REVIEWS, None, body)
    return bool(answer["status"]["allowed"])
