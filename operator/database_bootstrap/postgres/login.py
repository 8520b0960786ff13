"""Who logs in where: values only, no connection."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

APPLICATION_NAME_LIMIT = 63
"""Bytes of application_name that PostgreSQL keeps (NAMEDATALEN - 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A PostgreSQL server as a client reaches it."""

    host: str
    port: int = 5432
    sslmode: str = "prefer"
    ca: str | None = None
    """PEM text of the authorities that may have signed the server's certificate."""
    require_auth: str = "scram-sha-256"
    """What the server must ask for: under `trust` any password "works", so a login would prove nothing."""
    addresses: tuple[str, ...] = ()
    """What the host was found to be, to be asked no more: whoever says it could say another one the next time."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a client shows beside its password, where the server asks for it."""

    chain: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One user's credentials for one database."""

    endpoint: Endpoint
    user: str
    password: str = field(repr=False)
    database: str
    application_name: str = "dbbootstrap"
    certificate: Certificate | None = None
    server: str | None = None
    """The DatabaseServer whose administrator this is: what goes wrong with it is no tenant's business."""

    def to(self, database: str) -> "Login":
        """Return the same credentials for another database of the server."""
        return replace(self, database=database)


Settings = Mapping[str, str]
"""Configuration parameters sent with the startup packet."""
