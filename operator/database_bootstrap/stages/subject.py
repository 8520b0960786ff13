"""What a visit is about, and what it says at the end."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from database_bootstrap.api import conditions, names
from database_bootstrap.api.outcomes import Outcome, Verdict
from database_bootstrap.api.status import (
    BindingStatus,
    DatabaseStatus,
    ExtensionStatus,
    LastChange,
    MigrationsStatus,
    RoleStatus,
    SeedStatus,
    ServerStatus,
    Status,
)
from database_bootstrap.api.v1alpha1 import Spec
from database_bootstrap.postgres.outage import Outage
from database_bootstrap.postgres.ownership import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One resource at one moment: what it wants, and what its status remembers."""

    owner: Owner
    spec: Spec
    status: Status
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Those of our group: a person's word on what the operator must not decide."""
    is_uid_derived: bool = False
    """The uid is made of the name, so that another project's resource of this name has the same one."""
    adoption_refused_by: str | None = None
    """The DatabaseServer that does not allow anything to be taken over; None where that is allowed."""

    @property
    def said_to_be_ours(self) -> str | None:
        """The uid of the resource whose things a person has said to be this one's."""
        return self.annotations.get(names.ANNOTATION_TAKE_OVER)

    @property
    def taken_over(self) -> str | None:
        """The same, where that counts."""
        return None if self.adoption_refused_by else self.said_to_be_ours


@dataclass(slots=True, kw_only=True)
class Turn:
    """Whether the server had one for this visit."""

    begun: bool = False
    """A server that is known to be away has none."""
    outage: Outage | None = None
    """What the visit ended by, or could not begin for."""


@dataclass(slots=True, kw_only=True)
class Facts:
    """What a visit learned, in the status's own words; None where it learned nothing, and the status keeps its word."""

    server: ServerStatus | None = None
    role: RoleStatus | None = None
    database: DatabaseStatus | None = None
    extensions: tuple[ExtensionStatus, ...] | None = None
    migrations: MigrationsStatus | None = None
    seed: SeedStatus | None = None
    binding: BindingStatus | None = None
    """The connection Secret, once it is published."""
    doing: str = ""
    """What a slow stage does now, and how far it is; for people."""

    def over(self, before: Status) -> Status:
        """Return the status with what was learned; what was not learned stays as it was known."""
        learned = {
            "server": self.server,
            "role": self.role,
            "database": self.database,
            "extensions": self.extensions,
            "migrations": self.migrations,
            "seed": self.seed,
            "binding": self.binding,
        }
        return before.model_copy(update={name: value for name, value in learned.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The end of a visit: one outcome for each stage, in order."""

    outcomes: tuple[Outcome, ...]
    facts: Facts
    outage: Outage | None = None
    """What the visit ended by; its end is the time for the next one."""
    refused: bool = False
    """The server was known to be away, and so nothing was looked at."""

    @property
    def changes(self) -> tuple[str, ...]:
        """Everything that was done, in order."""
        return tuple(change for outcome in self.outcomes for change in outcome.changes)

    @property
    def trouble(self) -> Outcome | None:
        """The outcome that kept the visit from its end, if any."""
        return next((o for o in self.outcomes if o.verdict in {Verdict.RETRY, Verdict.STALLED}), None)

    def over(self, before: Status, *, generation: int, now: datetime) -> Status:
        """Return the status at the end of a visit to this generation of the resource."""
        changes = len(self.changes)
        update = {
            "conditions": conditions.derive(self.outcomes, previous=before.conditions, generation=generation, now=now),
            "observed_generation": generation,
            "last_change": LastChange(time=now, generation=generation, changes=changes) if changes else None,
        }
        return self.facts.over(before).model_copy(update={name: it for name, it in update.items() if it is not None})


Progress = Callable[[Sequence[Outcome], Facts], Awaitable[None]]
"""Told before the first change of a slow stage, and while it lasts: the outcomes of the stages that are through."""
