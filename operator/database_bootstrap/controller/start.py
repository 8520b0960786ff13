"""From the first check to the last visit: check, stand by, act."""

import asyncio
import logging
import signal
import socket
import uuid
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol, TypeVar

from database_bootstrap import metrics
from database_bootstrap.api import names
from database_bootstrap.controller import handlers, preflight
from database_bootstrap.controller.acting import Acting, Means
from database_bootstrap.controller.cluster import Cluster
from database_bootstrap.controller.health import Health
from database_bootstrap.controller.visits import Line
from database_bootstrap.kube import access
from database_bootstrap.kube.lease import Elector
from database_bootstrap.kube.recorder import Recorder
from database_bootstrap.settings import Settings

ENDED_WELL = 0
LOST = 1
"""The watches: Kubernetes starts the operator again."""
REFUSED = 2
"""Something must be put right first."""

Value = TypeVar("Value")

log = logging.getLogger(__name__)


class End(Enum):
    """What the acting ended by."""

    SIGNAL = auto()
    TENURE = auto()
    """The Lease was lost, or could not be renewed: somebody else may be acting by now."""
    DEFINITION = auto()
    """The CustomResourceDefinition is gone."""
    FAILURE = auto()
    """A task without which it cannot go on."""


class LivingLine(Line, Protocol):
    """The engine, with what must be started before the first Secret is read."""

    async def start(self) -> None:
        """Start it."""
        ...

    async def stop(self) -> None:
        """Stop it."""
        ...

    async def stop_asking(self) -> None:
        """Ask no more for servers that are away."""
        ...


async def operate(settings: Settings, line: LivingLine) -> int:
    """Check, stand by, act; raise a `BootstrapError` with a sentence where it cannot begin."""
    stop = asyncio.Event()
    _take_signals(stop)
    ready = asyncio.Event()
    async with AsyncExitStack() as cleanup:
        # First of all: the process that runs revisions is a copy of this one as it is now, without any credentials.
        await line.start()
        cleanup.push_async_callback(line.stop)
        health = Health(ready.is_set)
        await health.start(settings.health)
        cleanup.push_async_callback(health.stop)
        configuration = await access.configure(settings.kubeconfig, settings.context)
        kube = access.connect(configuration)
        cleanup.push_async_callback(kube.close)
        cleanup.push_async_callback(line.stop_asking)  # It may need a Secret for that.
        grounds = await _unless(stop, preflight.check(kube, settings))
        if grounds is None:
            return ENDED_WELL
        if not grounds.watches_servers:
            log.info("DatabaseServers are read one by one: the operator may not list and watch them")
        cluster = Cluster(
            kube=kube,
            id=grounds.cluster_id,
            is_around=access.in_cluster(settings.kubeconfig, settings.context),
            watches_servers=grounds.watches_servers,
            tells_of_servers=grounds.tells_of_servers,
        )
        identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        means = Means(
            settings=settings,
            cluster=cluster,
            line=line,
            recorder=Recorder(kube, identity),
            login=partial(access.credentials, configuration),
        )
        return await _in_turn(means, identity, stop, ready)


async def _in_turn(means: Means, identity: str, stop: asyncio.Event, ready: asyncio.Event) -> int:
    """Act at once, or whenever the Lease is ours; return the exit code."""
    if not means.settings.leader_elect:
        return _exit_code(await _act(means, asyncio.Event().wait(), stop, ready))
    elector = Elector(
        kube=means.cluster.kube,
        namespace=preflight.lease_namespace(means.settings),
        name=means.settings.lease_name,
        identity=identity,
    )
    while True:
        ready.set()  # A standby is as ready as it can be; an update of the Deployment waits for it.
        log.info("Standing by for Lease %s/%s as %s", elector.namespace, elector.name, identity)
        if not await _unless(stop, elector.acquire()):
            return ENDED_WELL
        log.info("Took Lease")
        try:
            end = await _act(means, elector.hold(), stop, ready)
        finally:
            await elector.release()
        # A process that ended here would be started again ever later by Kubernetes while the API server is away.
        if end is not End.TENURE:
            return _exit_code(end)


async def _act(means: Means, tenure: Coroutine[Any, Any, Any], stop: asyncio.Event, ready: asyncio.Event) -> End:
    """Act until a signal, the end of the tenure or that of the watches, and return which it was.

    Where the definition of the resources is taken away, wait until it is back, and act again.
    """
    lost = asyncio.create_task(tenure, name="tenure of the Lease")
    # What was so when a standby began need not be so when its turn comes.
    is_sure = not means.settings.leader_elect
    try:
        while is_sure or await _unless(stop, preflight.wait(means.cluster.kube, means.settings), lost):
            if (end := await _act_once(means, lost, stop, ready)) is not End.DEFINITION:
                return end
            is_sure = False
        return End.SIGNAL if stop.is_set() else End.TENURE
    finally:
        lost.cancel()
        log.info("Operator stopped")


async def _act_once(means: Means, lost: asyncio.Task[Any], stop: asyncio.Event, ready: asyncio.Event) -> End:
    """Act, and return what that ended by."""
    acting = Acting(means)
    asked = asyncio.create_task(stop.wait(), name="signal")
    watching = asyncio.create_task(acting.watching.wait())
    try:
        pillars = await acting.start(partial(_take_signals, stop))
        metrics.LEADER.set(1)
        await asyncio.wait({watching, asked, lost, *pillars}, return_when=asyncio.FIRST_COMPLETED)
        ready.set()
        log.info("Operator started: it serves %s", ", ".join(means.settings.namespaces) or "all namespaces")
        ended, _ = await asyncio.wait({asked, lost, *pillars}, return_when=asyncio.FIRST_COMPLETED)
        return _end(asked, lost, ended)
    finally:
        ready.clear()
        metrics.LEADER.set(0)
        # Once the Lease is lost somebody else may be acting.
        await acting.stop(0 if lost.done() else means.settings.grace_seconds)
        for task in (asked, watching):
            task.cancel()


def _exit_code(end: End) -> int:
    return ENDED_WELL if end is End.SIGNAL else LOST


def _end(asked: asyncio.Task[Any], lost: asyncio.Task[Any], ended: set[asyncio.Task[Any]]) -> End:
    if asked in ended:
        log.info("Operator stopping: a signal came")
        return End.SIGNAL
    if lost in ended and lost.exception() is None:
        log.warning("Operator stepping down: the Lease is another's, or could not be renewed; standing by for it")
        return End.TENURE
    if all(handlers.is_undefined(task.exception()) for task in ended):
        log.warning("The CustomResourceDefinition %s is gone; waiting for it", names.CRD_NAME)
        return End.DEFINITION
    for task in ended:
        log.error("Operator stopping: %s ended", task.get_name(), exc_info=task.exception())
    return End.FAILURE


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, Value], *others: asyncio.Task[Any]) -> Value | None:
    """Return what the work returns; None where a signal came first, or one of the others ended."""
    asked = asyncio.create_task(stop.wait())
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({asked, task, *others}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        asked.cancel()
        task.cancel()


def _take_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
