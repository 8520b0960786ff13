"""The crash walk: how far it goes, where it stands, and what it says in the end."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from crashing.proxies import Loop
from crashing.scene import Scene
from fix_postgres import INSTALLATIONS
from fix_system import combination
from localservers import ControlPlane, Credentials, PostgresServer

BERTHS = 8
"""As many as the operator has workers: each can be held at its own point at one time."""
FIGURES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "walk every N-th point of the crash walk, and the critical ones; 1: every point"
    parser.addoption("--walk", metavar="N", type=int, default=24, help=text)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Crash each thing on one of the majors, with one kind of administrator; the whole walk on the diagonal of both."""
    majors = [installation.major for installation in config.stash[INSTALLATIONS]]
    diagonal = [(majors[0], "superuser"), (majors[-1], "createrole")] if len(majors) > 1 else []
    turns: dict[str, int] = {}
    left_out = []
    for item in items:
        if diagonal and item.path.parent.name == "crashing":
            turn = turns.setdefault(item.originalname, len(turns)) % 2  # type: ignore[attr-defined]
            wanted = diagonal if config.getoption("--walk") == 1 else diagonal[turn : turn + 1]
            if combination(item) not in wanted:
                left_out.append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[FIGURES]:
        terminalreporter.section("crash walk")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[Sequence[str]], None]:
    """Return a function that keeps lines for the end of the run."""
    return request.config.stash[FIGURES].extend


@pytest.fixture
def step(request: pytest.FixtureRequest) -> int:
    """Every how manieth point is walked."""
    found: int = request.config.getoption("--walk")
    return found


@pytest.fixture
def proxies() -> Iterator[Loop]:
    """The thread in which the proxies run."""
    with Loop() as loop:
        yield loop


@pytest.fixture
def scene(
    control_plane: ControlPlane,
    postgres_server: PostgresServer,
    admin: Credentials,
    proxies: Loop,
    make_namespace: Callable[[], str],
) -> Iterator[Scene]:
    """Eight furnished namespaces."""
    made = Scene(control_plane, postgres_server, admin, proxies)
    for _ in range(BERTHS):
        made.add_berth(make_namespace())
    yield made
    made.close()


@pytest.fixture
def access(scene: Scene, operator_access: Path, tmp_path: Path) -> Path:
    """The kubeconfig of the shipped ServiceAccount that leads through the proxy."""
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(scene.kubeconfig(operator_access.read_text())))
    return path
