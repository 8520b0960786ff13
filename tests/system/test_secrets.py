"""A canary in every Secret: it is seen in no log, status, event, process or file, and not in PostgreSQL's own log."""

import json
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import canaries
from canaries import ProcessList, canary, seen
from database_bootstrap.api import names
from fix_operator import BOOTSTRAPS, Operator, until
from fix_status import StatusWatch
from fix_system import Platform, Tenant
from localservers import Credentials, datadirs, processes
from sandbox_here import needs_filters, needs_landlock

CANARY = "kanari-Vogel+73/%x?"
OF_OPERATOR = canary()
"""In the operator's environment."""
TOKEN = r"eyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}"
"""What finds the token of a ServiceAccount where it is not known."""
SECRETS = "/api/v1/namespaces/{}/secrets"
OBJECTS = ("/api/v1/namespaces/{}/configmaps", "/apis/coordination.k8s.io/v1/namespaces/{}/leases", BOOTSTRAPS)
PEM = "-----BEGIN {0}-----\n{1}\n-----END {0}-----\n"
LOCK = 4711
"""Held by the test for as long as it looks at a run of revisions."""
REVISION = """
import os
from alembic import op
revision = "a1"
down_revision = None
def upgrade():
    op.execute("CREATE TABLE users (id int)")
    print(os.environ.get("PGPASSWORD"))
"""
LEAKY_REVISION = """
import os
from alembic import op
revision = "a2"
down_revision = "a1"
def upgrade():
    raise RuntimeError("cannot use " + os.environ["DATABASE_URL"] + " or " + os.environ["PGPASSWORD"])
"""
SPYING_REVISION = """
import os, re
import sqlalchemy as sa
from alembic import op
revision = "a1"
down_revision = None

def places():
    yield "environment", repr(dict(os.environ)).encode()
    for name in ("environ", "cmdline", "auxv", "status", "mountinfo", "maps"):
        with open("/proc/self/" + name, "rb") as file:
            yield name, file.read()
    for number in os.listdir("/proc/self/fd"):
        link = "/proc/self/fd/" + number
        if os.path.isfile(link):
            with open(link, "rb") as file:
                yield "descriptor", file.read()
    for folder, _, files in os.walk(".."):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                yield "file", file.read()
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    for line in open("/proc/self/maps"):
        where, rights, *_ = line.split()
        start, end = (int(each, 16) for each in where.split("-"))
        if rights[:2] == "rw":
            try:
                yield "memory", os.pread(memory, end - start, start)
            except OSError:
                pass

def upgrade():
    op.execute("CREATE TABLE seen (place text, what text)")
    found = {(place, what) for place, data in places() for each in PATTERNS for what in re.findall(each, data)}
    for place, what in {*found, ("looked at", b"all")}:
        op.get_bind().execute(sa.text("INSERT INTO seen VALUES (:a, :b)"), {"a": place, "b": what.decode()})
    op.execute("SELECT pg_advisory_xact_lock(LOCK)")
"""


@pytest.fixture
def neighbours(make_namespace: Callable[[], str]) -> str:
    return make_namespace()


@pytest.fixture
def operator(make_operator: Callable[..., Operator], namespace: str, neighbours: str, tmp_path: Path) -> Operator:
    """An operator of two namespaces, with a secret in its environment, and folders that can be looked into."""
    (tmp_path / "temporary").mkdir()
    environment = {"TMPDIR": str(tmp_path / "temporary"), "CANARY": OF_OPERATOR}
    return make_operator("--namespace", namespace, "--namespace", neighbours, environment=environment).start()


@dataclass(frozen=True)
class Places:
    """All that people, tenants and other processes can look at, for as long as a test goes on."""

    tenants: tuple[Tenant, ...]
    status_watch: StatusWatch
    log_began: int
    listed: ProcessList

    def texts(self) -> dict[str, str]:
        """Return what was seen, by where."""
        tenant = self.tenants[0]
        operator = tenant.operator
        kinds = [kind.format(it.namespace) for it in self.tenants for kind in OBJECTS]
        objects = {kind: tenant.plane.request("GET", kind)["items"] for kind in kinds}
        resources = [(it.namespace, one["metadata"]["name"]) for it in self.tenants for one in _bootstraps(it)]
        return {
            "the operator's log": operator.log,
            "a page": "".join(operator.get(page)[1] for page in ("/metrics", "/healthz", "/readyz")),
            "a status": json.dumps([self.status_watch.versions(*one) for one in resources]),
            "an object": json.dumps(objects),
            "an event": json.dumps([it.events() for it in self.tenants]),
            "ps": "\n".join(self.listed.seen),
            "PostgreSQL's log": tenant.server.said(self.log_began),
        }

    def databases(self) -> dict[str, str]:
        """Return what the server keeps: its roles, and all that is in the tenants' databases."""
        server = self.tenants[0].server
        roles = "SELECT a, pg_catalog.shobj_description(a.oid, 'pg_authid') FROM pg_catalog.pg_authid a"
        databases = [one["spec"]["database"]["name"] for it in self.tenants for one in _bootstraps(it)]
        there = set(server.psql("SELECT datname FROM pg_database").splitlines())
        dumps = {f"database {name}": server.dump(name, "--create") for name in {*databases} & there}
        return {"the roles": server.psql(roles), **dumps}


