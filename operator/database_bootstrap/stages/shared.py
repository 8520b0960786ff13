"""The administrator of a server that a platform team offers: its login, and how little tenants learn of it."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from database_bootstrap import errors, logs
from database_bootstrap.api.servers import CertificateRef, ClientCertificateRef, TlsSpec
from database_bootstrap.postgres.login import Certificate, Endpoint, Login
from database_bootstrap.stages.logins import administrator as login_of
from database_bootstrap.stages.logins import certificate
from database_bootstrap.stages.surroundings import Platform, SharedServer

_log = logging.getLogger(__name__)


async def administrator(server: SharedServer, platform: Platform) -> Login:
    """Return the administrator's login; raise what names the Secret, for the eyes of whoever runs the server."""
    try:
        return await _administrator(server, platform)
    except errors.ClusterUnavailable as error:
        if not error.forbidden:
            raise
        raise errors.ClusterUnavailable(
            f"{error.message.rstrip('.')}. Apply the operator's RBAC rules again, or let it read that one there by a "
            "Role and a RoleBinding",
            forbidden=True,
        ) from None


async def _administrator(server: SharedServer, platform: Platform) -> Login:
    reference = server.spec.admin_secret_ref
    name = f"{reference.namespace}/{reference.name}"
    data = await platform.secret_in(reference.namespace, reference.name)
    if data is None:
        raise errors.ReferenceNotFound(f"Secret {name} is not there; it is waited for (adminSecretRef)")
    login = login_of(name, data)
    endpoint = replace(login.endpoint, host=platform.qualify(login.endpoint.host, reference.namespace))
    shown = None
    if tls := server.spec.tls:
        endpoint = await _encrypted(endpoint, tls, platform)
        shown = await _shown(tls.client_certificate_ref, platform) if tls.client_certificate_ref else None
    return replace(login, endpoint=endpoint, certificate=shown, server=server.name)


async def administrator_for_tenants(server: SharedServer, platform: Platform) -> Login:
    """Return the same; what goes wrong says no more than that a tenant has to wait, and for whom."""
    try:
        return await administrator(server, platform)
    except (errors.ReferenceNotFound, errors.ClusterUnavailable) as error:
        if isinstance(error, errors.ClusterUnavailable) and not error.forbidden:
            raise errors.ClusterUnavailable("The Kubernetes API does not answer") from None
        _tell(server, error)
        raise errors.ReferenceNotFound(
            f"DatabaseServer {server.name} has no administrator's access now; it is waited for, and its own status "
            "says what is missing, or the operator's log"
        ) from None
    except errors.ReferenceRejected as error:
        _tell(server, error)
        raise errors.ReferenceRejected(
            f"The administrator's access of DatabaseServer {server.name} cannot be used; its own status says why, or "
            "the operator's log"
        ) from None


def _tell(server: SharedServer, error: errors.BootstrapError) -> None:
    # An operator of one namespace keeps no status of the server, and `apply` has none to write.
    _log.warning(
        "No administrator's access of DatabaseServer %s: %s", server.name, error, extra=logs.about("", server.name)
    )


async def _encrypted(endpoint: Endpoint, tls: TlsSpec, platform: Platform) -> Endpoint:
    sslmode = tls.mode.sslmode
    authorities = endpoint.ca
    if reference := tls.ca_secret_ref or tls.ca_config_map_ref:
        is_secret = tls.ca_secret_ref is not None
        read = platform.secret_in if is_secret else platform.config_map_in
        data = await read(reference.namespace, reference.name)
        authorities = _authorities("Secret" if is_secret else "ConfigMap", reference, data)
    if authorities is None and sslmode.startswith("verify"):
        raise errors.ReferenceRejected(
            f"tls.mode {tls.mode} needs the authorities that sign the server's certificate: name them in "
            "tls.caSecretRef or tls.caConfigMapRef, or put ca.crt into the admin Secret"
        )
    return replace(endpoint, sslmode=sslmode, ca=authorities)


async def _shown(reference: ClientCertificateRef, platform: Platform) -> Certificate:
    name = f"{reference.namespace}/{reference.name}"
    data = await platform.secret_in(reference.namespace, reference.name)
    if data is None:
        raise errors.ReferenceNotFound(f"Secret {name} is not there; it is waited for (tls.clientCertificateRef)")
    chain = certificate(name, data, "tls.crt")
    key = data.get("tls.key", b"").decode(errors="replace")
    if chain is None or "PRIVATE KEY-----" not in key:
        raise errors.ReferenceRejected(f"Secret {name} must have a PEM certificate in tls.crt, and its key in tls.key")
    return Certificate(chain=chain, key=key)


def _authorities(kind: str, reference: CertificateRef, data: Mapping[str, bytes] | None) -> str:
    name = f"{reference.namespace}/{reference.name}"
    if data is None:
        raise errors.ReferenceNotFound(f"{kind} {name} is not there; it is waited for (tls)")
    found = certificate(name, data, reference.key)
    if found is None:
        raise errors.ReferenceNotFound(f"{kind} {name} has no key {reference.key} (tls)")
    return found
