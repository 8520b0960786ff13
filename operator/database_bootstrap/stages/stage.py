"""How every stage runs: observe, compare, act, and look again."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.errors import NotConverging
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

    async def run(self, visit: Visit) -> Outcome:
        """Make it so, and say how it stands."""
        found = await self.observe(visit)
        actions = self.compare(visit, found)
        if visit.planning:
            return self._planned(actions)
        if actions:
            await self._act(visit, actions)
            found = await self.observe(visit)
            if left := self.compare(visit, found):
                raise NotConverging(f"Done, and yet still to do: {'; '.join(map(str, left))}")
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
        for action in actions:
            if await action.run(visit) is not NOTED:
                visit.changed(self.name, str(action))
        await visit.write_audit()

    def _planned(self, actions: Sequence[Action]) -> Outcome:
        return Outcome(
            stage=self.name,
            verdict=Verdict.DONE,
            reason=Reason.PROGRESSING if actions else Reason.SUCCEEDED,
            message=f"{len(actions)} to do" if actions else "Nothing to do",
            changes=tuple(map(str, actions)),
        )
