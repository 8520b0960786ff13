"""Extensions: present in the database, at the wanted version, in the wanted schema."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from database_bootstrap import errors
from database_bootstrap.api import status
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.api.v1alpha1 import ExtensionSpec, Spec
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.stages import extension_permits
from database_bootstrap.stages.extension_actions import (
    SAFE_SCHEMA,
    CreateExtension,
    ExtensionAction,
    Installed,
    Offer,
    UpdateExtension,
)
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.stage import Conclusion, Stage
from database_bootstrap.stages.visit import Visit

_INSTALLED = """
    SELECT e.extname, e.extversion, n.nspname, pg_catalog.pg_get_userbyid(e.extowner), e.extrelocatable
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = ANY(%s)
"""
_OFFERED = """
    SELECT v.name, v.version, v.trusted OR NOT v.superuser, v.schema, v.version = e.default_version, v.requires
    FROM pg_catalog.pg_available_extension_versions v
    JOIN pg_catalog.pg_available_extensions e ON e.name = v.name
    WHERE v.name = ANY(%s)
"""
_UNKNOWN_HERE = (
    "is not known to this server: install the package that brings it (Debian: {package}), "
    "or turn it on in the cloud console"
)
_PACKAGES = {"postgis": "postgresql-<major>-postgis-3", "vector": "postgresql-<major>-pgvector"}
_CONTRIB = "postgresql-contrib, or postgresql-<major>-{name}"


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
            name: Installed(version=version, schema=schema, owner=owner, is_relocatable=is_relocatable)
            for name, version, schema, owner, is_relocatable in found
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


def compare(visit: Visit, found: Found) -> Sequence[ExtensionAction]:
    """Return what must be run, in order; extensions that nobody asked for stay: another owner may need them."""
    offers: dict[tuple[str, str | None], Offer] = {(offer.name, offer.version): offer for offer in found.offers}
    offers |= {(offer.name, None): offer for offer in found.offers if offer.default}
    return tuple(
        chain.from_iterable(
            _compare_one(visit.spec, want, found.installed.get(want.name), offers) for want in visit.spec.extensions
        )
    )


def _compare_one(
    spec: Spec, want: ExtensionSpec, have: Installed | None, offers: Mapping[tuple[str, str | None], Offer]
) -> Iterator[ExtensionAction]:
    if have and want.version in {None, have.version}:
        _check_schema(spec.database.name, want, have)
        return
    offer = offers.get((want.name, want.version))
    if offer is None:
        raise errors.ExtensionUnavailable(
            _sentence(want, [o.version for (n, v), o in offers.items() if v and n == want.name])
        )
    if have is None:
        yield CreateExtension(name=want.name, version=want.version, schema=_schema_for(want, offer), offer=offer)
        return
    _check_schema(spec.database.name, want, have)
    yield UpdateExtension(
        name=want.name,
        offer=offer,
        schema=have.schema,
        owner=have.owner,
        by_owner=offer.for_owner and have.owner == spec.role.name,
    )


def _schema_for(want: ExtensionSpec, offer: Offer) -> str | None:
    if offer.own_schema:
        if want.schema_name not in {None, offer.own_schema}:
            raise errors.SpecRejected(f"Extension {want.name} can only be in schema {offer.own_schema}")
        return None
    return want.schema_name or (None if offer.for_owner else SAFE_SCHEMA)


def _check_schema(database: str, want: ExtensionSpec, have: Installed) -> None:
    if want.schema_name in {None, have.schema}:
        return
    if have.is_relocatable:
        # The owner cannot: the objects of a trusted one belong to the bootstrap superuser.
        name, schema = sql_name(want.name), sql_name(want.schema_name or "")
        move = f"CREATE SCHEMA IF NOT EXISTS {schema}", f"ALTER EXTENSION {name} SET SCHEMA {schema}"
        way_out = f"to have it moved, {cure(*move, database=database)}"
    else:
        way_out = "it is one that cannot be moved: name the schema where it is, or none"
    raise errors.SettingMismatch(
        f'Extension {want.name} is in schema "{have.schema}" instead of "{want.schema_name}"; {way_out}'
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


STAGE = Stage(
    name=StageName.EXTENSIONS, observe=observe, compare=compare, conclude=conclude, permit=extension_permits.permit
)
