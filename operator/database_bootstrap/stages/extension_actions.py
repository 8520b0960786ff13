"""What can be done to extensions; each action is one statement or one transaction."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.spelling import cure
from database_bootstrap.postgres.sqlstates import error_of, server_words
from database_bootstrap.stages.sessions import execute, rows
from database_bootstrap.stages.visit import Visit

SAFE_SCHEMA = "extensions"
"""Where an extension goes that only the administrator may create, unless the resource names a schema.

Its script runs with the administrator's rights; in `public` the role, who owns the database, could lay out code for it.
"""
_ALWAYS = sql.SQL("")
_SCHEMA = "SELECT true FROM pg_catalog.pg_namespace WHERE nspname = %s"
_SCHEMAS_OF = """
    SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = ANY(%s)
"""
_OPEN_SCHEMAS = """
    SELECT n.nspname FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner
    WHERE n.nspname = ANY(%s) AND (NOT (o.rolsuper OR o.rolname = %s) OR EXISTS (
        SELECT FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
        LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
        WHERE a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner AND g.rolsuper IS NOT TRUE))
"""
"""Schemas in which somebody can create who is neither the administrator nor a superuser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A row of pg_extension."""

    version: str
    schema: str
    owner: str
    is_relocatable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A row of pg_available_extension_versions."""

    name: str
    version: str
    for_owner: bool
    """The database's owner may create it: trusted, or without need of a superuser."""
    own_schema: str | None
    """The only schema it can be in, where it says so itself."""
    default: bool
    requires: tuple[str, ...]
    """Extensions whose schemas are on the search path of its script."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateExtension:
    """CREATE EXTENSION, as the owner wherever that suffices, else as the administrator."""

    name: str
    version: str | None
    schema: str | None
    offer: Offer

    def __str__(self) -> str:
        return f"create extension {self.name}"

    @property
    def by_owner(self) -> bool:
        """Whether the role runs it."""
        return self.offer.for_owner

    @property
    def path(self) -> tuple[str, ...]:
        """The schema in which its script makes things, where that is known."""
        schema = self.schema or self.offer.own_schema
        return (schema,) if schema else ()

    def by_hand(self, schemas: Container[str]) -> Iterator[sql.Composed]:
        """Yield what a superuser runs in the database in place of the operator, where these schemas are there."""
        if self.schema and self.schema not in schemas:
            yield from _schema_statements(self.schema, sql.SQL("IF NOT EXISTS "))
        yield self._statement + sql.SQL(" CASCADE" if self.offer.requires else "")

    @property
    def _statement(self) -> sql.Composed:
        statement = sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(self.name))
        if self.schema:
            statement += sql.SQL(" SCHEMA {}").format(sql.Identifier(self.schema))
        if self.version:
            statement += sql.SQL(" VERSION {}").format(sql.Literal(self.version))
        return statement

    async def run(self, visit: Visit) -> None:
        await _run(visit, self, self._statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateExtension:
    """ALTER EXTENSION … UPDATE; the server knows no way back, and says so itself."""

    name: str
    offer: Offer
    schema: str
    """Where it is."""
    owner: str
    by_owner: bool
    """The role runs it: it has made the extension."""

    def __str__(self) -> str:
        return f"update extension {self.name} to {self.offer.version}"

    @property
    def path(self) -> tuple[str, ...]:
        """The schema in which its script makes things."""
        return (self.schema,)

    def by_hand(self, schemas: Container[str]) -> Iterator[sql.Composed]:
        """Yield what a superuser runs in the database in place of the operator."""
        yield sql.SQL("ALTER EXTENSION {} UPDATE TO {}").format(
            sql.Identifier(self.name), sql.Literal(self.offer.version)
        )

    async def run(self, visit: Visit) -> None:
        (statement,) = self.by_hand(())
        await _run(visit, self, statement)


ExtensionAction = CreateExtension | UpdateExtension


def denied(
    visit: Visit, administrator: str, refused: Sequence[ExtensionAction], schemas: Container[str] = ()
) -> errors.AccessDenied:
    """Return the error for what only a superuser may do here, with all that one has to run."""
    statements = [one.as_string() for it in refused for one in it.by_hand(schemas)]
    return errors.AccessDenied(
        f'Only a superuser may {", ".join(map(str, refused))}, and the administrator "{administrator}" is none; '
        f"nothing was changed; {cure(*dict.fromkeys(statements), database=visit.spec.database.name)}"
    )


async def _run(visit: Visit, action: ExtensionAction, statement: sql.Composed) -> None:
    """Run it as the role, or as the administrator where nobody else can have laid out code: in one transaction."""
    doing = f"create or update extension {action.name}"
    try:
        if action.by_owner:
            await (await visit.sessions.owner()).execute(statement)
            return
        connection = await visit.sessions.administrator(visit.spec.database.name)
        async with connection.transaction():
            await _require_safe(connection, action)
            await connection.execute(statement)
    except (
        psycopg.errors.FeatureNotSupported,
        psycopg.errors.UndefinedFile,
        psycopg.errors.InvalidParameterValue,
    ) as error:
        raise errors.ExtensionUnavailable(
            f"The server cannot create extension {action.name}: {server_words(error)} (SQLSTATE {error.sqlstate})"
        ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        if action.by_owner:
            raise error_of(error, doing) from None
        administrator = (await visit.credentials.administrator()).user
        raise denied(visit, administrator, [action]) from None
    except psycopg.Error as error:
        raise error_of(error, doing) from None


async def _require_safe(connection: Connection, action: ExtensionAction) -> None:
    """Make the schema of an administrator's extension where it is absent; refuse one in which others can create.

    The extension's script runs with the administrator's rights and with these schemas on its search path. Looked at is
    what is there at last: a schema that the role has made in the meantime too.
    """
    doing = "look at the extension's schema"
    for schema in action.path:
        if not await rows(connection, _SCHEMA, (schema,), doing=doing):
            await execute(connection, *_schema_statements(schema), doing=f'create schema "{schema}"')
    await check_safe(connection, action, connection.info.user)


def _schema_statements(schema: str, absent: sql.SQL = _ALWAYS) -> Iterator[sql.Composed]:
    yield sql.SQL("CREATE SCHEMA {}{}").format(absent, sql.Identifier(schema))
    yield sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(sql.Identifier(schema))


async def check_safe(connection: Connection, action: ExtensionAction, administrator: str) -> None:
    """Raise `SpecRejected` where somebody could lay out code for the administrator who creates or updates it."""
    doing = "look at the extension's schema"
    names = [*action.path]
    if action.offer.requires:
        required = await rows(connection, _SCHEMAS_OF, (list(action.offer.requires),), doing=doing)
        names += [name for (name,) in required]
    unsafe = [name for (name,) in await rows(connection, _OPEN_SCHEMAS, (names, administrator), doing=doing)]
    if unsafe:
        raise errors.SpecRejected(
            f'Only the administrator can create or update this extension, and in schema "{unsafe[0]}" others could lay '
            f'out code for it. Leave the schema out (it then goes to "{SAFE_SCHEMA}"), name one in which nobody but '
            "the administrator can create, or let a superuser do it"
        )
