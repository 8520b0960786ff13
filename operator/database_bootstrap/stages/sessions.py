"""The sessions of one visit: opened when first needed, two at most at once."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.postgres import session
from database_bootstrap.postgres.connection import Connection, sqlstate_of_refusal
from database_bootstrap.postgres.doors import Entry
from database_bootstrap.postgres.login import Login, Settings
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.postgres.sqlstates import CLOSED, WRONG_PASSWORD, closed, error_of, passing, refusal_of

Query = sql.SQL | sql.Composed | str
Arguments = tuple[Any, ...] | Mapping[str, Any]
_MAY_NOT_ENTER = "42501"
Door = Callable[[Login], AbstractAsyncContextManager[Entry]]
"""Lets a login be tried, or not."""


class Sessions:
    """Sessions as the administrator and as the role, for as long as one visit lasts.

    There is the administrator's, in one database at a time; the role's own, which reads only; and the owner's, which is
    the role again, with its ordinary settings, for what changes something. Opening a third closes one of the others.
    """

    def __init__(
        self,
        administrator: Callable[[], Awaitable[Login]],
        role: Callable[[], Awaitable[Login | None]],
        owner_settings: Settings,
        door: Door,
        role_door: Door,
        *,
        owner_limit: float = session.LIMIT_SECONDS,
    ) -> None:
        """Let the owner's longest statement take so many seconds."""
        self._door = door
        self._role_door: Door | None = role_door
        self._found: dict[tuple[str, int], tuple[str, ...]] = {}
        self._administrator_login = administrator
        self._role_login = role
        self._owner_settings = owner_settings
        self._owner_limit = owner_limit
        self._open: dict[str, Connection] = {}
        self.refusal: str | None = None
        """The SQLSTATE with which the server refused the role; None while it has not."""

    @property
    def as_role(self) -> Connection | None:
        """A session as the role in its database that is open already, if any; one that only reads before the other."""
        return self._open.get("observer") or self._open.get("owner")

    @property
    def is_shut_out(self) -> bool:
        """Whether the password was right, and the role may not enter its database all the same."""
        return self.refusal in {_MAY_NOT_ENTER, CLOSED}

    async def administrator(self, database: str | None = None) -> Connection:
        """Return the administrator's session in this database, by default the one that the admin Secret names."""
        login = await self._administrator_login()
        login = login.to(database) if database else login
        there = self._open.get("administrator")
        if there and there.info.dbname == login.database:
            return there
        await self._close("administrator")
        await self._make_room()
        async with self._door(self._pinned(login)) as entry:
            self._pin(entry)
            try:
                opened = await session.connect_administrator(entry.login)
            except psycopg.OperationalError as error:
                raise refusal_of(error, login) from None
            entry.address = opened.info.hostaddr
        self._open["administrator"] = opened
        return opened

    async def try_role(self) -> Connection | None:
        """Return a reading session as the role, or None where the server refuses it; `refusal` then says why."""
        if self.as_role or self.refusal:
            return self.as_role
        return await self._try("observer", session.OBSERVER, session.LOOK_SECONDS)

    async def another(self) -> Connection:
        """Return a reading session as the role that is not the owner's: what it sees is committed."""
        return self._open.get("observer") or await self._must(
            await self._try("observer", session.OBSERVER, session.LOOK_SECONDS)
        )

    async def owner(self) -> Connection:
        """Return the role's session for changes."""
        return self._open.get("owner") or await self._must(
            await self._try("owner", self._owner_settings, self._owner_limit)
        )

    def forget_refusal(self) -> None:
        """Let the role try again: it is this resource's, or its password or its database has just been made."""
        self.refusal = None
        self._role_door = None

    async def close(self) -> None:
        """Close whatever is open."""
        for name in list(self._open):
            await self._close(name)

    async def _try(self, name: str, settings: Settings, limit: float = session.LIMIT_SECONDS) -> Connection | None:
        login = await self._role_login()
        if login is None:
            return None
        await self._make_room()
        try:
            async with self._role_entry(login) as entry:
                self._pin(entry)
                self._open[name] = opened = await self._log_in(entry.login, settings, limit)
                entry.address = opened.info.hostaddr
        except psycopg.OperationalError as error:
            self.refusal = sqlstate_of_refusal(error)
            if self.refusal is None or passing(self.refusal) is errors.ServerUnreachable:
                # No answer to the question whether the role gets in.
                raise refusal_of(error, login) from None
            return None
        except errors.AdminLoginRefused:
            self.refusal = WRONG_PASSWORD  # Or as good as: it is not tried again so soon.
            return None
        return opened

    async def _log_in(self, login: Login, settings: Settings, limit: float) -> Connection:
        try:
            return await session.connect(login, settings, limit)
        except psycopg.OperationalError as error:
            if sqlstate_of_refusal(error) == WRONG_PASSWORD:
                raise refusal_of(error, login) from None  # Which the door counts.
            raise

    @asynccontextmanager
    async def _role_entry(self, login: Login) -> AsyncIterator[Entry]:
        """Let the role be tried, or not: until the server says that it is this resource's, it may be anybody's."""
        login = self._pinned(login)
        if self._role_door is None:
            yield Entry(login)
            return
        async with self._role_door(login) as entry:
            yield entry

    def _pinned(self, login: Login) -> Login:
        """Return the login with the addresses that this visit has found."""
        endpoint = login.endpoint
        found = self._found.get((endpoint.host, endpoint.port), ())
        return replace(login, endpoint=replace(endpoint, addresses=found))

    def _pin(self, entry: Entry) -> None:
        endpoint = entry.login.endpoint
        self._found[endpoint.host, endpoint.port] = endpoint.addresses

    async def _must(self, opened: Connection | None) -> Connection:
        if opened is not None:
            return opened
        if self.is_shut_out and (login := await self._role_login()):
            raise _shut_out(login, self.refusal)
        if self.refusal and passing(self.refusal):
            raise errors.ServerBusy(
                f"The server takes no session of the role now (SQLSTATE {self.refusal})",
                login="role" if self.refusal == "53300" else None,
            )
        raise errors.RoleLoginRefused(
            f"The server refuses the role's own login (SQLSTATE {self.refusal}): check pg_hba.conf and its Secret"
        )

    async def _make_room(self) -> None:
        for name in ("administrator", "observer"):
            if len(self._open) < 2:
                return
            await self._close(name)

    async def _close(self, name: str) -> None:
        if opened := self._open.pop(name, None):
            await opened.close()


def _shut_out(login: Login, state: str | None) -> errors.BootstrapError:
    if state == CLOSED:
        return errors.ServerBusy(closed(login.database))
    grant = f"GRANT CONNECT ON DATABASE {sql_name(login.database)} TO {sql_name(login.user)}"
    return errors.RoleLoginRefused(
        f'Role "{login.user}" may not connect to its own database "{login.database}", as somebody has revoked CONNECT; '
        f"{cure(grant)}"
    )


async def rows(connection: Connection, query: Query, arguments: Arguments = (), *, doing: str) -> list[Any]:
    """Return all rows of a query; raise our error for the server's."""
    try:
        cursor = await connection.execute(query, arguments or None)
        return await cursor.fetchall()
    except psycopg.Error as error:
        raise error_of(error, doing) from None


async def execute(connection: Connection, *statements: Query, doing: str) -> None:
    """Run statements in one transaction; raise our error for the server's.

    The statements of one message are one transaction, as long as none of them begins or ends one.
    """
    texts = [one.as_string(connection) if isinstance(one, sql.Composable) else one for one in statements]
    try:
        await connection.execute(";\n".join(texts).encode())
    except psycopg.Error as error:
        raise error_of(error, doing) from None
