"""Deletion of resources through the whole system: kubectl, the operator under its shipped rights, and rows counted."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from database_bootstrap.api import names
from fix_operator import ROOT, SYSTEM_NAMESPACE, Operator, until, writes
from fix_system import Tenant
from localservers import ControlPlane
from status_linter import kstatus

MakeOperator = Callable[..., Operator]
USERS = {"tool": "SQL", "source": {"inline": [{"path": "1_users.sql", "content": "CREATE TABLE users (id int)"}]}}
SEED = {"source": {"inline": [{"path": "users.sql", "content": "INSERT INTO users VALUES (1), (2)"}]}}


def made(tenant: Tenant, name: str = "shop", **spec: Any) -> dict[str, Any]:
    """Make a resource under Delete with two rows, and return it."""
    body = tenant.bootstrap(name, **{"deletionPolicy": "Delete", "migrations": USERS, "seed": SEED} | spec)
    tenant.ready(name)
    assert rows(tenant, body) == 2
    return body


def rows(tenant: Tenant, body: dict[str, Any]) -> int:
    """Return how many rows there are, asked as the server's own superuser."""
    with psycopg.connect(tenant.server.dsn(body["spec"]["database"]["name"])) as connection:
        found = connection.execute("SELECT count(*) FROM public.users").fetchone()
    assert found
    return int(found[0])


def there(tenant: Tenant, body: dict[str, Any]) -> tuple[str, str]:
    """Return how many databases and how many roles there are of the resource's names."""
    database, role = body["spec"]["database"]["name"], body["spec"]["role"]["name"]
    return (
        tenant.server.psql(f"SELECT count(*) FROM pg_database WHERE datname = '{database}'", "-tA").strip(),
        tenant.server.psql(f"SELECT count(*) FROM pg_roles WHERE rolname = '{role}'", "-tA").strip(),
    )


def secrets(tenant: Tenant) -> set[str]:
    found = tenant.plane.request("GET", f"/api/v1/namespaces/{tenant.namespace}/secrets")["items"]
    return {item["metadata"]["name"] for item in found}


def delete(tenant: Tenant, name: str = "shop") -> None:
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", name, "--wait=false")


def is_gone(tenant: Tenant, name: str = "shop") -> bool:
    return "NotFound" in tenant.plane.kubectl("-n", tenant.namespace, "get", "dbb", name, check=False)


def let_go(tenant: Tenant, name: str = "shop") -> None:
    patch = json.dumps({"spec": {"deletionPolicy": "Retain"}})
    tenant.plane.kubectl("-n", tenant.namespace, "patch", "dbb", name, "--type=merge", "--patch", patch)


def notes(tenant: Tenant, action: str = "Delete") -> list[str]:
    return [event["note"] for event in tenant.events() if event["action"] == action]


def test_retain_keeps_everything_and_needs_no_operator(tenant: Tenant) -> None:
    body = made(tenant, deletionPolicy="Retain")
    assert "finalizers" not in tenant.get()["metadata"]
    tenant.operator.stop()
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", "shop", "--timeout=10s")
    assert rows(tenant, body) == 2
    assert there(tenant, body) == ("1", "1")
    assert secrets(tenant) >= {"admin", "shop-db", "shop-role"}


def test_delete_drops_what_was_made_and_a_new_resource_begins_anew(tenant: Tenant) -> None:
    body = made(tenant)
    assert tenant.get()["metadata"]["finalizers"] == [names.FINALIZER]
    status = tenant.get()["status"]["database"]
    with psycopg.connect(**tenant.connection()) as application:  # idle, and ended with its database
        application.execute("SELECT 1")
        tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", "shop", "--timeout=20s")
        application.close()
    assert there(tenant, body) == ("0", "0")
    assert secrets(tenant) == {"admin"}
    (note,) = notes(tenant)
    database, role = (body["spec"][what]["name"] for what in ("database", "role"))
    dropped = f'drop database "{database}" (oid {status["oid"]}, incarnation {status["incarnation"]})'
    for what in (dropped, f'drop role "{role}"', "delete Secret shop-db", "delete Secret shop-role"):
        assert what in note
        assert any("Deleted:" in it["message"] and what in it["message"] for it in tenant.operator.messages)
    assert tenant.operator.metrics()['dbbootstrap_drops_total{what="database"}'] == 1
    tenant.apply(body)
    tenant.ready()
    assert rows(tenant, body) == 2


def test_resource_that_was_pruned_and_applied_again_under_delete_takes_all_along(tenant: Tenant) -> None:
    body = made(tenant, deletionPolicy="Retain")
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", "shop", "--timeout=10s")
    tenant.apply(body | {"spec": body["spec"] | {"deletionPolicy": "Delete"}})
    tenant.ready()
    assert rows(tenant, body) == 2
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", "shop", "--timeout=20s")
    assert there(tenant, body) == ("0", "0")
    assert "shop-db" not in secrets(tenant)
    tenant.apply(body)
    tenant.ready()  # and no alarm about the data that was dropped on purpose


