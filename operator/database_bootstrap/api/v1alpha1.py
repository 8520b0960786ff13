"""What people ask for: the spec of a DatabaseBootstrap; its docs are `kubectl explain`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from database_bootstrap.api import names, refusals, rules
from database_bootstrap.api.models import Flag, Model, Whole
from database_bootstrap.api.rules import Immutable, Rule, Unique
from database_bootstrap.errors import SpecRejected

INLINE_BYTES = 200 * 1024
INLINE_FILES = 100
MAX_CONNECTIONS = 262_143
"""What PostgreSQL can count at most."""
DAY_SECONDS = 86_400

_IDENTIFIER = Field(strict=True, min_length=1, max_length=rules.IDENTIFIER_BYTES)
_OBJECT_NAME = Field(strict=True, min_length=1, max_length=253)
_LIMIT = Field(ge=3, le=MAX_CONNECTIONS)


class Tool(StrEnum):
    """Who writes the migrations, and so how they are recorded."""

    PRISMA = "Prisma"
    ALEMBIC = "Alembic"
    SQL = "SQL"


class SeedPolicy(StrEnum):
    """When the seed runs."""

    IF_EMPTY = "IfEmpty"
    ONCE = "Once"
    NEVER = "Never"


class LocaleProvider(StrEnum):
    """Which library sorts and compares."""

    LIBC = "Libc"
    ICU = "Icu"
    BUILTIN = "Builtin"


class AdminSecretRef(Model):
    """A Secret with an administrator's access."""

    name: Annotated[str, _OBJECT_NAME, rules.object_name("server.adminSecretRef.name", "Secret")]
    """Name of a Secret in the same namespace: `uri`, or `host`, `port`, `username`, `password`, `dbname`, `sslmode` and more."""


class ServerSpec(Model):
    """A PostgreSQL server, 15 or newer."""

    admin_secret_ref: AdminSecretRef
    """The administrator's access: a superuser, or a role with CREATEROLE and CREATEDB."""


class PasswordSecretRef(Model):
    """A key of a Secret with the role's password."""

    name: Annotated[str, _OBJECT_NAME, rules.object_name("role.passwordSecretRef.name", "Secret")]
    """Name of a Secret in the same namespace."""
    key: Annotated[str, _OBJECT_NAME, rules.secret_key("role.passwordSecretRef.key")] = "password"
    """The key that holds the password."""


class RoleSpec(Model):
    """The login role that owns the database; the application's own."""

    immutable: ClassVar = (
        Immutable(field="name", attribute="name", message="`role.name` must stay as it was when the resource was made"),
    )

    name: Annotated[
        str,
        _IDENTIFIER,
        rules.byte_length("role.name"),
        rules.printable("role.name"),
        rules.not_reserved("role.name"),
    ]
    """Name of the role, exactly as written; at most 63 bytes. Cannot be changed later."""
    password_secret_ref: PasswordSecretRef | None = None
    """Where the password is. Without it a password is generated once and kept in the Secret `<name of the resource>-role`."""
    connection_limit: Annotated[Whole, _LIMIT] | None = None
    """How many connections the role may have at once; at least 3, which the operator itself may need. Without it the role's own limit stays."""


class LocaleSpec(Model):
    """How text is sorted and compared."""

    provider: LocaleProvider
    """Which library does it: Libc, Icu, or (PostgreSQL 17 and newer) Builtin."""
    name: Annotated[str, Field(strict=True, min_length=1, max_length=128), rules.printable("database.locale.name")]
    """Name of the locale, as the provider spells it: `C`, `en_US.utf8`, `de-AT`, `C.UTF-8`."""


class ParameterSpec(Model):
    """One setting that every session in the database begins with."""

    name: Annotated[
        str,
        _IDENTIFIER,
        rules.matches(
            "database.parameters[].name",
            r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$",
            "be a parameter's name in lower case, such as `timezone` or `pg_trgm.word_similarity_threshold`",
        ),
    ]
    """Name of the parameter in lower case."""
    value: Annotated[str, Field(strict=True, max_length=1024), rules.printable("database.parameters[].value")]
    """Its value, as one would write it in postgresql.conf without the outer quotes."""


class DatabaseSpec(Model):
    """The database, owned by the role."""

    immutable: ClassVar = tuple(
        Immutable(field=it, attribute=it, message=f"`database.{it}` must stay as it was when the resource was made")
        for it in ("name", "encoding", "locale", "template")
    )

    name: Annotated[
        str,
        _IDENTIFIER,
        rules.byte_length("database.name"),
        rules.printable("database.name"),
        rules.not_reserved("database.name"),
    ]
    """Name of the database, exactly as written; at most 63 bytes. Cannot be changed later."""
    encoding: Annotated[
        str,
        Field(strict=True, min_length=1, max_length=32),
        rules.matches(
            "database.encoding", r"^[A-Z][A-Z0-9_]*$", "be an encoding as PostgreSQL prints it, such as `UTF8`"
        ),
    ] = "UTF8"
    """Character encoding, as PostgreSQL prints it. Only counts at creation; cannot be changed later."""
    template: Literal["template0", "template1"] = "template1"
    """What the database is copied from. An encoding or locale other than the server's own needs template0. Cannot be changed later."""
    locale: LocaleSpec | None = None
    """Sorting and character classes. Without it the template's. Only counts at creation; cannot be added, changed or removed later."""
    connection_limit: Annotated[Whole, _LIMIT] | None = None
    """How many connections the database takes at once; at least 3, which the operator itself may need. Without it the database's own limit stays."""
    parameters: Annotated[
        tuple[ParameterSpec, ...], Field(max_length=64), Unique(field="database.parameters", key="name")
    ] = ()
    """Settings of the database (ALTER DATABASE … SET). What is not named here is left alone."""


