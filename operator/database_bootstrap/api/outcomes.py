"""What each stage has to say at the end of a visit; everything visible is derived from it."""

from dataclasses import dataclass, field
from enum import StrEnum


class StageName(StrEnum):
    """The stages in the order in which they run."""

    ROLE = "role"
    DATABASE = "database"
    EXTENSIONS = "extensions"
    MIGRATIONS = "migrations"
    SEED = "seed"
    CONNECTION = "connection"
    ACCESS = "access"

    @property
    def condition(self) -> str:
        """The type of the condition that tells of this stage."""
        return CONDITION_OF_STAGE[self]


CONDITION_OF_STAGE = {
    StageName.ROLE: "RoleReady",
    StageName.DATABASE: "DatabaseReady",
    StageName.EXTENSIONS: "ExtensionsReady",
    StageName.MIGRATIONS: "MigrationsApplied",
    StageName.SEED: "Seeded",
    StageName.CONNECTION: "ConnectionPublished",
    StageName.ACCESS: "AccessReady",
}


class Verdict(StrEnum):
    """How a stage ended."""

    DONE = "Done"
    """What is wanted is there."""
    RETRY = "Retry"
    """Not there, and it heals by itself."""
    STALLED = "Stalled"
    """Not there, and it needs a person."""
    BLOCKED = "Blocked"
    """Not looked at, because a stage before it did not end well."""
    UNDERWAY = "Underway"
    """In the middle of a visit: about to do what the message says. No visit ends so."""


class Reason(StrEnum):
    """Every reason that a condition may carry; those of errors are the names in errors.py."""

    SUCCEEDED = "Succeeded"
    PROGRESSING = "Progressing"
    PROGRESSING_WITH_RETRY = "ProgressingWithRetry"
    BLOCKED = "Blocked"
    NOT_REQUESTED = "NotRequested"
    ROLE_IN_PLACE = "RoleInPlace"
    DATABASE_IN_PLACE = "DatabaseInPlace"
    EXTENSIONS_IN_PLACE = "ExtensionsInPlace"
    MIGRATIONS_UP_TO_DATE = "MigrationsUpToDate"
    DATABASE_SEEDED = "DatabaseSeeded"
    SEED_NOT_NEEDED = "SeedNotNeeded"
    CONNECTION_PUBLISHED = "ConnectionPublished"
    ACCESS_GIVEN = "AccessGiven"
    SERVER_UNREACHABLE = "ServerUnreachable"
    SERVER_READ_ONLY = "ServerReadOnly"
    ADMIN_LOGIN_REFUSED = "AdminLoginRefused"
    SERVER_BUSY = "ServerBusy"
    REFERENCE_NOT_FOUND = "ReferenceNotFound"
    ACCESS_ROLE_NOT_FOUND = "AccessRoleNotFound"
    CLUSTER_UNAVAILABLE = "ClusterUnavailable"
    LOCK_HELD = "LockHeld"
    MIGRATION_INTERRUPTED = "MigrationInterrupted"
    NOT_CONVERGING = "NotConverging"
    INTERNAL_ERROR = "InternalError"
    SPEC_REJECTED = "SpecRejected"
    REFERENCE_REJECTED = "ReferenceRejected"
    ACCESS_DENIED = "AccessDenied"
    ANSWER_TOO_LARGE = "AnswerTooLarge"
    SERVER_REFUSED = "ServerRefused"
    NOT_OWNED = "NotOwned"
    ROLE_TOO_POWERFUL = "RoleTooPowerful"
    ROLE_OWNS_OBJECTS = "RoleOwnsObjects"
    ROLE_LOGIN_REFUSED = "RoleLoginRefused"
    PASSWORD_LOST = "PasswordLost"  # noqa: S105 a reason, not a password
    DATA_LOSS_DETECTED = "DataLossDetected"
    FOREIGN_DATABASE = "ForeignDatabase"
    SETTING_MISMATCH = "SettingMismatch"
    EXTENSION_UNAVAILABLE = "ExtensionUnavailable"
    BUNDLE_REJECTED = "BundleRejected"
    SANDBOX_UNAVAILABLE = "SandboxUnavailable"
    SCHEMA_HAS_OTHER_OWNER = "SchemaHasOtherOwner"
    DESTRUCTIVE_MIGRATION = "DestructiveMigration"
    MIGRATION_FAILED = "MigrationFailed"
    MIGRATION_TIMED_OUT = "MigrationTimedOut"
    MIGRATION_DIVERGED = "MigrationDiverged"
    MIGRATION_HALF_APPLIED = "MigrationHalfApplied"
    SEED_FAILED = "SeedFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one stage says."""

    stage: StageName
    verdict: Verdict
    reason: Reason
    message: str
    """A sentence without secrets and row data."""
    changes: tuple[str, ...] = ()
    """What was done, each in a few imperative words: `create role "smart_dev"`."""
    warnings: tuple[str, ...] = field(default=())
    """What was noticed and left alone, each a sentence."""
