"""What can be done to a database; each action is one statement or one transaction."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import LiteralString

import psycopg
from psycopg import sql

from database_bootstrap.api.v1alpha1 import LocaleProvider, Spec
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ownership import Mark, Origin, mark_in
from database_bootstrap.postgres.sqlstates import error_of
from database_bootstrap.stages import marking
from database_bootstrap.stages.role_actions import from_whom
from database_bootstrap.stages.sessions import execute, rows
from database_bootstrap.stages.visit import Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDatabase:
    """CREATE DATABASE with the role as owner; the role's own comment says already whose it will be."""

    name: str

    def __str__(self) -> str:
        return f'create database "{self.name}"'

    async def run(self, visit: Visit) -> None:
        connection = await visit.sessions.administrator()
        await join_role(connection, visit.spec.role.name)
        try:
            await connection.execute(_creation(visit.spec))
        except psycopg.Error as error:
            # Where somebody was faster, the next visit looks who.
            raise error_of(error, str(self)) from None
        finally:
            visit.sessions.forget_refusal()


async def join_role(connection: Connection, role: str) -> None:
    """Make the administrator a member of the role, without which it may not make databases for it; superusers are."""
    since_16 = connection.info.server_version >= 160000
    query = "SELECT pg_catalog.pg_has_role(current_user, %s, %s)"
    ((member,),) = await rows(connection, query, (role, "SET" if since_16 else "MEMBER"), doing="look for membership")
    if not member:
        options = sql.SQL(" WITH INHERIT TRUE, SET TRUE") if since_16 else sql.SQL("")
        statement = sql.SQL("GRANT {} TO CURRENT_USER{}").format(sql.Identifier(role), options)
        await execute(connection, statement, doing=f'join role "{role}"')


def _creation(spec: Spec) -> sql.Composed:
    wanted = spec.database
    statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} ENCODING {}").format(
        sql.Identifier(wanted.name),
        sql.Identifier(spec.role.name),
        sql.Identifier(wanted.template),
        sql.Literal(wanted.encoding),
    )
    if wanted.locale:
        words = _LOCALE_WORDS[wanted.locale.provider]
        statement += sql.SQL(" LOCALE_PROVIDER {} {} {}").format(*map(sql.SQL, words), sql.Literal(wanted.locale.name))
    if wanted.connection_limit is not None:
        statement += sql.SQL(" CONNECTION LIMIT {}").format(sql.Literal(wanted.connection_limit))
    return statement


_LOCALE_WORDS: Mapping[LocaleProvider, tuple[LiteralString, LiteralString]] = {
    LocaleProvider.LIBC: ("libc", "LOCALE"),
    LocaleProvider.ICU: ("icu", "ICU_LOCALE"),
    LocaleProvider.BUILTIN: ("builtin", "BUILTIN_LOCALE"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkDatabase:
    """Say in a comment whose the database is, and close it to everybody else, once."""

    name: str
    comment: str | None = None
    """What the comment says already."""
    origin: Origin = Origin.CREATED
    is_new: bool = True
    """It was not opened to anybody by its owner yet."""

    def __str__(self) -> str:
        return f'mark database "{self.name}"' + (" and close it to PUBLIC" if self.is_new else "")

    async def run(self, visit: Visit) -> None:
        mark = Mark(owner=visit.subject.owner, database=self.name, origin=self.origin)
        comment = marking.database(self.name, self.comment, mark)
        revoke = sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(self.name))
        await execute(await visit.sessions.owner(), comment, *([revoke] if self.is_new else []), doing=str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeDatabase:
    """Take the database over: its comment names this resource from now on."""

    name: str
    comment: str | None
    origin: Origin
    is_said: bool = False
    """By a person, whose word is noted."""

    def __str__(self) -> str:
        return f'take over database "{self.name}"' + from_whom(self.comment, self.is_said)

    async def run(self, visit: Visit) -> None:
        before = mark_in(self.comment)
        assert before is not None
        mark = replace(before, owner=visit.subject.owner, database=self.name, origin=self.origin)
        statement = marking.database(self.name, self.comment, mark)
        await execute(await visit.sessions.owner(), statement, doing=str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Write into the audit log and the event what nothing needs to be done about."""

    text: str

    def __str__(self) -> str:
        return self.text

    async def run(self, visit: Visit) -> None:
        visit.noted.add(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitConnections:
    """Set the database's connection limit."""

    name: str
    limit: int

    def __str__(self) -> str:
        return f'limit database "{self.name}" to {self.limit} connections'

    async def run(self, visit: Visit) -> None:
        statement = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(
            sql.Identifier(self.name), sql.Literal(self.limit)
        )
        await execute(await visit.sessions.owner(), statement, doing=str(self))


_LISTS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"})
"""Parameters that are lists of names (GUC_LIST_QUOTE in guc_tables.c): one string would be one name with commas."""
_ELEMENT = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*?))\s*(?:,|$)')


def elements_of(name: str, value: str) -> tuple[str, ...]:
    """Return the values of a parameter as SET takes them: several for one that is a list of names."""
    if name not in _LISTS:
        return (value,)
    found = [(quoted.replace('""', '"') or plain) for quoted, plain in _ELEMENT.findall(value)]
    return tuple(element for element in found if element) or ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetParameter:
    """Set a parameter of the database, as the role: PostgreSQL itself refuses what the role may not set."""

    database: str
    name: str
    value: str

    def __str__(self) -> str:
        return f'set parameter {self.name} of database "{self.database}"'

    @property
    def statement(self) -> sql.Composed:
        """What sets it, whoever runs it."""
        values = sql.SQL(", ").join(map(sql.Literal, elements_of(self.name, self.value)))
        return sql.SQL("ALTER DATABASE {} SET {} TO {}").format(
            sql.Identifier(self.database), sql.Identifier(*self.name.split(".")), values
        )

    async def run(self, visit: Visit) -> None:
        await execute(await visit.sessions.owner(), self.statement, doing=str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSchema:
    """Make a schema that the role owns."""

    name: str

    def __str__(self) -> str:
        return f'create schema "{self.name}"'

    async def run(self, visit: Visit) -> None:
        statement = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.name))
        await execute(await visit.sessions.owner(), statement, doing=str(self))
