"""Visits of one resource at the same moment, as when a second operator runs: nobody is asked for help."""

import asyncio
import threading

import psycopg
import pytest

from database_bootstrap import errors
from database_bootstrap.api.outcomes import Verdict
from database_bootstrap.postgres.sqlstates import error_of
from fix_engine import Bootstrap
from localservers import PostgresServer


async def test_visits_that_race_ask_for_no_person(bootstrap: Bootstrap) -> None:
    bootstrap.drawer.put("own", {"password": "pw"})
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own", "key": "password"}
    bootstrap.raw["extensions"] = [{"name": "pg_trgm"}]
    bootstrap.migrate(
        "SQL", {"1_a.sql": "CREATE TABLE a (id int); CREATE TABLE trace (x int); INSERT INTO trace VALUES (1)"}
    )
    bootstrap.seed({"a.sql": "INSERT INTO a VALUES (1)"}, ignoreTables=["public.trace"])
    for _ in range(4):
        reports = await asyncio.gather(*(bootstrap.apply() for _ in range(4)))
        stalled = [it.trouble for it in reports if it.trouble and it.trouble.verdict is Verdict.STALLED]
        assert stalled == []
    await bootstrap.ready()
    assert bootstrap.query("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM trace)") == [(1, 1)]


@pytest.mark.parametrize(
    "statement",
    ["CREATE ROLE {}", "CREATE SCHEMA {}", "CREATE EXTENSION pg_trgm; CREATE ROLE {}"],
    ids=lambda it: it.split()[1].lower(),
)
def test_name_that_another_session_is_just_taking_is_looked_at_again(
    statement: str, postgres_server: PostgresServer, unique_name: object
) -> None:
    assert callable(unique_name)
    text = statement.format(unique_name("raced")).encode()
    refused: list[psycopg.Error] = []
    with psycopg.connect(postgres_server.dsn()) as first, psycopg.connect(postgres_server.dsn()) as second:

        def race() -> None:
            try:
                second.execute(text)
            except psycopg.Error as error:
                refused.append(error)

        first.execute(text)
        racer = threading.Thread(target=race)
        racer.start()
        waits = f"SELECT 1 FROM pg_stat_activity WHERE pid = {second.info.backend_pid} AND wait_event_type = 'Lock'"
        while postgres_server.psql(waits) == "":
            assert racer.is_alive()
        first.commit()
        racer.join()
    assert [type(error_of(error, "try")) for error in refused] == [errors.NotConverging]
