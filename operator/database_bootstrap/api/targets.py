"""What is wanted on the server: role, database, schemas, extensions."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from database_bootstrap.api import rules
from database_bootstrap.api.models import IDENTIFIER, OBJECT_NAME, Model, Whole
from database_bootstrap.api.rules import Immutable, Rule, Unique
from database_bootstrap.api.servers import ServerRef

_CONNECTIONS = Field(ge=3, le=262_143)
"""The operator itself may need three; the other end is what PostgreSQL can count."""


class LocaleProvider(StrEnum):
    """Which library sorts and compares."""

    LIBC = "Libc"
    ICU = "Icu"
    BUILTIN = "Builtin"


class Adoption(StrEnum):
    """Whether a role and a database that existed before are taken over."""

    NEVER = "Never"
    WITH_CREDENTIALS = "WithCredentials"
    FORCE = "Force"


class AdminSecretRef(Model):
    """A Secret with an administrator's access."""

    name: Annotated[str, OBJECT_NAME, rules.object_name("server.adminSecretRef.name", "Secret")]
    """Name of a Secret in the same namespace: `uri`, or `host`, `port`, `username`, `password`, `dbname` and more."""


class ServerSpec(Model):
    """A PostgreSQL server, 15 or newer."""

    obeys: ClassVar = (
        Rule(
            cel="has(self.adminSecretRef) != has(self.ref)",
            message="`server` must hold exactly one of `adminSecretRef` and `ref`",
            holds=lambda server: (server.admin_secret_ref is None) != (server.ref is None),
        ),
    )

    admin_secret_ref: AdminSecretRef | None = None
    """The administrator's access: a superuser, or a role with CREATEROLE and CREATEDB."""
    ref: ServerRef | None = None
    """A server that a platform team offers as a DatabaseServer, with rules on what may be asked for."""


class PasswordSecretRef(Model):
    """A key of a Secret with the role's password."""

    name: Annotated[str, OBJECT_NAME, rules.object_name("role.passwordSecretRef.name", "Secret")]
    """Name of a Secret in the same namespace."""
    key: Annotated[str, OBJECT_NAME, rules.secret_key("role.passwordSecretRef.key")] = "password"
    """The key that holds the password."""


class RoleSpec(Model):
    """The login role that owns the database; the application's own."""

    immutable: ClassVar = (
        Immutable(field="name", attribute="name", message="`role.name` must stay as it was when the resource was made"),
    )

    name: Annotated[
        str,
        IDENTIFIER,
        rules.byte_length("role.name"),
        rules.printable("role.name"),
        rules.not_reserved("role.name"),
    ]
    """Name of the role, exactly as written; at most 63 bytes. Cannot be changed later."""
    password_secret_ref: PasswordSecretRef | None = None
    """Where the password is. Without it one is generated, once, into the Secret `<name of the resource>-role`."""
    connection_limit: Annotated[Whole, _CONNECTIONS] | None = None
    """How many connections the role may have at once; the operator itself may need 3.

    Without it the role's limit stays as it is."""


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
        IDENTIFIER,
        rules.matches(
            "database.parameters[].name",
            r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$",
            "be a parameter's name in lower case, such as `timezone` or `statement_timeout`",
        ),
    ]
    """Name of the parameter in lower case, such as `statement_timeout`.

    Parameters with a dot need a superuser's ALTER DATABASE once; the operator then only checks."""
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
        IDENTIFIER,
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
    """What the database is copied from; another encoding or locale than the server's own needs template0.

    Cannot be changed later."""
    locale: LocaleSpec | None = None
    """Sorting and character classes; without it those of the template.

    Only counts at creation; cannot be added, changed or removed later."""
    connection_limit: Annotated[Whole, _CONNECTIONS] | None = None
    """How many connections the database takes at once; the operator itself may need 3.

    Without it the database's limit stays as it is."""
    parameters: Annotated[
        tuple[ParameterSpec, ...], Field(max_length=64), Unique(field="database.parameters", key="name")
    ] = ()
    """Settings of the database (ALTER DATABASE … SET). What is not named here is left alone."""


class SchemaSpec(Model):
    """A schema that the role owns."""

    name: Annotated[
        str,
        IDENTIFIER,
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
        IDENTIFIER,
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
            IDENTIFIER,
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
            IDENTIFIER,
            rules.byte_length("extensions[].schema"),
            rules.printable("extensions[].schema"),
            rules.no_system_schema("extensions[].schema", allowed=("pg_catalog",)),
        ]
        | None
    ) = None
    """The schema of its objects. Without it the extension's own choice at creation, and wherever it is later."""
