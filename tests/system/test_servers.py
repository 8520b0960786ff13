"""A platform team's server, from end to end: tenants without an admin Secret, refusals, changes, and its own status."""

import json
import urllib.error
from collections.abc import Callable
from typing import Any

import psycopg

from fix_operator import Operator, until
from fix_system import Platform, Tenant


def of(platform: Platform) -> dict[str, Any]:
    return {"ref": {"name": platform.name}}


def label(tenant: Tenant, **labels: str | None) -> None:
    path = f"/api/v1/namespaces/{tenant.namespace}"
    tenant.plane.request("PATCH", path, {"metadata": {"labels": labels}})


def test_tenant_gets_its_database_without_an_admin_secret(tenant: Tenant, platform: Platform) -> None:
    tenant.bootstrap(server=of(platform))
    # What is not there yet is waited for, and found when it comes.
    assert f"DatabaseServer {platform.name} is not there" in tenant.reaches("False", "ReferenceNotFound")
    platform.offer(allowedNamespaces={"matchLabels": {"team": "shop"}}, publicHost="db.example.org", publicPort=6432)
    said = tenant.reaches("False", "ServerRefused")
    assert f"namespace {tenant.namespace} may not use it" in said
    assert platform.reaches("True", "Succeeded")["databases"] == 0
    label(tenant, team="shop")
    tenant.request_visit(token="labelled")
    tenant.ready()
    found = tenant.connection()
    assert (found["host"], found["port"]) == ("db.example.org", "6432")
    assert "db.example.org" in tenant.plane.kubectl("-n", tenant.namespace, "get", "dbb", "shop", "-o", "wide")
    until(20, lambda: platform.get()["status"]["databases"] == 1)
    here = found | {"host": tenant.server.host, "port": tenant.server.port}
    with psycopg.connect(**here) as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    # Another address for applications is a change of the server alone, and reaches the Secret at once.
    platform.offer(allowedNamespaces={"matchLabels": {"team": "shop"}}, publicHost=tenant.server.host)
    until(20, lambda: tenant.connection()["host"] == tenant.server.host)
    status = platform.reaches("True", "Succeeded")
    assert status["server"]["host"] == tenant.server.host
    assert status["server"]["version"].startswith(str(tenant.server.major))
    assert status["administrator"] == {"name": tenant.admin.user, "superuser": tenant.is_superuser}


