"""SQLSTATE → what it means for a visit, in one table."""

import psycopg

from database_bootstrap import errors
from database_bootstrap.postgres.bounds import TooLarge
from database_bootstrap.postgres.connection import sqlstate_of_refusal
from database_bootstrap.postgres.login import Login
from database_bootstrap.postgres.spelling import cure, sql_name

_PASSING: dict[str, type[errors.BootstrapError]] = {
    "08": errors.ServerUnreachable,  # connection_exception
    "40": errors.ServerBusy,  # serialization_failure, deadlock_detected
    "53": errors.ServerBusy,  # insufficient_resources: connections, memory, disk
    "57": errors.ServerUnreachable,  # operator_intervention: shutdown, crash recovery, not yet accepting
    "58": errors.ServerUnreachable,  # system_error
    "25006": errors.ServerReadOnly,
    "55000": errors.ServerBusy,  # object_not_in_prerequisite_state
    "55006": errors.ServerBusy,  # object_in_use
    "55P03": errors.ServerBusy,  # lock_not_available
    "57014": errors.ServerBusy,  # query_canceled: statement_timeout
    "42710": errors.NotConverging,  # duplicate_object: somebody else was faster, and another look will show it
    "42P04": errors.NotConverging,  # duplicate_database
    "42P06": errors.NotConverging,  # duplicate_schema
    "XX000": errors.NotConverging,  # internal_error
}
"""What heals by itself, by SQLSTATE or its class; everything else is a server's plain no to what was asked."""
CLOSED = "55000"
"""Of a login: the database is not currently accepting connections."""
_OF_THE_DATABASE = frozenset({CLOSED, "3D000", "42501"})
WRONG_PASSWORD = "28P01"  # noqa: S105 a SQLSTATE
"""Said of a role that is not there as well."""
_PAGE = 4000
"""Characters of a message that are worth showing."""
TRANSIENT = frozenset({"55P03", "40P01", "40001"})
"""A transaction rolled back for one of these may be sent again as it was."""


def passing(state: str) -> type[errors.BootstrapError] | None:
    """Return what a SQLSTATE means that heals by itself, or None for one that needs a person."""
    return _PASSING.get(state) or _PASSING.get(state[:2])


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same transaction, sent again, may succeed."""
    state = error.sqlstate
    return state is None or state in TRANSIENT or state.startswith(("08", "57P0"))


def server_words(error: psycopg.Error) -> str:
    """Return the server's message and hint without DETAIL, which holds row data; what is longer than a page is cut.

    A script writes them as it likes, and they go into the log, the ledger and the status.
    """
    primary = error.diag.message_primary or next(iter(str(error).strip().splitlines()), "")
    hint = error.diag.message_hint
    return _page_of(primary) + (f" (hint: {_page_of(hint)})" if hint else "")


def _page_of(text: str) -> str:
    return text if len(text) <= _PAGE else f"{text[:_PAGE]}…"


def error_of(error: psycopg.Error, doing: str) -> errors.BootstrapError:
    """Return our error for one of the server's; `doing` says in a few words what was tried."""
    state = error.sqlstate
    if isinstance(error, TooLarge):
        return errors.AnswerTooLarge(
            f"What the server sent when it was to {doing} is too much: {error}. Look what is there by the hundred "
            "thousand, or by the gigabyte, in the catalogues or in the history of migrations, and remove it"
        )
    if state is None:
        return errors.ServerUnreachable(f"The connection broke off while trying to {doing}: {server_words(error)}")
    if state == "42501":
        return errors.AccessDenied(f"The server refused to {doing}: {server_words(error)} (SQLSTATE 42501)")
    kind = errors.NotConverging if _is_race(error) else passing(state) or errors.SpecRejected
    return kind(f"The server refused to {doing}: {server_words(error)} (SQLSTATE {state})")


def _is_race(error: psycopg.Error) -> bool:
    """Whether another session has just taken the name: where it was not committed when it was looked for, no 42710."""
    return error.sqlstate == "23505" and error.diag.schema_name == "pg_catalog"


_OWN_STATUS = "whoever runs it finds more in its own status"


def refusal_of(error: psycopg.OperationalError, login: Login) -> errors.BootstrapError:
    """Return our error for an administrator's login that failed."""
    where = str(login.endpoint)
    who = f"the administrator of DatabaseServer {login.server}" if login.server else f"the administrator {login.user}"
    state = sqlstate_of_refusal(error)
    if state is None:
        whose = who if login.server else login.user  # Which may be the role as well.
        return errors.ServerUnreachable(f"No session at {where} as {whose}: {plain(error)}")
    if state.startswith("28"):
        advice = "check username and password in the admin Secret, and pg_hba.conf"
        return errors.AdminLoginRefused(
            f"{where} refuses {who} (SQLSTATE {state}): {_OWN_STATUS if login.server else advice}",
            is_password=state == WRONG_PASSWORD,
        )
    if state == "53300":
        return errors.ServerBusy(f"{where} has no connection left (SQLSTATE 53300)", login="administrator")
    if state in _OF_THE_DATABASE:
        return _shut(state, login, who)
    return (passing(state) or errors.ServerUnreachable)(f"{where} accepts no session now (SQLSTATE {state})")


def _shut(state: str, login: Login, who: str) -> errors.BootstrapError:
    if state == CLOSED:
        return errors.ServerBusy(closed(login.database))
    if state == "3D000":
        return errors.ReferenceRejected(f"The access of {who} names a database that {login.endpoint} does not have")
    grant = f"GRANT CONNECT ON DATABASE {sql_name(login.database)} TO {sql_name(login.user)}"
    return errors.AccessDenied(
        f'The administrator "{login.user}" may not connect to database "{login.database}"; {cure(grant)}'
    )


def closed(database: str) -> str:
    """Return the sentence for a database that a person has closed, as for maintenance."""
    return (
        f'Database "{database}" takes no connections, as somebody has set; to open it again, '
        f"{cure(f'ALTER DATABASE {sql_name(database)} ALLOW_CONNECTIONS true')}"
    )


def plain(error: psycopg.OperationalError) -> str:
    """Return libpq's words for a refusal on one line."""
    return " ".join(str(error).removeprefix("connection failed:").split())
