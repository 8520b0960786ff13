"""Two tenants of one operator and server: whoever has all rights in one namespace changes nothing of the other's."""

import hashlib
import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fix_operator import BOOTSTRAPS, Operator, ready, until
from fix_status import StatusWatch
from fix_system import Tenant
from localservers import ControlPlane, ServerFailed

RIGHTS = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "everything"},
    "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
}
KINDS = ("secrets", "configmaps", "databasebootstraps", "databasebootstraps/status", "events", "serviceaccounts")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
USERS = {"tool": "SQL", "source": {"configMapRefs": [{"name": "migrations"}]}}
SEED = {"source": {"inline": [{"path": "users.sql", "content": "INSERT INTO users VALUES (1, 'Ann'), (2, 'Bob')"}]}}
WAITING = "Waiting for one of the operator's connections"
FORGED = ("delete", "delete-force")
"""Resources of the attacker's whose status it writes itself."""
OF_DATABASE = """
    SELECT d.*, pg_catalog.shobj_description(d.oid, 'pg_database'),
           ARRAY(SELECT setconfig::text FROM pg_catalog.pg_db_role_setting WHERE setdatabase = d.oid ORDER BY 1)
    FROM pg_catalog.pg_database d WHERE datname = %s
"""
OF_ROLE = """
    SELECT a.*, pg_catalog.shobj_description(a.oid, 'pg_authid'),
           ARRAY(SELECT m::text FROM pg_catalog.pg_auth_members m WHERE a.oid IN (m.member, m.roleid) ORDER BY 1)
    FROM pg_catalog.pg_authid a WHERE rolname = %s
"""
TABLES = "SELECT oid::pg_catalog.regclass::text FROM pg_catalog.pg_class WHERE relkind = 'r' AND relnamespace >= 2200"


@pytest.fixture
def neighbours(make_namespace: Callable[[], str]) -> str:
    return make_namespace()


@pytest.fixture
def operator(make_operator: Callable[..., Operator], namespace: str, neighbours: str) -> Operator:
    """One operator, which serves both."""
    return make_operator("--namespace", namespace, "--namespace", neighbours).start()


@dataclass
class Attacker:
    """A tenant who does everything with the rights of a ServiceAccount of its own namespace."""

    tenant: Tenant
    kubeconfig: Path
    victim: Tenant
    body: dict[str, Any]
    """The victim's resource, as the API server has it."""

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.tenant.plane.kubectl(*arguments, kubeconfig=self.kubeconfig, **options)

    def attempt(self, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        """Apply a resource of the own namespace; what it does not say is what the victim's says."""
        theirs = {key: self.body["spec"][key] for key in ("server", "role", "database")}
        metadata = {"name": name, "namespace": self.tenant.namespace, "annotations": annotations or {}}
        body = {
            "apiVersion": self.body["apiVersion"],
            "kind": self.body["kind"],
            "metadata": metadata,
            "spec": theirs | spec,
        }
        self.kubectl("apply", "-f", "-", input=json.dumps(body))

    def delete(self, name: str) -> None:
        self.kubectl("-n", self.tenant.namespace, "delete", "dbb", name, "--wait=false")
        until(20, lambda: "NotFound" in self.kubectl("-n", self.tenant.namespace, "get", "dbb", name, check=False))


@pytest.fixture
def victim(tenant: Tenant, neighbours: str) -> Tenant:
    """A neighbour with a role, a database, Secrets and two rows."""
    found = replace(tenant, namespace=neighbours)
    found.admin_secret()
    found.config_map("migrations", {"1_users.sql": "CREATE TABLE users (id int PRIMARY KEY, name text)"})
    found.bootstrap(migrations=USERS, seed=SEED, deletionPolicy="Delete", intervalSeconds=5)
    found.ready()
    return found


@pytest.fixture
def attacker(tenant: Tenant, victim: Tenant, control_plane: ControlPlane) -> Attacker:
    namespace = tenant.namespace
    tenant.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "team"}}, RIGHTS)
    control_plane.kubectl(
        "-n", namespace, "create", "rolebinding", "team", "--role=everything", f"--serviceaccount={namespace}:team"
    )
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "team")
    return Attacker(tenant=tenant, kubeconfig=kubeconfig, victim=victim, body=victim.get())


