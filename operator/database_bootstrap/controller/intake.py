"""What comes in: versions of resources, and changes of what they refer to; it becomes work, or nothing."""

import logging
import random
import time
from collections.abc import Mapping
from typing import Any

from database_bootstrap import logs, metrics
from database_bootstrap.api.status import parse_status
from database_bootstrap.controller import reporting
from database_bootstrap.controller.standing import Standings
from database_bootstrap.controller.store import News, Reference, Store, server_named
from database_bootstrap.controller.workqueue import WorkQueue
from database_bootstrap.kube.library import Library
from database_bootstrap.kube.resource import Key, Resource, resource_of

FIRST_VISITS_PER_SECOND = 10.0
"""After a restart, to resources whose status says that all is done; the others are visited at once."""

log = logging.getLogger(__name__)


class Intake:
    """Fills the store, and queues the keys that something follows for."""

    def __init__(self, store: Store, servers: Store, queue: WorkQueue, library: Library, standings: Standings) -> None:
        self._store = store
        self._servers = servers
        self._queue = queue
        self._library = library
        self._standings = standings
        self._turn = 0.0
        """When the next of the settled resources has its turn."""

    def bootstrap(self, kind: str | None, raw: Mapping[str, Any]) -> None:
        """Take in a DatabaseBootstrap, as a watch or a list shows it; `kind` is the watch's word for what happened."""
        resource = resource_of(raw)
        if kind == "DELETED":
            self.gone(resource.key, resource.uid)
        else:
            self.follow(resource.key, self._store.see(resource))

    def server(self, kind: str | None, raw: Mapping[str, Any]) -> None:
        """Take in a DatabaseServer; those who refer to it are visited where what it says has changed."""
        resource = resource_of(raw)
        key, before = resource.key, self._servers.get(resource.key)
        if kind == "DELETED":
            self.server_gone(key, resource.uid)
            return
        self.follow_server(key, self._servers.see(resource))
        is_news = before is None or (before.uid, before.generation) != (resource.uid, resource.generation)
        if is_news and kind is not None:  # None: it was there before the operator was.
            self._wake(server_named(key.name))

    def server_gone(self, key: Key, uid: str) -> None:
        """Forget a DatabaseServer that is not there any more; who refers to it is told."""
        if self._servers.remove(key, uid):
            self.forget_server(key)
            self._wake(server_named(key.name))

    def follow_server(self, key: Key, news: News) -> None:
        """Have a DatabaseServer looked at where a version of it asks for that."""
        match news:
            case News.WORK | News.FIRST_SIGHT:
                self._queue.forget(key)
                self._standings.begin_anew(key)
                self._queue.add(key)
            case News.FOREIGN_STATUS:
                self._queue.retry(key)

    def forget_server(self, key: Key) -> None:
        """Look at a DatabaseServer no more."""
        self._queue.drop(key)
        self._standings.forget(key)
        metrics.forget_server(key.name)

    def config_map(self, kind: str | None, raw: Mapping[str, Any]) -> None:
        """Take in a ConfigMap that is watched."""
        metadata = raw["metadata"]
        version = None if kind == "DELETED" else metadata["resourceVersion"]
        self._library.note(metadata["namespace"], metadata["name"], version)
        if kind is not None:  # None: it was there before the operator was.
            self._wake(Reference("configmaps", metadata["namespace"], metadata["name"]))

    def secret(self, kind: str | None, raw: Mapping[str, Any]) -> None:
        """Take in that a Secret has changed, and nothing of what it holds."""
        if kind is not None:
            self._wake(Reference("secrets", raw["metadata"]["namespace"], raw["metadata"]["name"]))

    def gone(self, key: Key, uid: str) -> None:
        """Forget a resource that is not there any more."""
        if self._store.remove(key, uid):
            self._forget(key)
            log.info("Forgot resource: it is gone", extra=logs.about(*key))

    def follow(self, key: Key, news: News) -> None:
        """Do what follows from a version of a resource."""
        resource = self._store.get(key)
        metrics.RESOURCES.set(len(self._store))
        match news:
            case News.GONE:
                self._forget(key)
            case News.WORK:
                self._queue.forget(key)
                self._standings.begin_anew(key)
                self._queue.add(key)
            case News.FOREIGN_STATUS:
                # Not at once, and the failures count: two operators on one resource would write without end.
                self._queue.retry(key)
            case News.FIRST_SIGHT if resource is not None:
                self._begin(resource)

    def _begin(self, resource: Resource) -> None:
        self._forget_traces(resource.key)  # Of another one that had its name.
        if not resource.deleting and reporting.is_settled(resource, parse_status(resource.status)):
            self._queue.add_after(resource.key, self._next_turn(resource))
        else:
            self._queue.add(resource.key)

    def _next_turn(self, resource: Resource) -> float:
        """Return when to look after a resource that seems well: one after the other, and within its interval."""
        now = time.monotonic()
        self._turn = max(now, self._turn) + 1 / FIRST_VISITS_PER_SECOND
        interval = resource.spec.get("intervalSeconds", reporting.INTERVAL_SECONDS)
        wait = self._turn - now
        return wait if wait <= interval else random.uniform(0, interval)  # noqa: S311 spreads, hides nothing

    def _wake(self, reference: Reference) -> None:
        for key in self._servers.referring(reference):
            self._queue.add(key)
            self._wake(server_named(key.name))
        for key in self._store.referring(reference):
            self._standings.begin_anew(key)
            self._queue.add(key)

    def _forget(self, key: Key) -> None:
        self._queue.drop(key)
        metrics.RESOURCES.set(len(self._store))
        self._forget_traces(key)

    def _forget_traces(self, key: Key) -> None:
        self._standings.forget(key)
        metrics.forget(*key)
