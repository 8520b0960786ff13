"""Extensions: present in the database, at the wanted version, in the wanted schema."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api import status
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.api.v1alpha1 import ExtensionSpec
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.spelling import sql_name
from database_bootstrap.postgres.sqlstates import error_of, server_words
from database_bootstrap.stages.sessions import execute, rows
from database_bootstrap.stages.stage import Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit

SAFE_SCHEMA = "extensions"
"""Where an extension goes that only the administrator may create, unless the resource names a schema.

Its script runs with the administrator's rights; in `public` the role, who owns the database, could lay out code for it.
"""
_INSTALLED = """
    SELECT e.extname, e.extversion, n.nspname, pg_catalog.pg_get_userbyid(e.extowner)
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = ANY(%s)
"""
_OFFERED = """
    SELECT v.name, v.version, v.trusted OR NOT v.superuser, v.schema, v.version = e.default_version, v.requires
    FROM pg_catalog.pg_available_extension_versions v
    JOIN pg_catalog.pg_available_extensions e ON e.name = v.name
    WHERE v.name = ANY(%s)
"""
_SCHEMA = "SELECT true FROM pg_catalog.pg_namespace WHERE nspname = %s"
_SCHEMAS_OF = """
    SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = ANY(%s)
"""
_OPEN_SCHEMAS = """
    SELECT n.nspname FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner
    WHERE n.nspname = ANY(%s) AND (NOT (o.rolsuper OR o.rolname = current_user) OR EXISTS (
        SELECT FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
        LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
        WHERE a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner AND g.rolsuper IS NOT TRUE))
"""
"""Schemas in which somebody can create who is neither the administrator nor a superuser."""
_UNKNOWN_HERE = (
    "is not known to this server: install the package that brings it (Debian: {package}), "
    "or turn it on in the cloud console"
)
_PACKAGES = {"postgis": "postgresql-<major>-postgis-3", "vector": "postgresql-<major>-pgvector"}
_CONTRIB = "postgresql-contrib, or postgresql-<major>-{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A row of pg_extension."""

    version: str
    schema: str
    owner: str


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
class Found:
    """What is installed, and what the server offers of the rest."""

    installed: Mapping[str, Installed]
    offers: tuple[Offer, ...]


async def observe(visit: Visit) -> Found:
    """Look for the wanted extensions; what the server offers is asked only for those that are missing or differ."""
    wanted = {extension.name: extension for extension in visit.spec.extensions}
    if not wanted:
        visit.facts.extensions = ()
        return Found(installed={}, offers=())
    view = visit.sessions.as_role or await visit.view()
    installed = {}
    if visit.sessions.as_role:
        found = await rows(view, _INSTALLED, (list(wanted),), doing="look for extensions")
        installed = {
            name: Installed(version=version, schema=schema, owner=owner) for name, version, schema, owner in found
        }
        visit.facts.extensions = tuple(
            status.ExtensionStatus(name=name, version=it.version, schema_name=it.schema)
            for name, it in sorted(installed.items())
        )
    open_questions = [
        name
        for name, it in wanted.items()
        if name not in installed or it.version not in {None, installed[name].version}
    ]
    offers = await rows(view, _OFFERED, (open_questions,), doing="ask for extensions") if open_questions else []
    return Found(
        installed=installed,
        offers=tuple(
            Offer(
                name=name,
                version=version,
                for_owner=for_owner,
                own_schema=schema,
                default=default,
                requires=tuple(requires or ()),
            )
            for name, version, for_owner, schema, default, requires in offers
        ),
    )


def compare(visit: Visit, found: Found) -> Sequence[Action]:
    """Return what must be run, in order; extensions that nobody asked for stay: another owner may need them."""
    offers: dict[tuple[str, str | None], Offer] = {(offer.name, offer.version): offer for offer in found.offers}
    offers |= {(offer.name, None): offer for offer in found.offers if offer.default}
    return tuple(
        chain.from_iterable(
            _compare_one(want, found.installed.get(want.name), offers, visit.spec.role.name)
            for want in visit.spec.extensions
        )
    )


def _compare_one(
    want: ExtensionSpec, have: Installed | None, offers: Mapping[tuple[str, str | None], Offer], role: str
) -> Iterator[Action]:
    if have and want.version in {None, have.version}:
        _check_schema(want, have)
        return
    offer = offers.get((want.name, want.version))
    if offer is None:
        raise errors.ExtensionUnavailable(
            _sentence(want, [o.version for (n, v), o in offers.items() if v and n == want.name])
        )
    if have is None:
        yield CreateExtension(name=want.name, version=want.version, schema=_schema_for(want, offer), offer=offer)
        return
    _check_schema(want, have)
    yield UpdateExtension(
        name=want.name, offer=offer, schema=have.schema, by_owner=offer.for_owner and have.owner == role
    )


def _schema_for(want: ExtensionSpec, offer: Offer) -> str | None:
    if offer.own_schema:
        if want.schema_name not in {None, offer.own_schema}:
            raise errors.SpecRejected(f"Extension {want.name} can only be in schema {offer.own_schema}")
        return None
    return want.schema_name or (None if offer.for_owner else SAFE_SCHEMA)


