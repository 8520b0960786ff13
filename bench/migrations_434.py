"""434 Prisma migrations: our tool against one psql session that sends the same files to the same server."""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from uuid import uuid4

import psycopg
from psycopg import sql

from database_bootstrap.bundles.bundle import File, bundle_of
from database_bootstrap.postgres import ledger, locks, session
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.login import Endpoint, Login
from database_bootstrap.postgres.ownership import Origin
from database_bootstrap.tools.prisma import Prisma
from database_bootstrap.tools.tool import Options, Run

COUNT = 434
LIMIT = 2.0
ROLE = "bench_434"
WORDS = ("Cart", "Order", "Product", "Review", "Invoice", "Coupon", "Stock", "Address", "Payment", "Category")


def migrations() -> Iterator[tuple[str, str]]:
    """Return directory names and scripts as `prisma migrate dev` writes them: a table, later columns and indexes."""
    chance = random.Random(434)
    tables: list[str] = []
    for number in range(COUNT):
        stamp = f"{date(2024, 1, 1) + timedelta(days=number):%Y%m%d}093000"
        if number % 4 == 0:
            table = f"{WORDS[number // 4 % 10]}{number}"
            tables.append(table)
            yield f"{stamp}_create_{table}", _table(table, tables[-2] if len(tables) > 1 else None)
        elif number % 4 == 3:
            yield f"{stamp}_v1.{number}.0 data", _rows(chance.choice(tables), number)
        else:
            yield f"{stamp}_add_Column.{number}", _columns(chance.choice(tables), number)


def _table(name: str, parent: str | None) -> str:
    script = (
        f'-- CreateTable\nCREATE TABLE "{name}" (\n    "id" SERIAL NOT NULL,\n    "name" TEXT NOT NULL DEFAULT \'\',\n'
        f'    "parentId" INTEGER,\n    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,\n\n'
        f'    CONSTRAINT "{name}_pkey" PRIMARY KEY ("id")\n);\n\n'
        f'-- CreateIndex\nCREATE INDEX "{name}_name_idx" ON "{name}"("name");\n'
    )
    if parent:
        script += (
            f'\n-- AddForeignKey\nALTER TABLE "{name}" ADD CONSTRAINT "{name}_parentId_fkey" FOREIGN KEY ("parentId")'
            f' REFERENCES "{parent}"("id") ON DELETE SET NULL ON UPDATE CASCADE;\n'
        )
    return script


def _columns(table: str, number: int) -> str:
    return (
        f'-- AlterTable\nALTER TABLE "{table}" ADD COLUMN "field{number}" TEXT,\n'
        f'ADD COLUMN "count{number}" INTEGER NOT NULL DEFAULT 0;\n\n'
        f'-- CreateIndex\nCREATE INDEX "{table}_field{number}_idx" ON "{table}"("field{number}");\n'
    )


def _rows(table: str, number: int) -> str:
    values = ", ".join(f"('name {number} {row}; it''s')" for row in range(10))
    return f'INSERT INTO "{table}" ("name") VALUES {values};\nUPDATE "{table}" SET "name" = "name" || \'!\';\n'


def psql_seconds(dsn: str, folder: Path) -> float:
    """Return how long one psql needs for all files."""
    listing = folder / "all.psql"
    files = sorted(folder.glob("*/migration.sql"))
    listing.write_text("".join(f"\\i '{file}'\n" for file in files))
    begun = time.perf_counter()
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", str(listing)], check=True)
    return time.perf_counter() - begun


async def our_seconds(login: Login, folder: Path) -> float:
    """Return how long our tool needs, from the files to the last commit."""
    options = Options(schema="public")
    begun = time.perf_counter()
    tool = Prisma()
    source = tool.load(bundle_of(_files_in(folder)))
    connection = await session.connect(login, session.OWNER)
    async with connection:
        await locks.acquire(connection)
        comparison = tool.compare(source, await tool.read(connection, options), options)
        await tool.apply(source, comparison.pending, _run(connection, login, options))
        elapsed = time.perf_counter() - begun
        again = tool.compare(source, await tool.read(connection, options), options)
        assert (again.applied, again.pending) == (COUNT, ()), again
    return elapsed


def _files_in(folder: Path) -> list[File]:
    files = folder.glob("*/migration.sql")
    return [File(path=str(file.relative_to(folder)), content=file.read_bytes()) for file in files]


def _run(connection: Connection, login: Login, options: Options) -> Run:
    async def applied(name: str) -> None:
        """Nobody is told."""

    return Run(
        connection=connection,
        login=login,
        options=options,
        actor="bench",
        verify_lock=partial(locks.verify, connection),
        applied=applied,
    )


class Database:
    """A new database of the role, with our ledger; dropped at the end."""

    def __init__(self, admin: str, name: str) -> None:
        self.admin, self.name = admin, name
        self.info = psycopg.conninfo.conninfo_to_dict(admin)

    async def __aenter__(self) -> "Database":
        async with await psycopg.AsyncConnection.connect(self.admin, autocommit=True) as connection:
            await connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(self.name)))
            await connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(self.name), sql.Identifier(ROLE))
            )
        async with await Connection.connect(self.dsn(self.admin), autocommit=True) as connection:
            identity = ledger.Identity(
                incarnation=uuid4(), cluster="bench", namespace="n", name="n", uid="u", origin=Origin.CREATED
            )
            await ledger.make(connection, identity, ROLE)
        return self

    async def __aexit__(self, *_: object) -> None:
        async with await psycopg.AsyncConnection.connect(self.admin, autocommit=True) as connection:
            await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name)))

    def dsn(self, base: str, **changes: str) -> str:
        return psycopg.conninfo.make_conninfo(base, dbname=self.name, **changes)

    def login(self, password: str) -> Login:
        endpoint = Endpoint(
            host=str(self.info["host"]), port=int(self.info.get("port") or 5432), require_auth="scram-sha-256"
        )
        return Login(endpoint=endpoint, user=ROLE, password=password, database=self.name)


async def measure(admin: str, rounds: int) -> tuple[list[float], list[float]]:
    """Return seconds of psql and of ours, taking turns, each in a database of its own."""
    password = uuid4().hex
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        await connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(ROLE)))
        await connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(ROLE), password))
    theirs, ours = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, script in migrations():
            (folder / name).mkdir()
            (folder / name / "migration.sql").write_text(script)
        for _ in range(rounds):
            async with Database(admin, f"{ROLE}_psql") as database:
                dsn = database.dsn(admin, user=ROLE, password=password)
                theirs.append(await asyncio.to_thread(psql_seconds, dsn, folder))
            async with Database(admin, f"{ROLE}_ours") as database:
                ours.append(await our_seconds(database.login(password), folder))
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        await connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(ROLE)))
    return theirs, ours


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", default=os.environ.get("BENCH_DSN"), help="an administrator's, as host=… user=…")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not arguments.dsn:
        parser.error("--dsn or BENCH_DSN must name a server")
    theirs, ours = asyncio.run(measure(arguments.dsn, arguments.rounds))
    ratio = median(ours) / median(theirs)
    print(f"{COUNT} migrations, median of {arguments.rounds}")
    print(f"  psql, one session  {median(theirs):6.2f} s")
    print(f"  ours               {median(ours):6.2f} s")
    print(f"  ratio              {ratio:6.2f}   (limit {LIMIT})")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
