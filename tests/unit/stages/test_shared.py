"""The administrator of an offered server: from whose Secret, under which TLS, and what a tenant is told of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from database_bootstrap.api.servers import parse_server
from database_bootstrap.errors import BootstrapError, ReferenceNotFound, ReferenceRejected
from database_bootstrap.postgres.login import Login
from database_bootstrap.stages import shared
from database_bootstrap.stages.surroundings import SharedServer

PEM = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----"
KEY = "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----"
ACCESS = {"host": b"db", "username": b"admin", "password": b"canary", "sslmode": b"disable"}
CA = {"namespace": "platform", "name": "ca"}


@dataclass
class Shelf:
    """What the platform team keeps."""

    secrets: dict[tuple[str, str], Mapping[str, bytes]] = field(default_factory=dict)
    config_maps: dict[tuple[str, str], Mapping[str, bytes]] = field(default_factory=dict)

    def qualify(self, host: str, namespace: str | None = None) -> str:
        return f"{host}.{namespace}.svc"

    async def secret_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        return self.secrets.get((namespace, name))

    async def config_map_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        return self.config_maps.get((namespace, name))


def offer(**spec: Any) -> SharedServer:
    least = {"adminSecretRef": {"namespace": "platform", "name": "postgres"}}
    return SharedServer(name="main", spec=parse_server(least | spec), labels=None)


async def login(shelf: Shelf, **spec: Any) -> Login:
    return await shared.administrator(offer(**spec), shelf)


async def test_bare_host_is_looked_for_beside_the_admin_secret() -> None:
    found = await login(Shelf({("platform", "postgres"): ACCESS}))
    assert (found.endpoint.host, found.user, found.server) == ("db.platform.svc", "admin", "main")
    assert found.endpoint.sslmode == "disable"


async def test_tls_of_the_server_wins_over_that_of_the_secret() -> None:
    shelf = Shelf({("platform", "postgres"): ACCESS, ("platform", "ca"): {"ca.crt": PEM.encode()}})
    shelf.config_maps["platform", "ca"] = {"bundle.pem": PEM.encode() + b"\n"}
    assert (await login(shelf, tls={"mode": "Require"})).endpoint.sslmode == "require"
    secret = (await login(shelf, tls={"caSecretRef": CA})).endpoint
    assert (secret.sslmode, secret.ca) == ("verify-full", PEM)
    config_map = (await login(shelf, tls={"mode": "VerifyCA", "caConfigMapRef": CA | {"key": "bundle.pem"}})).endpoint
    assert (config_map.sslmode, config_map.ca) == ("verify-ca", PEM + "\n")
    shelf.secrets["platform", "postgres"] = ACCESS | {"ca.crt": PEM.encode()}
    assert (await login(shelf, tls={})).endpoint.ca == PEM


async def test_client_certificate_is_the_administrators_alone_and_its_key_is_not_shown() -> None:
    shelf = Shelf({("platform", "postgres"): ACCESS, ("platform", "ca"): {"tls.crt": PEM.encode()}})
    shelf.secrets["platform", "ca"] = {"tls.crt": PEM.encode(), "tls.key": KEY.encode()}
    found = await login(shelf, tls={"mode": "Require", "clientCertificateRef": CA})
    assert found.certificate is not None
    assert (found.certificate.chain, found.certificate.key) == (PEM, KEY)
    assert "PRIVATE KEY" not in repr(found)


@pytest.mark.parametrize(
    ("shelf", "tls", "kind", "expected"),
    [
        pytest.param(Shelf(), {}, ReferenceNotFound, "Secret platform/postgres is not there", id="no Secret"),
        pytest.param(
            Shelf({("platform", "postgres"): {}}), {}, ReferenceNotFound, "has no key host", id="an empty Secret"
        ),
        pytest.param(
            Shelf({("platform", "postgres"): ACCESS}), {}, ReferenceRejected, "needs the authorities", id="no CA"
        ),
        pytest.param(
            Shelf({("platform", "postgres"): ACCESS}),
            {"caSecretRef": CA},
            ReferenceNotFound,
            "Secret platform/ca is not there",
            id="the CA's Secret is missing",
        ),
        pytest.param(
            Shelf({("platform", "postgres"): ACCESS}, {("platform", "ca"): {}}),
            {"caConfigMapRef": CA},
            ReferenceNotFound,
            "ConfigMap platform/ca has no key ca.crt",
            id="the CA's key is missing",
        ),
        pytest.param(
            Shelf({("platform", "postgres"): ACCESS}, {("platform", "ca"): {"ca.crt": b"canary"}}),
            {"caConfigMapRef": CA},
            ReferenceRejected,
            "no PEM certificate",
            id="the CA is none",
        ),
        pytest.param(
            Shelf({("platform", "postgres"): ACCESS}, {("platform", "ca"): {"ca.crt": f"{PEM}\n{KEY}".encode()}}),
            {"caConfigMapRef": CA},
            ReferenceRejected,
            "holds a private key",
            id="the CA's own key would be published",
        ),
        pytest.param(
            Shelf({("platform", "postgres"): ACCESS, ("platform", "ca"): {"tls.crt": PEM.encode()}}),
            {"mode": "Require", "clientCertificateRef": CA},
            ReferenceRejected,
            "and its key in tls.key",
            id="the client's key is missing",
        ),
    ],
)
async def test_trouble_is_told_in_full_to_the_platform_team_alone(
    shelf: Shelf, tls: dict[str, Any], kind: type[BootstrapError], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(kind, match=expected):
        await login(shelf, tls=tls)
    with pytest.raises(kind) as told:
        await shared.administrator_for_tenants(offer(tls=tls), shelf)
    assert "DatabaseServer main" in told.value.message
    assert not {"platform", "Secret", "canary", "ca.crt"} & set(told.value.message.replace("/", " ").split())
    (line,) = caplog.messages
    assert expected in line and "canary" not in line
