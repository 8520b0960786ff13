"""The stages in line: each runs when all before it are in place, but for the access of others."""

from typing import Any

from database_bootstrap import errors
from database_bootstrap.api import conditions
from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.stages import access, connection, database, extensions, migrations, role, seed
from database_bootstrap.stages.stage import Stage
from database_bootstrap.stages.visit import Visit

STAGES: tuple[Stage[Any], ...] = (
    role.STAGE,
    database.STAGE,
    extensions.STAGE,
    migrations.STAGE,
    seed.STAGE,
    connection.STAGE,
    access.STAGE,
)


async def through(visit: Visit) -> None:
    """Run all stages in order; raise at the first one that does not end well."""
    try:
        for stage in STAGES:
            outcome = await stage.run(visit)
            if stage is connection.STAGE or (stage is access.STAGE and outcome.changes):
                await database.pin(visit)
            visit.outcomes.append(outcome)
    except errors.Stalled as error:
        stalled = STAGES[len(visit.outcomes)]
        if stalled in STAGES[: STAGES.index(database.STAGE) + 1] or stalled is access.STAGE:
            raise
        visit.outcomes.append(_trouble(visit, error, stalled.name))
        await _settle_access(visit)


async def _settle_access(visit: Visit) -> None:
    """See to the access of others although a stage waits for a person: to take it away must not wait for that."""
    await visit.sessions.close()  # The session may be in the middle of what has failed.
    try:
        if await visit.sessions.try_role():
            visit.outcomes.append(await access.STAGE.run(visit))
    except errors.BootstrapError as error:
        visit.outcomes.append(_trouble(visit, error, access.STAGE.name))


def outcomes(visit: Visit, error: errors.BootstrapError | None) -> tuple[Outcome, ...]:
    """Return one outcome for each stage, in order; the error is what kept the visit from its end."""
    if error is not None:
        visit.outcomes.append(_trouble(visit, error, STAGES[len(visit.outcomes)].name))
    return conditions.in_order((*visit.outcomes, *_blocked(visit)))


def _trouble(visit: Visit, error: errors.BootstrapError, stage: StageName) -> Outcome:
    return Outcome(
        stage=stage,
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
