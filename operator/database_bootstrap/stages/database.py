"""Database: there, owned by the role, marked, with its schemas, parameters and ledger."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from database_bootstrap import errors
from database_bootstrap.api import status
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.api.v1alpha1 import DatabaseSpec, LocaleSpec, Spec
from database_bootstrap.stages import catalogue, identity
from database_bootstrap.stages import database_actions as actions
from database_bootstrap.stages.catalogue import Database, Inside
from database_bootstrap.stages.role import is_ours, may_take, not_owned
from database_bootstrap.stages.stage import Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The database, from outside and from within."""

    database: Database | None
    inside: Inside | None = None
    """None where the database is not there, or cannot be entered."""


async def observe(visit: Visit) -> Found:
    """Look for the database, and into it."""
    view = await visit.view()
    name = visit.spec.database.name
    database = await catalogue.find_database(view, name)
    visit.database_exists = database is not None
    if database is None or not (_is_takeable(visit, database) or _was_intended(visit, database)):
        return Found(database=database)
    if visit.planning and await visit.sessions.try_role() is None:
        return Found(database=database)
    inside = await catalogue.look_inside(visit.sessions.as_role or await visit.sessions.owner())
    visit.incarnation = inside.incarnation
    if identity.trouble(visit.subject, visit.pin, database, inside):
        # The status keeps what was known of the data that is looked for: that explains what became of it.
        return Found(database=database, inside=inside)
    visit.facts.server = inside.server.model_copy(update=await _address(visit))
    visit.facts.database = status.DatabaseStatus(
        name=name,
        oid=database.oid,
        origin=status.Origin(mark.origin) if (mark := database.mark or visit.role_mark) else None,
        incarnation=identity.pinned(visit.subject, visit.pin, inside),
        ledger_seq=inside.ledger_seq,
    )
    return Found(database=database, inside=inside)


async def _address(visit: Visit) -> dict[str, object]:
    endpoint = await visit.credentials.endpoint()
    return {"host": endpoint.host, "port": endpoint.port}


async def pin(visit: Visit) -> None:
    """Pin the incarnation after a complete success, and note how far the ledger is after all changes."""
    known, view = visit.facts.database, visit.sessions.as_role
    if known and view:
        learned: dict[str, object] = {"incarnation": visit.incarnation}
        if visit.has_changed:
            learned["ledger_seq"] = await catalogue.ledger_seq(view)
        visit.facts.database = known.model_copy(update=learned)


def _was_intended(visit: Visit, database: Database) -> bool:
    """Whether this resource made the database, as the role's mark says, and was stopped before it could mark it."""
    return (
        database.mark is None
        and database.owner == visit.spec.role.name
        and is_ours(visit, visit.role_mark)
        and visit.role_mark is not None
        and visit.role_mark.database == database.name
    )


def compare(visit: Visit, found: Found) -> Sequence[Action]:
    """Return what makes the database as wanted; raise for another's, and for what only a new one could satisfy."""
    name = visit.spec.database.name
    if found.database is None or found.inside is not None or _is_takeable(visit, found.database):
        identity.check(visit.subject, visit.pin, found.database, found.inside)
    if found.database is None:
        return (
            *_compare_identity(visit, None, Inside()),
            actions.CreateDatabase(name=name),
            actions.MarkDatabase(name=name),
            *_compare_contents(visit, Inside()),
        )
    _check_ownership(visit, found.database)
    _check_creation_settings(visit.spec.database, found.database)
    return tuple(_compare_present(visit, found.database, found.inside or Inside()))


def _is_takeable(visit: Visit, database: Database) -> bool:
    return database.mark is not None and may_take(visit, database.mark)


