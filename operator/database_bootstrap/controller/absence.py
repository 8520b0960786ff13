"""The API server, away: one asks for it, and all the others wait for the answer, as for a PostgreSQL server."""

from collections.abc import Sequence
from functools import partial

from database_bootstrap.errors import BootstrapError, ClusterUnavailable
from database_bootstrap.kube import client
from database_bootstrap.kube.client import BOOTSTRAPS, METADATA_LIST, Call, Kube
from database_bootstrap.postgres.outage import Outage
from database_bootstrap.postgres.server import Server

KNOCK_SECONDS = 3.0


class Absence:
    """Knows whether the API server is away, and asks for it while somebody waits."""

    def __init__(self, kube: Kube, namespaces: Sequence[str]) -> None:
        self._server = Server("The Kubernetes API", 1)
        self._ask = partial(knock, kube, namespaces[0] if namespaces else None)

    @property
    def outage(self) -> Outage | None:
        """The outage for which no visit begins."""
        return self._server.outage(ClusterUnavailable)

    async def doubt(self, error: ClusterUnavailable) -> Outage | None:
        """Return the outage that the error shows, once asking has confirmed it; None where the API does answer."""
        return None if error.forbidden else await self._server.doubt(ClusterUnavailable, self._ask)

    async def stop(self) -> None:
        """Ask no more."""
        await self._server.stop()


async def knock(kube: Kube, namespace: str | None) -> str | None:
    """Return why the API is of no use now; None where it answers.

    It is asked for one of our resources: an API server that starts answers other things before, and this with 403 or
    429 until it has read what it needs.
    """
    call = Call(
        verb="list",
        kind=BOOTSTRAPS,
        namespace=namespace,
        query={"limit": "1"},
        accept=METADATA_LIST,
        timeout=KNOCK_SECONDS,
    )
    try:
        await kube.send(call)
    except ClusterUnavailable as error:
        return f"is of no use now ({error.message.rstrip('.')})"
    except (BootstrapError, client.NotFoundError, client.ConflictError, client.ExpiredError):
        return None
    return None
