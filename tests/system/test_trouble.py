"""What goes wrong in practice: the status has the sentence that a person needs, and heals without help where it can."""

import signal

import pytest

from fix_operator import until
from fix_system import Tenant
from status_linter import kstatus


def test_missing_admin_secret_is_found_within_five_seconds(tenant: Tenant) -> None:
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "secret", "admin")
    tenant.bootstrap()
    assert "Secret admin" in tenant.reaches("False", "ReferenceNotFound")
    assert kstatus(tenant.get()) == "InProgress"
    tenant.admin_secret()
    tenant.ready(seconds=8)
    assert kstatus(tenant.get()) == "Current"


def test_missing_key_is_named(tenant: Tenant) -> None:
    tenant.secret("own", {"other": "x"})
    tenant.bootstrap(role={"name": tenant.unique("r"), "passwordSecretRef": {"name": "own", "key": "pw"}})
    assert "no key pw" in tenant.reaches("False", "ReferenceNotFound")
    tenant.secret("own", {"pw": "now it is here"})
    tenant.ready(seconds=10)


def test_wrong_admin_password_heals_when_it_is_corrected(tenant: Tenant) -> None:
    tenant.admin_secret(password="wrong")
    tenant.bootstrap()
    message = tenant.reaches("False", "AdminLoginRefused")
    assert "28P01" in message and "wrong" not in message
    assert kstatus(tenant.get()) == "InProgress"
    tenant.admin_secret()
    tenant.ready(seconds=40)


def test_password_with_a_line_break_is_refused_with_a_sentence(tenant: Tenant) -> None:
    tenant.admin_secret(password="right\n")
    tenant.bootstrap()
    assert "line break" in tenant.reaches("False", "ReferenceRejected")
    assert kstatus(tenant.get()) == "Failed"


def test_server_that_is_away_is_waited_for(tenant: Tenant) -> None:
    tenant.server.stop()
    tenant.bootstrap()
    tenant.reaches("False", "ServerUnreachable")
    tenant.server.start_again()
    tenant.ready(seconds=40)


def test_server_that_reads_only_by_default_is_written_all_the_same(tenant: Tenant) -> None:
    tenant.server.psql("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
    try:
        tenant.bootstrap()
        tenant.ready(seconds=30)
    finally:
        tenant.server.psql(
            "SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only;"
            "SELECT pg_reload_conf()"
        )


def test_standby_is_waited_for_until_it_is_promoted(tenant: Tenant) -> None:
    signal_file = tenant.server.datadir / "standby.signal"
    tenant.server.stop()
    signal_file.touch()
    try:
        tenant.server.start_again()
        tenant.bootstrap()
        assert "25006" in tenant.reaches("False", "ServerReadOnly")
        tenant.server.psql("SELECT pg_promote()")
        tenant.ready(seconds=40)
    finally:
        signal_file.unlink(missing_ok=True)


def test_server_without_connections_is_waited_for(tenant: Tenant) -> None:
    tenant.server.psql(f'ALTER ROLE "{tenant.admin.user}" CONNECTION LIMIT 0')
    tenant.bootstrap()
    if tenant.is_superuser:
        tenant.ready()  # connection limits do not bind superusers
        return
    tenant.reaches("False", "ServerBusy")
    tenant.server.psql(f'ALTER ROLE "{tenant.admin.user}" CONNECTION LIMIT -1')
    tenant.ready(seconds=40)


def test_unknown_extension_leaves_the_stages_before_it_true(tenant: Tenant) -> None:
    tenant.bootstrap(extensions=[{"name": "no_such_thing"}])
    message = tenant.reaches("False", "ExtensionUnavailable")
    assert "no_such_thing" in message
    conditions = {one["type"]: one["status"] for one in tenant.get()["status"]["conditions"]}
    assert conditions["RoleReady"] == conditions["DatabaseReady"] == "True"
    assert conditions["ExtensionsReady"] == "False"
    assert conditions["MigrationsApplied"] == conditions["Seeded"] == "Unknown"
    assert conditions["Stalled"] == "True"
    assert kstatus(tenant.get()) == "Failed"
    until(10, lambda: any(event["type"] == "Warning" for event in tenant.events()))
    assert [event["reason"] for event in tenant.events() if event["type"] == "Warning"] == ["ExtensionUnavailable"]


def test_failed_migration_is_in_the_status_and_goes_on_when_corrected(tenant: Tenant) -> None:
    source = {"inline": [{"path": "1_a.sql", "content": "CREATE TABLE a (id int);\nSELECT * FROM missing;"}]}
    body = tenant.bootstrap(migrations={"tool": "SQL", "source": source})
    message = tenant.reaches("False", "MigrationFailed")
    assert "1_a.sql line 2" in message and "42P01" in message
    failed = tenant.get()["status"]["migrations"]["failed"]
    assert (failed["sqlState"], failed["line"]) == ("42P01", 2)
    source = {"inline": [{"path": "1_a.sql", "content": "CREATE TABLE a (id int);"}]}
    tenant.apply(body | {"spec": body["spec"] | {"migrations": {"tool": "SQL", "source": source}}})
    status = tenant.ready()
    assert "failed" not in status["migrations"]


def test_foreign_connection_secret_is_never_overwritten(tenant: Tenant) -> None:
    tenant.secret("shop-db", {"precious": "theirs"})
    tenant.bootstrap()
    assert "shop-db" in tenant.reaches("False", "NotOwned")
    assert tenant.read_secret("shop-db") == {"precious": "theirs"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
def test_operator_that_is_ended_in_the_middle_goes_on(tenant: Tenant, number: signal.Signals) -> None:
    source = {"inline": [{"path": "1_a.sql", "content": "CREATE TABLE a (id int); SELECT pg_sleep(2);"}]}
    seed = {"source": {"inline": [{"path": "a.sql", "content": "INSERT INTO a VALUES (1)"}]}}
    tenant.bootstrap(migrations={"tool": "SQL", "source": source}, seed=seed)
    running = "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND pid <> pg_backend_pid()"
    until(20, lambda: tenant.server.psql(running, "-tA").strip() != "0")
    tenant.operator.stop() if number is signal.SIGTERM else tenant.operator.kill()
    tenant.operator.start()
    tenant.ready(seconds=60)
    assert tenant.query("SELECT count(*) FROM a") == [(1,)]
    assert tenant.get()["status"]["database"]["origin"] == "Created"