def _bootstraps(tenant: Tenant) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tenant.plane.request("GET", BOOTSTRAPS.format(tenant.namespace))["items"]
    return found


@pytest.fixture
def listed() -> Iterator[ProcessList]:
    """What `ps` shows during the test."""
    made = ProcessList()
    with made.watched():
        yield made


def where_seen(texts: Mapping[Any, str | bytes], planted: Mapping[str, str]) -> set[tuple[Any, str]]:
    """Return where which secret was seen."""
    return {(where, name) for where, text in texts.items() for name in seen(text, planted)}


@pytest.mark.parametrize("tool", ["Alembic", "Prisma"])
def test_canary_is_seen_nowhere(tenant: Tenant, status_watch: StatusWatch, listed: ProcessList, tool: str) -> None:
    places = Places((tenant,), status_watch, len(tenant.server.log.read_bytes()), listed)
    tenant.secret("own", {"password": CANARY})
    role = {"name": tenant.unique("r"), "passwordSecretRef": {"name": "own"}}
    files = {"Alembic": {"a1_users.py": REVISION}, "Prisma": {"1_users.sql": "CREATE TABLE users (id int)"}}[tool]
    bad = {"Alembic": {"a2_leak.py": LEAKY_REVISION}, "Prisma": {"2_bad.sql": "SELECT 1 / 0"}}[tool]
    seed = {"source": {"inline": [{"path": "users.sql", "content": "INSERT INTO users VALUES (1)"}]}}
    body = tenant.bootstrap(role=role, migrations=migrations(tool, files), seed=seed)
    tenant.ready()
    tenant.server.psql(f"ALTER ROLE \"{role['name']}\" PASSWORD 'another'")
    tenant.request_visit()
    spec = body["spec"] | {"migrations": migrations(tool, files | bad)}
    tenant.apply(body | {"spec": spec})
    tenant.reaches("False", "MigrationFailed")
    until(10, lambda: any(event["type"] == "Warning" for event in tenant.events()))
    tenant.admin_secret(password=tenant.admin.password + "x")
    tenant.bootstrap("other")
    tenant.reaches("False", "AdminLoginRefused", "other")
    texts = places.texts()
    assert "CREATE ROLE" in texts["PostgreSQL's log"]
    assert "MigrationFailed" in texts["a status"]
    assert where_seen(texts, {"the role's": CANARY, "the administrator's": tenant.admin.password}) == set()


def migrations(tool: str, files: dict[str, str], **options: object) -> dict[str, object]:
    inline = [{"path": path, "content": content} for path, content in files.items()]
    return {"tool": tool, "source": {"inline": inline}, **options}


@dataclass
class Town:
    """Two tenants at a platform team's server, and every secret that somebody has there, by whose it is."""

    tenant: Tenant
    neighbour: Tenant
    platform: Platform
    planted: dict[str, str]

    def access(self, **changed: str) -> None:
        """Give the DatabaseServer an administrator's access, right or wrong."""
        self.platform.secret(**self.tenant.admin_keys | changed)

    def offer(self) -> None:
        """Make the DatabaseServer, with a certificate that the administrator would show where the server asks."""
        key = {"tls.crt": PEM.format("CERTIFICATE", "AAAA"), "tls.key": PEM.format("PRIVATE KEY", self.plant("key"))}
        replace(self.tenant, namespace=self.platform.namespace).secret("client", key)
        certificate = {"namespace": self.platform.namespace, "name": "client"}
        self.platform.offer(allowedNamespaces={}, tls={"mode": "Prefer", "clientCertificateRef": certificate})

    def plant(self, name: str) -> str:
        """Return a new secret, and remember whose it is."""
        self.planted[name] = canary()
        return self.planted[name]


