"""What a resource names beside itself: Secrets and ConfigMaps, in a cluster or in files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from database_bootstrap.api.binding import Connection
from database_bootstrap.api.servers import DatabaseServerSpec
from database_bootstrap.bundles.bundle import SCRIPTS, Bundle, Limits
from database_bootstrap.postgres.ownership import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSecret:
    """A Secret as it is kept."""

    data: Mapping[str, bytes] = field(repr=False)
    ours: bool
    """It carries this resource's uid, or name."""
    inherited: bool = False
    """An earlier resource of this name has made it, and it says so still."""
    rotation: str | None = None
    """On the Secret of a generated password: a person's word that was acted upon."""
    incarnation: str | None = None
    """Of the database, pinned on the connection Secret with the last complete success."""
    imagined: bool = False
    """Nothing is kept, and so nothing can be missing: it is what there would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedServer:
    """A server that a platform team offers, as one resource sees it."""

    name: str
    spec: DatabaseServerSpec
    """How its administrator logs in, and what may be asked of it."""
    labels: Mapping[str, str] | None
    """Of the resource's namespace; None where they are not known, and nobody can judge by them."""


class Platform(Protocol):
    """Reads what belongs to the platform team; nothing of it is ever shown to a tenant."""

    def qualify(self, host: str, namespace: str | None = None) -> str:
        """Return the host as this process can resolve it: in a cluster a bare Service name needs its namespace.

        By default that of the resource.
        """
        ...

    async def secret_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Return what a Secret holds, or None where there is none."""
        ...

    async def config_map_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Return what a ConfigMap holds, or None where there is none."""
        ...


class Surroundings(Platform, Protocol):
    """Reads what the resource refers to, and keeps the two Secrets that the operator makes for it.

    Every method raises `ServerUnreachable`-like `Retryable` errors where the keeper does not answer.
    """

    async def server(self, name: str) -> SharedServer:
        """Return the server that a platform team offers; raise `ReferenceNotFound` where there is none."""
        ...

    async def secret(self, name: str) -> KeptSecret | None:
        """Return the Secret, or None where there is none."""
        ...

    async def bundle(self, config_maps: tuple[str, ...], limits: Limits = SCRIPTS) -> Bundle:
        """Return the merged files of these ConfigMaps.

        Raise `ReferenceNotFound` for one that is not there, `BundleRejected` for what cannot be used.
        """
        ...

    async def lives(self, owner: Owner) -> bool | None:
        """Whether this very resource of the own cluster is there; None where that cannot be seen from here."""
        ...

    async def keep_password(self, name: str, username: str, password: str, rotation: str | None = None) -> bool:
        """Make the Secret of a generated password; return False where one of that name exists, and leave it alone.

        Only that one which an earlier resource of this name has made is this very one's from then on.
        """
        ...

    async def replace_password(self, name: str, username: str, password: str, rotation: str) -> None:
        """Write another password into that Secret, which is this resource's, and with it whose word that was done on.

        Raise `ClusterUnavailable` or `ReferenceRejected` where it has changed meanwhile, or cannot be written.
        """
        ...

    async def publish(self, name: str, connection: Connection, incarnation: str | None) -> None:
        """Write the connection Secret, and pin the incarnation of the database on it.

        Raise `NotOwned` where a Secret of that name is not this resource's.
        """
        ...


class Belongings(Surroundings, Protocol):
    """The same for a resource that is being deleted, whose two Secrets go with it."""

    async def delete_secret(self, name: str) -> bool | None:
        """Delete the Secret where it carries this resource's own uid.

        Return False where it does not and was left alone, and None where there is none.
        """
        ...
