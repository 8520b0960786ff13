"""One client for the whole process: raw objects in and out, every call named, timed and counted."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client import ApiClient

from database_bootstrap import errors, metrics
from database_bootstrap.api import names

Json: TypeAlias = Any
Verb = Literal["get", "list", "create", "update", "patch", "delete"]

TIMEOUT_SECONDS = 10.0
PAGE = 500
MESSAGE_LENGTH = 500
METHODS = {"get": "GET", "list": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class NotFoundError(Exception):
    """The object is not there."""


class ConflictError(Exception):
    """The object exists already, or is not any more as it was read."""


class ExpiredError(Exception):
    """The page of a list can no longer be continued."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, as the API's paths name it."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of one object, or of all that there are."""
        if not self.version:
            return "/apis"
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = ("namespaces", namespace) if namespace else ()
        parts = (*within, self.plural, *(part for part in (name, subresource) if part))
        return "/".join((root, *(quote(part, safe="") for part in parts if part)))


GROUPS = Kind("", "", "")
CONFIG_MAPS = Kind("", "v1", "configmaps")
NAMESPACES = Kind("", "v1", "namespaces")
SECRETS = Kind("", "v1", "secrets")
EVENTS = Kind("events.k8s.io", "v1", "events")
LEASES = Kind("coordination.k8s.io", "v1", "leases")
ACCESS_REVIEWS = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews")
DEFINITIONS = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions")
BOOTSTRAPS = Kind(names.GROUP, names.VERSION, names.PLURAL)
SERVERS = Kind(names.GROUP, names.VERSION, names.SERVER_PLURAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request."""

    verb: Verb
    kind: Kind
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json = field(default=None, repr=False)
    content_type: str = JSON
    accept: str = JSON
    timeout: float = TIMEOUT_SECONDS

    def __str__(self) -> str:
        what = f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural
        which = f' "{self.name}"' if self.name else ""
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {what}{which}{where}"

    @property
    def resource(self) -> str:
        """What the metrics call it."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


class Kube:
    """Sends calls, and says in our own words what went wrong."""

    def __init__(self, api: ApiClient) -> None:
        self._api: Any = api  # Its methods have no types.
        self._host = api.configuration.host
        api.user_agent = names.OPERATOR

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def send(self, call: Call) -> Json:
        """Return the decoded answer.

        Raise `NotFoundError`, `ConflictError` and `ExpiredError` for what a caller may expect; else `ReferenceRejected`
        for what the API refuses, and `ClusterUnavailable` for what may pass: a right that is taken away is given back.
        """
        try:
            status, content = await self._exchange(call)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._count(call, "none")
            raise errors.ClusterUnavailable(
                f"The Kubernetes API did not answer ({type(error).__name__}): {call}."
            ) from None
        self._count(call, str(status))
        if status >= 400:
            _refuse(call, status, content)
        return json.loads(content)

    async def get(self, kind: Kind, namespace: str | None, name: str, *, accept: str = JSON) -> Json:
        """Return one object."""
        return await self.send(Call(verb="get", kind=kind, namespace=namespace, name=name, accept=accept))

    async def create(self, kind: Kind, namespace: str | None, body: Json) -> Json:
        """Make one object."""
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self.send(Call(verb="create", kind=kind, namespace=namespace, query=query, body=body))

    async def pages(
        self, kind: Kind, namespace: str | None, *, query: Mapping[str, str], accept: str = JSON, size: int = PAGE
    ) -> AsyncIterator[Json]:
        """Yield the objects that there are, page by page; raise `ExpiredError` where that took too long."""
        token = ""
        while True:
            paged = {**query, "limit": str(size), **({"continue": token} if token else {})}
            page = await self.send(
                Call(verb="list", kind=kind, namespace=namespace, query=paged, accept=accept, timeout=60)
            )
            yield page
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    async def _exchange(self, call: Call) -> tuple[int, bytes]:
        headers = {"Accept": call.accept, "Content-Type": call.content_type}
        headers.update(self._api.default_headers)
        path = call.kind.path(call.namespace, call.name, call.subresource)
        method = METHODS[call.verb]
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        url = f"{self._host}{path}" + (f"?{urlencode(call.query)}" if call.query else "")
        response = await self._api.call_api(method, url, headers, call.body, _request_timeout=call.timeout)
        return response.status, await response.read()

    def _count(self, call: Call, code: str) -> None:
        metrics.KUBE_REQUESTS.labels(verb=call.verb, resource=call.resource, code=code).inc()


def _refuse(call: Call, status: int, content: bytes) -> None:
    said = _message(call, content)
    match status:
        case 404:
            raise NotFoundError(said)
        case 409:
            raise ConflictError(said)
        case 410:
            raise ExpiredError(said)
        case 403:
            raise errors.ClusterUnavailable(
                f"The Kubernetes API does not let the operator {call}: {said}", forbidden=True
            )
    if status in {401, 408, 429} or status >= 500:
        raise errors.ClusterUnavailable(f"The Kubernetes API answered {status}: {call}: {said}")
    raise errors.ReferenceRejected(f"The Kubernetes API refuses to {call}: {said}")


def _message(call: Call, content: bytes) -> str:
    """Return what the API says; never for Secrets that were sent, for it may repeat what they hold."""
    if call.kind == SECRETS and call.body is not None:
        content = _reason_only(content)
    try:
        said = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        said = "no reason given"
    return said if len(said) <= MESSAGE_LENGTH else said[: MESSAGE_LENGTH - 1] + "…"


def _reason_only(content: bytes) -> bytes:
    try:
        return json.dumps({"message": str(json.loads(content)["reason"])}).encode()
    except (ValueError, KeyError, TypeError):
        return b""
