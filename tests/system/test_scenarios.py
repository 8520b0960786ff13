"""Nothing is ever lost: what goes wrong in practice, end to end, with the rows counted before and after.

docs/data-safety.md has the table: scenario, what the operator does, what the person sees, what to do. Each test has a
shop with two seeded users and one who came later.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fix_operator import BOOTSTRAPS, Operator, until
from fix_postgres import SETTINGS
from fix_status import StatusWatch
from fix_system import Tenant
from localservers import Credentials, PostgresServer
from postgres import alembic_projects as projects

USERS = "CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE NOT NULL);"
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY);"
SEED = {"source": {"inline": [{"path": "users.sql", "content": "INSERT INTO users (email) VALUES ('a'), ('b')"}]}}
FIRST = {"1_users.sql": USERS}
LATER = "INSERT INTO users (email) VALUES ('test@example.com')"


def sql(files: dict[str, str], **options: Any) -> dict[str, Any]:
    source = {"inline": [{"path": path, "content": content} for path, content in files.items()]}
    return {"tool": "SQL", "source": source, **options}


def shop(tenant: Tenant, **spec: Any) -> dict[str, Any]:
    """Make a shop that is Ready, with three users; return the resource as it was applied."""
    body = tenant.bootstrap(**{"migrations": sql(FIRST), "seed": SEED} | spec)
    tenant.ready()
    tenant.query(LATER)
    assert users(tenant) == 3
    return body


def users(tenant: Tenant, database: str = "") -> int:
    """Count as the server's own superuser, who needs no published Secret."""
    name = database or tenant.get()["spec"]["database"]["name"]
    return int(tenant.server.psql("SELECT count(*) FROM users", dbname=name))


def change(tenant: Tenant, body: dict[str, Any], **spec: Any) -> None:
    tenant.apply(body | {"spec": body["spec"] | spec})


def annotate(tenant: Tenant, name: str, value: str) -> None:
    body = {"metadata": {"annotations": {f"dbbootstrap.io/{name}": value}}}
    tenant.plane.request("PATCH", f"{BOOTSTRAPS.format(tenant.namespace)}/shop", body)


def look(tenant: Tenant, token: str = "look") -> None:
    """Have the resource visited now."""
    annotate(tenant, "reconcile-requested-at", token)


def ledger(tenant: Tenant, query: str) -> str:
    return tenant.server.psql(query, dbname=tenant.get()["spec"]["database"]["name"])


@pytest.fixture
def alone(tenant: Tenant, tmp_path: Path) -> Iterator[Tenant]:
    """A tenant on a server that nobody else uses, which can be wiped."""
    installation = tenant.server.installation
    folder = tmp_path / "own"
    with PostgresServer.start(folder, installation, settings=SETTINGS, own_identity=True, in_memory=True) as server:
        make_administrator(tenant, server)
        moved = replace(tenant, server=server)
        moved.admin_secret()
        yield moved


def make_administrator(tenant: Tenant, server: PostgresServer) -> None:
    """Make the tenant's administrator on another, or an emptied, server."""
    right = "SUPERUSER" if tenant.is_superuser else "CREATEROLE CREATEDB"
    server.psql(f"CREATE ROLE \"{tenant.admin.user}\" LOGIN {right} PASSWORD '{tenant.admin.password}'")


def test_volume_wiped(alone: Tenant) -> None:
    body = shop(alone)
    lost = alone.get()["status"]["database"]["incarnation"]
    alone.server.wipe()
    make_administrator(alone, alone.server)
    look(alone)
    message = alone.reaches("False", "DataLossDetected", seconds=60)
    assert f"dbbootstrap.io/acknowledge-data-loss={lost}" in message
    names = alone.server.psql("SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles").splitlines()
    assert not {body["spec"]["database"]["name"], body["spec"]["role"]["name"]} & set(names)
    annotate(alone, "acknowledge-data-loss", lost)
    alone.ready()
    assert users(alone) == 2  # the seed's
    assert alone.get()["status"]["database"]["incarnation"] != lost


def test_database_dropped_by_hand(tenant: Tenant) -> None:
    body = shop(tenant)
    name = body["spec"]["database"]["name"]
    lost = tenant.get()["status"]["database"]["incarnation"]
    copy = tenant.server.dump(name, "--create")
    tenant.server.psql(f'DROP DATABASE "{name}" WITH (FORCE)')
    look(tenant)
    assert lost in tenant.reaches("False", "DataLossDetected")
    assert tenant.server.psql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'") == ""
    # It heals when the data is brought back.
    tenant.server.psql(copy)
    look(tenant, "again")
    tenant.ready()
    assert users(tenant) == 3
    assert ledger(tenant, "SELECT count(*) FROM dbbootstrap.seed") == "1"


