"""The operator for tests: as a process under its shipped rights, or its controller with an engine of the test."""

import asyncio
import gc
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio

from database_bootstrap.api import names
from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.server_status import ServerObjectStatus
from database_bootstrap.api.status import BindingStatus
from database_bootstrap.controller.acting import Acting, Means
from database_bootstrap.controller.cluster import Cluster
from database_bootstrap.kube import access
from database_bootstrap.kube.client import Kube
from database_bootstrap.kube.recorder import Recorder
from database_bootstrap.settings import Settings
from database_bootstrap.stages.deletion import Ending
from database_bootstrap.stages.departure import Drop
from database_bootstrap.stages.inspection import Inspection
from database_bootstrap.stages.subject import Facts, Progress, Report, Subject
from database_bootstrap.stages.surroundings import Belongings, Platform, SharedServer, Surroundings
from localservers import ControlPlane, processes
from localservers.processes import Order, Server

ROOT = Path(__file__).parents[1]
WITHOUT_CAPABILITIES = Path(__file__).with_name("without_capabilities.py")
SYSTEM_NAMESPACE = "database-bootstrap-system"
SERVICE_ACCOUNT = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{names.OPERATOR}"
BOOTSTRAPS = f"/apis/{names.GROUP}/{names.VERSION}/namespaces/{{}}/{names.PLURAL}"
READY_SECONDS = 30.0

Play = Callable[[Subject, Surroundings, Progress], Awaitable[Report]]
PlayDeletion = Callable[[Subject, Belongings], Awaitable[Ending]]