class SchemaSpec(Model):
    """A schema that the role owns."""

    name: Annotated[
        str,
        _IDENTIFIER,
        rules.byte_length("schemas[].name"),
        rules.printable("schemas[].name"),
        rules.no_system_schema("schemas[].name"),
        Rule(
            cel="self != 'public'",
            message="`schemas[].name` must not be public: it needs no entry, and is never altered or dropped",
            holds=lambda name: name != "public",
        ),
    ]
    """Name of the schema, exactly as written; at most 63 bytes."""


class ExtensionSpec(Model):
    """An extension that the database has."""

    name: Annotated[
        str,
        _IDENTIFIER,
        rules.matches(
            "extensions[].name",
            r"^[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*$",
            "be an extension's name: letters, digits, `_`, and single `-` between them",
        ),
    ]
    """Name of the extension, such as `pg_trgm`."""
    version: (
        Annotated[
            str,
            _IDENTIFIER,
            rules.matches(
                "extensions[].version",
                r"^[A-Za-z0-9_.+~]+(-[A-Za-z0-9_.+~]+)*$",
                "be an extension's version: letters, digits, `.`, `_`, `+`, `~`, and single `-` between them",
            ),
        ]
        | None
    ) = None
    """The version wanted. Without it the server's default at creation, and whatever is installed later."""
    schema_name: (
        Annotated[
            str,
            _IDENTIFIER,
            rules.byte_length("extensions[].schema"),
            rules.printable("extensions[].schema"),
            rules.no_system_schema("extensions[].schema", allowed=("pg_catalog",)),
        ]
        | None
    ) = Field(default=None, alias="schema")
    """The schema of its objects. Without it the extension's own choice at creation, and wherever it is later."""


class ConfigMapRef(Model):
    """A ConfigMap with files."""

    name: Annotated[str, _OBJECT_NAME, rules.object_name("source.configMapRefs[].name", "ConfigMap")]
    """Name of a ConfigMap in the same namespace; its keys are files, and binaryData may hold a .tar.gz."""


class InlineFile(Model):
    """A file, written into the resource itself."""

    path: Annotated[
        str,
        Field(strict=True, min_length=1, max_length=512),
        rules.printable("source.inline[].path"),
        Rule(
            cel=r"!self.contains('\\') && self.split('/').all(part, !(part in ['', '.', '..']))",
            message="`source.inline[].path` must be relative, with `/` between its parts, and without `.` and `..`",
            holds=lambda path: "\\" not in path and not {"", ".", ".."} & set(path.split("/")),
        ),
    ]
    """Path of the file in the source, such as `20240101000000_init/migration.sql`."""
    content: Annotated[str, Field(strict=True, max_length=INLINE_BYTES)]
    """What the file holds, as text."""


class SourceSpec(Model):
    """Files: from ConfigMaps, or written here; exactly one of the two."""

    obeys: ClassVar = (
        Rule(
            cel="has(self.configMapRefs) != has(self.inline)",
            message="`source` must have exactly one of `configMapRefs` and `inline`",
            holds=lambda source: bool(source.config_map_refs) != bool(source.inline),
        ),
    )

    config_map_refs: Annotated[
        tuple[ConfigMapRef, ...],
        Field(min_length=1, max_length=64),
        Unique(field="source.configMapRefs", key="name"),
    ] = ()
    """ConfigMaps in the same namespace, merged into one set of files."""
    inline: Annotated[
        tuple[InlineFile, ...],
        Field(min_length=1, max_length=INLINE_FILES),
        Unique(field="source.inline", key="path"),
    ] = ()
    """Files written here; 200 KiB in all, migrations and seed together."""


def _inline_bytes(spec: "Spec") -> int:
    sources = [stage.source for stage in (spec.migrations, spec.seed) if stage is not None]
    return sum(len(file.content.encode()) for source in sources for file in source.inline)


def _secrets_in_use(spec: "Spec") -> set[str]:
    password = spec.role.password_secret_ref
    return {spec.server.admin_secret_ref.name} | ({password.name} if password else set())