def test_resource_deleted_and_applied_again(tenant: Tenant) -> None:
    body = shop(tenant)
    before = tenant.get()
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", "shop", "--timeout=10s")
    assert users(tenant, body["spec"]["database"]["name"]) == 3
    tenant.apply(body)
    status = tenant.ready()
    assert tenant.get()["metadata"]["uid"] != before["metadata"]["uid"]
    assert status["database"]["incarnation"] == before["status"]["database"]["incarnation"]
    assert status["database"]["origin"] == "Created"
    assert users(tenant) == 3
    assert ledger(tenant, "SELECT count(*) FROM dbbootstrap.migration") == "1"


def test_two_resources_claim_one_database(tenant: Tenant) -> None:
    body = shop(tenant)
    tenant.apply(body | {"metadata": {"name": "thief"}})
    message = tenant.reaches("False", "NotOwned", "thief")
    assert f"{tenant.namespace}/shop" in message
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "dbb", "thief", "--timeout=10s")
    look(tenant)
    tenant.ready()
    assert users(tenant) == 3


def test_second_operator_runs(
    tenant: Tenant, make_operator: Callable[..., Operator], status_watch: StatusWatch
) -> None:
    other = make_operator("--namespace", tenant.namespace).start()
    names = [f"shop{number}" for number in range(4)]
    for name in names:
        # Two operators without a Lease overwrite each other's status, as the README says; the rows are what counts.
        status_watch.excuse(tenant.namespace, name)
        tenant.bootstrap(name, migrations=sql(FIRST | {"2_orders.sql": ORDERS}), seed=SEED)
    for name in names:
        tenant.ready(name, 60)
        assert tenant.query("SELECT count(*) FROM users", name) == [(2,)]
        done = tenant.query("SELECT name, state FROM dbbootstrap.migration ORDER BY seq", name)
        assert done == [("1_users.sql", "applied"), ("2_orders.sql", "applied")]
        assert tenant.query("SELECT state FROM dbbootstrap.seed", name) == [("seeded",)]
        assert tenant.query("SELECT count(*) FROM dbbootstrap.identity", name) == [(1,)]
    assert other.is_running and tenant.operator.is_running
    assert "raceback" not in other.log + tenant.operator.log


def test_init_sql_made_the_tables_first(tenant: Tenant) -> None:
    body = tenant.bootstrap()
    tenant.ready()
    tenant.query(USERS + LATER)
    later = FIRST | {"2_orders.sql": ORDERS}
    change(tenant, body, migrations=sql(later), seed=SEED)
    message = tenant.reaches("False", "SchemaHasOtherOwner")
    assert "public.users" in message and "baseline" in message
    assert users(tenant) == 1
    assert ledger(tenant, "SELECT count(*) FROM dbbootstrap.migration") == "0"
    change(tenant, body, migrations=sql(later, baseline="1_users.sql"), seed=SEED)
    tenant.ready()
    assert users(tenant) == 1
    done = tenant.query("SELECT name, state FROM dbbootstrap.migration ORDER BY seq")
    assert done == [("1_users.sql", "baselined"), ("2_orders.sql", "applied")]


def test_destructive_migration(tenant: Tenant) -> None:
    body = shop(tenant)
    files = FIRST | {"2_orders.sql": ORDERS, "3_drop.sql": "DROP TABLE users"}
    change(tenant, body, migrations=sql(files))
    message = tenant.reaches("False", "DestructiveMigration")
    assert "3_drop.sql line 1" in message and "3 rows" in message
    assert users(tenant) == 3
    assert ledger(tenant, "SELECT to_regclass('public.orders') IS NULL") == "t"
    change(tenant, body, migrations=sql(FIRST | {"2_orders.sql": ORDERS}))
    tenant.ready()
    assert users(tenant) == 3
    change(tenant, body, migrations=sql(files, allowDestructive=["3_drop.sql"]))
    tenant.ready()
    assert ledger(tenant, "SELECT to_regclass('public.users') IS NULL") == "t"


def test_application_writes_into_a_table_that_is_about_to_go(tenant: Tenant) -> None:
    body = shop(tenant, migrations=sql(FIRST | {"2_orders.sql": ORDERS}))
    name = body["spec"]["database"]["name"]
    waits = "SELECT 1 FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted"
    with psycopg.connect(tenant.server.dsn(name)) as application:
        application.execute("INSERT INTO orders VALUES (1)")
        change(tenant, body, migrations=sql(FIRST | {"2_orders.sql": ORDERS, "3_drop.sql": "DROP TABLE orders"}))
        until(20, lambda: tenant.server.psql(waits, dbname=name))
        application.commit()
    message = tenant.reaches("False", "DestructiveMigration")
    assert "3_drop.sql line 1: drop table orders (public.orders: 1 row)" in message
    assert tenant.query("SELECT count(*) FROM orders") == [(1,)]
    assert users(tenant) == 3