def test_deleted_duplicate_never_drops_the_survivors_data(tenant: Tenant) -> None:
    body = made(tenant, deletionPolicy="Retain")
    thief = body | {"metadata": {"name": "thief"}, "spec": body["spec"] | {"deletionPolicy": "Delete"}}
    tenant.apply(thief)
    tenant.reaches("False", "NotOwned", "thief")
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", "thief", "--timeout=20s")
    assert rows(tenant, body) == 2
    assert secrets(tenant) >= {"shop-db", "shop-role"}
    assert f"belongs to {tenant.namespace}/shop" in notes(tenant)[0]
    tenant.request_visit()
    tenant.ready()


def test_server_that_is_away_is_waited_for_and_a_person_can_let_go(tenant: Tenant) -> None:
    heals, let = made(tenant, "heals"), made(tenant, "let")
    tenant.server.stop()
    delete(tenant, "heals")
    delete(tenant, "let")
    for name in ("heals", "let"):
        message = tenant.reaches("False", "ServerUnreachable", name, seconds=40)
        assert f"kubectl patch dbb/{name} --namespace {tenant.namespace}" in message
        assert kstatus(tenant.get(name)) == "InProgress"
    let_go(tenant, "let")
    until(10, lambda: is_gone(tenant, "let"))
    assert not is_gone(tenant, "heals")
    assert "Role, database and Secrets are kept: deletionPolicy is Retain" in notes(tenant)
    tenant.server.start_again()
    until(60, lambda: is_gone(tenant, "heals"))
    assert there(tenant, heals) == ("0", "0")
    assert rows(tenant, let) == 2
    assert secrets(tenant) == {"admin", "let-db", "let-role"}


@contextmanager
def held(tenant: Tenant, body: dict[str, Any]) -> Iterator[None]:
    """Let nobody drop the role for now."""
    with psycopg.connect(tenant.server.dsn("postgres")) as somebody:
        somebody.execute(f'ALTER ROLE "{body["spec"]["role"]["name"]}" CONNECTION LIMIT 9'.encode())
        yield
        somebody.rollback()


def test_operator_that_is_killed_between_database_and_role_goes_on(tenant: Tenant) -> None:
    body = made(tenant)
    with held(tenant, body):
        delete(tenant)
        dropping = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^DROP ROLE' AND state = 'active'"
        until(20, lambda: tenant.server.psql(dropping, "-tA").strip() == "1")
        tenant.operator.kill()
        assert there(tenant, body) == ("0", "1")
        assert secrets(tenant) == {"admin", "shop-db", "shop-role"}
    tenant.operator.start()
    until(40, lambda: is_gone(tenant))
    assert there(tenant, body) == ("0", "0")
    assert secrets(tenant) == {"admin"}


def own_account(tenant: Tenant) -> Path:
    """Return the access of a ServiceAccount with the rights of the namespaced install."""
    within = ("--namespace", tenant.namespace)
    tenant.plane.kubectl("create", "serviceaccount", "own", *within)
    rights = {
        "read": ("get,list,watch", "databasebootstraps.dbbootstrap.io,configmaps"),
        "tell": ("patch", "databasebootstraps.dbbootstrap.io/status"),
        "post": ("create", "events.events.k8s.io"),
        "secrets": ("get,create,patch,delete", "secrets"),
        "namespace": ("get", "namespaces"),
        "hold": ("patch", "databasebootstraps.dbbootstrap.io"),
    }
    for name, (verbs, resources) in rights.items():
        tenant.plane.kubectl("create", "role", name, *within, f"--verb={verbs}", f"--resource={resources}")
        bind(tenant, name)
    return tenant.plane.service_account_kubeconfig(tenant.namespace, "own")


def bind(tenant: Tenant, name: str) -> None:
    account = f"--serviceaccount={tenant.namespace}:own"
    tenant.plane.kubectl("create", "rolebinding", name, "-n", tenant.namespace, f"--role={name}", account)


def test_secrets_that_were_taken_back_go_with_the_resource(tenant: Tenant) -> None:
    """It is let go and applied again: another uid, the same password; and then it is deleted for good."""
    body = made(tenant, deletionPolicy="Retain")
    delete(tenant)
    until(20, lambda: is_gone(tenant))
    password = tenant.read_secret("shop-role")
    tenant.apply(body | {"spec": body["spec"] | {"deletionPolicy": "Delete"}})
    tenant.ready()
    assert tenant.read_secret("shop-role") == password
    tenant.request_visit()  # It finds nothing to do.
    assert sum("patch secrets" in line for line in writes(tenant.plane, tenant.namespace)) == 2
    delete(tenant)
    until(20, lambda: is_gone(tenant))
    assert (there(tenant, body), secrets(tenant)) == (("0", "0"), {"admin"})


