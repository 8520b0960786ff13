"""Deletion: the second line. What this very resource has made goes; all else stays, and so does what is in doubt."""

from dataclasses import dataclass

from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api.outcomes import StageName
from database_bootstrap.postgres.outage import Outage
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.stages import catalogue, deletion_role, identity, ledger_trust, permits
from database_bootstrap.stages import deletion_compare as compare
from database_bootstrap.stages import deletion_state as state
from database_bootstrap.stages.catalogue import Database
from database_bootstrap.stages.database_actions import join_role
from database_bootstrap.stages.deletion_role import Fate, with_admin_option
from database_bootstrap.stages.departure import Departure, Drop
from database_bootstrap.stages.sessions import execute, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a visit to a resource that is being deleted."""

    drops: tuple[Drop, ...] = ()
    kept: tuple[str, ...] = ()
    """What stays and why, a sentence each."""
    error: errors.BootstrapError | None = None
    """What has kept the visit from its end; None where all is done, and the resource may go."""
    outage: Outage | None = None
    """What the visit ended by; its end is the time for the next one."""


async def run(departure: Departure) -> None:
    """Drop what this resource has made: the database, then the role, then the Secrets that open nothing any more.

    Each step can be made again after a crash. Raise for whatever is in doubt; what was not dropped by then stays.
    """
    kept_database = await _see_to_database(departure)
    fate = await deletion_role.see_to(departure, kept_database)
    if fate is not Fate.KEPT:
        await _see_to_secrets(departure)
    if fate is Fate.LEFT_BEHIND:
        await deletion_role.let_go(departure)


async def _see_to_database(departure: Departure) -> str | None:
    """Drop the database, or return why it is kept."""
    database = await catalogue.find_database(await departure.aside(), departure.database)
    if database is None:
        endpoint = (await departure.credentials.administrator()).endpoint
        compare.check_server(departure.subject, endpoint, await state.system_identifier(await departure.aside()))
        return None
    role = await state.find_role(await departure.aside(), departure.role)
    if kept := compare.keep_database(departure.subject, database, role):
        departure.kept.append(kept)
        return kept
    compare.check_owner(departure.subject, database)
    contents = await _contents(departure, database)
    if kept := compare.keep_adopted(departure.subject, contents):
        departure.kept.append(kept)
        return kept
    compare.check_contents(departure.subject, contents)
    if role and compare.why_not_ours(departure.subject, role.mark) is None:
        # Otherwise it would be left behind without its database.
        await permits.require_power_to_drop(await departure.aside(), departure.role)
    await _drop_database(departure, database)
    incarnation = f", incarnation {contents.ledger.incarnation}" if contents.ledger else ""
    text = f'drop database "{database.name}" (oid {database.oid}{incarnation})'
    departure.drops.append(Drop(stage=StageName.DATABASE, text=text))
    return None


async def _contents(departure: Departure, database: Database) -> state.Contents:
    who = await _require_entry(departure, database)
    try:
        ledger = await ledger_trust.read(await departure.sessions.administrator(database.name), departure.role)
    except errors.AccessDenied as error:
        grants = (
            f"GRANT USAGE ON SCHEMA dbbootstrap TO {sql_name(who)}",
            f"GRANT SELECT ON dbbootstrap.identity TO {sql_name(who)}",
        )
        raise errors.AccessDenied(
            f"{error.message}. Nothing was dropped; {cure(*grants, database=database.name)}"
        ) from None
    except errors.NotOwned as error:
        raise errors.NotOwned(
            f"{error.message}. Nothing was dropped; if all of it is to go, "
            f"drop it by hand: DROP DATABASE {sql_name(database.name)}"
        ) from None
    at_work = await state.find_at_work(await departure.aside(), database.name, departure.role)
    pin = identity.pin_of(departure.subject, await departure.credentials.pinned())
    return state.Contents(database=database, ledger=ledger, pin=pin, at_work=at_work)


async def _require_entry(departure: Departure, database: Database) -> str:
    """Return who the administrator is; raise `AccessDenied` with the cure where it cannot look into the database."""
    query = "SELECT pg_catalog.has_database_privilege(%s, 'CONNECT'), current_user"
    ((may_enter, who),) = await rows(await departure.aside(), query, (database.name,), doing="look at its rights")
    if not may_enter:
        raise errors.AccessDenied(
            f'The administrator "{who}" may not enter database "{database.name}" to see what it holds; nothing was '
            f"dropped; {cure(f'GRANT CONNECT ON DATABASE {sql_name(database.name)} TO {sql_name(who)}')}"
        )
    return str(who)


async def _drop_database(departure: Departure, database: Database) -> None:
    """Drop the database that was looked at, with the sessions that are still in it."""
    connection = await departure.aside()
    await with_admin_option(departure, join_role(connection, departure.role))
    doing = f'drop database "{database.name}"'
    query = "SELECT pg_catalog.pg_has_role(current_user, %s, 'USAGE')"
    ((has_its_rights,),) = await rows(connection, query, (departure.role,), doing="look for membership")
    if not has_its_rights:  # An administrator who does not inherit is the owner only by becoming it.
        await execute(connection, sql.SQL("SET ROLE {}").format(sql.Identifier(departure.role)), doing=doing)
    if await catalogue.find_database(connection, database.name) != database:
        raise errors.NotConverging(
            f'Database "{database.name}" was changed while it was looked at; nothing was dropped'
        )
    await execute(
        connection, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database.name)), doing=doing
    )
    await execute(connection, "RESET ROLE", doing=doing)


async def _see_to_secrets(departure: Departure) -> None:
    """Delete the Secrets that this resource has made: with the role gone they open nothing any more."""
    published = departure.subject.status.binding
    there = [departure.credentials.connection_secret, departure.credentials.password_secret]
    for name in dict.fromkeys([*there, *([published.name] if published else [])]):
        is_gone = await departure.surroundings.delete_secret(name)
        if is_gone:
            departure.drops.append(Drop(stage=StageName.CONNECTION, text=f"delete Secret {name}"))
        elif is_gone is False:
            departure.kept.append(f"Secret {name} is kept: it was not made by this very resource")
