"""What people read: the status of a DatabaseBootstrap; facts and counts, no secrets, no growing lists."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from database_bootstrap.api.models import Model
from database_bootstrap.api.rules import CONTROL, Unique

MESSAGE_LENGTH = 32_768
LARGEST = 2**53 - 1
"""The largest whole number that every reader of JSON understands; the API server refuses larger bounds."""
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def clean(text: str, limit: int) -> str:
    """Return the text as a status can hold it: no control characters but line ends and tabs, and not too long."""
    printable = re.sub(CONTROL, lambda found: found[0] if found[0] in "\n\t" else "�", text)
    whole = printable.encode(errors="replace").decode()
    return whole if len(whole) <= limit else whole[: limit - 1] + "…"


def _cleaned(limit: int) -> BeforeValidator:
    # What servers and scripts say is cut rather than refused: a status that cannot be written helps nobody.
    return BeforeValidator(lambda value: clean(value, limit) if isinstance(value, str) else value)


Word = Annotated[str, Field(max_length=256), _cleaned(256)]
Text = Annotated[str, Field(max_length=4096), _cleaned(4096)]
Message = Annotated[str, Field(max_length=MESSAGE_LENGTH), _cleaned(MESSAGE_LENGTH)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Generation = Annotated[int, Field(ge=0, le=LARGEST)]
Time = Annotated[
    datetime,
    PlainSerializer(lambda moment: moment.astimezone(UTC).strftime(TIME_FORMAT), return_type=str),
]
"""Written to the second in UTC, as all of Kubernetes' times."""


class StatusModel(Model):
    """A part of the status; unlike the spec it may come from another version of the operator."""

    model_config = ConfigDict(extra="ignore")


class Origin(StrEnum):
    """How something came to be this resource's."""

    CREATED = "Created"
    ADOPTED = "Adopted"


class SeedState(StrEnum):
    """What is known of the first-run data."""

    SEEDED = "Seeded"
    ADOPTED = "Adopted"
    NOT_REQUESTED = "NotRequested"
    PENDING = "Pending"


class Condition(StatusModel):
    """One aspect of the state, in the form that all of Kubernetes has."""

    type: Annotated[
        str,
        Field(
            min_length=1,
            max_length=316,
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        ),
    ]
    """What the condition is about, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    observed_generation: Generation
    """The generation of the resource that this was true of."""
    last_transition_time: Time
    """When the status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Why, in one CamelCase word."""
    message: Message
    """Why, in a sentence for people."""


class ServerStatus(StatusModel):
    """The server that was found."""

    host: Word | None = None
    """Where it was reached."""
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """The port on which it was reached."""
    version: Word | None = None
    """Its version, as it says."""
    system_identifier: Word | None = None
    """The number that initdb gave it: another number is another server."""


class RoleStatus(StatusModel):
    """The role that was found or made."""

    name: Word
    """Its name."""
    origin: Origin | None = None
    """Whether it was made here, or adopted."""
    password_rotation: Word | None = None
    """The value of the annotation dbbootstrap.io/rotate-password that was last acted upon."""


class DatabaseStatus(StatusModel):
    """The database that was found or made."""

    name: Word
    """Its name."""
    oid: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """Its number on the server."""
    origin: Origin | None = None
    """Whether it was made here, or adopted."""
    incarnation: Word | None = None
    """The uuid written into the database when it was first set up: another one, or none, means other data."""
    ledger_seq: Count | None = None
    """The number of the last row of the audit log in the database; a lower one later means a restore."""


class ExtensionStatus(StatusModel):
    """An extension that the spec names, as found."""

    name: Word
    """Its name."""
    version: Word | None = None
    """The version installed."""
    schema_name: Word | None = None
    """The schema it is in."""


class FailedMigration(StatusModel):
    """The migration that stopped."""

    name: Word
    """Its name, as the tool has it."""
    sql_state: Word | None = None
    """The server's SQLSTATE."""
    message: Text | None = None
    """The server's message."""
    line: Count | None = None
    """The line in the migration's file, counted from 1."""


class MigrationsStatus(StatusModel):
    """How far the migrations are."""

    tool: Word | None = None
    """Who writes them."""
    current: Word | None = None
    """The last one applied."""
    applied: Count | None = None
    """How many are applied."""
    pending: Count | None = None
    """How many are still to be applied."""
    bundle_digest: Word | None = None
    """Digest of the files that this was judged by."""
    failed: FailedMigration | None = None
    """The one that stopped, where one did."""


class SeedStatus(StatusModel):
    """What is known of the first-run data."""

    state: SeedState
    """Seeded here; Adopted, as rows were there already; NotRequested; or Pending."""
    digest: Word | None = None
    """Digest of the files that were put in."""
    completed_time: Time | None = None
    """When they were."""


class BindingStatus(StatusModel):
    """The Secret for applications, as the Service Binding specification has it."""

    name: Word
    """Its name, in the same namespace."""
    host: Word | None = None
    """Where applications reach the server, as it says; the operator itself may do so elsewhere (`server.host`)."""
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """The port there."""


class LastChange(StatusModel):
    """The last visit that had to change something."""

    time: Time
    """When it was."""
    generation: Generation
    """The generation of the resource then."""
    changes: Count
    """How many changes it made."""


class Status(StatusModel):
    """What was found and done."""

    observed_generation: Annotated[int, Field(ge=-1, le=LARGEST)] = -1
    """The generation that was last looked at to the end; -1 while nobody has looked yet."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), Unique(field="conditions", key="type")] = ()
    """Ready, Reconciling or Stalled where they are true, and one condition for each stage."""
    server: ServerStatus | None = None
    """The server."""
    role: RoleStatus | None = None
    """The role."""
    database: DatabaseStatus | None = None
    """The database, its schemas and parameters included."""
    extensions: Annotated[
        tuple[ExtensionStatus, ...], Field(max_length=64), Unique(field="extensions", key="name")
    ] = ()
    """The extensions that the spec names."""
    migrations: MigrationsStatus | None = None
    """The migrations."""
    seed: SeedStatus | None = None
    """The first-run data."""
    binding: BindingStatus | None = None
    """The Secret for applications, once it is published."""
    last_change: LastChange | None = None
    """The last visit that had to change something; a visit that finds nothing to do writes nothing."""
    last_handled_reconcile_at: Word | None = None
    """The value of the annotation dbbootstrap.io/reconcile-requested-at that was last acted upon."""

    def manifest(self) -> dict[str, Any]:
        """Return the status as it is applied: what is not known is absent."""
        kept = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {key: value for key, value in kept.items() if value != []}


def parse_status(raw: Mapping[str, Any]) -> Status:
    """Return what can be understood of a status; it may be older or newer than this operator, or edited by hand."""
    known = {name: _field(raw, field.alias or name) for name, field in Status.model_fields.items()}
    return Status().model_copy(update={name: value for name, value in known.items() if value is not None})


def _field(raw: Mapping[str, Any], alias: str) -> Any:
    if raw.get(alias) is None:
        return None
    try:
        alone = Status.model_validate({alias: raw[alias]})
    except ValidationError:
        return None
    name = next(iter(alone.model_fields_set))
    return getattr(alone, name)
