"""Database: there, owned by the role, marked, with its schemas, parameters and ledger."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from database_bootstrap import errors
from database_bootstrap.api import status
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.api.v1alpha1 import Adoption
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ownership import Mark, Origin
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.stages import (
    adoption,
    catalogue,
    contents,
    creation,
    identity,
    ledger_actions,
    owner_permits,
    permits,
)
from database_bootstrap.stages import database_actions as actions
from database_bootstrap.stages.adoption_actions import AdoptDatabase, HandOverDatabase
from database_bootstrap.stages.authority import Authority, authority_over
from database_bootstrap.stages.catalogue import Database, Inside
from database_bootstrap.stages.claims import (
    is_ours,
    may_take,
    not_owned,
    origin_after,
    require_database_gone,
    was_said_to_be_ours,
)
from database_bootstrap.stages.contents import Tables
from database_bootstrap.stages.stage import Action, Conclusion, Refusal, Stage
from database_bootstrap.stages.visit import Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The database, from outside and from within."""

    database: Database | None
    inside: Inside | None = None
    """None where the database is not there, or cannot be entered."""
    tables: Tables | None = None
    """Only counted in a database without mark and ledger: what has tables was not made here a moment ago."""
    authority: Authority | None = None
    """Only asked for where a database is to be taken from another owner."""
    may_take_ledger: bool = False
    """It names another resource, or this one under another uid, and the administrator may correct that."""


async def observe(visit: Visit) -> Found:
    """Look for the database, and into it."""
    view = await visit.view()
    database = await catalogue.find_database(view, visit.spec.database.name)
    visit.database_exists = database is not None
    if database is None:
        return Found(database=None)
    if database.mark:
        await require_database_gone(visit, database, database.mark.owner)
    if not _may_be_entered(visit, database):
        return Found(database=database, authority=await _authority(visit, database))
    if visit.planning and await visit.sessions.try_role() is None and not visit.sessions.is_shut_out:
        visit.is_unseen = True
        return Found(database=database)
    session = visit.sessions.as_role or await visit.sessions.owner()
    inside = await catalogue.look_inside(session, visit.spec)
    if owner := inside.owner:
        await require_database_gone(visit, database, owner)
    visit.incarnation = inside.incarnation
    visit.leftovers = inside.leftovers
    if not identity.trouble(visit.subject, visit.pin, database, inside):
        # Otherwise the status keeps what was known of the data that is looked for: that explains what became of it.
        await _learn(visit, database, inside)
    is_unknown = database.mark is None and inside.incarnation is None
    tables = await contents.count_tables(session, visit.spec.role.name) if is_unknown else None
    return Found(
        database=database,
        inside=inside,
        tables=tables,
        may_take_ledger=await _may_take_ledger(visit, session, inside),
    )


async def _may_take_ledger(visit: Visit, session: Connection, inside: Inside) -> bool:
    is_anothers = inside.has_ledger and not inside.is_ledger_of(visit.subject.owner)
    return is_anothers and await ledger_actions.may_take(visit, session)


def _may_be_entered(visit: Visit, database: Database) -> bool:
    is_adopted = visit.adopting is not None and database.mark is None and database.owner == visit.spec.role.name
    return is_adopted or _is_takeable(visit, database) or _was_intended(visit, database)


async def _authority(visit: Visit, database: Database) -> Authority | None:
    is_to_be_taken = database.mark is None and visit.spec.adoption is Adoption.FORCE
    return await authority_over(visit, database) if is_to_be_taken else None


async def _learn(visit: Visit, database: Database, inside: Inside) -> None:
    visit.facts.server = inside.server.model_copy(update=await _address(visit))
    visit.facts.database = status.DatabaseStatus(
        name=database.name,
        oid=database.oid,
        origin=status.Origin(_origin_of(visit, mark, inside)) if (mark := database.mark or visit.role_mark) else None,
        incarnation=identity.pinned(visit.subject, visit.pin, inside),
        ledger_seq=inside.ledger_seq,
    )
    if visit.facts.role is None:
        # It carries no mark, and its database has just been given the one that speaks for both.
        visit.facts.role = status.RoleStatus(name=visit.spec.role.name, origin=status.Origin.ADOPTED)


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
    is_judged = found.database is None or found.database.mark is None or _is_takeable(visit, found.database)
    if is_judged and not visit.is_unseen:
        identity.check(visit.subject, visit.pin, found.database, found.inside)
    if found.database is None:
        return (
            *_compare_identity(visit, None, Inside()),
            actions.CreateDatabase(name=name),
            actions.MarkDatabase(name=name),
            *_compare_contents(visit, Inside(), Origin.CREATED),
        )
    _check_ownership(visit, found, found.database)
    creation.check(visit.spec.database, found.database)
    return tuple(_compare_present(visit, found, found.database))


def _is_takeable(visit: Visit, database: Database) -> bool:
    return database.mark is not None and may_take(visit, database.mark)


def _check_ownership(visit: Visit, found: Found, database: Database) -> None:
    role, quoted = visit.spec.role.name, f'Database "{database.name}"'
    if database.mark is None:
        if not _was_intended(visit, database) or (found.tables and not found.tables.is_empty):
            adoption.check_database(visit, database, found.authority)
        return
    if not may_take(visit, database.mark):
        raise not_owned(visit, quoted, database.mark)
    if database.owner != role:
        raise errors.SettingMismatch(
            f'{quoted} is owned by "{database.owner}" instead of "{role}"; give it back with '
            f"ALTER DATABASE {sql_name(database.name)} OWNER TO {sql_name(role)}"
        )