class MigrationsSpec(Model):
    """The application's tables, which are made by its migrations and by nothing else."""

    tool: Tool
    """Who writes the migrations: Prisma, Alembic, or SQL (versioned files, run by the operator itself)."""
    schema_name: Annotated[
        str,
        _IDENTIFIER,
        rules.byte_length("migrations.schema"),
        rules.printable("migrations.schema"),
        rules.no_system_schema("migrations.schema"),
    ] = Field(default="public", alias="schema")
    """The schema in which the tool works and keeps its history."""
    source: SourceSpec
    """The migrations, laid out as the tool does."""
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
    lock_timeout_seconds: Annotated[Whole, Field(ge=1, le=600)] = 5
    """How long a statement waits for a lock before the migration is rolled back and tried again later."""
    statement_timeout_seconds: Annotated[Whole, Field(ge=0, le=DAY_SECONDS)] = 0
    """How long one statement may run; 0 is without end."""
    timeout_seconds: Annotated[Whole, Field(ge=1, le=DAY_SECONDS)] = 600
    """How long all that is pending may take together."""


class SeedSpec(Model):
    """First-run data, put in once and never again."""

    policy: SeedPolicy = SeedPolicy.IF_EMPTY
    """IfEmpty: when no user table has a row. Once: when this database was never seeded, rows or not. Never: not at all."""
    source: SourceSpec
    """The data: .sql files, run in the order of their paths, and .csv files named `schema.table.csv`."""
    ignore_tables: Annotated[
        tuple[
            Annotated[
                str,
                Field(strict=True, min_length=3, max_length=2 * rules.IDENTIFIER_BYTES + 1),
                rules.printable("seed.ignoreTables[]"),
                Rule(
                    cel="self.split('.').size() == 2 && "
                    f"self.split('.').all(part, size(part) > 0 && size(bytes(part)) <= {rules.IDENTIFIER_BYTES})",
                    message="`seed.ignoreTables[]` must be `schema.table`, each part of 1 to 63 bytes",
                    holds=lambda name: (
                        [0 < len(part.encode()) <= rules.IDENTIFIER_BYTES for part in name.split(".")] == [True, True]
                    ),
                ),
            ],
            ...,
        ],
        Field(max_length=256),
        Unique(field="seed.ignoreTables"),
    ] = ()
    """Tables that do not count when asking whether the database is empty: what migrations fill themselves."""


class ConnectionSecretSpec(Model):
    """The Secret that applications connect with."""

    name: Annotated[str, _OBJECT_NAME, rules.object_name("connectionSecret.name", "Secret")]
    """Name of a Secret in the same namespace; it is made by the operator, after the first complete success."""


class Spec(Model):
    """What is wanted of one database."""

    obeys: ClassVar = (
        Rule(
            cel=" + ".join(
                f"(has(self.{it}) && has(self.{it}.source.inline)"
                f" ? self.{it}.source.inline.map(file, size(bytes(file.content))).sum() : 0)"
                for it in ("migrations", "seed")
            )
            + f" <= {INLINE_BYTES}",
            message="`source.inline` must hold at most 200 KiB in all, migrations and seed together: "
            "use `configMapRefs` for more",
            holds=lambda spec: _inline_bytes(spec) <= INLINE_BYTES,
        ),
        Rule(
            cel="!has(self.connectionSecret) || (self.connectionSecret.name != self.server.adminSecretRef.name && "
            "(!has(self.role.passwordSecretRef) || self.connectionSecret.name != self.role.passwordSecretRef.name))",
            message="`connectionSecret.name` must not be a Secret that the resource reads: the operator writes this one",
            holds=lambda spec: (
                spec.connection_secret is None or spec.connection_secret.name not in _secrets_in_use(spec)
            ),
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
    migrations: MigrationsSpec | None = None
    """The migrations to apply. Only pending ones run, in order; never down, never a reset."""
    seed: SeedSpec | None = None
    """The first-run data."""
    connection_secret: ConnectionSecretSpec | None = None
    """Where the access for applications is published. Without it the Secret is `<name of the resource>-db`."""
    suspend: Flag = False
    """Whether the operator leaves this resource alone for now."""
    interval_seconds: Annotated[Whole, Field(ge=5, le=DAY_SECONDS)] = 600
    """How often an unchanged resource, or one that waits for a person, is looked at again."""

    def connection_secret_name(self, resource: str) -> str:
        """Return the name of the Secret for applications."""
        return self.connection_secret.name if self.connection_secret else resource + names.CONNECTION_SECRET_SUFFIX


def parse_spec(raw: Mapping[str, Any]) -> Spec:
    """Return the spec that a manifest holds, with its defaults; raise `SpecRejected` with a sentence per mistake."""
    try:
        return Spec.model_validate(without_nulls(raw))
    except ValidationError as error:
        raise SpecRejected(refusals.sentence(error)) from None


def refuse_change(new: Spec, old: Spec) -> None:
    """Raise `SpecRejected` where the new spec changes what must stay; the API server does so by itself."""
    pairs = ((new.role, old.role), (new.database, old.database))
    broken = [rule.message for now, was in pairs for rule in now.immutable if not rule.holds(now, was)]
    if broken:
        raise SpecRejected("; ".join(broken))


def without_nulls(value: Any) -> Any:
    """Return the value without the null fields of its objects: an absent field, as the API server sees it."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value