def test_edited_migration(tenant: Tenant) -> None:
    body = shop(tenant)
    edited = {"1_users.sql": USERS.replace("UNIQUE", "")}
    change(tenant, body, migrations=sql(edited | {"2_orders.sql": ORDERS}))
    message = tenant.reaches("False", "MigrationDiverged")
    assert "1_users.sql" in message
    assert users(tenant) == 3
    assert ledger(tenant, "SELECT to_regclass('public.orders') IS NULL") == "t"
    change(tenant, body, migrations=sql(FIRST | {"2_orders.sql": ORDERS}))
    tenant.ready()
    assert users(tenant) == 3


FAILING = {
    "first": ({"1_users.sql": "CREATE TABLE users (id int); SELECT broken;"}, "MigrationFailed", "1_users.sql"),
    "middle": (FIRST | {"2_bad.sql": "SELECT broken", "3_orders.sql": ORDERS}, "MigrationFailed", "2_bad.sql"),
    "not transactional": (
        FIRST | {"2_bad.sql": "-- dbbootstrap: transaction=off\nCREATE TABLE half (id int);\nSELECT broken;"},
        "MigrationHalfApplied",
        "2_bad.sql",
    ),
}


@pytest.mark.parametrize(("files", "reason", "name"), FAILING.values(), ids=FAILING)
def test_failing_migration(tenant: Tenant, files: dict[str, str], reason: str, name: str) -> None:
    first_fails = name == "1_users.sql"
    body = tenant.bootstrap(seed=SEED) if first_fails else shop(tenant)
    change(tenant, body, migrations=sql(files), seed=SEED)
    assert name in tenant.reaches("False", reason)
    assert tenant.get()["status"]["migrations"]["applied"] == (0 if first_fails else 1)
    if first_fails:
        assert ledger(tenant, "SELECT to_regclass('public.users') IS NULL") == "t"
        change(tenant, body, migrations=sql(FIRST), seed=SEED)
        tenant.ready()
        assert users(tenant) == 2
        return
    assert users(tenant) == 3
    assert ledger(tenant, "SELECT to_regclass('public.orders') IS NULL") == "t"


def test_git_rolled_back(tenant: Tenant) -> None:
    newer = FIRST | {"2_orders.sql": ORDERS}
    body = shop(tenant, migrations=sql(newer))
    change(tenant, body, migrations=sql(FIRST))
    assert "2_orders.sql" in tenant.reaches("False", "MigrationDiverged")
    assert users(tenant) == 3
    assert ledger(tenant, "SELECT to_regclass('public.orders') IS NOT NULL") == "t"
    change(tenant, body, migrations=sql(newer))
    tenant.ready()
    assert users(tenant) == 3


def test_application_migrates_at_the_same_moment(tenant: Tenant, tmp_path: Path) -> None:
    slow = {"r003": projects.STEPS["r003"] + "\n" + 'op.execute("SELECT pg_sleep(1)")'}
    files = projects.project(projects.chain(projects.FIVE, **slow))
    body = tenant.bootstrap()
    tenant.ready()
    source = {"inline": [{"path": path, "content": content} for path, content in files.items()]}
    login = tenant.connection()
    application = Credentials(user=login["user"], password=login["password"])
    with start_alembic(tmp_path, files, tenant.server.client_environment(login["dbname"], application)) as process:
        change(tenant, body, migrations={"tool": "Alembic", "source": source})
        tenant.ready(seconds=60)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert tenant.query("SELECT version_num FROM alembic_version") == [("r005",)]
    assert tenant.query("SELECT name, email FROM customer") == [("Anna", "ann@example.com")]


