"""What is to go: pure; what is not this resource's is kept with a word, and what is in doubt stops everything."""

from collections.abc import Sequence
from dataclasses import replace

from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api import status
from database_bootstrap.postgres.login import Endpoint
from database_bootstrap.postgres.ownership import Mark, Origin
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.stages.catalogue import Database
from database_bootstrap.stages.deletion_state import Contents, Dependent, Role
from database_bootstrap.stages.subject import Subject


def why_not_ours(subject: Subject, mark: Mark | None) -> str | None:
    """Return why what is marked so is not this resource's to drop; None where it made it itself."""
    if mark is None:
        return "it carries no mark of this resource"
    if mark.owner != subject.owner:
        return f"it belongs to {mark.owner}"
    if mark.origin is not Origin.CREATED:
        return "it was there before this resource, which has only adopted it"
    return None


def keep_database(subject: Subject, database: Database, role: Role | None) -> str | None:
    """Return why the database stays, judged by the marks; None where it was made by this resource."""
    why = why_not_ours(subject, database.mark)
    # A take-over changes the mark of the role first, and may have been stopped before that of the database.
    if why is None and role is not None and role.mark is not None and role.mark.owner != subject.owner:
        why = f'its owner, role "{subject.spec.role.name}", is not this resource\'s'
    return f'Database "{database.name}" is kept: {why}' if why else None


def keep_adopted(subject: Subject, contents: Contents) -> str | None:
    """Return why the database stays though its mark says that it was made here: that comment is its owner's to write.

    The ledger's identity, and the status, are not.
    """
    known, ledger = subject.status.database, contents.ledger
    says = None
    if ledger is not None and ledger.origin != Origin.CREATED:
        says = "its ledger"
    elif (
        known and known.origin is status.Origin.ADOPTED and (ledger is None or ledger.incarnation == known.incarnation)
    ):
        says = "the status"
    return says and (
        f'Database "{contents.database.name}" is kept: its mark says that this resource has made it, and {says} that '
        "it has only adopted it"
    )


def check_owner(subject: Subject, database: Database) -> None:
    """Raise where somebody has given the database to another role."""
    role = subject.spec.role.name
    if database.owner != role:
        raise errors.SettingMismatch(
            f'Database "{database.name}" is owned by "{database.owner}" instead of "{role}"; nothing was dropped. If '
            f"it is to go, give it back with ALTER DATABASE {sql_name(database.name)} OWNER TO {sql_name(role)}"
        )


def check_contents(subject: Subject, contents: Contents) -> None:
    """Raise where a database that this resource has made holds what is not this resource's to drop, or is in use."""
    quoted = f'Database "{contents.database.name}"'
    _check_identity(subject, contents, quoted)
    if contents.at_work:
        who = ", ".join(f'"{login}" ({count})' for login, count in contents.at_work.items())
        end = sql.SQL(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
            " WHERE datname = {} AND usename IN ({})"
        ).format(sql.Literal(contents.database.name), sql.SQL(", ").join(map(sql.Literal, contents.at_work)))
        raise errors.ServerBusy(
            f"{quoted} is in use by others than its role, and only the role's own sessions are ended; nothing was "
            f"dropped. Waits for sessions of {who}; where they are in nobody's way, {cure(end.as_string())}"
        )


def _check_identity(subject: Subject, contents: Contents, quoted: str) -> None:
    pin, ledger, owner = contents.pin, contents.ledger, subject.owner
    if pin is None:
        if ledger and replace(ledger.owner, uid=owner.uid) != owner:
            whose = ledger.owner
            raise errors.NotOwned(
                f"{quoted} holds the ledger of {whose.namespace}/{whose.name} (cluster {whose.cluster}), as after "
                "restoring its dump; nothing was dropped"
            )
    elif ledger is None:
        raise errors.DataLossDetected(
            f"{quoted} has lost its ledger (schema dbbootstrap), so that it cannot be told whether it is still "
            f"incarnation {pin.name}, which was set up here; nothing was dropped"
        )
    elif ledger.incarnation not in pin.incarnations:
        raise errors.ForeignDatabase(
            f"{quoted} is incarnation {ledger.incarnation}, and not {pin.name} that was set up here: another's "
            "data, as after refreshing it from a dump; nothing was dropped"
        )


def check_server(subject: Subject, endpoint: Endpoint, system_identifier: str | None) -> None:
    """Raise where a database that is not there may be somewhere else: this is not the server where it was made.

    On the same server it was dropped, by an earlier visit or by a person, and nothing of it is left to lose.
    """
    known = subject.status.server
    if known is None:
        return
    if known.system_identifier and system_identifier:
        is_the_same = known.system_identifier == system_identifier
    else:
        is_the_same = (known.host, known.port) == (endpoint.host, endpoint.port)
    if not is_the_same:
        raise errors.DataLossDetected(
            f'Database "{subject.spec.database.name}" is not at {endpoint}, which is another server than the one on '
            f"which it was set up ({known.host}:{known.port}, system identifier "
            f"{known.system_identifier or 'unknown'}); nothing was dropped. Point the admin Secret at the right server"
        )


def keep_role(subject: Subject, role: Role, kept_database: str | None) -> str | None:
    """Return why the role stays; None where it goes. Raise `RoleOwnsObjects` where a person has to say what goes."""
    name = subject.spec.role.name
    if why := why_not_ours(subject, role.mark):
        return f'Role "{name}" is kept with its Secrets: {why}'
    if kept_database and role.dependents:
        listed = ", ".join(map(str, role.dependents))
        return f'Role "{name}" is kept with its Secrets: depending on it are {listed}'
    owned = [it for it in role.dependents if it.is_property]
    if owned:
        databases = sorted({it.database for it in owned if it.database})
        where = " and ".join(f'in database "{database}"' for database in databases) or "in any database"
        raise errors.RoleOwnsObjects(
            f'Role "{name}" cannot be dropped, as it owns more than its own database: {", ".join(map(str, owned))}. '
            f"Nothing of that is touched; drop it, or give it to somebody else {where} with "
            f"REASSIGN OWNED BY {sql_name(name)} TO CURRENT_USER"
        )
    return None


def left_behind(name: str, dependents: Sequence[Dependent]) -> str:
    """Return the sentence for a role whose rights elsewhere the administrator could not take away."""
    databases = sorted({it.database for it in dependents if it.database})
    listed = ", ".join(map(str, dependents)) or "what another session has not committed yet"
    where = " and ".join(f'in database "{database}"' for database in databases) or "in any database"
    return (
        f'Role "{name}" is kept, without login, password and mark: others have given it rights, and the administrator '
        f"cannot take them away ({listed}). To drop it, let a superuser run DROP OWNED BY {sql_name(name)} {where}, "
        f"and then DROP ROLE {sql_name(name)}"
    )