def _check_ownership(visit: Visit, database: Database) -> None:
    role, quoted = visit.spec.role.name, f'Database "{database.name}"'
    if database.mark is None and not _was_intended(visit, database):
        raise errors.NotOwned(
            f"{quoted} exists and was not made by this operator; it is left alone. Choose another database.name"
        )
    if database.mark is not None and not may_take(visit, database.mark):
        raise not_owned(quoted, database.mark)
    if database.owner != role:
        raise errors.SettingMismatch(
            f'{quoted} is owned by "{database.owner}" instead of "{role}"; give it back with '
            f'ALTER DATABASE "{database.name}" OWNER TO "{role}"'
        )


def _check_creation_settings(wanted: DatabaseSpec, found: Database) -> None:
    if wanted.encoding != found.encoding:
        raise errors.SettingMismatch(
            f'Database "{found.name}" has encoding {found.encoding} instead of {wanted.encoding}, which only counts at '
            "creation; make a new database and move the data"
        )
    if wanted.locale and _locale_key(wanted.locale) != _found_locale(found):
        raise errors.SettingMismatch(
            f'Database "{found.name}" has locale {found.locale or found.collate} instead of {wanted.locale.name} '
            f"({wanted.locale.provider.value}), which only counts at creation; make a new database and move the data"
        )


def _locale_key(locale: LocaleSpec) -> tuple[str, str]:
    return locale.provider.value[0].lower().replace("l", "c"), _spelled(locale.name)


def _found_locale(found: Database) -> tuple[str, str]:
    return found.provider, _spelled(found.collate if found.provider == "c" else found.locale or "")


def _spelled(locale: str) -> str:
    # The server rewrites what it was given: en_US.utf8 → en_US.UTF-8 (libc), de_AT → de-AT (ICU, 16 and newer).
    return locale.lower().replace("_", "").replace("-", "")


def _compare_present(visit: Visit, database: Database, inside: Inside) -> Iterator[Action]:
    if database.mark is None:
        is_new = inside.incarnation is None
        yield actions.MarkDatabase(name=database.name, comment=database.comment, is_new=is_new)
    elif not is_ours(visit, database.mark):
        yield actions.TakeDatabase(name=database.name, comment=database.comment)
    yield from _compare_identity(visit, database, inside)
    limit = visit.spec.database.connection_limit
    if limit is not None and limit != database.connection_limit:
        yield actions.LimitConnections(name=database.name, limit=limit)
    yield from _compare_contents(visit, inside)


def _compare_identity(visit: Visit, database: Database | None, inside: Inside) -> Iterator[Action]:
    for note in identity.notes(visit.subject, visit.pin, database, inside):
        if not (note in visit.noted or visit.ledger_is_new):
            yield actions.Note(text=note)


def _compare_contents(visit: Visit, inside: Inside) -> Iterator[Action]:
    spec = visit.spec
    if inside.incarnation is None:
        yield actions.MakeLedger()
    for parameter in spec.database.parameters:
        there = inside.parameters.get(parameter.name)
        wanted = actions.elements_of(parameter.name, parameter.value)
        if there is None or actions.elements_of(parameter.name, there) != wanted:
            yield actions.SetParameter(database=spec.database.name, name=parameter.name, value=parameter.value)
    for schema in wanted_schemas(spec):
        owner = inside.schemas.get(schema)
        if owner is None:
            yield actions.CreateSchema(name=schema)
        elif owner != spec.role.name:
            raise errors.SettingMismatch(
                f'Schema "{schema}" is owned by "{owner}" instead of "{spec.role.name}"; it is left alone'
            )


def wanted_schemas(spec: Spec) -> tuple[str, ...]:
    """Return the schemas that the role must own: those listed, and the one in which the migration tool works."""
    tools = {spec.migrations.schema_name} if spec.migrations else set()
    return tuple(dict.fromkeys([*(schema.name for schema in spec.schemas), *sorted(tools - {"public"})]))


def conclude(visit: Visit, found: Found) -> Conclusion:
    """Say that the database is there."""
    return Conclusion(reason=Reason.DATABASE_IN_PLACE, message=f'Database "{visit.spec.database.name}" is there')


STAGE = Stage(name=StageName.DATABASE, observe=observe, compare=compare, conclude=conclude)
