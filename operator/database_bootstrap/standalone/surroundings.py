"""What a resource refers to, found among the documents and in the keeper's folder."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from database_bootstrap.api import binding
from database_bootstrap.api.binding import Connection
from database_bootstrap.api.status import Status
from database_bootstrap.bundles.bundle import SCRIPTS, Bundle, Limits
from database_bootstrap.bundles.sources import bundle_of_config_maps
from database_bootstrap.errors import NotOwned, ReferenceNotFound, ReferenceRejected
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.stages.credentials import Credentials
from database_bootstrap.stages.surroundings import KeptSecret, SharedServer
from database_bootstrap.standalone.collection import Collection, Resource, SecretData
from database_bootstrap.standalone.documents import InputError
from database_bootstrap.standalone.keeper import Keeper


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSurroundings:
    """The surroundings of one resource without a cluster."""

    resource: Resource
    collection: Collection
    keeper: Keeper | None
    """None: nothing is kept between runs."""

    @property
    def owner(self) -> Owner:
        """Whose surroundings these are."""
        return self.resource.owner

    def qualify(self, host: str, namespace: str | None = None) -> str:
        """Return the host as it is: it is resolved where this program runs."""
        return host

    async def server(self, name: str) -> SharedServer:
        """Return the server that the files offer; the labels of namespaces are not known here."""
        if (found := self.collection.servers.get(name)) is None:
            raise ReferenceNotFound(f"DatabaseServer {name} is not among the documents (server.ref)")
        return SharedServer(name=name, spec=found, labels=None)

    async def secret_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Return what a Secret among the documents holds."""
        found = self.collection.secrets.get((namespace, name))
        return found.data if found else None

    async def config_map_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Return what a ConfigMap among the documents holds."""
        found = self.collection.config_maps.get((namespace, name))
        return _encoded(found.data) if found else None

    async def secret(self, name: str) -> KeptSecret | None:
        """Return the Secret: from the documents, else as it was kept."""
        found = self._find(name)
        if found:
            return KeptSecret(
                data=found.data,
                ours=found.uid == self.owner.uid,
                incarnation=found.incarnation,
                rotation=found.rotation,
            )
        if self.keeper is None and name == self.resource.connection_secret:
            return await self._as_it_would_be()
        return None

    async def bundle(self, config_maps: tuple[str, ...], limits: Limits = SCRIPTS) -> Bundle:
        """Return the merged files of these ConfigMaps."""
        there = [self.collection.config_maps.get((self.owner.namespace, name)) for name in config_maps]
        for name, found in zip(config_maps, there, strict=True):
            if found is None:
                raise ReferenceNotFound(f"ConfigMap {name} is not among the documents")
        return await asyncio.to_thread(bundle_of_config_maps, [found for found in there if found is not None], limits)

    async def lives(self, owner: Owner) -> bool:
        """Return whether it is among the documents, as it is in what was dumped from a cluster."""
        return any(resource.owner == owner for resource in self.collection.resources.values())

    async def keep_password(self, name: str, username: str, password: str, rotation: str | None = None) -> bool:
        """Keep a generated password, on the disk when this returns."""
        assert self.keeper, "without a keeper, a resource must name its password Secret"
        if (self.owner.namespace, name) in self.collection.secrets:
            return False
        data = {"username": username, "password": password}
        with _refusals():
            return self.keeper.add_password(self.owner, name, data, rotation)

    async def replace_password(self, name: str, username: str, password: str, rotation: str) -> None:
        """Keep another password, on the disk when this returns; one among the documents is its author's to change."""
        if self.keeper is None or (self.owner.namespace, name) in self.collection.secrets:
            raise ReferenceRejected(f"Secret {name} is one of the documents, and not this program's to change")
        data = {"username": username, "password": password}
        with _refusals():
            self.keeper.put_password(self.owner, name, data, rotation)

    async def publish(self, name: str, connection: Connection, incarnation: str | None) -> None:
        """Keep the connection Secret; the same one is not written twice."""
        data = binding.secret_data(connection)
        found = self._find(name)
        if found and found.uid != self.owner.uid:
            raise NotOwned(f"Secret {name} is not this resource's; connectionSecret.name can name another one")
        if self.keeper and (not found or (found.data, found.incarnation) != (_encoded(data), incarnation)):
            with _refusals():
                self.keeper.put_connection(self.owner, name, data, incarnation)

    async def _as_it_would_be(self) -> KeptSecret | None:
        """Return the connection Secret as it would be kept: where nothing is, each visit would otherwise write it."""
        read = (self.resource.spec.server.admin_secret_ref, self.resource.spec.role.password_secret_ref)
        if not all(self._find(reference.name) for reference in read if reference):
            return None
        connection = await Credentials(self.resource.subject(Status()), self).wanted_connection()
        return KeptSecret(data=_encoded(binding.secret_data(connection)), ours=True, imagined=True)

    def _find(self, name: str) -> SecretData | None:
        key = (self.owner.namespace, name)
        with _refusals():
            return self.collection.secrets.get(key) or (self.keeper.secret(*key) if self.keeper else None)


def _encoded(data: Mapping[str, str]) -> dict[str, bytes]:
    return {key: value.encode() for key, value in data.items()}


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Let the visit say what is wrong with the folder, as it says everything else."""
    try:
        yield
    except InputError as error:
        raise ReferenceRejected(str(error)) from None
