"""What the engine remembers of servers: while one is in use, or away, and no longer."""

import asyncio
import gc
import socket

from database_bootstrap.api.outcomes import Reason
from database_bootstrap.api.status import Status
from database_bootstrap.api.v1alpha1 import parse_spec
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.postgres.server import Server
from database_bootstrap.reconcile import Engine
from database_bootstrap.stages.subject import Report, Subject
from fix_engine import Drawer

SPEC = {"server": {"adminSecretRef": {"name": "admin"}}, "role": {"name": "r"}, "database": {"name": "d"}}


def servers() -> int:
    gc.collect()
    return sum(type(it) is Server for it in gc.get_objects())


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def visited(engine: Engine, port: int) -> Report:
    drawer = Drawer(uid="uid")
    drawer.put("admin", {"host": "127.0.0.1", "port": str(port), "username": "postgres", "password": "secret"})
    owner = Owner(cluster="tests", namespace="shop", name="shop", uid="uid")
    report = await engine.reconcile(Subject(owner=owner, spec=parse_spec(SPEC), status=Status()), drawer)
    assert report.trouble and report.trouble.reason is Reason.SERVER_UNREACHABLE
    return report


async def test_server_is_remembered_while_it_is_away_and_forgotten_with_its_last_visit() -> None:
    before, engine, ports = servers(), Engine(), [closed_port() for _ in range(3)]
    first = [await visited(engine, port) for port in ports]
    assert servers() - before == len(ports)
    # The outage that the first visit found is the one that the second is refused for, though nobody holds the server.
    again = [await visited(engine, port) for port in ports]
    assert [report.refused for report in again] == [True] * len(ports)
    assert [report.outage for report in again] == [report.outage for report in first]
    await engine.stop_asking()
    await asyncio.sleep(0)
    assert servers() == before