def _compare_present(visit: Visit, found: Found, database: Database) -> Iterator[Action]:
    inside = found.inside or (found.authority and found.authority.inside) or Inside()
    origin = _origin(visit, found, database, inside)
    if database.mark is None:
        yield _claim(visit, found, database, origin)
    elif not is_ours(visit, database.mark):
        is_said = was_said_to_be_ours(visit, database.mark)
        yield actions.TakeDatabase(name=database.name, comment=database.comment, origin=origin, is_said=is_said)
    if found.may_take_ledger:
        yield ledger_actions.TakeLedger(origin=origin)
    if not visit.is_unseen:
        yield from _compare_identity(visit, database, inside)
    limit = visit.spec.database.connection_limit
    if limit is not None and limit != database.connection_limit:
        yield actions.LimitConnections(name=database.name, limit=limit)
    if not visit.is_unseen:
        yield from _compare_contents(visit, inside, origin)


def _origin(visit: Visit, found: Found, database: Database, inside: Inside) -> Origin:
    """Return how the database came to be this resource's."""
    if database.mark:
        return _origin_of(visit, database.mark, inside)
    if inside.incarnation and visit.may_mark_role:
        known = visit.subject.status.database
        # Where nobody knows any more it is called adopted, and so never dropped.
        return Origin(known.origin) if known and known.origin else Origin.ADOPTED
    is_made_here = _was_intended(visit, database) and visit.role_mark and visit.role_mark.origin is Origin.CREATED
    return Origin.CREATED if is_made_here and found.tables and found.tables.is_empty else Origin.ADOPTED


def _origin_of(visit: Visit, mark: Mark, inside: Inside) -> Origin:
    """Return what the mark says; its comment is the owner's to write, so what was known to be adopted stays so."""
    known = visit.subject.status.database
    is_known = known is not None and known.origin is status.Origin.ADOPTED and known.incarnation == inside.incarnation
    return Origin.ADOPTED if is_known else origin_after(visit, mark)


def _claim(visit: Visit, found: Found, database: Database, origin: Origin) -> Action:
    """Return what marks a database that has no mark: made here a moment ago, known from before, or adopted."""
    if found.inside and found.inside.incarnation and visit.may_mark_role:
        return actions.MarkDatabase(name=database.name, comment=database.comment, origin=origin, is_new=False)
    if origin is Origin.CREATED:
        return actions.MarkDatabase(name=database.name, comment=database.comment)
    kind = AdoptDatabase if database.owner == visit.spec.role.name else HandOverDatabase
    tables = found.tables or (found.authority.tables if found.authority else None)
    words = adoption.describe_database(database, tables)
    return kind(
        name=database.name,
        comment=database.comment,
        found=words,
        announcement=visit.adopting or f"Adopting {words}. {adoption.CHANGES}",
        role_unmarked=not visit.may_mark_role,
    )


def _compare_identity(visit: Visit, database: Database | None, inside: Inside) -> Iterator[Action]:
    for note in identity.notes(visit.subject, visit.pin, database, inside):
        if not (note in visit.noted or visit.ledger_is_new):
            yield actions.Note(text=note)


def _compare_contents(visit: Visit, inside: Inside, origin: Origin) -> Iterator[Action]:
    spec = visit.spec
    yield from _compare_ledger(visit, inside, origin)
    for parameter in spec.database.parameters:
        there = inside.parameters.get(parameter.name)
        wanted = actions.elements_of(parameter.name, parameter.value)
        if there is None or actions.elements_of(parameter.name, there) != wanted:
            yield actions.SetParameter(database=spec.database.name, name=parameter.name, value=parameter.value)
    for schema in catalogue.wanted_schemas(spec):
        owner = inside.schemas.get(schema)
        if owner is None:
            yield actions.CreateSchema(name=schema)
        elif owner != spec.role.name:
            give = f"ALTER SCHEMA {sql_name(schema)} OWNER TO {sql_name(spec.role.name)}"
            raise errors.SettingMismatch(
                f'Schema "{schema}" is owned by "{owner}" instead of "{spec.role.name}"; it is left alone. If it is to '
                f"be this role's, {cure(give, database=spec.database.name)}"
            )


def _compare_ledger(visit: Visit, inside: Inside, origin: Origin) -> Iterator[Action]:
    if inside.has_ledger_of_role:
        if inside.ledger_in_the_way:
            raise errors.NotOwned(ledger_actions.IN_THE_WAY)
        yield ledger_actions.SetLedgerAside()
        yield ledger_actions.MakeLedger(origin=origin, incarnation=inside.incarnation, goes_on=True)
        yield ledger_actions.CopyLedger()
        return
    if inside.incarnation is None or not inside.has_ledger:
        yield ledger_actions.MakeLedger(origin=origin, incarnation=inside.incarnation, goes_on=inside.is_aside)
    if inside.is_aside:
        yield ledger_actions.CopyLedger()


async def permit(visit: Visit, found: Found, planned: Sequence[Action]) -> Refusal | None:
    """Refuse what the administrator may not make, and what the role may not set."""
    if found.database is None and (refusal := await permits.to_make_database(visit)):
        return refusal
    return await owner_permits.for_database(visit, planned, is_there=found.database is not None)


def conclude(visit: Visit, found: Found) -> Conclusion:
    """Say that the database is there, and who else may enter it."""
    name = visit.spec.database.name
    is_open = found.database is not None and found.database.public_may_connect
    close = f"REVOKE CONNECT, TEMPORARY ON DATABASE {sql_name(name)} FROM PUBLIC"
    said = f"PUBLIC may connect to it; to close it, run {close}."
    return Conclusion(
        reason=Reason.DATABASE_IN_PLACE,
        message=f'Database "{name}" is there',
        warnings=(said,) if is_open else (),
    )


STAGE = Stage(name=StageName.DATABASE, observe=observe, compare=compare, conclude=conclude, permit=permit)
