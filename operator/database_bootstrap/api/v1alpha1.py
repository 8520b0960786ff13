"""What people ask for: the spec of a DatabaseBootstrap; its docs are `kubectl explain`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from database_bootstrap.api import names, refusals, rules
from database_bootstrap.api.access import AccessLevel, AccessSpec, ConnectionSecretSpec
from database_bootstrap.api.models import DAY_SECONDS, IDENTIFIER, Flag, Model, Whole, without_nulls
from database_bootstrap.api.rules import Rule, Unique
from database_bootstrap.api.seeds import SeedPolicy, SeedSpec
from database_bootstrap.api.sources import INLINE_CHARACTERS, ConfigMapRef, InlineFile, SourceSpec
from database_bootstrap.api.targets import (
    AdminSecretRef,
    Adoption,
    DatabaseSpec,
    ExtensionSpec,
    LocaleProvider,
    LocaleSpec,
    ParameterSpec,
    PasswordSecretRef,
    RoleSpec,
    SchemaSpec,
    ServerSpec,
)
from database_bootstrap.errors import SpecRejected

__all__ = [
    "ROOT_RULES",
    "AccessLevel",
    "AccessSpec",
    "AdminSecretRef",
    "Adoption",
    "ConfigMapRef",
    "ConnectionSecretSpec",
    "DatabaseSpec",
    "DeletionPolicy",
    "ExtensionSpec",
    "InlineFile",
    "LocaleProvider",
    "LocaleSpec",
    "MigrationsSpec",
    "OnDestructive",
    "ParameterSpec",
    "PasswordSecretRef",
    "RoleSpec",
    "SchemaSpec",
    "SeedPolicy",
    "SeedSpec",
    "ServerSpec",
    "SourceSpec",
    "Spec",
    "Tool",
    "check_root",
    "parse_spec",
    "refuse_change",
    "without_nulls",
]


_OBJECT_NAME = rules.object_name("metadata.name", "resource")


class Tool(StrEnum):
    """Who writes the migrations, and so how they are recorded."""

    PRISMA = "Prisma"
    ALEMBIC = "Alembic"
    SQL = "SQL"


class DeletionPolicy(StrEnum):
    """What becomes of role, database and Secrets when the resource is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class OnDestructive(StrEnum):
    """What becomes of a pending migration that would destroy rows."""

    REFUSE = "Refuse"
    ALLOW = "Allow"


def _inline_characters(spec: "Spec") -> int:
    sources = [stage.source for stage in (spec.migrations, spec.seed) if stage is not None]
    return sum(len(file.content) for source in sources for file in source.inline)


def _secrets_in_use(spec: "Spec") -> set[str]:
    password = spec.role.password_secret_ref
    admin = spec.server.admin_secret_ref
    return {reference.name for reference in (admin, password) if reference}


class MigrationsSpec(Model):
    """The application's tables, which are made by its migrations and by nothing else."""

    tool: Tool
    """Who writes the migrations: Prisma, Alembic, or SQL (versioned files, run by the operator itself)."""
    schema_name: Annotated[
        str,
        IDENTIFIER,
        rules.byte_length("migrations.schema"),
        rules.printable("migrations.schema"),
        rules.no_system_schema("migrations.schema"),
    ] = "public"
    """The schema in which the tool works and keeps its history."""
    source: SourceSpec
    """The migrations, laid out as the tool does."""
    baseline: (
        Annotated[
            str,
            Field(strict=True, min_length=1, max_length=255),
            rules.printable("migrations.baseline"),
        ]
        | None
    ) = None
    """The migration that tables made by somebody else correspond to: all up to it is recorded as applied, and not run.

    It counts only where tables are there and no migration is recorded yet.
    """
    allow_out_of_order: Annotated[
        tuple[
            Annotated[
                str,
                Field(strict=True, min_length=1, max_length=255),
                rules.printable("migrations.allowOutOfOrder[]"),
            ],
            ...,
        ],
        Field(max_length=64),
        Unique(field="migrations.allowOutOfOrder"),
    ] = ()
    """Migrations that may run although later ones were applied before them."""
    on_destructive: OnDestructive = OnDestructive.REFUSE
    """What becomes of pending migrations of which one would destroy rows: none of them is run, or all are."""
    allow_destructive: Annotated[
        tuple[
            Annotated[
                str,
                Field(strict=True, min_length=1, max_length=255),
                rules.printable("migrations.allowDestructive[]"),
            ],
            ...,
        ],
        Field(max_length=64),
        Unique(field="migrations.allowDestructive"),
    ] = ()
    """Migrations that may destroy rows although the others may not, by the names that the status has."""
    lock_timeout_seconds: Annotated[Whole, Field(ge=1, le=600)] = 5
    """How long a statement waits for a lock before the migration is rolled back and tried again later."""
    statement_timeout_seconds: Annotated[Whole, Field(ge=0, le=DAY_SECONDS)] = 0
    """How long one statement may run; 0 is without end."""
    timeout_seconds: Annotated[Whole, Field(ge=1, le=DAY_SECONDS)] = 600
    """How long all that is pending may take together."""


