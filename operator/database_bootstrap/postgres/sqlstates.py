"""SQLSTATE → what it means for a visit, in one table."""

import psycopg

from database_bootstrap import errors
from database_bootstrap.postgres.connection import sqlstate_of_refusal

_BY_CLASS: dict[str, type[errors.BootstrapError]] = {
    "08": errors.ServerUnreachable,  # connection_exception
    "57": errors.ServerUnreachable,  # operator_intervention: shutdown, crash recovery, not yet accepting
    "53": errors.ServerBusy,  # insufficient_resources
    "58": errors.ServerUnreachable,  # system_error
    "40": errors.ServerBusy,  # serialization_failure, deadlock_detected
}
_BY_STATE: dict[str, type[errors.BootstrapError]] = {
    "25006": errors.ServerReadOnly,
    "42501": errors.AccessDenied,
    "55006": errors.ServerBusy,  # object_in_use
    "55P03": errors.ServerBusy,  # lock_not_available
    "57014": errors.ServerBusy,  # query_canceled: statement_timeout
    "22023": errors.SpecRejected,  # invalid_parameter_value
    "22021": errors.SpecRejected,  # character_not_in_repertoire
    "42704": errors.SpecRejected,  # undefined_object: an unknown configuration parameter, collation …
    "42602": errors.SpecRejected,  # invalid_name
    "42601": errors.SpecRejected,  # syntax_error
    "42P22": errors.SpecRejected,  # indeterminate_collation
    "0A000": errors.SpecRejected,  # feature_not_supported
    "55P02": errors.SpecRejected,  # cant_change_runtime_param
}
TRANSIENT = frozenset({"55P03", "40P01", "40001"})
"""A transaction rolled back for one of these may be sent again as it was."""


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same transaction, sent again, may succeed."""
    state = error.sqlstate
    return state is None or state in TRANSIENT or state.startswith(("08", "57P0"))


def server_words(error: psycopg.Error) -> str:
    """Return the server's message and hint without DETAIL, which holds row data."""
    primary = error.diag.message_primary or str(error).strip().splitlines()[0] if str(error).strip() else ""
    hint = f" (hint: {error.diag.message_hint})" if error.diag.message_hint else ""
    return f"{primary}{hint}"


def error_of(error: psycopg.Error, doing: str) -> errors.BootstrapError:
    """Return our error for one of the server's; `doing` says in a few words what was tried."""
    state = error.sqlstate
    if state is None:
        return errors.ServerUnreachable(f"The connection broke off while trying to {doing}: {server_words(error)}")
    kind = _BY_STATE.get(state) or _BY_CLASS.get(state[:2]) or errors.NotConverging
    return kind(f"The server refused to {doing}: {server_words(error)} (SQLSTATE {state})")


def refusal_of(error: psycopg.OperationalError, who: str, where: str) -> errors.BootstrapError:
    """Return our error for an administrator's login that failed."""
    state = sqlstate_of_refusal(error)
    if state is None:
        return errors.ServerUnreachable(f"No session at {where} as {who}: {_plain(error)}")
    if state.startswith("28"):
        return errors.AdminLoginRefused(
            f"{where} refuses the administrator {who} (SQLSTATE {state}): check username and password in the admin "
            "Secret, and pg_hba.conf"
        )
    if state == "3D000":
        return errors.ReferenceRejected(f"The admin Secret names a database that {where} does not have")
    kind = _BY_STATE.get(state) or _BY_CLASS.get(state[:2]) or errors.ServerUnreachable
    sentence = "has no connection left" if state == "53300" else "accepts no session now"
    return kind(f"{where} {sentence} (SQLSTATE {state})")


def _plain(error: psycopg.OperationalError) -> str:
    """Return libpq's words for a refusal on one line."""
    return " ".join(str(error).removeprefix("connection failed:").split())