class Operator:
    """`database-bootstrap run` as a process; it stops at the end of the test, or with the test's own process."""

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        arguments: Sequence[str],
        *,
        health: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log_file = folder / "operator.log"
        self._kubeconfig = kubeconfig
        self._folder = folder
        self._arguments = arguments
        self._health = health
        self._environment = environment or {}
        self.port = 0
        self._server: Server | None = None

    def start(self, *, ready: bool = True) -> Self:
        """Start it, again after it has stopped; by default wait until it watches."""
        processes.on_free_ports(partial(self._launch, ready))
        return self

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code."""
        assert self._server is not None
        return self._server.stop()

    def kill(self) -> None:
        """End it as a lost node does."""
        assert self._server is not None
        self._server.kill()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._server is not None
        self._server.send(number)

    def wait(self, seconds: float = READY_SECONDS) -> int:
        """Wait until it ends by itself, and return its exit code."""
        assert self._server is not None
        until(seconds, lambda: not self.is_running)
        return self._server.stop()

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.is_running

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What it logged, a JSON object each."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def get(self, path: str) -> tuple[int, str]:
        """Return code and text of one of its pages; 0 where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metrics(self) -> dict[str, float]:
        """Return its metrics by name with labels, as they are written."""
        lines = (line for line in self.get("/metrics")[1].splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def _launch(self, ready: bool) -> None:
        self.port = processes.free_port()
        health = self._health or f"127.0.0.1:{self.port}"
        where = ("--health-address", health, "--kubeconfig", str(self._kubeconfig))
        run = (sys.executable, "-m", "database_bootstrap", "run", *where, *self._arguments)
        command = (sys.executable, "-I", "-S", str(WITHOUT_CAPABILITIES), *run)
        home = {"PATH": os.environ["PATH"], "HOME": str(self._folder), "PYTHONUNBUFFERED": "1"}
        order = Order(
            command=command,
            log=self.log_file,
            folder=self._folder,
            environment={**home, **self._environment},
            grace=READY_SECONDS,
        )
        self._server = Server(order)
        if ready:
            until(READY_SECONDS, lambda: not self.is_running or self.get("/readyz")[0] == 200)
            if not self.is_running:
                raise processes.failure("the operator ended", self.log_file)


@dataclass
class Rehearsal:
    """An engine that does what the test says, and knows what it was asked."""

    visits: list[Subject] = field(default_factory=list)
    play: Play | None = None
    """What a visit does; by default it finds everything done."""
    deletions: list[Subject] = field(default_factory=list)
    inspections: list[SharedServer] = field(default_factory=list)
    inspection: Inspection = field(default_factory=lambda: Inspection(found=ServerObjectStatus(databases=0)))
    """What a look at a server finds."""
    play_deletion: PlayDeletion | None = None
    """What a deletion does; by default it drops a database."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def reconcile(self, subject: Subject, surroundings: Surroundings, progress: Progress) -> Report:
        self.visits.append(subject)
        return await self.play(subject, surroundings, progress) if self.play else all_done()

    async def delete(self, subject: Subject, belongings: Belongings) -> Ending:
        self.deletions.append(subject)
        if self.play_deletion:
            return await self.play_deletion(subject, belongings)
        return Ending(drops=(Drop(stage=StageName.DATABASE, text='drop database "d"'),))

    async def inspect(self, server: SharedServer, platform: Platform, cluster: str) -> Inspection:
        self.inspections.append(server)
        return self.inspection


@dataclass
class Stage:
    """The controller on a real API server, with an engine of the test, in a namespace of its own."""

    plane: ControlPlane
    namespace: str
    kube: Kube
    acting: Acting
    line: Rehearsal

    def create(self, name: str = "shop", **spec: Any) -> dict[str, Any]:
        """Make a resource as a person would."""
        made: dict[str, Any] = self.plane.request("POST", BOOTSTRAPS.format(self.namespace), manifest(name, **spec))
        return made

    def get(self, name: str = "shop") -> dict[str, Any]:
        found: dict[str, Any] = self.plane.request("GET", f"{BOOTSTRAPS.format(self.namespace)}/{name}")
        return found

    def patch(self, body: Any, name: str = "shop", subresource: str = "") -> dict[str, Any]:
        path = f"{BOOTSTRAPS.format(self.namespace)}/{name}{subresource}"
        changed: dict[str, Any] = self.plane.request("PATCH", path, body)
        return changed

    def delete(self, name: str = "shop") -> None:
        self.plane.request("DELETE", f"{BOOTSTRAPS.format(self.namespace)}/{name}")

    def ready(self, name: str = "shop") -> tuple[str, str] | None:
        """Return status and reason of the condition Ready."""
        return ready(self.get(name))

    def events(self) -> list[dict[str, Any]]:
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        items: list[dict[str, Any]] = self.plane.request("GET", path)["items"]
        return sorted(items, key=lambda item: str(item["eventTime"]))

    def writes(self) -> list[str]:
        """Return what the operator wrote into the namespace, from the API server's own audit log."""
        return writes(self.plane, self.namespace)


def manifest(name: str = "shop", **spec: Any) -> dict[str, Any]:
    """Return the least that the API server accepts, and what else is asked for."""
    least = {"server": {"adminSecretRef": {"name": "admin"}}, "role": {"name": "r"}, "database": {"name": "d"}}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": least | spec,
    }


def all_done(*changes: str, changed: StageName = StageName.ROLE) -> Report:
    """Return the report of a visit that finds, or makes, everything as it should be."""
    outcomes = tuple(
        Outcome(
            stage=stage,
            verdict=Verdict.DONE,
            reason=Reason.ROLE_IN_PLACE,
            message="In place.",
            changes=changes if stage is changed else (),
        )
        for stage in StageName
    )
    return Report(outcomes=outcomes, facts=Facts(binding=BindingStatus(name="shop-db")))


def stopped(verdict: Verdict, reason: Reason, message: str) -> Report:
    """Return the report of a visit that ended at its first stage."""
    outcome = Outcome(stage=StageName.ROLE, verdict=verdict, reason=reason, message=message)
    return Report(outcomes=(outcome,), facts=Facts())


def ready(resource: dict[str, Any]) -> tuple[str, str] | None:
    """Return status and reason of the condition Ready."""
    conditions = resource.get("status", {}).get("conditions", [])
    return next(((it["status"], it["reason"]) for it in conditions if it["type"] == "Ready"), None)


def writes(plane: ControlPlane, namespace: str, user: str = SERVICE_ACCOUNT) -> list[str]:
    """Return what somebody wrote into a namespace, in order: `patch databasebootstraps/status shop 200`."""
    entries = (json.loads(line) for line in plane.audit_log.read_text().splitlines())
    mine = (it for it in entries if it["user"]["username"] == user and it["objectRef"].get("namespace") == namespace)
    return [" ".join(_words(it)) for it in mine]


