"""The authoritative list, now and then: it finds the deletions that a watch which began anew has swallowed."""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

from database_bootstrap.api import names
from database_bootstrap.controller.intake import Intake
from database_bootstrap.controller.store import Store
from database_bootstrap.errors import BootstrapError
from database_bootstrap.kube import client
from database_bootstrap.kube.client import BOOTSTRAPS, CONFIG_MAPS, METADATA_LIST, SERVERS, Kind, Kube
from database_bootstrap.kube.library import Library
from database_bootstrap.kube.resource import Key

MINUTES = (10, 15)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """Compares what is known with what is there: names and versions only, page by page."""

    kube: Kube
    store: Store
    intake: Intake
    library: Library
    namespaces: Sequence[str]
    """Empty: all."""
    servers: Store | None = None
    """The DatabaseServers; None where they are not watched."""

    async def run(self) -> None:
        """Look every ten to fifteen minutes."""
        while True:
            await asyncio.sleep(60 * random.uniform(*MINUTES))  # noqa: S311 spreads, hides nothing
            try:
                await self.look()
            except (BootstrapError, client.NotFoundError, client.ExpiredError) as error:
                log.warning("List not read: %s", error)

    async def look(self) -> None:
        """Forget what is gone."""
        # Known before the list was read: what has been made since is not in the list, and is not gone.
        known = self.store.known()
        there = await self._listed(BOOTSTRAPS, "")
        for namespace, name, uid in known - there:
            self.intake.gone(Key(namespace, name), uid)
        await self._look_at_servers()
        watched = self.library.watched()
        labelled = await self._listed(CONFIG_MAPS, f"{names.LABEL_WATCH}=true")
        for namespace, name in watched - {(namespace, name) for namespace, name, _ in labelled}:
            self.library.note(namespace, name, None)

    async def _look_at_servers(self) -> None:
        if self.servers is None:
            return
        known = self.servers.known()
        there: set[tuple[str, str, str]] = set()
        async for page in self.kube.pages(SERVERS, None, query={}, accept=METADATA_LIST):
            there.update(_named(item["metadata"]) for item in page["items"] or ())
        for namespace, name, uid in known - there:
            self.intake.server_gone(Key(namespace, name), uid)

    async def _listed(self, kind: Kind, selector: str) -> set[tuple[str, str, str]]:
        found: set[tuple[str, str, str]] = set()
        query = {"labelSelector": selector} if selector else {}
        for namespace in self.namespaces or (None,):
            async for page in self.kube.pages(kind, namespace, query=query, accept=METADATA_LIST):
                found.update(_named(item["metadata"]) for item in page["items"] or ())
        return found


def _named(metadata: dict[str, str]) -> tuple[str, str, str]:
    return metadata.get("namespace", ""), metadata["name"], metadata["uid"]
