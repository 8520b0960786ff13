"""How every stage runs: observe, compare, act, and look again."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import psycopg

from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.errors import BootstrapError, NotConverging
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages.visit import Visit

Found = TypeVar("Found")
NOTED = True
"""What an action returns that has told the visit of its changes itself."""


class Action(Protocol):
    """One thing to be done."""

    def __str__(self) -> str:
        """Say it in a few imperative words, without secrets: `create role "smart_dev"`."""
        ...

    async def run(self, visit: Visit) -> bool | None:
        """Do it; return `NOTED` where the visit has been told of each change already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What a stage says of what it found, once nothing is left to do."""

    reason: Reason
    message: str
    warnings: tuple[str, ...] = field(default=())


_INSIDE = frozenset({StageName.EXTENSIONS, StageName.MIGRATIONS, StageName.SEED, StageName.ACCESS})
"""Stages that look into the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Somebody lacks a right to what is to be done, and nothing of it is begun."""

    error: BootstrapError
    """Says which right, and how a superuser gives it."""
    meanwhile: Sequence[Action] = ()
    """What is done all the same, as the cure is for something that this makes first."""
    is_for_later: bool = False
    """The cure cannot be run yet, so that a plan says it and goes on."""


async def _permit_all(visit: Visit, found: object, actions: Sequence[Action]) -> Refusal | None:
    """What the stage does needs no right that could be missing."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[Found]):
    """One thing that converges."""

    name: StageName
    observe: Callable[[Visit], Awaitable[Found]]
    """Reads only; notes what it learned in the visit's facts."""
    compare: Callable[[Visit, Found], Sequence[Action]]
    """Pure: what must be run to turn what was found into what is wanted; raises what cannot be."""
    conclude: Callable[[Visit, Found], Conclusion]
    """Pure: what to say of what was found."""
    permit: Callable[[Visit, Found, Sequence[Action]], Awaitable[Refusal | None]] = _permit_all
    """Reads only: whether the administrator, and the role, may do all of it; asked before the first of it is done."""

    async def run(self, visit: Visit) -> Outcome:
        """Make it so, and say how it stands; raise our errors only."""
        try:
            return await self._converge(visit)
        except psycopg.Error as error:
            raise error_of(error, f"see to the {self.name.value}") from None

    async def _converge(self, visit: Visit) -> Outcome:
        if visit.is_unseen and self.name in _INSIDE:
            unseen = "Not looked at: the role gets into the database by what is planned before"
            return Outcome(stage=self.name, verdict=Verdict.DONE, reason=Reason.PROGRESSING, message=unseen)
        found = await self.observe(visit)
        actions = self.compare(visit, found)
        refusal = await self.permit(visit, found, actions) if actions else None
        if visit.planning:
            return self._planned(actions, refusal)
        if refusal:
            await self._act(visit, refusal.meanwhile)
            raise refusal.error
        if actions:
            await self._act(visit, actions)
            found = await self.observe(visit)
            if left := self.compare(visit, found):
                raise NotConverging(f"Done, and yet still to do: {'; '.join(map(str, left))}")
        # What was done to the role is written down by the next stage, which finds the ledger.
        await visit.write_audit()
        conclusion = self.conclude(visit, found)
        return Outcome(
            stage=self.name,
            verdict=Verdict.DONE,
            reason=conclusion.reason,
            message=conclusion.message,
            changes=tuple(visit.take_changes()),
            warnings=conclusion.warnings,
        )

    async def _act(self, visit: Visit, actions: Sequence[Action]) -> None:
        try:
            for action in actions:
                if await action.run(visit) is not NOTED:
                    visit.changed(self.name, str(action))
        except BootstrapError:
            # What was done before the failure was done, and belongs into the audit log, if that can be reached at all.
            with contextlib.suppress(BootstrapError):
                await visit.write_audit()
            raise
        await visit.write_audit()

    def _planned(self, actions: Sequence[Action], refusal: Refusal | None) -> Outcome:
        if refusal and not refusal.is_for_later:
            raise refusal.error
        return Outcome(
            stage=self.name,
            verdict=Verdict.DONE,
            reason=Reason.PROGRESSING if actions else Reason.SUCCEEDED,
            message=f"{len(actions)} to do" if actions else "Nothing to do",
            changes=tuple(map(str, actions)),
            warnings=(refusal.error.message,) if refusal else (),
        )