def test_nothing_is_made_before_the_finalizer_is_on(tenant: Tenant, make_operator: MakeOperator) -> None:
    tenant.operator.stop()
    kubeconfig = own_account(tenant)
    make_operator("--namespace", tenant.namespace, "--cluster-id", "tests", kubeconfig=kubeconfig).start()
    tenant.plane.kubectl("delete", "rolebinding", "hold", "-n", tenant.namespace)
    body = tenant.bootstrap(deletionPolicy="Delete")
    message = tenant.reaches("False", "ClusterUnavailable")
    assert f'patch databasebootstraps "shop" in namespace {tenant.namespace}' in message
    assert there(tenant, body) == ("0", "0")
    assert secrets(tenant) == {"admin"}
    bind(tenant, "hold")
    tenant.ready(seconds=40)
    assert tenant.get()["metadata"]["finalizers"] == [names.FINALIZER]


def test_namespaced_operator_keeps_everything_until_it_may_see_the_definition(
    tenant: Tenant, make_operator: MakeOperator
) -> None:
    tenant.operator.stop()
    kubeconfig = own_account(tenant)
    make_operator("--namespace", tenant.namespace, "--cluster-id", "tests", kubeconfig=kubeconfig).start()
    kept, dropped = made(tenant, "kept"), made(tenant, "dropped")
    delete(tenant, "kept")
    until(20, lambda: is_gone(tenant, "kept"))
    assert rows(tenant, kept) == 2
    assert secrets(tenant) >= {"kept-db", "kept-role"}
    assert "it lacks `get customresourcedefinitions`" in notes(tenant)[0]
    # As manifests/namespaced says.
    see = f"see-definition-{tenant.namespace}"
    what = ("--verb=get", "--resource=customresourcedefinitions", f"--resource-name={names.CRD_NAME}")
    tenant.plane.kubectl("create", "clusterrole", see, *what)
    account = f"--serviceaccount={tenant.namespace}:own"
    tenant.plane.kubectl("create", "clusterrolebinding", see, f"--clusterrole={see}", account)
    try:
        delete(tenant, "dropped")
        until(20, lambda: is_gone(tenant, "dropped"))
    finally:
        tenant.plane.kubectl("delete", "clusterrole,clusterrolebinding", see)
    assert there(tenant, dropped) == ("0", "0")
    assert rows(tenant, kept) == 2


@pytest.fixture
def cluster(tenant: Tenant, make_operator: MakeOperator, tmp_path: Path) -> Iterator[Callable[[str], Tenant]]:
    """Return a function that makes one more namespace in a cluster of the test's own, with what ends namespaces."""
    tenant.operator.stop()
    with ControlPlane.start(tmp_path / "plane", controller_manager=True) as plane:
        plane.kubectl("apply", "--server-side", "-k", ROOT / "crds")
        plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{names.CRD_NAME}")
        plane.kubectl("apply", "-f", ROOT / "manifests" / "namespace" / "namespace.yaml")
        plane.kubectl("apply", "-k", ROOT / "manifests" / "rbac")
        kubeconfig = plane.service_account_kubeconfig(SYSTEM_NAMESPACE, names.OPERATOR)
        operator = make_operator(kubeconfig=kubeconfig).start()

        def make(name: str) -> Tenant:
            plane.kubectl("create", "namespace", name)
            made = replace(tenant, plane=plane, namespace=name, operator=operator)
            made.admin_secret()
            return made

        yield make


def test_namespace_or_definition_that_goes_too_takes_no_row_along(cluster: Callable[[str], Tenant]) -> None:
    first, second = cluster("first"), cluster("second")
    plane, operator = first.plane, first.operator
    bodies = made(first, "one"), made(second, "two"), made(second, "three")
    plane.kubectl("delete", "namespace", "first", "--timeout=60s")
    assert rows(first, bodies[0]) == 2
    assert there(first, bodies[0]) == ("1", "1")
    assert any("the namespace first is being deleted as well" in it["message"] for it in operator.messages)

    # It goes while nobody looks; whoever comes later finds resources in deletion, and a definition that is going.
    operator.stop()
    plane.kubectl("delete", "crd", names.CRD_NAME, "--wait=false")
    until(20, lambda: "deletionTimestamp" in second.get("two")["metadata"])
    operator.start(ready=False)
    plane.kubectl("wait", "--for=delete", f"crd/{names.CRD_NAME}", "--timeout=60s")
    for body in bodies:
        assert rows(second, body) == 2
        assert there(second, body) == ("1", "1")
    assert secrets(second) >= {"admin", "two-db", "two-role", "three-db", "three-role"}
    assert any(f"{names.CRD_NAME} is being deleted as well" in it["message"] for it in operator.messages)
    assert not any("Deleted:" in it["message"] for it in operator.messages)
    # Made again, and applied again, all is as it was.
    plane.kubectl("apply", "--server-side", "-k", ROOT / "crds")
    plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{names.CRD_NAME}")
    second.apply(bodies[1])
    second.ready("two", seconds=40)
    assert rows(second, bodies[1]) == 2