def picture(victim: Tenant, body: dict[str, Any]) -> dict[str, str]:
    """Return a checksum of all that is the victim's: its rows, its ledger, role, database and objects."""
    database, role = body["spec"]["database"]["name"], body["spec"]["role"]["name"]
    seen: dict[str, object] = {}
    with psycopg.connect(victim.server.dsn(database)) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            found = connection.execute(f"SELECT t::text, xmin::text FROM {table} t ORDER BY 1".encode())
            seen[f"rows of {table}"] = found.fetchall()
        seen["schemas"] = connection.execute("SELECT n.* FROM pg_catalog.pg_namespace n ORDER BY 1").fetchall()
        seen["classes"] = connection.execute("SELECT c.* FROM pg_catalog.pg_class c ORDER BY 1").fetchall()
        seen["database"] = connection.execute(OF_DATABASE, (database,)).fetchall()
        seen["role"] = connection.execute(OF_ROLE, (role,)).fetchall()
    for kind in ("/api/v1/namespaces/{}/secrets", "/api/v1/namespaces/{}/configmaps", BOOTSTRAPS):
        seen[kind] = victim.plane.request("GET", kind.format(victim.namespace))["items"]
    assert len(seen["role"]) == len(seen["database"]) == 1  # type: ignore[arg-type]
    assert {"rows of users", "rows of dbbootstrap.identity"} <= seen.keys()
    return {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in seen.items()}


def test_everything_in_one_namespace_changes_nothing_in_another(attacker: Attacker, status_watch: StatusWatch) -> None:
    victim, body = attacker.victim, attacker.body
    for name in FORGED:
        status_watch.excuse(attacker.tenant.namespace, name)
    before = picture(victim, body)
    the_api_server_refuses_every_verb(attacker)
    names_of_the_victim_are_refused(attacker)
    names_that_look_like_the_victims_are_others(attacker)
    what_the_attacker_is_given_opens_nothing_of_the_victims(attacker)
    assert picture(victim, body) == before
    victim.request_visit()
    assert victim.get()["status"]["lastChange"] == body["status"]["lastChange"]
    assert victim.query("SELECT * FROM users ORDER BY id") == [(1, "Ann"), (2, "Bob")]
    nothing_that_the_attacker_gives_holds_the_victim_up(attacker)


def test_namespace_with_endless_migrations_keeps_no_other_waiting(tenant: Tenant, victim: Tenant) -> None:
    flag = tenant.unique("endless")
    tenant.server.psql(f"CREATE ROLE {flag}")
    sleep = f"SELECT pg_sleep(1000) FROM pg_roles WHERE rolname = '{flag}'"
    endless = {"path": "1_sleep.sql", "content": sleep}
    # More than all workers, and than all connections of the server.
    names = [f"endless-{n}" for n in range(12)]
    tenant.bootstraps(names, migrations={"tool": "SQL", "source": {"inline": [endless]}})

    def told(name: str) -> str:
        return str(tenant.get(name).get("status"))

    asleep = f"FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%{flag}%'"
    try:
        # Of ten connections the last three are for others, and a visit takes two.
        until(30, lambda: tenant.server.psql(f"SELECT count(*) {asleep}") == "3")
        victim.request_visit(token="meanwhile")
        victim.bootstrap("second", migrations=USERS, seed=SEED)
        victim.ready("second")
        until(20, lambda: any(WAITING in told(name) for name in names))
        assert tenant.server.psql(f"SELECT count(*) {asleep}") == "3"
    finally:
        tenant.server.psql(f"DROP ROLE {flag}")
        tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", "--all", "--wait=false")
        until(30, lambda: tenant.server.psql(f"SELECT count(pg_terminate_backend(pid)) {asleep}") == "0")


def the_api_server_refuses_every_verb(attacker: Attacker) -> None:
    there = attacker.victim.namespace
    for kind in KINDS:
        for verb in VERBS:
            assert "no" in attacker.kubectl("-n", there, "auth", "can-i", verb, kind, check=False).split(), (verb, kind)
    for done in (
        ("delete", "dbb,secret,configmap", "--all"),
        ("patch", "secret", "shop-db", "--type=merge", "--patch", '{"data": {"password": "eA=="}}'),
        ("annotate", "dbb", "shop", "dbbootstrap.io/acknowledge-data-loss=x"),
        ("get", "secret", "shop-db"),
    ):
        with pytest.raises(ServerFailed, match="orbidden"):
            attacker.kubectl("-n", there, *done)


