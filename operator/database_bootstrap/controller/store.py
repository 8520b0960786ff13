"""The newest version of each resource, and which resources refer to a Secret, a ConfigMap or a DatabaseServer."""

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

from database_bootstrap.api import names
from database_bootstrap.kube.resource import Key, Resource


class News(Enum):
    """What a version of a resource tells the operator."""

    FIRST_SIGHT = auto()
    """It was not known."""
    WORK = auto()
    """It wants something that it did not want before."""
    FOREIGN_STATUS = auto()
    """Its status is not what was written, and that is all: somebody else may write it again and again."""
    NOTHING = auto()
    """It is known already, or nothing in it concerns the operator."""
    GONE = auto()
    """It is being deleted, and nothing of ours keeps it."""


class Reference(NamedTuple):
    """A Secret, a ConfigMap or a DatabaseServer that a resource refers to."""

    plural: str
    namespace: str
    name: str


class Store:
    """What the operator knows of its resources; filled by the watch, by lists, and by replies to its own writes."""

    def __init__(self) -> None:
        self._resources: dict[Key, Resource] = {}
        self._refers: dict[Key, frozenset[Reference]] = {}
        self._referred: dict[Reference, set[Key]] = {}
        """The same the other way round."""
        self._writing: dict[Key, Resource | None] = {}
        """Keys whose status is being written, and the newest version that was seen meanwhile."""
        self._foreign: set[Key] = set()
        """Keys whose status is somebody else's now."""
        self._contested: set[Key] = set()
        """Keys whose status has been somebody else's since `settle` was last asked."""

    def __len__(self) -> int:
        return len(self._resources)

    def known(self) -> set[tuple[str, str, str]]:
        """Return namespace, name and uid of all."""
        return {(*key, resource.uid) for key, resource in self._resources.items()}

    def get(self, key: Key) -> Resource | None:
        """Return the newest version that is known."""
        return self._resources.get(key)

    def referring(self, reference: Reference) -> frozenset[Key]:
        """Return the resources that refer to a Secret or ConfigMap."""
        return frozenset(self._referred.get(reference, ()))

    def see(self, resource: Resource) -> News:
        """Take note of a version, as a watch or a list shows it, and say what follows from it."""
        if resource.key in self._writing:
            # It may be the echo of a write whose reply is still under way.
            held = self._writing[resource.key]
            if held is None or resource.is_newer_than(held):
                self._writing[resource.key] = resource
            return News.NOTHING
        before = self._resources.get(resource.key)
        if before is not None and before.uid == resource.uid and not resource.is_newer_than(before):
            return News.NOTHING
        self._put(resource)
        news = _news(before, resource)
        if news is News.FOREIGN_STATUS:
            self._foreign.add(resource.key)
            self._contested.add(resource.key)
        return news

    def is_foreign(self, key: Key) -> bool:
        """Return whether the status is somebody else's now."""
        return key in self._foreign

    def accept(self, key: Key) -> None:
        """Take the status as ours: it says what we would write."""
        self._foreign.discard(key)

    def settle(self, key: Key) -> bool:
        """Return whether the status was somebody else's at any time since this was last asked."""
        contested = key in self._contested
        self._contested.discard(key)
        return contested

    def begin_write(self, key: Key) -> None:
        """Hold back what a watch shows of this resource until its own write is through."""
        self._writing[key] = None

    def end_write(self, key: Key, reply: Resource | None) -> News:
        """Take note of the reply to a write, and of what was held back; say what follows from both."""
        held = self._writing.pop(key, None)
        before = self._resources.get(key)
        news = News.NOTHING
        if reply is not None and before is not None:
            # The status in it is our own. The rest may be newer than what the watch has shown, as after a conflict.
            self._put(reply)
            self.accept(key)
            news = _news(before, reply) if _wants_more(before, reply) else News.NOTHING
        later = self.see(held) if held is not None else News.NOTHING
        return news if later in {News.NOTHING, News.FOREIGN_STATUS} and news is not News.NOTHING else later

    def remove(self, key: Key, uid: str) -> bool:
        """Forget a resource that is gone; False where another one has its name by now."""
        before = self._resources.get(key)
        if before is None or before.uid != uid:
            return False
        self._refer(key, frozenset())
        self.accept(key)
        self.settle(key)
        del self._resources[key]
        return True

    def _put(self, resource: Resource) -> None:
        self._resources[resource.key] = resource
        self._refer(resource.key, frozenset(_references(resource)))

    def _refer(self, key: Key, wanted: frozenset[Reference]) -> None:
        before = self._refers.pop(key, frozenset())
        for reference in before - wanted:
            self._referred[reference].discard(key)
            if not self._referred[reference]:
                del self._referred[reference]
        for reference in wanted - before:
            self._referred.setdefault(reference, set()).add(key)
        if wanted:
            self._refers[key] = wanted


def _news(before: Resource | None, now: Resource) -> News:
    if now.is_let_go:
        return News.GONE  # It stays known until it is gone indeed: an older version that comes late is old news.
    if before is None or before.uid != now.uid:
        return News.FIRST_SIGHT
    if _wants_more(before, now):
        return News.WORK
    return News.FOREIGN_STATUS if now.status != before.status else News.NOTHING


def _wants_more(before: Resource, now: Resource) -> bool:
    has_lost_our_finalizer = before.is_held and not now.is_held and now.drops
    if now.is_let_go or now.deleting != before.deleting or has_lost_our_finalizer:
        return True
    return now.generation != before.generation or now.annotations != before.annotations


def server_named(name: str) -> Reference:
    """Return what refers to a DatabaseServer."""
    return Reference("databaseservers", "", name)


def named_server(resource: Resource) -> str | None:
    """Return the name of the DatabaseServer that a DatabaseBootstrap refers to, if it does."""
    name = _at(resource.spec, "server", "ref", "name")
    return name if isinstance(name, str) else None


def _references(resource: Resource) -> Iterator[Reference]:
    return _references_of_server(resource.spec) if resource.key.is_server else _references_of_bootstrap(resource)


def _references_of_server(spec: Mapping[str, Any]) -> Iterator[Reference]:
    for path in (
        ("adminSecretRef",),
        ("tls", "caSecretRef"),
        ("tls", "clientCertificateRef"),
        ("tls", "caConfigMapRef"),
    ):
        if isinstance(found := _at(spec, *path), dict):
            plural = "configmaps" if path[-1] == "caConfigMapRef" else "secrets"
            yield Reference(plural, str(found.get("namespace")), str(found.get("name")))


def _references_of_bootstrap(resource: Resource) -> Iterator[Reference]:
    namespace, name = resource.key
    spec = resource.spec
    if (server := named_server(resource)) is not None:
        yield server_named(server)
    for path in (("server", "adminSecretRef", "name"), ("role", "passwordSecretRef", "name")):
        secret = _at(spec, *path)
        if isinstance(secret, str):
            yield Reference("secrets", namespace, secret)
    yield Reference("secrets", namespace, name + names.PASSWORD_SECRET_SUFFIX)
    for stage in ("migrations", "seed"):
        for reference in _at(spec, stage, "source", "configMapRefs") or ():
            yield Reference("configmaps", namespace, str(_at(reference, "name")))


def _at(value: Any, *path: str) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value
