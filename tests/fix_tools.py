"""Migration tools on a real server, without the engine: a role, its database with our ledger, and a run."""

import re
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from database_bootstrap.api import names
from database_bootstrap.bundles.bundle import Bundle, File, bundle_of
from database_bootstrap.postgres import ledger, locks, session
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.login import Endpoint, Login, Settings
from database_bootstrap.postgres.ownership import Origin
from database_bootstrap.tools import resolution
from database_bootstrap.tools.prisma import Prisma
from database_bootstrap.tools.sql_files import SqlFiles
from database_bootstrap.tools.tool import Comparison, Options, Run, Tool
from localservers import PostgresServer

TOOLS: Mapping[str, Tool[Any]] = {"Prisma": Prisma(), "SQL": SqlFiles()}


@dataclass
class Workbench:
    """One database of a role, in which tools are run as the stage runs them."""

    server: PostgresServer
    login: Login
    applied: list[str] = field(default_factory=list)

    def query(self, query: str, *parameters: Any) -> list[Any]:
        """Run a query as the role."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            cursor = connection.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def dsn(self) -> str:
        return self.server.dsn(self.login.database, self.login.user, self.login.password)

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """Return a session of the role: the application, or another migrator."""
        return await psycopg.AsyncConnection.connect(self.dsn(), autocommit=True)

    async def look(self, tool: str, files: Mapping[str, str], **options: Any) -> Comparison:
        """Compare the files with the history, over a session that cannot write."""
        found = Options(**{"schema": "public", **options})
        async with await session.connect(self.login, session.OBSERVER) as connection:
            history = await TOOLS[tool].read(connection, found)
        return TOOLS[tool].compare(TOOLS[tool].load(bundle(files)), history, found)

    async def migrate(self, tool: str, files: Mapping[str, str], **options: Any) -> list[str]:
        """Apply what is pending, and return it; errors are the tool's own."""
        self.applied = []
        found = Options(**{"schema": "public", **options})
        async with self.session(found) as connection:
            source = TOOLS[tool].load(bundle(files))
            history = await TOOLS[tool].read(connection, found)
            todo = TOOLS[tool].compare(source, history, found)
            if todo.pending or todo.baseline:
                run = replace(self.run(connection, found), baseline=todo.baseline)
                await TOOLS[tool].apply(source, todo.pending, run)
        return self.applied

    async def resolve(self, tool: str, files: Mapping[str, str], text: str, **options: Any) -> bool:
        """Carry out what the annotation says, and return whether it counted."""
        found = Options(**{"schema": "public", **options})
        word = resolution.parse(text)
        assert word
        async with self.session(found) as connection:
            return await TOOLS[tool].resolve(TOOLS[tool].load(bundle(files)), word, self.run(connection, found))

    @asynccontextmanager
    async def session(self, options: Options) -> AsyncIterator[Connection]:
        """Open the migrating session, with the database's lock."""
        async with await session.connect(self.login, _settings_of(options)) as connection:
            await locks.acquire(connection)
            yield connection

    def run(self, connection: Connection, options: Options) -> Run:
        async def applied(name: str) -> None:
            self.applied.append(name)

        return Run(
            connection=connection,
            login=self.login,
            options=options,
            actor="test",
            verify_lock=partial(locks.verify, connection),
            applied=applied,
        )


def _settings_of(options: Options) -> Settings:
    search_path = {} if options.schema == "public" else {"search_path": sql.Identifier(options.schema).as_string()}
    limits = {"lock_timeout": f"{options.lock_timeout}s", "statement_timeout": f"{options.statement_timeout}s"}
    return {**session.OWNER, **limits, **search_path}


def cure_in(message: str, how: str) -> str:
    """Return the value of the annotation that the message asks for, as a shell reads it."""
    said = re.search(rf"'?{re.escape(names.ANNOTATION_RESOLVE)}=[^,]+={how}@[0-9a-f]{{8}}'?", message)
    assert said, message
    (argument,) = shlex.split(said.group())
    return argument.removeprefix(f"{names.ANNOTATION_RESOLVE}=")


def bundle(files: Mapping[str, str]) -> Bundle:
    return bundle_of(File(path=path, content=content.encode()) for path, content in files.items())


@pytest.fixture
def make_role(postgres_server: PostgresServer, unique_name: Callable[[str], str]) -> Callable[[str], Login]:
    """Return a function that makes a role which can log in, and returns how."""

    def make(name: str) -> Login:
        login = Login(
            endpoint=Endpoint(host=postgres_server.host, port=postgres_server.port),
            user=unique_name(name),
            password=uuid4().hex,
            database=unique_name(f"{name}_db"),
        )
        with psycopg.connect(postgres_server.dsn(), autocommit=True) as connection:
            create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login.user), login.password)
            connection.execute(create)
        return login

    return make


@pytest.fixture
def make_workbench(
    postgres_server: PostgresServer, make_role: Callable[[str], Login]
) -> Callable[[str], Awaitable[Workbench]]:
    """Return a function that makes a role's empty database, with our ledger in it."""
    numbers = count(1)

    async def make(options: LiteralString = "") -> Workbench:
        login = make_role(f"shop{next(numbers)}")
        async with await psycopg.AsyncConnection.connect(postgres_server.dsn(), autocommit=True) as connection:
            names = sql.Identifier(login.database), sql.Identifier(login.user)
            await connection.execute(sql.SQL("CREATE DATABASE {} OWNER {} ").format(*names) + sql.SQL(options))
        async with await Connection.connect(postgres_server.dsn(login.database), autocommit=True) as connection:
            identity = ledger.Identity(
                incarnation=uuid4(), cluster="tests", namespace="n", name="n", uid="u", origin=Origin.CREATED
            )
            await ledger.make(connection, identity, login.user)
        return Workbench(server=postgres_server, login=login)

    return make


@pytest_asyncio.fixture
async def workbench(make_workbench: Callable[[str], Awaitable[Workbench]]) -> Workbench:
    """A role's empty database with our ledger in it."""
    return await make_workbench("")
