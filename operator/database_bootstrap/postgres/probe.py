"""Asking a server whether it is of use again: as cheap as it can be, and without failed logins in anybody's log."""

import asyncio
import os
from typing import Self

import psycopg

from database_bootstrap import errors
from database_bootstrap.postgres import session
from database_bootstrap.postgres.connection import Attempt, Connection, PasswordWanted, sqlstate_of_refusal
from database_bootstrap.postgres.login import Endpoint, Login
from database_bootstrap.postgres.sqlstates import passing, plain

KNOCK_SECONDS = 3
NO_ANSWER = "does not answer"


class _AnsweredError(Exception):
    """The server has answered, whatever it said. No error of psycopg's: it would go on to the host's next address."""


_NO_FILE = f"{os.devnull}/none"
"""Of a file that is there and is no plain one libpq complains on stderr (`passwordFromFile` in fe-connect.c)."""


class _Knock(Connection):
    """A connection that is not to come about: it ends where the server would want to know a password."""

    @classmethod
    def _log_in(cls, conninfo: str) -> Attempt[Self]:
        try:
            return (yield from super()._log_in(conninfo))
        except PasswordWanted:
            raise _AnsweredError from None
        except psycopg.OperationalError as refusal:
            state = sqlstate_of_refusal(refusal)
            if state is not None and passing(state) is not errors.ServerUnreachable:
                raise _AnsweredError from None
            raise


async def knock(endpoint: Endpoint, user: str, database: str) -> str | None:
    """Return why the server takes no session now, or None where it would.

    It goes as far as the server's question for the password, and leaves: no credential is needed, and no failure is
    logged. That the port is open would not do: a server that starts up, or recovers, answers 57P03. Certificates are
    not looked at, for this is about the server, and not about one visit's settings.
    """
    try:
        async with asyncio.timeout(KNOCK_SECONDS + 1):
            opened = await _Knock.connect(
                host=endpoint.host,
                port=endpoint.port,
                user=user,
                dbname=database,
                # Not even what the environment of this process may hold.
                password="",
                passfile=_NO_FILE,
                sslmode="prefer",
                gssencmode="disable",
                connect_timeout=KNOCK_SECONDS,
                application_name="dbbootstrap",
                autocommit=True,
            )
    except _AnsweredError:
        return None
    except TimeoutError:
        return NO_ANSWER
    except psycopg.OperationalError as refusal:
        return _words(refusal)
    await opened.close()
    return None


async def log_in(login: Login, *, to_write: bool = False) -> str | None:
    """Return why this login gets no session now, or none that may write; None where it does, or is refused for good."""
    try:
        opened = await session.connect(login, session.OBSERVER)
    except psycopg.OperationalError as refusal:
        state = sqlstate_of_refusal(refusal)
        return _words(refusal) if state is None or passing(state) else None
    try:
        is_standby = opened.pgconn.parameter_status(b"in_hot_standby") == b"on"
    finally:
        await opened.close()
    return "is a standby" if to_write and is_standby else None


def _words(refusal: psycopg.OperationalError) -> str:
    state = sqlstate_of_refusal(refusal)
    if state == "53300":
        return "has no connection left (SQLSTATE 53300)"
    if state is not None:
        return f"takes no session now (SQLSTATE {state})"
    return f"{NO_ANSWER} ({plain(refusal)})"
