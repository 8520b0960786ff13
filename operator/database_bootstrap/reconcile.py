"""The line: one public function, which knows no Kubernetes."""

import logging
from collections.abc import Awaitable
from typing import Any

from database_bootstrap import errors
from database_bootstrap.api.outcomes import Outcome, Reason, Verdict
from database_bootstrap.api.v1alpha1 import Tool as ToolName
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.postgres.session import Budget
from database_bootstrap.settings import Sandbox, SandboxMode
from database_bootstrap.stages import connection, database, deletion, extensions, identity, migrations, role, seed
from database_bootstrap.stages.credentials import Credentials
from database_bootstrap.stages.deletion import Departure, Ending
from database_bootstrap.stages.sessions import Sessions
from database_bootstrap.stages.stage import Stage
from database_bootstrap.stages.subject import Progress, Report, Subject
from database_bootstrap.stages.surroundings import Belongings, Surroundings
from database_bootstrap.stages.visit import Sources, Visit
from database_bootstrap.tools.alembic import Alembic
from database_bootstrap.tools.prisma import Prisma
from database_bootstrap.tools.sandbox import Zygote
from database_bootstrap.tools.sql_files import SqlFiles
from database_bootstrap.tools.tool import Tool

STAGES: tuple[Stage[Any], ...] = (
    role.STAGE,
    database.STAGE,
    extensions.STAGE,
    migrations.STAGE,
    seed.STAGE,
    connection.STAGE,
)
_log = logging.getLogger(__name__)


async def _nobody(outcomes: object, facts: object) -> None:
    """Progress that nobody wants to see."""


class Engine:
    """What all visits share: the budget of connections per server, and the process that runs Alembic's revisions."""

    def __init__(self, *, max_connections: int = 8, pace_seconds: float = 10.0, sandbox: Sandbox | None = None) -> None:
        """Allow so many connections at once per server; say how far a long work is after each so many seconds.

        Alembic's revisions run where they are confined like this.
        """
        sandbox = sandbox or Sandbox()
        self._max_connections = max_connections
        self._pace_seconds = pace_seconds
        self._zygote = Zygote(confined=sandbox.mode is not SandboxMode.UNCONFINED)
        self._budgets: dict[tuple[str, int], Budget] = {}
        self._sources = Sources()
        tools: tuple[Tool[Any], ...] = (Prisma(), Alembic(self._zygote, sandbox), SqlFiles())
        self._tools = {tool.name: tool for tool in tools}

    async def start(self) -> None:
        """Start what must be there before any Secret is read."""
        await self._zygote.start()

    async def stop(self) -> None:
        """Stop it."""
        await self._zygote.stop()

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
        credentials = Credentials(subject, belongings)
        departure = Departure(
            subject=subject,
            belongings=belongings,
            credentials=credentials,
            sessions=Sessions(credentials.administrator, credentials.role, {}),
        )
        error = await _error_of(self._see_off(departure), subject.owner)
        return Ending(drops=tuple(departure.drops), kept=tuple(departure.kept), error=error)

    async def _see_off(self, departure: Departure) -> None:
        endpoint = (await departure.credentials.administrator()).endpoint
        budget = self._budgets.setdefault((endpoint.host, endpoint.port), Budget(self._max_connections))
        async with budget.reserve(1):
            try:
                await deletion.run(departure)
            finally:
                await departure.sessions.close()

    async def _visit(
        self, subject: Subject, surroundings: Surroundings, progress: Progress, *, planning: bool
    ) -> Report:
        credentials = Credentials(subject, surroundings)
        visit = Visit(
            subject=subject,
            surroundings=surroundings,
            credentials=credentials,
            sessions=Sessions(
                credentials.administrator, credentials.role, migrations.owner_settings(subject.spec.migrations)
            ),
            tools=self._tools,
            sources=self._sources,
            progress=progress,
            pace_seconds=self._pace_seconds,
            planning=planning,
        )
        error = await _error_of(self._run_stages(visit), subject.owner)
        if error is not None:
            visit.outcomes.append(_trouble(visit, error))
        return Report(outcomes=(*visit.outcomes, *_blocked(visit)), facts=visit.facts)

    async def _run_stages(self, visit: Visit) -> None:
        visit.pin = identity.pin_of(visit.subject, await visit.credentials.pinned())
        endpoint = await visit.credentials.endpoint()
        budget = self._budgets.setdefault((endpoint.host, endpoint.port), Budget(self._max_connections))
        async with budget.reserve(_connections(visit.subject)):
            try:
                for stage in STAGES:
                    outcome = await stage.run(visit)
                    if stage is STAGES[-1]:
                        await database.pin(visit)
                    visit.outcomes.append(outcome)
            finally:
                await visit.sessions.close()


def _connections(subject: Subject) -> int:
    wanted = subject.spec.migrations
    return 3 if wanted and wanted.tool is ToolName.ALEMBIC else 2


async def _error_of(work: Awaitable[None], owner: Owner) -> errors.BootstrapError | None:
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


def _trouble(visit: Visit, error: errors.BootstrapError) -> Outcome:
    return Outcome(
        stage=STAGES[len(visit.outcomes)].name,
        verdict=Verdict.RETRY if isinstance(error, errors.Retryable) else Verdict.STALLED,
        reason=Reason(error.reason),
        message=error.message,
        changes=tuple(visit.take_changes()),
    )


def _blocked(visit: Visit) -> tuple[Outcome, ...]:
    through = {outcome.stage for outcome in visit.outcomes}
    return tuple(
        Outcome(
            stage=stage.name,
            verdict=Verdict.BLOCKED,
            reason=Reason.BLOCKED,
            message="Waits for the stage before it",
        )
        for stage in STAGES
        if stage.name not in through
    )
