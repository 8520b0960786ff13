"""What one resource refers to, read from the cluster it lives in."""

import base64

from database_bootstrap.api.binding import Connection
from database_bootstrap.bundles.bundle import SCRIPTS, Bundle, Limits
from database_bootstrap.kube import binding, client
from database_bootstrap.kube.client import SECRETS, Kube
from database_bootstrap.kube.library import Library
from database_bootstrap.kube.resource import Resource
from database_bootstrap.stages.surroundings import KeptSecret


class References:
    """The surroundings of one resource: Secrets are read anew each time and never kept."""

    def __init__(self, kube: Kube, library: Library, resource: Resource, *, in_cluster: bool) -> None:
        self._kube = kube
        self._library = library
        self._namespace = resource.key.namespace
        self._owner = (resource.key, resource.uid)
        self._in_cluster = in_cluster

    def qualify(self, host: str) -> str:
        """Return the host as this process can resolve it: a Service's bare name is looked for where the resource is."""
        bare = host and not set(".:/") & set(host) and host != "localhost"
        return f"{host}.{self._namespace}.svc" if bare and self._in_cluster else host

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
        )

    async def delete_secret(self, name: str) -> bool | None:
        """Delete the Secret where it carries this resource's own uid; False where it does not, None where none is."""
        return await binding.delete(self._kube, self._owner, name)

    async def bundle(self, config_maps: tuple[str, ...], limits: Limits = SCRIPTS) -> Bundle:
        """Return the merged files of these ConfigMaps."""
        return await self._library.bundle(self._namespace, config_maps, limits)

    async def keep_password(self, name: str, username: str, password: str) -> bool:
        """Make the Secret of a generated password; return False where one of that name exists, and leave it alone.

        Only that one which an earlier resource of this name has made is this very one's from then on.
        """
        data = {"username": username, "password": password}
        return await binding.keep_password(self._kube, self._owner, name, data)

    async def publish(self, name: str, connection: Connection, incarnation: str | None) -> None:
        """Write the connection Secret with the pin; raise `NotOwned` where one of that name is somebody else's."""
        await binding.publish(self._kube, self._owner, name, connection, incarnation)
