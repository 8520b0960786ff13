"""A role with its database and ledger, on which Alembic projects are applied as the stage applies them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from psycopg import sql

from database_bootstrap.postgres import ledger, locks, session
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.login import Endpoint, Login
from database_bootstrap.postgres.ownership import Origin
from database_bootstrap.settings import Sandbox, SandboxMode
from database_bootstrap.tools.alembic import Alembic
from database_bootstrap.tools.sandbox import Zygote, level
from database_bootstrap.tools.tool import Comparison, Gate, Options, Run
from localservers import Credentials, PostgresServer
from postgres import alembic_projects as projects
from sandbox_here import LEVEL, SANDBOX

PASSWORD = "p%w/: @'ü\\x"
OPTIONS = Options(schema="public")
Project = Mapping[str, str]


@dataclass
class Shop:
    """A role with its database and ledger, and a session of the operator's that holds the lock."""

    server: PostgresServer
    login: Login
    connection: Connection
    zygote: Zygote
    applied: list[str] = field(default_factory=list)
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    async def apply(self, files: Project, options: Options = OPTIONS) -> Comparison:
        """Do what the stage does: look, compare, apply, look again; return what is to be done after it."""
        tool = Alembic(self.zygote, SANDBOX)
        source = tool.load(projects.bundle(files))
        history = await tool.read(self.connection, options)
        await tool.apply(source, tool.compare(source, history, options).pending, self.run(options))
        return tool.compare(source, await tool.read(self.connection, options), options)

    async def look(self, files: Project, options: Options = OPTIONS) -> Comparison:
        tool = Alembic(self.zygote, SANDBOX)
        return tool.compare(tool.load(projects.bundle(files)), await tool.read(self.connection, options), options)

    def run(self, options: Options) -> Run:
        async def applied(name: str) -> None:
            self.applied.append(name)

        return Run(
            connection=self.connection,
            login=self.login,
            options=options,
            gate=Gate(is_open=True),
            actor="shop/orders",
            verify_lock=partial(locks.verify, self.connection),
            applied=applied,
        )

    def ask(self, query: str) -> list[str]:
        """Return the lines of a query's answer over a session of its own."""
        credentials = Credentials(user=self.login.user, password=self.login.password)
        return self.server.psql(query, dbname=self.login.database, credentials=credentials).splitlines()

    def tables(self, schema: str = "public") -> set[str]:
        return set(self.ask(f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'"))

    def alembic(self, folder: Path, files: Project, *words: str) -> "subprocess.Popen[str]":
        """Start the `alembic` command with the project in this folder, as the application would."""
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            url = "postgresql+psycopg://"
            (folder / path).write_text(text.replace("driver://user:pass@localhost/dbname", url))
        credentials = Credentials(user=self.login.user, password=self.login.password)
        process = subprocess.Popen(
            [Path(sys.executable).with_name("alembic"), *words],
            cwd=folder,
            env={
                **self.server.client_environment(self.login.database, credentials),
                "PATH": os.environ["PATH"],
                "PGAPPNAME": "shop",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    async def says(self, folder: Path, files: Project, *words: str) -> str:
        process = self.alembic(folder, files, *words)
        output, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, output
        return output


def pytest_report_header() -> str:
    return f"Alembic's sandbox: {level.describe(Sandbox(), LEVEL)}"


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    one = Zygote(confined=SANDBOX.mode is SandboxMode.SANDBOXED)
    yield one
    asyncio.run(one.stop())


@pytest.fixture(scope="module")
def loose_zygote() -> Iterator[Zygote]:
    """One that does not confine: revisions of tests can meet at files there."""
    one = Zygote(confined=False)
    yield one
    asyncio.run(one.stop())


ShopMaker = Callable[[str], Awaitable[Shop]]


@pytest_asyncio.fixture
async def make_shop(
    postgres_server: PostgresServer, unique_name: Callable[[str], str], zygote: Zygote
) -> AsyncIterator[ShopMaker]:
    """Return a function that makes a role, its database and the ledger in it."""
    made: list[Shop] = []
    server = postgres_server
    endpoint = Endpoint(host=server.host, port=server.port)

    async def make(name: str) -> Shop:
        name = unique_name(name)
        superuser = Login(endpoint=endpoint, user=server.superuser, password=server.password, database=name)
        login = replace(superuser, user=name, password=PASSWORD, application_name="dbbootstrap/shop/orders")
        identity = ledger.Identity(
            incarnation=uuid4(), cluster="c", namespace="shop", name="orders", uid="u", origin=Origin.CREATED
        )
        async with await session.connect(superuser.to("postgres"), session.ADMINISTRATOR) as administrator:
            role = sql.Identifier(name)
            login_role = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(PASSWORD))
            await administrator.execute(login_role)
            await administrator.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        async with await session.connect(superuser, session.ADMINISTRATOR) as administrator:
            await ledger.make(administrator, identity, name)
        connection = await session.connect(login, session.OWNER)
        await locks.acquire(connection)
        made.append(Shop(server=server, login=login, connection=connection, zygote=zygote))
        return made[-1]

    yield make
    for shop in made:
        await shop.connection.close()
        for process in shop.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest_asyncio.fixture
async def shop(make_shop: ShopMaker) -> Shop:
    return await make_shop("shop")


@pytest_asyncio.fixture
async def loose_shop(shop: Shop, loose_zygote: Zygote) -> Shop:
    """The shop, where revisions are not confined."""
    return replace(shop, zygote=loose_zygote)


async def until(condition: Callable[[], bool], *tasks: asyncio.Task[Any]) -> None:
    """Wait for what happens elsewhere, at most half a minute, and no longer than these tasks run."""
    async with asyncio.timeout(30):
        while not condition() and not any(task.done() for task in tasks):
            await asyncio.sleep(0.02)
