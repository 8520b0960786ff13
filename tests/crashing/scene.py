"""The scene of a crash: places for resources, each with proxies of its own, and an operator that serves them all."""

import base64
import http.client
import itertools
import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from crashing import stock
from crashing.api_proxy import ApiProxy
from crashing.gates import Gate, Place
from crashing.postgres_proxy import PostgresProxy
from crashing.proxies import Loop
from crashing.stock import STOCKS, Stock
from database_bootstrap.api import names
from fix_operator import BOOTSTRAPS, Operator, writes
from localservers import ControlPlane, Credentials, PostgresServer

POSTGRES, API = "PostgreSQL", "API server"
EVERYWHERE = f"/apis/{names.GROUP}/{names.VERSION}/{names.PLURAL}"
PAUSE_SECONDS = 0.03
HOLD_SECONDS = 8.0
"""For so long the first one that is held waits for the others: the operator gives up a request after ten."""
SETTLE_SECONDS = 90.0
READER = "walk_reader"
"""A role of somebody else's, whom resources may give access."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A message of a story without trouble, and where it is when the trouble begins."""

    story: str
    server: str
    number: int
    place: Place

    def __str__(self) -> str:
        return f"{self.story}, {self.server}, {self.place} message {self.number}"


@dataclass(frozen=True, slots=True)
class Berth:
    """A namespace with what resources refer to, and a way of its own to PostgreSQL."""

    namespace: str
    postgres: PostgresProxy


def _nothing_wrong(scene: "Scene", case: "Case") -> Iterator[str]:
    return iter(())