def _check_schema(want: ExtensionSpec, have: Installed) -> None:
    if want.schema_name not in {None, have.schema}:
        raise errors.SettingMismatch(
            f'Extension {want.name} is in schema "{have.schema}" instead of "{want.schema_name}"; move it with '
            f"ALTER EXTENSION {sql_name(want.name)} SET SCHEMA {sql_name(want.schema_name)}"
        )


def _sentence(want: ExtensionSpec, versions: Sequence[str]) -> str:
    if versions:
        offered = ", ".join(sorted(versions))
        return f"Extension {want.name} is not offered in version {want.version}; this server has {offered}"
    package = _PACKAGES.get(want.name, _CONTRIB.format(name=want.name.replace("_", "-").lower()))
    return f"Extension {want.name} {_UNKNOWN_HERE.format(package=package)}"


def conclude(visit: Visit, found: Found) -> Conclusion:
    """Say how many extensions are there."""
    if not visit.spec.extensions:
        return Conclusion(reason=Reason.NOT_REQUESTED, message="No extension is asked for")
    names = ", ".join(f"{name} {it.version}" for name, it in sorted(found.installed.items()))
    return Conclusion(reason=Reason.EXTENSIONS_IN_PLACE, message=f"There: {names}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateExtension:
    """CREATE EXTENSION, as the owner wherever that suffices, else as the administrator."""

    name: str
    version: str | None
    schema: str | None
    offer: Offer

    def __str__(self) -> str:
        return f"create extension {self.name}"

    async def run(self, visit: Visit) -> None:
        statement = sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(self.name))
        if self.schema:
            statement += sql.SQL(" SCHEMA {}").format(sql.Identifier(self.schema))
        if self.version:
            statement += sql.SQL(" VERSION {}").format(sql.Literal(self.version))
        if self.offer.for_owner:
            await _run(await visit.sessions.owner(), statement, self.name)
        else:
            schema = self.schema or self.offer.own_schema
            await _run_safely(visit, statement, self.name, schema, self.offer.requires)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateExtension:
    """ALTER EXTENSION … UPDATE; the server knows no way back, and says so itself."""

    name: str
    offer: Offer
    schema: str
    """Where it is."""
    by_owner: bool

    def __str__(self) -> str:
        return f"update extension {self.name} to {self.offer.version}"

    async def run(self, visit: Visit) -> None:
        statement = sql.SQL("ALTER EXTENSION {} UPDATE TO {}").format(
            sql.Identifier(self.name), sql.Literal(self.offer.version)
        )
        if self.by_owner:
            await _run(await visit.sessions.owner(), statement, self.name)
        else:
            await _run_safely(visit, statement, self.name, self.schema, self.offer.requires)


async def _run(connection: Connection, statement: sql.Composed, name: str) -> None:
    try:
        await connection.execute(statement)
    except (
        psycopg.errors.FeatureNotSupported,
        psycopg.errors.UndefinedFile,
        psycopg.errors.InvalidParameterValue,
    ) as error:
        raise errors.ExtensionUnavailable(
            f"The server cannot create extension {name}: {server_words(error)} (SQLSTATE {error.sqlstate})"
        ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise errors.AccessDenied(
            f"Extension {name} needs more than this administrator has: {server_words(error)}; let a superuser create it"
        ) from None
    except psycopg.Error as error:
        raise error_of(error, f"create or update extension {name}") from None


async def _run_safely(
    visit: Visit, statement: sql.Composed, name: str, schema: str | None, requires: tuple[str, ...]
) -> None:
    """Create or update as the administrator, where nobody else can have laid out code: in one transaction."""
    connection = await visit.sessions.administrator(visit.spec.database.name)
    try:
        async with connection.transaction():
            await _require_safe(connection, schema, requires)
            await _run(connection, statement, name)
    except psycopg.Error as error:
        raise error_of(error, f"create or update extension {name}") from None


async def _require_safe(connection: Connection, schema: str | None, requires: tuple[str, ...]) -> None:
    """Make the schema of an administrator's extension where it is absent; refuse one in which others can create.

    The extension's script runs with the administrator's rights and with these schemas on its search path. Looked at is
    what is there at last: a schema that the role has made in the meantime too.
    """
    doing = "look at the extension's schema"
    if schema and not await rows(connection, _SCHEMA, (schema,), doing=doing):
        identifier = sql.Identifier(schema)
        create = sql.SQL("CREATE SCHEMA {}").format(identifier)
        grant = sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(identifier)
        await execute(connection, create, grant, doing=f'create schema "{schema}"')
    names = [schema] if schema else []
    if requires:
        names += [name for (name,) in await rows(connection, _SCHEMAS_OF, (list(requires),), doing=doing)]
    unsafe = [name for (name,) in await rows(connection, _OPEN_SCHEMAS, (names,), doing=doing)]
    if unsafe:
        raise errors.SpecRejected(
            f'Only the administrator can create or update this extension, and in schema "{unsafe[0]}" others could lay '
            f'out code for it. Leave the schema out (it then goes to "{SAFE_SCHEMA}"), name one in which nobody but '
            "the administrator can create, or let a superuser do it"
        )


STAGE = Stage(name=StageName.EXTENSIONS, observe=observe, compare=compare, conclude=conclude)
