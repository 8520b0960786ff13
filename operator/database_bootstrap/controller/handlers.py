"""What kopf tells of, handed on to the intake; the only importer of kopf, which writes nothing into the cluster."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from http import HTTPStatus
from typing import Any

import kopf

from database_bootstrap.api import names
from database_bootstrap.controller.intake import Intake
from database_bootstrap.kube.access import Credentials

Login = Callable[[], Awaitable[Credentials]]

TELLING_OF_ENDS = ("kopf._core.reactor.orchestration", "kopf._core.reactor.running")
WATCH_SELECTOR = f"{names.LABEL_WATCH}=true"


class Backoffs(Iterable[float]):
    """How long kopf waits after each failure of a call: without end, as kopf gives up the whole operator otherwise."""

    def __iter__(self) -> Iterator[float]:
        # What happened while the API server was away is to be known within seconds of its return, however long it was;
        # one that is away for more than ten minutes is asked about half as often.
        for delay in (1, 1, *[2] * 300):
            yield delay * random.uniform(0.8, 1.2)  # noqa: S311 spreads, hides nothing
        while True:
            yield random.uniform(3, 4.5)  # noqa: S311


class NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing: the copies that kopf compares cost a third of the time that an event takes."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


class NoProgress(kopf.ProgressStorage):
    """Remembers nothing, so that no annotation of kopf's ever shows."""

    def fetch(self, *, key: Any, body: Any) -> Any:
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        return None

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        return None

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class NotYours(Collection[Any]):
    """Every task there is: at its end kopf would otherwise cancel all that are younger than itself, visits too."""

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0


class NotTheMissingDefinition(logging.Filter):
    """Lets everything through but kopf's tracebacks of a watch that ended because its kind is not defined any more."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and is_undefined(record.exc_info[1]))


NOT_THE_MISSING_DEFINITION = NotTheMissingDefinition()


def is_undefined(error: BaseException | None) -> bool:
    """Return whether a watch ended because the API server does not know its kind any more."""
    return getattr(error, "status", None) == HTTPStatus.NOT_FOUND  # kopf publishes none of its errors.


def registry(
    intake: Intake, login: Login, *, watch_secrets: bool, watch_servers: bool = False
) -> kopf.OperatorRegistry:
    """Return what kopf has to call, and for which objects."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(id="log_in", registry=handlers)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return _connection(await login())

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=handlers)
    async def bootstrap(event: kopf.RawEvent, **_: Any) -> None:
        intake.bootstrap(event["type"], event["object"])

    @kopf.on.event("", "v1", "configmaps", registry=handlers)
    async def config_map(event: kopf.RawEvent, **_: Any) -> None:
        intake.config_map(event["type"], event["object"])

    async def secret(event: kopf.RawEvent, **_: Any) -> None:
        intake.secret(event["type"], event["object"])

    async def server(event: kopf.RawEvent, **_: Any) -> None:
        intake.server(event["type"], event["object"])

    if watch_servers:
        kopf.on.event(names.GROUP, names.VERSION, names.SERVER_PLURAL, registry=handlers)(server)
    if watch_secrets:
        kopf.on.event("", "v1", "secrets", registry=handlers)(secret)
    return handlers


def settings() -> kopf.OperatorSettings:
    """Return how kopf is set up: it watches, and does nothing else."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True
    chosen.scanning.disabled = True
    chosen.posting.enabled = False
    chosen.persistence.diffbase_storage = NoDiffBase()
    chosen.persistence.progress_storage = NoProgress()
    # kopf removes its finalizer from whatever it finds it on; this one is nobody's.
    chosen.persistence.finalizer = f"kopf.{names.GROUP}/unused"
    chosen.queueing.worker_limit = None
    chosen.queueing.idle_timeout = 0.5
    chosen.watching.chunk_size = 500
    chosen.watching.connect_timeout = 10
    chosen.watching.reconnect_backoff = 1
    chosen.watching.label_selectors["", "v1", "configmaps"] = WATCH_SELECTOR
    chosen.networking.request_timeout = 60
    chosen.networking.connect_timeout = 10
    chosen.networking.error_backoffs = Backoffs()
    return chosen


async def begin(
    handlers: kopf.OperatorRegistry, namespaces: Collection[str], stop: asyncio.Event, ready: asyncio.Event
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Start kopf's tasks, and return what runs them until `stop` is set.

    Signals are the caller's again once this has returned: kopf would drop everything at the first one.
    """
    for name in TELLING_OF_ENDS:
        logging.getLogger(name).addFilter(NOT_THE_MISSING_DEFINITION)
    tasks = await kopf.spawn_tasks(
        registry=handlers,
        settings=settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=tuple(namespaces),
        stop_flag=stop,
        ready_flag=ready,
    )
    return lambda: kopf.run_tasks(tasks, ignored=NotYours())


def _connection(access: Credentials) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=access.server,
        ca_path=access.authority,
        insecure=access.insecure,
        token=access.token,
        certificate_path=access.certificate,
        private_key_path=access.key,
    )