@pytest.fixture
def town(tenant: Tenant, platform: Platform, neighbours: str, operator_access: Path) -> Town:
    """The administrator's password is a canary, too, which PostgreSQL's log has never seen."""
    access = json.loads(operator_access.read_text())
    token = access["users"][0]["user"]["token"]
    made = Town(tenant, replace(tenant, namespace=neighbours), platform, {"token": token, "environment": OF_OPERATOR})
    password = made.plant("administrator")
    tenant.server.psql(f"ALTER ROLE \"{tenant.admin.user}\" PASSWORD '{datadirs.scram_verifier(password)}'")
    for one in (tenant, made.neighbour):
        one.admin = Credentials(user=tenant.admin.user, password=password)
    made.access()
    made.offer()
    return made


def test_canaries_of_tenants_and_of_their_server_are_seen_nowhere(
    town: Town, status_watch: StatusWatch, listed: ProcessList, tmp_path: Path
) -> None:
    tenant, neighbour = town.tenant, town.neighbour
    places = Places((tenant, neighbour), status_watch, len(tenant.server.log.read_bytes()), listed)
    both_are_ready(town, access=True)
    passwords_are_rotated(town)
    those_who_guess_are_refused(town)
    texts = places.texts()
    assert {"AdminLoginRefused", "ReferenceRejected", "NotOwned"} <= set(texts["a status"].split('"'))
    assert "ALTER ROLE" in texts["PostgreSQL's log"]
    files = {str(path): text for path, text in canaries.files(tmp_path)}
    assert where_seen({**texts, **places.databases(), **files}, town.planted) == set()
    # What a tenant can read in Secrets is what it has written there itself, and its own connection.
    held = [
        seen(json.dumps(it.plane.request("GET", SECRETS.format(it.namespace))), town.planted) for it in places.tenants
    ]
    assert held == [{"edited", "guessed", "uri"}, {"generated again"}]


def both_are_ready(town: Town, *, access: bool = False, **spec: Any) -> None:
    """Have two tenants served: one brings a password, the other gets one."""
    tenant, server = town.tenant, {"ref": {"name": town.platform.name}}
    tenant.secret("own", {"password": town.plant("own")})
    role = {"name": tenant.unique("r"), "passwordSecretRef": {"name": "own"}}
    if access:
        reader = tenant.unique("reader")
        tenant.server.psql(f'CREATE ROLE "{reader}" LOGIN')
        spec["access"] = [{"role": reader, "level": "ReadOnly"}]
    tenant.bootstrap(server=server, role=role, **spec)
    town.neighbour.bootstrap("theirs", server=server)
    tenant.ready()
    town.neighbour.ready("theirs")
    town.planted["generated"] = town.neighbour.connection("theirs")["password"]


def passwords_are_rotated(town: Town) -> None:
    tenant, neighbour = town.tenant, town.neighbour
    annotation = {"metadata": {"annotations": {names.ANNOTATION_ROTATE_PASSWORD: "now"}}}
    neighbour.plane.request("PATCH", f"{BOOTSTRAPS.format(neighbour.namespace)}/theirs", annotation)
    tenant.secret("own", {"password": town.plant("edited")})
    tenant.request_visit()
    until(20, lambda: tenant.connection()["password"] == town.planted["edited"])
    until(20, lambda: neighbour.connection("theirs")["password"] != town.planted["generated"])
    town.planted["generated again"] = neighbour.connection("theirs")["password"]
    # What was set on the server by hand is put right, too.
    tenant.server.psql(f"ALTER ROLE \"{tenant.get()['spec']['role']['name']}\" PASSWORD 'another'")
    tenant.request_visit(token="again")
    assert tenant.query("SELECT 1") == neighbour.query("SELECT 1", "theirs") == [(1,)]


