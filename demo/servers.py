"""The demo's servers and the operator: each stops when the process that started it does."""

import os
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from localservers import ControlPlane, PostgresServer, discover
from localservers.processes import Order, Server, free_port

ROOT = Path(__file__).parents[1]
COMMAND = ROOT / ".venv" / "bin" / "database-bootstrap"
OPERATOR_NAMESPACE = "database-bootstrap-system"
OPERATOR_ACCOUNT = "database-bootstrap-operator"


class Operator:
    """`database-bootstrap run` as a process, with the rights of its ServiceAccount and of nobody else."""

    def __init__(self, folder: Path, plane: ControlPlane) -> None:
        self.log = folder / "operator.log"
        self._folder = folder
        self._kubeconfig = plane.service_account_kubeconfig(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT)
        self._port = 0
        self._server: Server | None = None

    def start(self) -> None:
        self._port = free_port()
        access = [f"--kubeconfig={self._kubeconfig}", f"--health-address=127.0.0.1:{self._port}"]
        order = Order(
            command=[COMMAND, "run", *access],
            log=self.log,
            folder=self._folder,
            environment={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            grace=30,
        )
        self._server = Server(order)

    def stop(self) -> None:
        if self._server:
            self._server.stop(SIGTERM)
            self._server = None

    def metrics(self) -> dict[str, float]:
        """Return every sample that the operator serves, by its name with labels."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/metrics"


@dataclass
class Scene:
    """All that the story happens on."""

    folder: Path
    plane: ControlPlane
    postgres: PostgresServer
    operator: Operator
    has_uuid_ossp: bool


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Give running servers; the operator is installed, and not yet started."""
    with ExitStack() as stack:
        postgres = stack.enter_context(_postgres(folder))
        plane = stack.enter_context(ControlPlane.start(folder / "kubernetes"))
        plane.kubectl("apply", "--server-side", "--kustomize", ROOT / "manifests")
        plane.kubectl("wait", "--for=condition=Established", "crd/databasebootstraps.dbbootstrap.io")
        operator = Operator(folder, plane)
        stack.callback(operator.stop)
        yield Scene(folder, plane, postgres, operator, _has_uuid_ossp(postgres))


def _postgres(folder: Path) -> PostgresServer:
    """Return a server of the newest major that has all that the shop asks for, else of the newest."""
    installations = discover()
    if not installations:
        raise SystemExit("No PostgreSQL was found: `make setup` brings one.")
    for installation in reversed(installations):
        server = PostgresServer.start(folder / f"postgresql-{installation.major}", installation)
        if _has_uuid_ossp(server):
            return server
        server.close()
    return PostgresServer.start(folder / "postgresql", installations[-1])


def _has_uuid_ossp(server: PostgresServer) -> bool:
    return server.psql("SELECT count(*) FROM pg_available_extensions WHERE name = 'uuid-ossp'") == "1"
