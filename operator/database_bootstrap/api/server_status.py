"""What people read of a DatabaseServer: its status, and the conditions that sum it up; pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, ValidationError

from database_bootstrap.api import conditions
from database_bootstrap.api.outcomes import Reason
from database_bootstrap.api.rules import Unique
from database_bootstrap.api.status import LARGEST, Condition, Count, ServerStatus, StatusModel, Text, Word
from database_bootstrap.errors import BootstrapError, Retryable

REACHABLE = "Reachable"
RIGHTS_SUFFICE = "RightsSuffice"
IN_PLACE = "The server answers, and its administrator has what it takes."


class AdministratorStatus(StatusModel):
    """The operator's own login."""

    name: Word
    """Its name."""
    superuser: bool
    """Whether it is a superuser."""


class MissingRight(StatusModel):
    """Something that the administrator may not do, and would have to."""

    right: Word
    """What is missing, in a few words."""
    sql: Text
    """The statement with which a superuser gives it."""


class ServerObjectStatus(StatusModel):
    """What was found."""

    observed_generation: Annotated[int, Field(ge=-1, le=LARGEST)] = -1
    """The generation that was last looked at; -1 while nobody has looked yet."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=8), Unique(field="conditions", key="type")] = ()
    """Ready, Reconciling or Stalled where they are true, Reachable and RightsSuffice."""
    server: ServerStatus | None = None
    """The server, as it was when it was last reached."""
    administrator: AdministratorStatus | None = None
    """Whom the operator logs in as."""
    missing_rights: Annotated[
        tuple[MissingRight, ...], Field(max_length=16), Unique(field="missingRights", key="right")
    ] = ()
    """What the administrator may not do, each with the statement with which a superuser lets it."""
    extensions_for_superusers: Annotated[
        tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=256), Unique(field="extensionsForSuperusers")
    ] = ()
    """Which of allowedExtensions the administrator cannot create.

    A resource that asks for one says in its condition ExtensionsReady what a superuser runs in its database."""
    databases: Count | None = None
    """How many databases there are this cluster's resources'."""
    last_handled_reconcile_at: Word | None = None
    """The value of the annotation dbbootstrap.io/reconcile-requested-at that was last acted upon."""

    def manifest(self) -> dict[str, Any]:
        """Return the status as it is applied: what is not known is absent."""
        kept = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {key: value for key, value in kept.items() if value != []}


def parse_server_status(raw: Mapping[str, Any]) -> ServerObjectStatus:
    """Return what can be understood of a status; what cannot is as if nobody had looked."""
    try:
        return ServerObjectStatus.model_validate(dict(raw))
    except ValidationError:
        return ServerObjectStatus()


def derive(
    found: ServerObjectStatus,
    error: BootstrapError | None,
    *,
    before: ServerObjectStatus,
    generation: int,
    now: datetime,
) -> ServerObjectStatus:
    """Return the status at the end of a look: what was found, or, where there was an error, what was known before."""
    pen = conditions.Pen(before.conditions, generation, now)
    said = _healthy(found, pen) if error is None else _troubled(error, pen)
    known = found if error is None else before
    kept = {"last_handled_reconcile_at": before.last_handled_reconcile_at}
    return known.model_copy(update={"observed_generation": generation, "conditions": said, **kept})


def _healthy(found: ServerObjectStatus, pen: conditions.Pen) -> tuple[Condition, ...]:
    reached = pen.write(REACHABLE, "True", Reason.SUCCEEDED, "The administrator logs in.")
    if not found.missing_rights:
        told = _extensions(found)
        rights = pen.write(RIGHTS_SUFFICE, "True", Reason.SUCCEEDED, f"Nothing is missing.{told}")
        return (pen.write(conditions.READY, "True", Reason.SUCCEEDED, IN_PLACE), reached, rights)
    lacking = "; ".join(f"{it.right}: {it.sql}" for it in found.missing_rights)
    message = f"The administrator lacks rights; let a superuser run what follows each. {lacking}"
    reason = Reason.ACCESS_DENIED
    return (
        pen.write(conditions.READY, "False", reason, message),
        pen.write(conditions.STALLED, "True", reason, message),
        reached,
        pen.write(RIGHTS_SUFFICE, "False", reason, message),
    )


def _extensions(found: ServerObjectStatus) -> str:
    names = ", ".join(found.extensions_for_superusers)
    return (
        f" Of allowedExtensions only a superuser can create {names} here, in each database that asks for it: the "
        "condition ExtensionsReady of the resource has the statements."
        if names
        else ""
    )


def _troubled(error: BootstrapError, pen: conditions.Pen) -> tuple[Condition, ...]:
    reason = Reason(error.reason)
    summary = (
        pen.write(conditions.RECONCILING, "True", Reason.PROGRESSING_WITH_RETRY, conditions.WILL_RETRY)
        if isinstance(error, Retryable)
        else pen.write(conditions.STALLED, "True", reason, error.message)
    )
    return (
        pen.write(conditions.READY, "False", reason, error.message),
        summary,
        pen.write(REACHABLE, "False", reason, error.message),
        pen.write(RIGHTS_SUFFICE, "Unknown", Reason.BLOCKED, f"Waits for {REACHABLE}."),
    )