def _words(entry: dict[str, Any]) -> Iterator[str]:
    reference = entry["objectRef"]
    what = (reference["resource"], reference.get("subresource"))
    yield entry["verb"]
    yield "/".join(filter(None, what))
    if "name" in reference and reference["resource"] != "events":
        yield reference["name"]
    yield str(entry["responseStatus"]["code"])


def until(seconds: float, condition: Callable[[], object]) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s")
        time.sleep(0.02)


async def soon(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until the condition holds, while the controller in this process goes on."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s")
        await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def operator_access(control_plane: ControlPlane) -> Path:
    """Return the kubeconfig of the shipped ServiceAccount, with exactly the rights of the shipped manifests."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", ROOT / "crds")
    control_plane.kubectl("apply", "-f", ROOT / "manifests" / "namespace" / "namespace.yaml")
    control_plane.kubectl("apply", "-k", ROOT / "manifests" / "rbac")
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{names.CRD_NAME}")
    return control_plane.service_account_kubeconfig(SYSTEM_NAMESPACE, names.OPERATOR)


@pytest.fixture
def make_operator(operator_access: Path, tmp_path: Path) -> Iterator[Callable[..., Operator]]:
    """Return a function that makes an operator process, not started yet; each has a folder of its own."""
    with ExitStack() as stack:
        made: list[Operator] = []

        def make(*arguments: str, kubeconfig: Path = operator_access, **options: Any) -> Operator:
            folder = tmp_path / f"operator-{len(made)}"
            folder.mkdir()
            made.append(Operator(kubeconfig, folder, arguments, **options))
            stack.callback(_end, made[-1])
            return made[-1]

        yield make


@pytest.fixture
def operator(make_operator: Callable[..., Operator], namespace: str) -> Operator:
    """An operator that serves the test's namespace, started and ready."""
    return make_operator("--namespace", namespace).start()


@pytest_asyncio.fixture
async def kube(operator_access: Path) -> AsyncIterator[Kube]:
    """The client of the operator, under the operator's rights."""
    client = access.connect(await access.configure(str(operator_access), None))
    yield client
    await client.close()
    await soon(_all_have_said_goodbye)


@pytest_asyncio.fixture
async def make_stage(
    control_plane: ControlPlane, namespace: str, operator_access: Path
) -> AsyncIterator[Callable[..., Awaitable[Stage]]]:
    """Return a function that starts one more controller on the test's namespace."""
    async with AsyncExitStack() as stack:

        async def make(
            client: type[Kube] = Kube, workers: int = 1, cluster_id: str = "tests", **cluster: bool
        ) -> Stage:
            configuration = await access.configure(str(operator_access), None)
            kube = access.connect(configuration, client)
            stack.push_async_callback(kube.close)
            line = Rehearsal()
            means = Means(
                settings=Settings(namespaces=(namespace,), workers=workers),
                cluster=Cluster(kube=kube, id=cluster_id, is_around=False, **cluster),
                line=line,
                recorder=Recorder(kube, "test"),
                login=partial(access.credentials, configuration),
            )
            acting = Acting(means)
            await acting.start(_leave_signals_to_pytest)
            stack.push_async_callback(acting.stop, 5)
            await asyncio.wait_for(acting.watching.wait(), 10)
            return Stage(plane=control_plane, namespace=namespace, kube=kube, acting=acting, line=line)

        yield make
    await soon(_all_have_said_goodbye)


@pytest_asyncio.fixture
async def stage(make_stage: Callable[..., Awaitable[Stage]]) -> Stage:
    """A controller that watches the test's namespace."""
    return await make_stage()


def _all_have_said_goodbye() -> bool:
    """Return whether all connections are closed: TLS takes its time, and a loop that ends earlier complains."""
    open_ones = (it for it in gc.get_objects() if issubclass(type(it), asyncio.Transport))
    return all(it.get_extra_info("socket").fileno() < 0 for it in open_ones if it.get_extra_info("socket"))


def _leave_signals_to_pytest() -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)


def _end(operator: Operator) -> None:
    if operator.port:
        operator.stop()
