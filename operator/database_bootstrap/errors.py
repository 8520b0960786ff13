"""What can go wrong, as one tree; the class name is the reason that the status shows.

BootstrapError
├── Retryable               heals by itself: retried with backoff
│   ├── ServerUnreachable       no answer, or the answer broke off (08xxx, 57P0x)
│   ├── ServerReadOnly          a standby, or default_transaction_read_only (25006)
│   ├── AdminLoginRefused       28xxx at the administrator's login: a rotation may be under way
│   ├── ServerBusy              out of connections, or a lock was not to be had (53300, 55006, 55P03)
│   ├── ReferenceNotFound       a Secret or ConfigMap, or a key of it, is not there yet
│   ├── AccessRoleNotFound      a role that spec.access names is not on the server yet
│   ├── ClusterUnavailable      the Kubernetes API does not answer, or the operator lacks a right there
│   ├── LockHeld                another session is migrating this database
│   ├── MigrationInterrupted    a migration was rolled back by a deadlock, a lock time-out or a lost connection
│   ├── NotConverging           acting did not lead to what is wanted
│   └── InternalError           a defect of ours
└── Stalled                 needs a person: looked at again when something changes, and every intervalSeconds
    ├── SpecRejected            what the resource asks for cannot be
    ├── ReferenceRejected       a Secret or ConfigMap is there, and what it holds cannot be used
    ├── AccessDenied            the administrator lacks a right (42501)
    ├── AnswerTooLarge          the server holds more for the operator to read than it takes
    ├── ServerRefused           the platform team's server does not allow what the resource asks for
    ├── NotOwned                exists, and is not this resource's
    ├── RoleTooPowerful         the role has an attribute that an application must not have
    ├── RoleOwnsObjects         the role cannot be dropped: it owns something in another database
    ├── RoleLoginRefused        the role's own password does not log in, and must not be set
    ├── PasswordLost            the generated password is nowhere to be found
    ├── DataLossDetected        the data that was set up is gone; nothing is made anew until a person says so
    ├── ForeignDatabase         the database holds another's data
    ├── SettingMismatch         a setting that is only made at creation differs
    ├── ExtensionUnavailable    the server does not offer the extension
    ├── BundleRejected          the files of a source cannot be used; nothing was run
    ├── SandboxUnavailable      code of the resource would have to run, and cannot be confined here as is demanded
    ├── SchemaHasOtherOwner     tables exist that no migration made
    ├── DestructiveMigration    a pending migration would destroy rows, and nobody has allowed it
    ├── MigrationFailed         a migration failed
    │   └── MigrationHalfApplied    in the middle, a part of it stayed, and only a person knows what is right
    ├── MigrationTimedOut       the run took longer than timeoutSeconds
    ├── MigrationDiverged       the applied history is not the one in the source
    └── SeedFailed              the seed failed; nothing of it stayed
"""

from typing import Literal


class BootstrapError(Exception):
    """A state that the status can show; its text carries no secret, no connection string and no row data."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def reason(self) -> str:
        """The reason that conditions, events and metrics carry."""
        return type(self).__name__


class Retryable(BootstrapError):
    """Heals by itself."""


class Stalled(BootstrapError):
    """Needs a person."""


class ServerUnreachable(Retryable):
    """The server does not answer, or the connection broke off."""


class ServerReadOnly(Retryable):
    """The server accepts no writes now: a standby, or a read-only default."""


class AdminLoginRefused(Retryable):
    """The server refuses the administrator's credentials."""

    def __init__(self, message: str, *, is_password: bool = True) -> None:
        super().__init__(message)
        self.is_password = is_password
        """It is the password that is wrong (28P01), and not that the server has no line for this login, for one."""


class ServerBusy(Retryable):
    """The server has no connection left, or an object is in use."""

    def __init__(self, message: str, *, login: Literal["administrator", "role"] | None = None) -> None:
        super().__init__(message)
        self.login = login
        """Whose login found no connection left (53300); None for everything else."""


class ReferenceNotFound(Retryable):
    """A Secret, a ConfigMap, a key in one, or a DatabaseServer that the resource names is not there yet."""


class AccessRoleNotFound(Retryable):
    """A role that the resource gives access to is not there yet."""


class ClusterUnavailable(Retryable):
    """The Kubernetes API does not answer, or does not let the operator do its work."""

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        self.forbidden = forbidden
        """It answers, and a right of the operator is missing; all goes on when the right is back."""


class LockHeld(Retryable):
    """Another session migrates this database right now."""


class MigrationInterrupted(Retryable):
    """A migration was rolled back for a reason that may pass."""


class NotConverging(Retryable):
    """What was done did not lead to what is wanted."""


class InternalError(Retryable):
    """A defect of the operator; the log has the traceback."""


class SpecRejected(Stalled):
    """What the resource asks for cannot be."""


class ReferenceRejected(Stalled):
    """A Secret or ConfigMap is there, and what it holds cannot be used."""


class AccessDenied(Stalled):
    """A right is missing on the server."""


class AnswerTooLarge(Stalled):
    """What the operator has to read is more than it takes: an absurd number of things, or an absurdly large one."""


class ServerRefused(Stalled):
    """The platform team's server does not allow what the resource asks for."""


class NotOwned(Stalled):
    """Something of this name exists and is not this resource's."""


class RoleTooPowerful(Stalled):
    """The role has an attribute that an application's role must not have."""


class RoleOwnsObjects(Stalled):
    """The role cannot be dropped, as it owns something in another database."""


class RoleLoginRefused(Stalled):
    """The role's own password does not log in."""


class PasswordLost(Stalled):
    """The role exists, and its generated password is nowhere to be found."""


class DataLossDetected(Stalled):
    """The data that was set up here is gone."""


class ForeignDatabase(Stalled):
    """The database is another incarnation than the one that was set up here."""


class SettingMismatch(Stalled):
    """A setting that only counts at creation is not the one that is wanted."""


class ExtensionUnavailable(Stalled):
    """The server does not offer the extension, or not in this version."""


class BundleRejected(Stalled):
    """The files of a source cannot be used; nothing was run."""


class SandboxUnavailable(Stalled):
    """Alembic's revisions are code, and this operator does not run it: it cannot confine it, or is told not to."""


class SchemaHasOtherOwner(Stalled):
    """Tables exist that no migration history accounts for."""


class DestructiveMigration(Stalled):
    """A pending migration would destroy rows, and nobody has allowed it."""


class MigrationFailed(Stalled):
    """A migration failed."""

    def __init__(
        self, message: str, *, name: str, sql_state: str | None = None, detail: str = "", line: int | None = None
    ) -> None:
        super().__init__(message)
        self.name = name
        """The migration, as its tool names it."""
        self.sql_state = sql_state
        """The server's SQLSTATE, where the server was what refused."""
        self.detail = detail
        """The server's own message."""
        self.line = line
        """The line in the migration's file, counted from 1."""

    def with_remark(self, remark: str) -> "MigrationFailed":
        """Return the same with a further sentence."""
        return type(self)(
            f"{self.message}. {remark}",
            name=self.name,
            sql_state=self.sql_state,
            detail=self.detail,
            line=self.line,
        )


class MigrationHalfApplied(MigrationFailed):
    """A migration stopped in the middle of what cannot be rolled back."""


class MigrationTimedOut(Stalled):
    """The run took longer than it may."""


class MigrationDiverged(Stalled):
    """The history in the database is not the one in the source."""


class SeedFailed(Stalled):
    """The seed failed, and nothing of it stayed."""
