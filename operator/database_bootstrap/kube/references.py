"""What one resource refers to, read from the cluster it lives in."""

import base64
from collections.abc import Callable, Mapping

from database_bootstrap.api.binding import Connection
from database_bootstrap.api.servers import LabelSelector, parse_server
from database_bootstrap.bundles.bundle import SCRIPTS, Bundle, Limits
from database_bootstrap.errors import ClusterUnavailable, ReferenceNotFound, ServerRefused, SpecRejected
from database_bootstrap.kube import binding, client
from database_bootstrap.kube.client import BOOTSTRAPS, CONFIG_MAPS, METADATA_ONLY, NAMESPACES, SECRETS, SERVERS, Kube
from database_bootstrap.kube.library import Library
from database_bootstrap.kube.resource import Resource, resource_of
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.stages.surroundings import KeptSecret, SharedServer

Offered = Callable[[str], Resource | None]
"""Returns a DatabaseServer as a watch has shown it, or None where it has shown none."""


def _nothing(_: str) -> Resource | None:
    """Return nothing: there is no watch."""


class Estate:
    """What belongs to the platform team, read from the cluster; Secrets are read anew each time and never kept."""

    def __init__(self, kube: Kube, namespace: str, *, in_cluster: bool) -> None:
        self._kube = kube
        self._namespace = namespace
        self._in_cluster = in_cluster

    def qualify(self, host: str, namespace: str | None = None) -> str:
        """Return the host as this process can resolve it: a Service's bare name is looked for in the namespace."""
        bare = host and not set(".:/") & set(host) and host != "localhost"
        return f"{host}.{namespace or self._namespace}.svc" if bare and self._in_cluster else host

    async def secret_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Return what a Secret holds, or None where there is none."""
        try:
            raw = await self._kube.get(SECRETS, namespace, name)
        except client.NotFoundError:
            return None
        return {key: base64.b64decode(value) for key, value in (raw.get("data") or {}).items()}

    async def config_map_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Return what a ConfigMap holds, or None where there is none."""
        try:
            raw = await self._kube.get(CONFIG_MAPS, namespace, name)
        except client.NotFoundError:
            return None
        return {key: value.encode() for key, value in (raw.get("data") or {}).items()}


class References(Estate):
    """The surroundings of one resource."""

    def __init__(
        self, kube: Kube, library: Library, resource: Resource, *, in_cluster: bool, offered: Offered = _nothing
    ) -> None:
        """Take the word of `offered` for what a DatabaseServer is, where it knows it."""
        super().__init__(kube, resource.key.namespace, in_cluster=in_cluster)
        self._offered = offered
        self._library = library
        self._owner = (resource.key, resource.uid)

    async def server(self, name: str) -> SharedServer:
        """Return the server that a platform team offers; raise `ReferenceNotFound` where there is none."""
        found = self._offered(name) or await self._find_server(name)
        try:
            spec = parse_server(found.spec)
        except SpecRejected as error:
            raise ServerRefused(f"DatabaseServer {name} cannot be used: {error}") from None
        # Whether nobody or everybody is admitted takes no labels.
        is_asked_for = spec.allowed_namespaces is not None and spec.allowed_namespaces != LabelSelector()
        return SharedServer(name=name, spec=spec, labels=await self._labels() if is_asked_for else {})

    async def _find_server(self, name: str) -> Resource:
        try:
            return resource_of(await self._kube.get(SERVERS, None, name))
        except client.NotFoundError:
            raise ReferenceNotFound(f"DatabaseServer {name} is not there; it is waited for (server.ref)") from None

    async def _labels(self) -> Mapping[str, str]:
        """Return the labels of the resource's namespace; they are read each time, as a right taken away must count."""
        try:
            found = await self._kube.get(NAMESPACES, None, self._namespace, accept=METADATA_ONLY)
        except client.NotFoundError:
            raise ReferenceNotFound(f"Namespace {self._namespace} is not there any more") from None
        return dict(found["metadata"].get("labels") or {})

    async def secret(self, name: str) -> KeptSecret | None:
        """Return the Secret, or None where there is none."""
        try:
            raw = await self._kube.get(SECRETS, self._namespace, name)
        except client.NotFoundError:
            return None
        data = raw.get("data") or {}
        return KeptSecret(
            data={key: base64.b64decode(value) for key, value in data.items()},
            ours=binding.is_ours(raw, self._owner),
            inherited=not binding.is_made_by(raw, self._owner),
            incarnation=binding.incarnation_of(raw),
            rotation=binding.rotation_of(raw),
        )

    async def delete_secret(self, name: str) -> bool | None:
        """Delete the Secret where it carries this resource's own uid; False where it does not, None where none is."""
        return await binding.delete(self._kube, self._owner, name)

    async def bundle(self, config_maps: tuple[str, ...], limits: Limits = SCRIPTS) -> Bundle:
        """Return the merged files of these ConfigMaps."""
        return await self._library.bundle(self._namespace, config_maps, limits)

    async def lives(self, owner: Owner) -> bool | None:
        """Return whether this very resource is there; None where the operator may not look."""
        try:
            found = await self._kube.get(BOOTSTRAPS, owner.namespace, owner.name, accept=METADATA_ONLY)
        except client.NotFoundError:
            return False
        except ClusterUnavailable as error:
            if not error.forbidden:
                raise
            return None
        return bool(found["metadata"]["uid"] == owner.uid)

    async def keep_password(self, name: str, username: str, password: str, rotation: str | None = None) -> bool:
        """Make the Secret of a generated password; return False where one of that name exists, and leave it alone.

        Only that one which an earlier resource of this name has made is this very one's from then on.
        """
        data = {"username": username, "password": password}
        return await binding.keep_password(self._kube, self._owner, name, data, rotation)

    async def replace_password(self, name: str, username: str, password: str, rotation: str) -> None:
        """Write another password into that Secret; raise `ClusterUnavailable` where it has changed meanwhile."""
        data = {"username": username, "password": password}
        await binding.replace_password(self._kube, self._owner, name, data, rotation)

    async def publish(self, name: str, connection: Connection, incarnation: str | None) -> None:
        """Write the connection Secret with the pin; raise `NotOwned` where one of that name is somebody else's."""
        await binding.publish(self._kube, self._owner, name, connection, incarnation)