def names_of_the_victim_are_refused(attacker: Attacker) -> None:
    tenant, body = attacker.tenant, attacker.body
    uid, incarnation = body["metadata"]["uid"], body["status"]["database"]["incarnation"]
    guess = {"passwordSecretRef": {"name": "guess"}}
    theirs, role, database = body["spec"]["role"], tenant.unique("own_r"), tenant.unique("own_d")
    tenant.secret("guess", {"password": "guessed"})
    marks = {"dbbootstrap.io/uid": uid, "dbbootstrap.io/resource": "shop", "dbbootstrap.io/incarnation": incarnation}
    for name in ("shop-db", "shop-role", "marked-db"):
        forged = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "annotations": marks}}
        attacker.kubectl("-n", tenant.namespace, "apply", "-f", "-", input=json.dumps(forged))
    words = {
        f"dbbootstrap.io/{word}": value
        for word, value in {
            "take-over": uid,
            "accept-incarnation": incarnation,
            "acknowledge-data-loss": incarnation,
            "resolve": "1_users.sql=rolled-back@00000000",
        }.items()
    }
    attempts: dict[str, dict[str, Any]] = {
        "plain": {},
        "never": {"adoption": "Never"},
        "guess": {"role": theirs | guess},
        "force": {"role": theirs | guess, "adoption": "Force"},
        "words": {"annotations": words, "role": theirs | guess, "adoption": "Force"},
        "words-own-role": {"annotations": words, "role": {"name": role} | guess},
        "delete": {"deletionPolicy": "Delete"},
        "delete-force": {"role": theirs | guess, "adoption": "Force", "deletionPolicy": "Delete", "annotations": words},
        "their-database": {"role": {"name": role}},
        "their-role": {"database": {"name": database}},
        "their-secret": {"connectionSecret": {"name": "their-db"}},
        "migrations": {
            "migrations": {"tool": "SQL", "source": {"inline": [{"path": "1_x.sql", "content": "DROP TABLE users"}]}}
        },
    }
    for name, spec in attempts.items():
        attacker.attempt(name, **spec)
    status = {"server": body["status"]["server"], "database": body["status"]["database"] | {"origin": "Created"}}
    for name in attempts:
        tenant.reaches("False", "NotOwned", name, seconds=60)
    patch = json.dumps({"status": status | {"role": body["status"]["role"] | {"origin": "Created"}}})
    for name in FORGED:
        attacker.kubectl(
            "-n", tenant.namespace, "patch", "dbb", name, "--subresource=status", "--type=merge", "--patch", patch
        )
        attacker.delete(name)
    attacker.kubectl("-n", tenant.namespace, "delete", "dbb", "--all", "--wait=false")


def names_that_look_like_the_victims_are_others(attacker: Attacker) -> None:
    tenant = attacker.tenant
    role, database = (attacker.body["spec"][one]["name"] for one in ("role", "database"))
    alike = {
        "case": (role.upper(), database.title()),
        "zero-width": (f"{role}\u200b", f"\ufeff{database}"),
        "confusable": (role.replace("o", "\u043e"), database.replace("o", "\u03bf")),
        "decomposed": (unicodedata.normalize("NFD", f"{role}é"), unicodedata.normalize("NFC", f"{database}é")),
        "space": (f"{role} ", f" {database}"),
    }
    for name, (its_role, its_database) in alike.items():
        attacker.attempt(name, role={"name": its_role}, database={"name": its_database})
    # PostgreSQL would cut them off in silence, and two would be one.
    with pytest.raises(ServerFailed, match="at most 63 bytes"):
        attacker.attempt("long", role={"name": role + "é" * 32})
    with pytest.raises(ServerFailed, match="template"):
        attacker.attempt("copy", role={"name": "copy"}, database={"name": "copy", "template": database})
    for name, (its_role, its_database) in alike.items():
        tenant.ready(name, seconds=60)
        assert tenant.query("SELECT current_user::text, current_database()::text", name) == [(its_role, its_database)]


def what_the_attacker_is_given_opens_nothing_of_the_victims(attacker: Attacker) -> None:
    tenant, victim, body = attacker.tenant, attacker.victim, attacker.body
    database = body["spec"]["database"]["name"]
    mine = tenant.connection("case")
    for login, target in ((mine, database), (victim.connection(), mine["dbname"])):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(**(login | {"dbname": target}))
    # The administrator's own session begins in the victim's database, and leaves no trace there.
    tenant.admin_secret(dbname=database)
    attacker.attempt(
        "inside",
        role={"name": tenant.unique("inside_r")},
        database={"name": tenant.unique("inside_d")},
        schemas=[{"name": "mine"}],
        deletionPolicy="Delete",
    )
    tenant.ready("inside")
    attacker.delete("inside")
    assert ready(victim.get()) == ("True", "Succeeded")


def nothing_that_the_attacker_gives_holds_the_victim_up(attacker: Attacker) -> None:
    tenant, victim, role = attacker.tenant, attacker.victim, attacker.body["spec"]["role"]["name"]
    grants = f'CREATE TABLE bait (id int); GRANT ALL ON bait TO "{role}"'
    attacker.attempt(
        "gifts",
        role={"name": tenant.unique("gifts_r")},
        database={"name": tenant.unique("gifts_d")},
        access=[{"role": role, "level": "ReadWrite"}],
        migrations={"tool": "SQL", "source": {"inline": [{"path": "1_bait.sql", "content": grants}]}},
    )
    tenant.ready("gifts")
    victim.plane.kubectl("-n", victim.namespace, "delete", "dbb", "shop", "--timeout=60s")
    assert victim.server.psql(f"SELECT count(*) FROM pg_roles WHERE rolname = '{role}'") == "0"
    assert ready(tenant.get("gifts")) == ("True", "Succeeded")
