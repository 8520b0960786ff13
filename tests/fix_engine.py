"""The engine on a real server, with Secrets and ConfigMaps kept in a dictionary in place of a cluster."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from database_bootstrap.api.binding import Connection, secret_data
from database_bootstrap.api.outcomes import Outcome, StageName
from database_bootstrap.api.servers import parse_server
from database_bootstrap.api.status import Status
from database_bootstrap.api.v1alpha1 import parse_spec
from database_bootstrap.bundles.bundle import SCRIPTS, Bundle, Limits
from database_bootstrap.bundles.sources import ConfigMapData, bundle_of_config_maps
from database_bootstrap.errors import ClusterUnavailable, NotOwned, ReferenceNotFound
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.reconcile import Engine
from database_bootstrap.stages.deletion import Ending
from database_bootstrap.stages.subject import Facts, Report, Subject
from database_bootstrap.stages.surroundings import KeptSecret, SharedServer
from localservers import Credentials, PostgresServer
from sandbox_here import SANDBOX

_CURE = re.compile(r'let a superuser run(?: in database "((?:[^"]|"")+)")?: (.*)', re.DOTALL)


@dataclass
class Drawer:
    """Secrets and ConfigMaps of one namespace, and how often they were written."""

    uid: str
    secrets: dict[str, KeptSecret] = field(default_factory=dict)
    config_maps: dict[str, ConfigMapData] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    alive: list[Owner] = field(default_factory=list)
    """Other resources that are there."""

    hidden: bool = False
    """Nobody can see from here which other resources are there."""

    async def lives(self, owner: Owner) -> bool | None:
        return None if self.hidden else owner in self.alive

    servers: dict[str, SharedServer] = field(default_factory=dict)
    """What the platform team offers."""
    platform: dict[tuple[str, str], Mapping[str, bytes]] = field(default_factory=dict)
    """Secrets and ConfigMaps of the platform team, by namespace and name."""

    unreadable: ClusterUnavailable | None = None
    """What the API says to whoever reads something of the platform team."""

    def qualify(self, host: str, namespace: str | None = None) -> str:
        return host

    async def server(self, name: str) -> SharedServer:
        if name not in self.servers:
            raise ReferenceNotFound(f"DatabaseServer {name} is not there")
        return self.servers[name]

    async def secret_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        if self.unreadable:
            raise self.unreadable
        return self.platform.get((namespace, name))

    async def config_map_in(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        return self.platform.get((namespace, name))

    async def secret(self, name: str) -> KeptSecret | None:
        return self.secrets.get(name)

    async def bundle(self, config_maps: tuple[str, ...], limits: Limits = SCRIPTS) -> Bundle:
        for name in config_maps:
            if name not in self.config_maps:
                raise ReferenceNotFound(f"ConfigMap {name} is not there")
        return bundle_of_config_maps([self.config_maps[name] for name in config_maps], limits)

    async def keep_password(self, name: str, username: str, password: str, rotation: str | None = None) -> bool:
        if name in self.secrets:
            return False
        self.put(name, {"username": username, "password": password}, ours=True, rotation=rotation)
        self.writes.append(name)
        return True

    async def replace_password(self, name: str, username: str, password: str, rotation: str) -> None:
        assert self.secrets[name].ours
        self.put(name, {"username": username, "password": password}, ours=True, rotation=rotation)
        self.writes.append(name)

    async def publish(self, name: str, connection: Connection, incarnation: str | None) -> None:
        if name in self.secrets and not self.secrets[name].ours:
            raise NotOwned(f"Secret {name} is somebody else's")
        self.put(name, secret_data(connection), ours=True, incarnation=incarnation)
        self.writes.append(name)

    async def delete_secret(self, name: str) -> bool | None:
        if name not in self.secrets:
            return None
        if not self.secrets[name].ours:
            return False
        del self.secrets[name]
        return True

    def put(
        self,
        name: str,
        data: Mapping[str, str],
        *,
        ours: bool = False,
        incarnation: str | None = None,
        rotation: str | None = None,
    ) -> None:
        encoded = {key: value.encode() for key, value in data.items()}
        self.secrets[name] = KeptSecret(data=encoded, ours=ours, incarnation=incarnation, rotation=rotation)


@dataclass
class Bootstrap:
    """One resource, its surroundings, and the server that it is about."""

    engine: Engine
    server: PostgresServer
    admin: Credentials
    raw: dict[str, Any]
    owner: Owner
    drawer: Drawer
    status: Status = field(default_factory=Status)
    annotations: dict[str, str] = field(default_factory=dict)
    progress: list[tuple[Outcome, ...]] = field(default_factory=list)

    @property
    def role(self) -> str:
        return str(self.raw["role"]["name"])

    @property
    def database(self) -> str:
        return str(self.raw["database"]["name"])

    @property
    def subject(self) -> Subject:
        return Subject(owner=self.owner, spec=parse_spec(self.raw), status=self.status, annotations=self.annotations)

    async def apply(self) -> Report:
        async def told(outcomes: Any, facts: Facts) -> None:
            self.progress.append(tuple(outcomes))

        return await self.engine.reconcile(self.subject, self.drawer, told)

    async def plan(self) -> Report:
        return await self.engine.plan(self.subject, self.drawer)

    async def delete(self) -> Ending:
        return await self.engine.delete(self.subject, self.drawer)

    def remember(self, report: Report) -> None:
        """Keep in the status what the controller would keep."""
        self.status = report.facts.over(self.status)

    async def ready(self) -> Report:
        """Apply, and insist that it succeeds."""
        report = await self.apply()
        if report.trouble:
            pytest.fail(f"{report.trouble.reason}: {report.trouble.message}")
        return report

    def inline(self, **files: str) -> dict[str, Any]:
        return {"inline": [{"path": path, "content": content} for path, content in files.items()]}

    def migrate(self, tool: str, files: Mapping[str, str], **options: Any) -> None:
        """Ask for these migrations."""
        self.raw["migrations"] = {"tool": tool, "source": self.inline(**files), **options}

    def seed(self, files: Mapping[str, str], **options: Any) -> None:
        """Ask for this seed."""
        self.raw["seed"] = {"source": self.inline(**files), **options}

    def offer(self, name: str = "main", *, labels: Mapping[str, str] | None = None, **spec: Any) -> None:
        """Offer the server to this resource's namespace, which names it from now on, or offer it on other terms."""
        least = {"adminSecretRef": {"namespace": "platform", "name": "postgres"}, "allowedNamespaces": {}}
        open_names = {"allowedNames": {"roles": ["*"], "databases": ["*"], "accessRoles": ["*"]}}
        parsed = parse_server(least | open_names | spec)
        self.drawer.servers[name] = SharedServer(name=name, spec=parsed, labels=labels or {})
        access = {"host": self.server.host, "port": str(self.server.port)}
        login = {"username": self.admin.user, "password": self.admin.password}
        encoded = {key: value.encode() for key, value in (access | login).items()}
        self.drawer.platform.setdefault(("platform", "postgres"), encoded)
        self.raw["server"] = {"ref": {"name": name}}

    def connection(self) -> dict[str, Any]:
        data = self.drawer.secrets[f"{self.owner.name}-db"].data
        return {
            "host": data["host"].decode(),
            "port": int(data["port"]),
            "dbname": data["database"].decode(),
            "user": data["username"].decode(),
            "password": data["password"].decode(),
        }

    def query(self, query: str, **overrides: Any) -> list[Any]:
        """Run a query as the application would, with the published Secret."""
        with psycopg.connect(**(self.connection() | overrides)) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def as_superuser(self, query: str, dbname: str = "postgres") -> list[Any]:
        """Run a query as the server's own superuser."""
        with psycopg.connect(self.server.dsn(dbname), autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def run_cure(self, message: str) -> str:
        """Run as a superuser, word for word and where it says, what a message tells one to run; return it."""
        found = _CURE.search(message)
        assert found, f"It says nothing to run: {message}"
        database, statements = found[1], found[2]
        self.as_superuser(statements, database.replace('""', '"') if database else "postgres")
        return str(statements)

    def another(self, name: str) -> "Bootstrap":
        """Return a second resource that wants the same role and database."""
        uid = str(uuid.uuid4())
        drawer = Drawer(uid=uid, secrets={"admin": self.drawer.secrets["admin"]})
        return replace(self, owner=replace(self.owner, name=name, uid=uid), drawer=drawer, status=Status())


def outcome(report: Report, stage: StageName) -> Outcome:
    return next(outcome for outcome in report.outcomes if outcome.stage is stage)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(sandbox=SANDBOX)
    yield engine
    await engine.stop()


@pytest.fixture
def make_bootstrap(
    engine: Engine, postgres_server: PostgresServer, admin: Credentials, unique_name: Callable[[str], str]
) -> Callable[[str], Bootstrap]:
    """Return a function that makes one more resource on the same server."""

    def make(name: str) -> Bootstrap:
        uid = str(uuid.uuid4())
        drawer = Drawer(uid=uid)
        drawer.put(
            "admin",
            {
                "host": postgres_server.host,
                "port": str(postgres_server.port),
                "username": admin.user,
                "password": admin.password,
            },
        )
        raw = {
            "server": {"adminSecretRef": {"name": "admin"}},
            "role": {"name": unique_name(f"{name}_role")},
            "database": {"name": unique_name(f"{name}_db")},
        }
        owner = Owner(cluster="tests", namespace="shop", name=name, uid=uid)
        return Bootstrap(engine=engine, server=postgres_server, admin=admin, raw=raw, owner=owner, drawer=drawer)

    return make


@pytest.fixture
def bootstrap(make_bootstrap: Callable[[str], Bootstrap]) -> Bootstrap:
    """A resource that wants a role and a database, and nothing else yet."""
    return make_bootstrap("shop")


async def within(seconds: float, condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