def test_refusals_name_the_rule_and_leave_nothing_behind(tenant: Tenant, platform: Platform) -> None:
    platform.offer(
        allowedNamespaces={},
        allowedNames={"roles": ["*"], "databases": ["{namespace}_*"]},
        allowedExtensions=["pg_trgm"],
    )
    body = tenant.bootstrap(server=of(platform), extensions=[{"name": "pg_trgm"}, {"name": "hstore"}])
    said = tenant.reaches("False", "ServerRefused")
    assert f"is none of the allowedNames.databases ({tenant.namespace}_*)" in said
    assert "extensions hstore are not among its allowedExtensions (pg_trgm)" in said
    role, database = body["spec"]["role"]["name"], body["spec"]["database"]["name"]
    query = f"SELECT count(*) FROM pg_roles, pg_database WHERE rolname = '{role}' OR datname = '{database}'"
    assert tenant.server.psql(query) == "0"
    conditions = {it["type"]: it["status"] for it in tenant.get()["status"]["conditions"]}
    assert conditions["Stalled"] == "True"
    # What exists already, and belongs to nobody, is not taken.
    tenant.server.psql(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'known'")
    tenant.server.psql(f'CREATE DATABASE "{database}" OWNER "{role}"')
    tenant.secret("own", {"password": "known"})
    platform.offer(allowedNamespaces={})
    owned = {"name": role, "passwordSecretRef": {"name": "own"}}
    tenant.bootstrap(server=of(platform), role=owned, database={"name": database})
    assert "its allowAdoption is false" in tenant.reaches("False", "ServerRefused")
    platform.offer(allowedNamespaces={}, allowAdoption=True)
    tenant.ready()
    events = [it["note"] for it in tenant.events() if it["reason"] == "ServerRefused"]
    assert any("allowedNames" in note for note in events)


def test_server_says_what_its_administrator_lacks(tenant: Tenant, platform: Platform) -> None:
    name = tenant.unique("weak")
    tenant.server.psql(f"CREATE ROLE \"{name}\" LOGIN CREATEROLE PASSWORD 'weak-one'")
    platform.secret(**tenant.admin_keys | {"username": name, "password": "weak-one"})
    platform.offer(allowedNamespaces={})
    status = platform.reaches("False", "AccessDenied")
    (missing,) = status["missingRights"]
    assert missing["sql"] == f'ALTER ROLE "{name}" CREATEDB'
    conditions = {it["type"]: it["status"] for it in status["conditions"]}
    assert conditions == {"Ready": "False", "Stalled": "True", "Reachable": "True", "RightsSuffice": "False"}
    assert missing["sql"] in next(it["message"] for it in status["conditions"] if it["type"] == "Ready")
    tenant.server.psql(missing["sql"])
    platform.offer(allowedNamespaces={}, intervalSeconds=5)
    assert "missingRights" not in platform.reaches("True", "Succeeded")
    # An unchanged look writes nothing.
    version = platform.get()["metadata"]["resourceVersion"]
    failed = f"ALTER ROLE \"{name}\" PASSWORD 'another'"
    metrics = tenant.operator.metrics()
    assert metrics[f'dbbootstrap_server_ready{{server="{platform.name}"}}'] == 1
    assert platform.get()["metadata"]["resourceVersion"] == version
    tenant.server.psql(failed)
    said = platform.reaches("False", "AdminLoginRefused")
    message = next(it["message"] for it in said["conditions"] if it["type"] == "Ready")
    assert f"refuses the administrator {name}" in message
    # What was known of the server stays known.
    assert said["server"]["host"] == tenant.server.host


def test_deleted_server_drops_nothing_and_is_waited_for(tenant: Tenant, platform: Platform) -> None:
    platform.offer(allowedNamespaces={})
    tenant.bootstrap(server=of(platform), deletionPolicy="Delete")
    tenant.ready()
    uid = tenant.get()["metadata"]["uid"]
    platform.delete()
    assert "is not there; it is waited for" in tenant.reaches("False", "ReferenceNotFound")
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb/shop", "--wait=false")
    until(30, lambda: "being deleted" in json.dumps(tenant.get()["status"]["conditions"]))
    assert tenant.query("SELECT 1") == [(1,)]
    assert tenant.get()["metadata"]["uid"] == uid
    platform.offer(allowedNamespaces={})
    until(40, lambda: not _exists(tenant))


def _exists(tenant: Tenant) -> bool:
    try:
        tenant.get()
    except urllib.error.HTTPError as error:
        error.close()
        return False
    return True


def test_platforms_secret_deleted_changes_nothing_for_tenants(tenant: Tenant, platform: Platform) -> None:
    platform.offer(allowedNamespaces={})
    tenant.bootstrap(server=of(platform))
    tenant.ready()
    version = tenant.get()["metadata"]["resourceVersion"]
    tenant.plane.request("DELETE", f"/api/v1/namespaces/{platform.namespace}/secrets/postgres")
    platform.request_look()
    said = platform.reaches("False", "ReferenceNotFound")
    message = next(it["message"] for it in said["conditions"] if it["type"] == "Ready")
    assert message == f"Secret {platform.namespace}/postgres is not there; it is waited for (adminSecretRef)"
    visits = tenant.operator.metrics()["dbbootstrap_reconcile_time_seconds_count"]
    platform.offer(allowedNamespaces={}, maxConnections=9)
    until(20, lambda: tenant.operator.metrics()["dbbootstrap_reconcile_time_seconds_count"] > visits)
    assert tenant.get()["metadata"]["resourceVersion"] == version


def test_operator_of_one_namespace_says_that_it_may_not_read_servers(
    tenant: Tenant, platform: Platform, make_operator: Callable[..., Operator]
) -> None:
    tenant.operator.stop()
    within = ("--namespace", tenant.namespace)
    account = f"--serviceaccount={tenant.namespace}:one"
    tenant.plane.kubectl("create", "serviceaccount", "one", *within)
    tenant.plane.kubectl("create", "rolebinding", "one", *within, "--clusterrole=database-bootstrap-operator", account)
    access = tenant.plane.service_account_kubeconfig(tenant.namespace, "one")
    operator = make_operator(*within, "--cluster-id", "tests", kubeconfig=access).start()
    assert any("DatabaseServers are read one by one" in it["message"] for it in operator.messages)
    platform.offer(allowedNamespaces={})
    tenant.bootstrap(server=of(platform))
    assert f'get databaseservers "{platform.name}"' in tenant.reaches("False", "ClusterUnavailable")
    # As the kustomization of the namespaced install says: to read them, and one Secret.
    read = ("--verb=get,list,watch", "--resource=databaseservers.dbbootstrap.io")
    name = f"servers-{tenant.namespace}"
    try:
        tenant.plane.kubectl("create", "clusterrole", name, *read)
        tenant.plane.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", account)
        # What the platform team calls its Secret, and where that is, is no tenant's matter.
        said = tenant.reaches("False", "ReferenceNotFound", seconds=60)
        assert f"DatabaseServer {platform.name} has no administrator's access now" in said
        assert platform.namespace not in said
        assert f"Operator started: it serves {tenant.namespace}" in {it["message"] for it in operator.messages}
        warned = [it["message"] for it in operator.messages if it["level"] == "warning"]
        assert any(f'get secrets "postgres" in namespace {platform.namespace}' in message for message in warned), warned
        beside = ("--namespace", platform.namespace)
        tenant.plane.kubectl("create", "role", "admin", *beside, "--verb=get", "--resource=secrets")
        tenant.plane.kubectl("create", "rolebinding", "admin", *beside, "--role=admin", account)
        tenant.ready(seconds=60)
        assert platform.get()["status"] == {"observedGeneration": -1}
    finally:
        tenant.plane.kubectl("delete", "clusterrole,clusterrolebinding", name, "--ignore-not-found")
