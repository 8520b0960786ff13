"""The main job, end to end: kubectl, the operator as a process under its shipped rights, and PostgreSQL."""

import json
from typing import Any

from fix_operator import until, writes
from fix_system import Tenant

USERS = "CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE NOT NULL);"
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY);"
EVERYTHING: dict[str, Any] = {
    "extensions": [{"name": "pg_trgm"}],
    "migrations": {"tool": "Prisma", "source": {"configMapRefs": [{"name": "migrations"}]}},
    "seed": {"source": {"inline": [{"path": "seed.sql", "content": "INSERT INTO users (email) VALUES ('a'), ('b')"}]}},
}


def shop(tenant: Tenant) -> None:
    tenant.config_map("migrations", {"20240101000000_users.sql": USERS}, watched=True)
    tenant.bootstrap(**EVERYTHING)


def test_story_restart_anything_and_lose_nothing(tenant: Tenant) -> None:
    shop(tenant)
    status = tenant.ready()
    assert tenant.query("SELECT count(*) FROM users") == [(2,)]
    tenant.query("INSERT INTO users (email) VALUES ('test@example.com')")
    version = tenant.get()["metadata"]["resourceVersion"]
    assert tenant.operator.stop() == 0
    tenant.server.restart()
    tenant.operator.start()
    until(30, lambda: tenant.operator.metrics().get('dbbootstrap_reconcile_total{result="success"}', 0) >= 1)
    assert tenant.query("SELECT count(*) FROM users WHERE email = 'test@example.com'") == [(1,)]
    assert tenant.query("SELECT count(*) FROM users") == [(3,)]
    assert tenant.get()["metadata"]["resourceVersion"] == version
    assert tenant.get()["status"]["lastChange"] == status["lastChange"]


def test_new_migration_in_a_watched_config_map_acts_at_once_and_alone(tenant: Tenant) -> None:
    shop(tenant)
    tenant.ready()
    tenant.config_map(
        "migrations", {"20240101000000_users.sql": USERS, "20240102000000_orders.sql": ORDERS}, watched=True
    )
    until(10, lambda: tenant.get()["status"]["migrations"]["applied"] == 2)
    status = tenant.ready()
    assert status["migrations"]["current"] == "20240102000000_orders"
    assert status["lastChange"]["changes"] == 1
    assert tenant.query("SELECT count(*) FROM users") == [(2,)]


def test_unchanged_visit_writes_nothing_into_the_cluster(tenant: Tenant) -> None:
    shop(tenant)
    tenant.ready()
    tenant.request_visit()
    until(10, lambda: tenant.get()["status"]["lastHandledReconcileAt"] == "now")
    before = writes(tenant.plane, tenant.namespace)
    version = tenant.get()["metadata"]["resourceVersion"]
    success = 'dbbootstrap_reconcile_total{result="success"}'
    tenant.operator.stop()
    tenant.operator.start()
    until(30, lambda: tenant.operator.metrics().get(success, 0) >= 1)
    assert writes(tenant.plane, tenant.namespace) == before
    assert tenant.get()["metadata"]["resourceVersion"] == version


def test_six_api_writes_suffice(tenant: Tenant) -> None:
    shop(tenant)
    tenant.ready()
    until(5, lambda: tenant.events())
    made = writes(tenant.plane, tenant.namespace)
    assert len(made) <= 6, made


def test_one_event_lists_the_changes(tenant: Tenant) -> None:
    shop(tenant)
    tenant.ready()
    until(5, lambda: tenant.events())
    (event,) = tenant.events()
    assert event["type"] == "Normal"
    assert "create database" in event["note"] and "migration" in event["note"]


def test_what_kubectl_shows(tenant: Tenant) -> None:
    shop(tenant)
    tenant.ready()
    shown = tenant.plane.kubectl("-n", tenant.namespace, "get", "dbb")
    header, row = shown.splitlines()
    assert header.split()[:5] == ["NAME", "READY", "REASON", "DATABASE", "MIGRATION"]
    assert row.split()[:3] == ["shop", "True", "Succeeded"]
    assert "20240101000000_users" in row
    waited = tenant.plane.kubectl("-n", tenant.namespace, "wait", "dbb/shop", "--for=condition=Ready", "--timeout=5s")
    assert "condition met" in waited


def test_secret_has_both_families_of_keys(tenant: Tenant) -> None:
    tenant.bootstrap()
    tenant.ready()
    found = tenant.plane.request("GET", f"/api/v1/namespaces/{tenant.namespace}/secrets/shop-db")
    assert found["type"] == "servicebinding.io/postgresql"
    assert "ownerReferences" not in found["metadata"]
    assert {
        "type",
        "host",
        "port",
        "database",
        "username",
        "password",
        "uri",
        "dbname",
        "user",
        "jdbc-uri",
        "pgpass",
    } <= set(found["data"])


def test_second_resource_harms_nothing(tenant: Tenant) -> None:
    body = tenant.bootstrap()
    tenant.ready()
    before = tenant.query("SELECT count(*) FROM dbbootstrap.audit_log")
    tenant.apply(body | {"metadata": {"name": "thief"}})
    message = tenant.reaches("False", "NotOwned", "thief")
    assert f"{tenant.namespace}/shop" in message
    assert tenant.query("SELECT count(*) FROM dbbootstrap.audit_log") == before
    tenant.ready()


def test_deleting_the_resource_keeps_everything(tenant: Tenant) -> None:
    shop(tenant)
    tenant.ready()
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", "shop", "--timeout=10s")
    assert tenant.query("SELECT count(*) FROM users") == [(2,)]


def test_suspended_resource_is_left_alone(tenant: Tenant) -> None:
    tenant.bootstrap(suspend=True)
    tenant.bootstrap("other")
    tenant.ready("other")
    assert "conditions" not in tenant.get()["status"]
    tenant.plane.kubectl(
        "-n", tenant.namespace, "patch", "dbb", "shop", "--type=merge", "-p", json.dumps({"spec": {"suspend": False}})
    )
    tenant.ready()