def start_alembic(folder: Path, files: dict[str, str], environment: dict[str, str]) -> "subprocess.Popen[str]":
    """Start `alembic upgrade head`, as an application does when it starts."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text.replace("driver://user:pass@localhost/dbname", "postgresql+psycopg://"))
    return subprocess.Popen(
        [Path(sys.executable).with_name("alembic"), "upgrade", "head"],
        cwd=folder,
        env={**environment, "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_non_empty_database_with_a_seed(tenant: Tenant) -> None:
    body = tenant.bootstrap(migrations=sql(FIRST))
    tenant.ready()
    tenant.query(LATER)
    change(tenant, body, seed=SEED)
    status = tenant.ready()
    assert status["seed"]["state"] == "Adopted"
    assert users(tenant) == 1


def test_seed_that_fails_half_way(tenant: Tenant) -> None:
    broken = {"inline": [{"path": "users.sql", "content": "INSERT INTO users (email) VALUES ('a'); SELECT 1 / 0;"}]}
    body = tenant.bootstrap(migrations=sql(FIRST), seed={"source": broken})
    assert "users.sql" in tenant.reaches("False", "SeedFailed")
    assert users(tenant) == 0
    change(tenant, body, seed=SEED)
    tenant.ready()
    assert users(tenant) == 2
    assert ledger(tenant, "SELECT state FROM dbbootstrap.seed") == "seeded"


@pytest.mark.parametrize("secret", ["shop-role", "shop-db", "admin"])
def test_credentials_secret_deleted(tenant: Tenant, secret: str) -> None:
    shop(tenant)
    before = tenant.connection()
    tenant.plane.kubectl("-n", tenant.namespace, "delete", "secret", secret)
    annotate(tenant, "reconcile-requested-at", "now")
    until(30, lambda: tenant.get()["status"].get("lastHandledReconcileAt") == "now")
    tenant.ready()
    assert tenant.connection() == before
    assert users(tenant) == 3
    if secret != "admin":
        tenant.read_secret(secret)


def test_password_changed_on_the_server(tenant: Tenant) -> None:
    body = shop(tenant)
    tenant.server.psql(f"ALTER ROLE \"{body['spec']['role']['name']}\" PASSWORD 'of somebody'")
    tenant.request_visit()
    tenant.ready()
    assert tenant.query("SELECT count(*) FROM users") == [(3,)]


def test_password_changed_in_the_secret(tenant: Tenant) -> None:
    tenant.secret("own", {"password": "before"})
    shop(tenant, role={"name": tenant.unique("own"), "passwordSecretRef": {"name": "own"}})
    tenant.secret("own", {"password": "after"})
    tenant.request_visit()
    tenant.ready()
    assert tenant.connection()["password"] == "after"
    assert tenant.query("SELECT count(*) FROM users") == [(3,)]


def test_dump_restored_into_a_new_server(tenant: Tenant, alone: Tenant) -> None:
    tenant.admin_secret()
    body = shop(tenant)
    role, database = body["spec"]["role"]["name"], body["spec"]["database"]["name"]
    verifier = tenant.server.psql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")
    comment = tenant.server.psql(
        f"SELECT quote_literal(shobj_description(oid, 'pg_authid')) FROM pg_roles WHERE rolname = '{role}'"
    )
    alone.server.psql(f'CREATE ROLE "{role}" LOGIN PASSWORD \'{verifier}\'; COMMENT ON ROLE "{role}" IS {comment}')
    if not tenant.is_superuser and alone.server.major >= 16:
        alone.server.psql(f'GRANT "{role}" TO "{alone.admin.user}" WITH ADMIN TRUE, INHERIT FALSE, SET FALSE')
    alone.server.psql(tenant.server.dump(database, "--create"))
    alone.admin_secret()
    look(alone)
    until(30, lambda: alone.get()["status"]["server"]["port"] == alone.server.port)
    alone.ready()
    assert users(alone) == 3
    assert ledger(alone, "SELECT count(*) FROM dbbootstrap.seed") == "1"
    assert any("moved to server" in event["note"] for event in alone.events())
    assert alone.connection()["port"] == str(alone.server.port)


def test_password_is_another_one_on_a_persons_word(tenant: Tenant) -> None:
    reader = tenant.unique("reader")
    body = tenant.bootstrap(migrations=sql(FIRST), seed=SEED, access=[{"role": reader, "level": "ReadOnly"}])
    message = tenant.reaches("False", "AccessRoleNotFound")
    assert f'CREATE ROLE "{reader}" LOGIN' in message
    # The application does not wait for others.
    tenant.query(LATER)
    tenant.server.psql(f'CREATE ROLE "{reader}" LOGIN')
    tenant.ready()
    old = tenant.connection()
    annotate(tenant, "rotate-password", "2024-05-01")
    until(30, lambda: tenant.connection()["password"] != old["password"])
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(**old).close()
    assert tenant.query("SELECT count(*) FROM users") == [(3,)]
    until(30, lambda: tenant.get()["status"]["role"].get("passwordRotation") == "2024-05-01")
    new = tenant.connection()
    # Taken out of Git and applied again, the word and all: it was acted upon.
    tenant.plane.request("DELETE", f"{BOOTSTRAPS.format(tenant.namespace)}/shop")
    body["metadata"]["annotations"] = {"dbbootstrap.io/rotate-password": "2024-05-01"}
    tenant.apply(body)
    tenant.ready()
    assert tenant.connection() == new
    has = f"SELECT has_table_privilege('{reader}', 'users', 'SELECT')"
    assert tenant.server.psql(has, dbname=new["dbname"]) == "t"