Judge = Callable[["Scene", "Case"], Iterator[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happens to a resource while something goes wrong."""

    stock: Stock
    spec: Mapping[str, Any] = field(default_factory=dict)
    """What it asks for besides."""
    change: Callable[["Scene", "Case"], None] | None = None
    """How it is changed once it is ready; None: it is made."""
    lasting: Judge = _nothing_wrong
    """Yields what is wrong at any moment of it."""
    faults: Judge = _nothing_wrong
    """Yields what is wrong in the end, beside what is wrong with any resource."""


@dataclass(eq=False, kw_only=True)
class Case:
    """One resource on its way."""

    point: Point | None
    story: Story
    berth: Berth
    name: str
    role: str
    database: str
    gates: dict[str, Gate]
    body: dict[str, Any] = field(default_factory=dict)
    """As the API server has it."""
    events: int = 0
    """How many there were before it was changed."""
    password: str = ""
    """What it was before it was changed."""

    @property
    def stock(self) -> Stock:
        return self.story.stock

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body.get("status", {})
        return found

    @property
    def ready(self) -> tuple[str, str, str]:
        """Return status, reason and message of the condition Ready."""
        conditions = self.status.get("conditions", [])
        found: dict[str, str] = next((one for one in conditions if one["type"] == "Ready"), {})
        return found.get("status", ""), found.get("reason", ""), found.get("message", "")

    @property
    def is_ready(self) -> bool:
        """Whether it says so of what it is now, and every visit that was asked for was made."""
        asked = self.body["metadata"].get("annotations", {}).get(names.ANNOTATION_RECONCILE_REQUESTED_AT)
        is_seen = self.status.get("observedGeneration") == self.body["metadata"]["generation"]
        return self.ready[0] == "True" and is_seen and self.status.get("lastHandledReconcileAt") == asked

    @property
    def is_stalled(self) -> bool:
        """Whether only a person can go on."""
        return any(one["type"] == "Stalled" for one in self.status.get("conditions", []))

    @property
    def is_half_applied(self) -> bool:
        """Whether it waits for a person for the one reason that may be."""
        return self.stock.alone is not None and self.ready[1] == "MigrationHalfApplied"

    @property
    def struck(self) -> str:
        """What was held or cut, in words; empty where it did not come to that."""
        return next((gate.struck.words for gate in self.gates.values() if gate.struck), "")


class Api:
    """The API server as its administrator, over one connection that is kept."""

    def __init__(self, plane: ControlPlane) -> None:
        self._headers = {"Authorization": f"Bearer {plane.token}", "Content-Type": "application/json"}
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        self._connection = http.client.HTTPSConnection(urlsplit(plane.url).netloc, timeout=30, context=context)

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        merge = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {**self._headers, **merge})
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status < 300, f"{method} {path}: {answer.status} {text.decode()}"
        return json.loads(text)

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        data = self("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def close(self) -> None:
        self._connection.close()


class Scene:
    """Berths, resources in them, and the operator: killed, cut off, or left without its server."""

    def __init__(self, plane: ControlPlane, server: PostgresServer, admin: Credentials, loop: Loop) -> None:
        self.plane, self.server, self.admin = plane, server, admin
        self.api = Api(plane)
        self.loop = loop
        self.proxy = ApiProxy(plane.url, plane.ca_file)
        loop.run(self.proxy.start())
        self.berths: list[Berth] = []
        self._names = (f"shop-{number}" for number in itertools.count(1))
        self._tokens = map(str, itertools.count(1))
        server.psql(f"CREATE ROLE {READER} LOGIN")

    def close(self) -> None:
        for proxy in (self.proxy, *(berth.postgres for berth in self.berths)):
            self.loop.run(proxy.stop())
        self.api.close()

    def kubeconfig(self, shipped: str) -> dict[str, Any]:
        """Return the shipped ServiceAccount's access, by way of the proxy."""
        access: dict[str, Any] = json.loads(shipped)
        access["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.proxy.port}"}
        return access

    def add_berth(self, namespace: str) -> None:
        """Furnish a namespace."""
        proxy = PostgresProxy(self.server.host, self.server.port)
        self.loop.run(proxy.start())
        access = {"host": self.server.host, "port": str(proxy.port), "sslmode": "disable"}
        login = {"username": self.admin.user, "password": self.admin.password}
        path = f"/api/v1/namespaces/{namespace}"
        self.api("POST", f"{path}/secrets", {"metadata": {"name": "admin"}, "stringData": access | login})
        for name, data in {"seed": stock.SEED, **{stock.config_map(it): it.files for it in STOCKS.values()}}.items():
            self.api("POST", f"{path}/configmaps", {"metadata": {"name": name}, "data": data})
        self.berths.append(Berth(namespace, proxy))

    def begin(self, berth: Berth, story: Story, point: Point | None = None, *, cuts: bool = False) -> Case:
        """Apply a resource of a name that was never there; where it is to be made, with its gates set."""
        name = next(self._names)
        unique = f"{name.replace('-', '_')}_{berth.namespace[-8:]}"
        actions = {POSTGRES: berth.postgres.cut, API: _leave_it_to_the_connection}
        gates = {
            server: Gate(point.number, point.place, cut=actions[server] if cuts else None)
            if point and point.server == server
            else Gate()
            for server in (POSTGRES, API)
        }
        case = Case(
            point=point,
            story=story,
            berth=berth,
            name=name,
            role=f"role_{unique}",
            database=f"db_{unique}",
            gates=gates,
        )
        if story.change is None:
            self._set_gates(case)
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name},
            "spec": {**stock.spec(story.stock, case.role, case.database), **story.spec},
        }
        case.body = self.api("POST", BOOTSTRAPS.format(berth.namespace), body)
        return case

    def change(self, cases: Iterable[Case]) -> None:
        """Have those that are to be changed made without trouble; then set their gates, and change them."""
        changing = [case for case in cases if case.story.change]
        self.wait(changing, self._is_over)
        for case in changing:
            case.events = self._events(case)
            case.password = self.secret(case, "db")["password"]
        for case in changing:
            self._set_gates(case)
            assert case.story.change
            case.story.change(self, case)
            case.body = self.api("GET", f"{BOOTSTRAPS.format(case.berth.namespace)}/{case.name}")

    def _set_gates(self, case: Case) -> None:
        case.berth.postgres.gate, self.proxy.gates[case.berth.namespace] = case.gates[POSTGRES], case.gates[API]

    def release(self, cases: Iterable[Case]) -> None:
        """Close the connections that are held, and stop counting."""
        for case in cases:
            for gate in case.gates.values():
                self.loop.call(gate.release)
            case.berth.postgres.gate = Gate()
            self.proxy.gates.pop(case.berth.namespace, None)

    def wait_until_held(self, cases: Sequence[Case]) -> None:
        """Wait until each is held at its point, or has come to its end without."""
        first: list[float] = []

        def held() -> bool:
            fired = [case for case in cases if case.struck]
            if fired and not first:
                first.append(time.monotonic())
            return bool(first and time.monotonic() - first[0] > HOLD_SECONDS)

        self.wait(cases, lambda case: bool(case.struck) or self._is_over(case), enough=held)

    def wait_until_settled(self, cases: Sequence[Case]) -> None:
        """Wait until each is ready, or says that it needs a person."""
        self.wait(cases, lambda case: case.is_ready or case.is_stalled)

    def wait(
        self, cases: Sequence[Case], condition: Callable[[Case], bool], enough: Callable[[], bool] = lambda: False
    ) -> None:
        """Look until the condition holds for all, or time is up."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            found = {item["metadata"]["uid"]: item for item in self.api("GET", EVERYWHERE)["items"]}
            for case in cases:
                case.body = found[case.body["metadata"]["uid"]]
            if all(map(condition, cases)) or enough():
                return
            if time.monotonic() > deadline:
                late = [f"{case.point}: {json.dumps(case.status)}" for case in cases if not condition(case)]
                pytest.fail("\n".join([f"not within {SETTLE_SECONDS:.0f} s:", *late]))
            time.sleep(PAUSE_SECONDS)

    def _is_over(self, case: Case) -> bool:
        """Whether all was done without trouble: the event is the last word."""
        return case.is_ready and self._events(case) > case.events

    def _events(self, case: Case) -> int:
        path = f"/apis/events.k8s.io/v1/namespaces/{case.berth.namespace}/events"
        return sum(event["regarding"]["name"] == case.name for event in self.api("GET", path)["items"])

    def annotate(self, case: Case, annotations: Mapping[str, str], **changed: object) -> None:
        """Give a person's word."""
        path = f"{BOOTSTRAPS.format(case.berth.namespace)}/{case.name}"
        self.api("PATCH", path, {"metadata": {"annotations": dict(annotations)}, **changed})

    def ask_for_visit(self, cases: Iterable[Case], annotations: Mapping[str, str] = {}, **changed: object) -> None:
        """Have each looked at again, as it is with these changes."""
        for case in cases:
            word = {names.ANNOTATION_RECONCILE_REQUESTED_AT: next(self._tokens)}
            self.annotate(case, {**word, **annotations}, **changed)

    def secret(self, case: Case, suffix: str) -> dict[str, str]:
        """Return one of the resource's two Secrets."""
        return self.api.secret(case.berth.namespace, f"{case.name}-{suffix}")

    def writes(self, case: Case, what: str) -> int:
        """Return how often the operator has written this, as `patch secrets shop-1-role 200`."""
        return writes(self.plane, case.berth.namespace).count(what)

    def clear(self, cases: Iterable[Case]) -> None:
        """Remove resources, databases and roles."""
        statements = []
        for case in cases:
            self.api("DELETE", f"{BOOTSTRAPS.format(case.berth.namespace)}/{case.name}")
            statements += [
                f"DROP DATABASE IF EXISTS {case.database} WITH (FORCE);",
                f"DROP ROLE IF EXISTS {case.role};",
            ]
        self.server.psql("\n".join(statements))


def _leave_it_to_the_connection() -> None:
    """Nothing more than the one connection is cut: the API server has many, for many resources."""


def kill(scene: Scene, operator: Operator, cases: Sequence[Case]) -> None:
    """Kill the operator while each resource is held, and start it again."""
    operator.kill()
    scene.release(cases)
    operator.start(ready=False)


def kill_postgres(scene: Scene, operator: Operator, cases: Sequence[Case]) -> None:
    """Kill PostgreSQL with all its backends while each resource is held, and let it recover; the operator lives."""
    scene.server.kill()
    scene.release(cases)
    scene.server.start_again()


def short(words: str) -> str:
    """Return the beginning of a statement."""
    return re.sub(r"\s+", " ", words)[:70]
