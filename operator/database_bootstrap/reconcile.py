"""The line: one public function, which knows no Kubernetes."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from database_bootstrap import errors
from database_bootstrap.api.v1alpha1 import Spec
from database_bootstrap.api.v1alpha1 import Tool as ToolName
from database_bootstrap.postgres import probe, session
from database_bootstrap.postgres.budget import nothing
from database_bootstrap.postgres.doors import ROLE_REFUSALS, Doors
from database_bootstrap.postgres.login import Endpoint
from database_bootstrap.postgres.server import OURSELVES, Server
from database_bootstrap.settings import AdminSecretRefs, Sandbox, SandboxMode
from database_bootstrap.stages import (
    deletion,
    identity,
    inspection,
    line,
    migrations,
    outages,
    policy,
    shared,
)
from database_bootstrap.stages.credentials import Credentials
from database_bootstrap.stages.deletion import Ending
from database_bootstrap.stages.departure import Departure
from database_bootstrap.stages.inspection import Inspection, Look
from database_bootstrap.stages.sessions import Door, Sessions
from database_bootstrap.stages.subject import Progress, Report, Subject
from database_bootstrap.stages.surroundings import Belongings, Platform, SharedServer, Surroundings
from database_bootstrap.stages.visit import Sources, Visit
from database_bootstrap.tools.alembic import Alembic
from database_bootstrap.tools.prisma import Prisma
from database_bootstrap.tools.sandbox import Zygote
from database_bootstrap.tools.sql_files import SqlFiles
from database_bootstrap.tools.tool import Tool

Work = Callable[[], Awaitable[None]]
_log = logging.getLogger(__name__)


async def _nobody(outcomes: object, facts: object) -> None:
    """Progress that nobody wants to see."""


class Engine:
    """What all visits share: the servers that they go to, and the process that runs Alembic's revisions."""

    def __init__(
        self,
        *,
        max_connections: int = 10,
        pace_seconds: float = 10.0,
        sandbox: Sandbox | None = None,
        admin_secret_refs: AdminSecretRefs = AdminSecretRefs.ALLOWED,
    ) -> None:
        """Allow so many connections at once per server; say how far a long work is after each so many seconds.

        Alembic's revisions run where they are confined like this. Where `admin_secret_refs` are refused, resources use
        what a platform team offers, and nothing else.
        """
        sandbox = sandbox or Sandbox()
        self._max_connections = max_connections
        self._pace_seconds = pace_seconds
        self._zygote = Zygote(confined=sandbox.mode is not SandboxMode.UNCONFINED)
        self._admin_secret_refs = admin_secret_refs
        # One that no visit is at, and that nobody asks for, is forgotten: a cluster may see any number of them.
        self._servers: WeakValueDictionary[tuple[str, int], Server] = WeakValueDictionary()
        self._doors, self._role_doors = Doors(), Doors(free=ROLE_REFUSALS)
        self._sources = Sources()
        tools: tuple[Tool[Any], ...] = (Prisma(), Alembic(self._zygote, sandbox), SqlFiles())
        self._tools = {tool.name: tool for tool in tools}

    async def start(self) -> None:
        """Start what must be there before any Secret is read."""
        await self._zygote.start()

    async def stop(self) -> None:
        """Stop it, and whatever asks for a server that is away."""
        await self.stop_asking()
        await self._zygote.stop()

    async def stop_asking(self) -> None:
        """Ask no more for servers that are away."""
        for server in list(self._servers.values()):
            await server.stop()

    async def reconcile(self, subject: Subject, surroundings: Surroundings, progress: Progress = _nobody) -> Report:
        """Make the subject true, and say how it went; never raises but for cancellation."""
        return await self._visit(subject, surroundings, progress, planning=False)

    async def plan(self, subject: Subject, surroundings: Surroundings) -> Report:
        """Return what `reconcile` would do, as changes of its outcomes; nothing is written anywhere."""
        return await self._visit(subject, surroundings, _nobody, planning=True)

    async def delete(self, subject: Subject, belongings: Belongings) -> Ending:
        """Drop what this very resource has made, and say what went and what stays; never raises but for cancellation.

        The caller knows that the resource is being deleted, that it asks for this, and that nobody deletes more.
        """
        credentials = Credentials(subject, belongings, leaving=True)
        departure = Departure(
            subject=subject,
            surroundings=belongings,
            credentials=credentials,
            sessions=Sessions(credentials.administrator, credentials.role, {}, *self._doors_of(subject)),
        )
        error = await _error_of(self._see_off(departure), subject.owner)
        return Ending(
            drops=tuple(departure.drops), kept=tuple(departure.kept), error=error, outage=departure.turn.outage
        )

    async def inspect(self, server: SharedServer, platform: Platform, cluster: str) -> Inspection:
        """Look at a server that a platform team offers, for its own status; never raises but for cancellation."""
        look = Look(server=server, platform=platform, cluster=cluster)
        error = await _error_of(self._look(look), f"DatabaseServer {server.name}")
        return Inspection(found=look.found, error=error, outage=look.turn.outage)

    async def _look(self, look: Look) -> None:
        # In the words for whoever runs the server, and not in those for tenants.
        login = replace(await shared.administrator(look.server, look.platform), server=None)
        server = self._server(login.endpoint)
        server.resize(look.server.spec.max_connections, by=look.server.name)
        knock = partial(probe.knock, login.endpoint, login.user, login.database)
        try:
            async with server.reserve(OURSELVES, 1, knock):
                look.turn.begun = True
                await inspection.run(look, login, partial(self._doors.at, ""))
        except errors.ServerUnreachable:
            began = look.turn.begun
            look.turn.outage = await server.doubt(errors.ServerUnreachable, knock) if began else server.absence
            raise

    async def _see_off(self, departure: Departure) -> None:
        await self._admitted(departure)
        endpoint = (await departure.credentials.administrator()).endpoint
        await self._in_turn(departure, endpoint, 1, partial(deletion.run, departure))

    async def _visit(
        self, subject: Subject, surroundings: Surroundings, progress: Progress, *, planning: bool
    ) -> Report:
        credentials = Credentials(subject, surroundings)
        visit = Visit(
            subject=subject,
            surroundings=surroundings,
            credentials=credentials,
            sessions=Sessions(
                credentials.administrator,
                credentials.role,
                migrations.owner_settings(subject.spec.migrations),
                *self._doors_of(subject),
                owner_limit=_limit(subject.spec),
            ),
            tools=self._tools,
            sources=self._sources,
            progress=progress,
            pace_seconds=self._pace_seconds,
            planning=planning,
        )
        error = await _error_of(self._run_stages(visit), subject.owner)
        return Report(
            outcomes=line.outcomes(visit, error),
            facts=visit.facts,
            outage=visit.turn.outage,
            refused=visit.turn.outage is not None and not visit.turn.begun,
        )

    async def _run_stages(self, visit: Visit) -> None:
        await self._admitted(visit)
        visit.pin = identity.pin_of(visit.subject, await visit.credentials.pinned())
        endpoint = await visit.credentials.endpoint()
        waiting = partial(visit.wait_in_line, str(endpoint))
        await self._in_turn(visit, endpoint, _connections(visit.subject), partial(line.through, visit), waiting)

    async def _admitted(self, guest: Visit | Departure) -> None:
        """Raise `ServerRefused` where the resource may not go to its server, or not with what it asks for there."""
        offer = await guest.credentials.server()
        if offer is not None:
            guest.subject = policy.applied(offer, guest.subject)
        elif self._admin_secret_refs is AdminSecretRefs.REFUSED:
            raise errors.ServerRefused(
                "This operator takes no server.adminSecretRef (--admin-secret-refs Refused): name a DatabaseServer in "
                "server.ref"
            )

    async def _in_turn(
        self,
        guest: Visit | Departure,
        endpoint: Endpoint,
        connections: int,
        work: Work,
        waiting: Work = nothing,
    ) -> None:
        """Do the work once the server has room for it; at its end no session is left open."""
        server = self._server(endpoint)
        if offer := await guest.credentials.server():
            server.resize(offer.spec.max_connections, by=offer.name)
        try:
            knock = outages.knock(endpoint, guest.subject)
            async with server.reserve(guest.subject.owner.namespace, connections, knock, waiting):
                guest.turn.begun = True
                await self._work(guest, endpoint, work)
        except errors.ServerUnreachable:
            if not guest.turn.begun:
                guest.turn.outage = server.absence
            raise

    async def _work(self, guest: Visit | Departure, endpoint: Endpoint, work: Work) -> None:
        try:
            await work()
        except errors.Retryable as error:
            await guest.sessions.close()
            if ask := outages.question(error, endpoint, guest.subject, guest.surroundings):
                guest.turn.outage = await self._server(endpoint).doubt(type(error), ask)
            raise
        finally:
            await guest.sessions.close()

    def _doors_of(self, subject: Subject) -> tuple[Door, Door]:
        namespace = subject.owner.namespace
        return partial(self._doors.at, namespace), partial(self._role_doors.at, namespace)

    def _server(self, endpoint: Endpoint) -> Server:
        place = (endpoint.host, endpoint.port)
        server = self._servers.get(place)
        if server is None:
            server = self._servers[place] = Server(str(endpoint), self._max_connections)
        return server


def _connections(subject: Subject) -> int:
    wanted = subject.spec.migrations
    return 3 if wanted and wanted.tool is ToolName.ALEMBIC else 2


def _limit(spec: Spec) -> float:
    """Return how many seconds a statement of the owner's can take, the longest work of all."""
    works = (spec.migrations, spec.seed)
    return max([session.LIMIT_SECONDS, *(float(work.timeout_seconds) for work in works if work)])


async def _error_of(work: Awaitable[None], owner: object) -> errors.BootstrapError | None:
    """Return what kept a visit from its end; None where it got there."""
    try:
        await work
    except errors.BootstrapError as error:
        return error
    except Exception as error:  # noqa: BLE001 the only one: whatever a visit dies of, the next ones go on
        _log.exception("Visit of %s ended by a defect", owner)
        return _defect(error)
    return None


def _defect(error: Exception) -> errors.BootstrapError:
    # The text of an unknown error may hold anything, a password too.
    return errors.InternalError(f"A defect of the operator ({type(error).__name__}); its log has the traceback")