def those_who_guess_are_refused(town: Town) -> None:
    """Wrong passwords, and connection strings that say too much, of a tenant and of the platform team."""
    tenant, keys = town.tenant, town.tenant.admin_keys
    guessed, uri = town.plant("guessed"), town.plant("uri")
    theirs = town.neighbour.get("theirs")["spec"]
    tenant.secret("guess", {"password": guessed})
    claim = theirs["role"] | {"passwordSecretRef": {"name": "guess"}}
    tenant.bootstrap("claim", server=theirs["server"], role=claim, database=theirs["database"])
    tenant.reaches("False", "NotOwned", "claim")
    where = f"{keys['host']}:{keys['port']}"
    for name, secret in {
        "door": keys | {"password": guessed},
        "options": {"uri": f"postgresql://u:{uri}@{where}/postgres?options=-c%20role%3D{uri}"},
        "broken": {"uri": f"postgresql://u:{uri}@[{where}/{uri}"},
    }.items():
        tenant.secret(name, secret)
        tenant.bootstrap(name, server={"adminSecretRef": {"name": name}})
        tenant.reaches("False", "AdminLoginRefused" if name == "door" else "ReferenceRejected", name)
    town.platform.secret(uri=f"postgresql://u:{town.plant('uri of the platform')}@{where}/postgres?passfile=x")
    town.platform.request_look()
    assert "passfile cannot be set here" in json.dumps(town.platform.reaches("False", "ReferenceRejected"))
    # What was once in a Secret as `stringData` stays there.
    tenant.plane.request("DELETE", f"{SECRETS.format(town.platform.namespace)}/postgres")
    town.access(password=town.plant("wrong"))
    tenant.bootstrap("late", server=theirs["server"])
    tenant.reaches("False", "AdminLoginRefused", "late")
    town.platform.request_look()
    town.platform.reaches("False", "AdminLoginRefused")


@needs_filters
@needs_landlock(1)
def test_nobodys_secrets_are_within_reach_of_a_revision(town: Town, tmp_path: Path) -> None:
    """Looked at from inside, by the revision itself, and from outside while it runs: all that its process has."""
    tenant, operator = town.tenant, town.tenant.operator
    both_are_ready(town)
    passwords_are_rotated(town)
    patterns = tuple(each.encode() for each in (*canaries.PATTERNS, TOKEN))
    assert re.match(TOKEN, town.planted["token"])
    spy = SPYING_REVISION.replace("PATTERNS", repr(patterns)).replace("LOCK", str(LOCK))
    spec = {"migrations": migrations("Alembic", {"a1_spy.py": spy}, lockTimeoutSeconds=60)}
    database = tenant.get()["spec"]["database"]["name"]
    with psycopg.connect(tenant.server.dsn(database), autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        tenant.plane.request("PATCH", f"{BOOTSTRAPS.format(tenant.namespace)}/shop", {"spec": spec})
        waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
        until(30, lambda: holder.execute(waiting, (LOCK,)).rowcount == 1)
        (zygote,) = processes.children(operator.pid)
        (supervisor,) = processes.children(zygote)
        (child,) = processes.children(supervisor)
        shown = {each: shown_by(each) for each in (operator.pid, zygote, supervisor, child)}
        reached = {each: seen(remembered_by(each), town.planted) for each in (zygote, supervisor, child)}
        kept = {name: seen(text, town.planted) for name, text in canaries.files(tmp_path)}
        hidden = [canaries.readable(each) for each in (operator.pid, zygote, supervisor)]
    tenant.ready()
    assert where_seen(shown, town.planted) == set()
    assert reached == {zygote: set(), supervisor: set(), child: {"edited"}}
    assert {name: what for name, what in kept.items() if what} == {}
    assert any("a1_spy.py" in name for name in kept)
    assert hidden == [set(), set(), set()]
    own = town.planted["edited"]
    assert set(tenant.query("SELECT * FROM seen")) == {("looked at", "all"), ("environment", own), ("memory", own)}


def shown_by(process: int) -> str:
    """Return what everybody may read of a process."""
    return Path(f"/proc/{process}/cmdline").read_text() + Path(f"/proc/{process}/status").read_text()


def remembered_by(process: int) -> bytes:
    """Return the environment and the memory of a process; nothing where we may not read it, as nobody else may."""
    try:
        return b"\n".join((Path(f"/proc/{process}/environ").read_bytes(), *canaries.memory(process)))
    except PermissionError:
        return b""


def test_an_operator_that_crashes_leaves_no_core(
    make_operator: Callable[..., Operator], namespace: str, tmp_path: Path
) -> None:
    operator = make_operator("--namespace", namespace)
    for number in (signal.SIGABRT, signal.SIGQUIT):
        with canaries.core_dumps_asked_for():
            operator.start()
        limits = Path(f"/proc/{operator.pid}/limits").read_text()
        assert re.search(r"Max core file size +[01] ", limits)
        assert canaries.readable(operator.pid) == set()
        operator.send(number)
        assert operator.wait() == number
        names_of_files = {path.name for path in operator.log_file.parent.iterdir()}
        assert not [name for name in names_of_files if "core" in name]