class Spec(Model):
    """What is wanted of one database."""

    obeys: ClassVar = (
        Rule(
            cel=" + ".join(
                f"(has(self.{it}) && has(self.{it}.source.inline)"
                f" ? self.{it}.source.inline.map(file, size(file.content)).sum() : 0)"
                for it in ("migrations", "seed")
            )
            + f" <= {INLINE_CHARACTERS}",
            message="`source.inline` must hold at most 200 KiB (204800 characters) in all, migrations and seed "
            "together: use `configMapRefs` for more",
            holds=lambda spec: _inline_characters(spec) <= INLINE_CHARACTERS,
        ),
        Rule(
            cel="!has(self.connectionSecret) || ((!has(self.server.adminSecretRef) || "
            "self.connectionSecret.name != self.server.adminSecretRef.name) && "
            "(!has(self.role.passwordSecretRef) || self.connectionSecret.name != self.role.passwordSecretRef.name))",
            message="`connectionSecret.name` must not be a Secret that the resource reads: the operator writes it",
            holds=lambda spec: (
                spec.connection_secret is None or spec.connection_secret.name not in _secrets_in_use(spec)
            ),
        ),
        Rule(
            cel="!has(self.adoption) || self.adoption != 'Force' || has(self.role.passwordSecretRef)",
            message="`role.passwordSecretRef` must be there for `adoption: Force`: adoption never sets a password",
            holds=lambda spec: spec.adoption is not Adoption.FORCE or spec.role.password_secret_ref is not None,
        ),
        Rule(
            cel="!has(self.access) || self.access.all(it, it.role != self.role.name)",
            message="`access[].role` must not be the resource's own role: it owns everything",
            holds=lambda spec: all(it.role != spec.role.name for it in spec.access),
        ),
    )

    server: ServerSpec
    """Where the database is."""
    role: RoleSpec
    """The application's login role, owner of the database."""
    database: DatabaseSpec
    """The database itself."""
    schemas: Annotated[tuple[SchemaSpec, ...], Field(max_length=64), Unique(field="schemas", key="name")] = ()
    """Schemas, made if absent and owned by the role; `public` needs no entry."""
    extensions: Annotated[tuple[ExtensionSpec, ...], Field(max_length=64), Unique(field="extensions", key="name")] = ()
    """Extensions, made if absent. What is not named here is left alone."""
    access: Annotated[tuple[AccessSpec, ...], Field(max_length=64), Unique(field="access", key="role")] = ()
    """Other roles that may use the tables. What is taken out of this list is taken back from them."""
    migrations: MigrationsSpec | None = None
    """The migrations to apply. Only pending ones run, in order; never down, never a reset."""
    seed: SeedSpec | None = None
    """The first-run data."""
    connection_secret: ConnectionSecretSpec | None = None
    """Where the access for applications is published. Without it the Secret is `<name of the resource>-db`."""
    adoption: Adoption = Adoption.WITH_CREDENTIALS
    """What to do with a role and a database that exist already and that no resource has made.

    WithCredentials: take them over where the password of `role.passwordSecretRef` logs in as the role, and the role
    owns the database. Force: on the administrator's word also a database that the administrator or a superuser owns.
    Never: leave them alone. Adoption sets no password, and changes nothing that the resource does not name."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """What a deletion of the resource leaves behind.

    Retain: role, database and both Secrets, untouched. Delete: nothing of what this very resource has made; what it
    did not make stays, and so does everything when its namespace or the CustomResourceDefinition is being deleted."""
    suspend: Flag = False
    """Whether the operator leaves this resource alone for now."""
    interval_seconds: Annotated[Whole, Field(ge=5, le=DAY_SECONDS)] = 600
    """How often an unchanged resource, or one that waits for a person, is looked at again."""

    def connection_secret_name(self, resource: str) -> str:
        """Return the name of the Secret for applications."""
        return self.connection_secret.name if self.connection_secret else resource + names.CONNECTION_SECRET_SUFFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """What the rules of the whole resource look at."""

    name: str
    spec: Spec

    @property
    def is_named_like_the_password(self) -> bool:
        """Whether the Secret for applications would be the one with the generated password."""
        named = self.spec.connection_secret
        return named is not None and named.name == self.name + names.PASSWORD_SECRET_SUFFIX


ROOT_RULES = (
    Rule(
        cel="size(self.metadata.name) <= 248",
        message="`metadata.name` must be at most 248 characters long: `-role` and `-db` are added to it",
        holds=lambda root: len(root.name) <= 248,
    ),
    Rule(
        cel="!has(self.spec.connectionSecret) || "
        f"self.spec.connectionSecret.name != self.metadata.name + '{names.PASSWORD_SECRET_SUFFIX}'",
        message="`connectionSecret.name` must not be `<metadata.name>-role`: a generated password is kept there",
        holds=lambda root: not root.is_named_like_the_password,
    ),
)


def parse_spec(raw: Mapping[str, Any]) -> Spec:
    """Return the spec that a manifest holds, with its defaults; raise `SpecRejected` with a sentence per mistake."""
    try:
        return Spec.model_validate(without_nulls(raw))
    except ValidationError as error:
        raise SpecRejected(refusals.sentence(error)) from None


def check_root(name: str, spec: Spec) -> None:
    """Raise `SpecRejected` where a resource of this name cannot be, or not with this spec, as the API server does."""
    root = Root(name=name, spec=spec)
    broken = [] if _OBJECT_NAME.holds(name) else [_OBJECT_NAME.message]
    broken += [rule.message for rule in ROOT_RULES if not rule.holds(root)]
    if broken:
        raise SpecRejected("; ".join(broken))


def refuse_change(new: Spec, old: Spec) -> None:
    """Raise `SpecRejected` where the new spec changes what must stay; the API server does so by itself."""
    pairs = ((new.role, old.role), (new.database, old.database))
    broken = [rule.message for now, was in pairs for rule in now.immutable if not rule.holds(now, was)]
    if broken:
        raise SpecRejected("; ".join(broken))
