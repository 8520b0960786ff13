"""The story: a shop's database is bootstrapped, used, restarted and migrated, and no row is lost."""

import base64
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import telling
import yaml
from psycopg.rows import scalar_row
from servers import COMMAND, ROOT, Scene
from telling import check, show, step

SHOP = ROOT / "manifests" / "samples" / "shop"
NEXT = ROOT / "demo" / "next"
NAMESPACE = "shop"
NAME = "smart-ecommerce"
FIRST_MIGRATIONS = ["20240101090000_create_users", "20240102090000_create_products", "20240103090000_create_orders"]
NEW_MIGRATION = "20240104090000_add_stock"
TEST_USER = "test@example.com"


class Story:
    """What happens, in order."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def tell(self) -> None:
        self._introduce()
        self._apply()
        self._use()
        before = self._resource()["status"]
        self._restart()
        self._nothing_changed(before)
        self._add_migration()

    def _introduce(self) -> None:
        scene = self._scene
        step(1, "`kubectl apply -k manifests` has installed the operator.")
        telling.say("    There is no node here, so it runs as a process beside the API server, with the rights of its")
        telling.say(f"    ServiceAccount and no others. The database server is PostgreSQL {scene.postgres.version}.")
        scene.operator.start()

    def _apply(self) -> None:
        scene = self._scene
        step(2, "The shop's team applies its resource; its Prisma directory comes along as a ConfigMap.")
        scene.plane.kubectl("create", "namespace", NAMESPACE)
        self._apply_manifests([self._admin_secret(), *self._bundle(SHOP / "prisma" / "migrations"), self._seed()])
        resource = yaml.safe_load((SHOP / "database.yaml").read_text())
        if not scene.has_uuid_ossp:
            telling.say("    (This server does not come with uuid-ossp, so the resource does without it.)")
            resource["spec"]["extensions"] = [{"name": "pg_trgm"}]
        show(yaml.safe_dump(resource["spec"], sort_keys=False))
        self._apply_manifests([resource])
        step(3, "It becomes Ready.")
        self._watch_until_ready()
        check("the three migrations are applied", self._migrations(), FIRST_MIGRATIONS)
        events = self._kubectl("get", "events.events.k8s.io", "--output=jsonpath={.items[*].reason}")
        check("one event lists what was changed", events.split(), ["Changed"])

    def _use(self) -> None:
        step(4, f"The shop connects with the Secret {NAME}-db, finds its first-run data, and takes a registration.")
        check("the seed's users are there", self._count("users"), 3)
        check("the seed's products are there", self._count("products"), 5)
        self._query("INSERT INTO users (email, name) VALUES (%s, 'Test') RETURNING email", TEST_USER)
        check(f"{TEST_USER} is registered", self._count("users"), 4)

    def _restart(self) -> None:
        scene = self._scene
        step(5, "Everything restarts: the operator and PostgreSQL.")
        scene.operator.stop()
        scene.postgres.restart()
        scene.operator.start()
        telling.wait_for("a visit of the new operator", lambda: self._metric("dbbootstrap_reconcile_total") >= 1)
        check("all four users are there", self._count("users"), 4)
        check(f"{TEST_USER} is one of them", self._count("users WHERE email = %s", TEST_USER), 1)
        check("all five products are there", self._count("products"), 5)

    def _nothing_changed(self, before: dict[str, Any]) -> None:
        step(6, "The new operator has looked, and had nothing to do.")
        visits, changes = self._metric("dbbootstrap_reconcile_total"), self._metric("dbbootstrap_changes_total")
        show(f"$ curl {self._scene.operator.url}")
        show(f"dbbootstrap_reconcile_total {visits:.0f}\ndbbootstrap_changes_total   {changes:.0f}")
        check("its metrics count no change", changes, 0)
        check("lastChange is as old as the first apply", self._resource()["status"]["lastChange"], before["lastChange"])
        plan = self._plan()
        show(plan)
        check("and `database-bootstrap plan` agrees", plan.splitlines()[-1].strip(), "Nothing to change.")

    def _add_migration(self) -> None:
        step(7, f"The team adds a migration, {NEW_MIGRATION}.")
        with tempfile.TemporaryDirectory() as folder:
            for source in (SHOP / "prisma" / "migrations", NEXT):
                shutil.copytree(source, folder, dirs_exist_ok=True)
            self._apply_manifests(self._bundle(Path(folder)))
        telling.wait_for("the migration", lambda: self._resource()["status"]["migrations"]["current"] == NEW_MIGRATION)
        self._kubectl("wait", f"dbb/{NAME}", "--for=condition=Ready", "--timeout=60s")
        self._show_resource()
        check("it is applied, after the others", self._migrations(), [*FIRST_MIGRATIONS, NEW_MIGRATION])
        check("it was the only change", self._resource()["status"]["lastChange"]["changes"], 1)
        check("all four users are still there", self._count("users"), 4)
        check("all five products are still there", self._count("products"), 5)

    def _kubectl(self, *arguments: str) -> str:
        return self._scene.plane.kubectl("--namespace", NAMESPACE, *arguments)

    def _apply_manifests(self, manifests: list[dict[str, Any]]) -> None:
        text = yaml.safe_dump_all(manifests)
        show(self._scene.plane.kubectl("--namespace", NAMESPACE, "apply", "--filename", "-", input=text))

    def _admin_secret(self) -> dict[str, Any]:
        # Not a superuser: what the administrator of a managed service has is enough.
        admin = self._scene.postgres.admin_role("createrole")
        access = {"host": self._scene.postgres.host, "port": str(self._scene.postgres.port)}
        login = {"username": admin.user, "password": admin.password}
        return _manifest("Secret", "postgres-admin", stringData=access | login)

    def _bundle(self, directory: Path) -> list[dict[str, Any]]:
        """Return what `database-bootstrap bundle` makes of a directory."""
        command = [str(COMMAND), "bundle", str(directory), "--name", "shop-migrations"]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return list(yaml.safe_load_all(said))

    def _seed(self) -> dict[str, Any]:
        files = {path.name: path.read_text() for path in sorted((SHOP / "seed").iterdir())}
        return _manifest("ConfigMap", "shop-seed", data=files)

    def _resource(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._kubectl("get", f"dbb/{NAME}", "--output=json"))
        return found

    def _watch_until_ready(self) -> None:
        plane = self._scene.plane
        command = [str(plane.programs.kubectl), "--kubeconfig", str(plane.kubeconfig), "--namespace", NAMESPACE]
        with subprocess.Popen([*command, "get", "dbb", "--watch"], stdout=subprocess.PIPE, text=True) as watch:
            try:
                self._kubectl("wait", f"dbb/{NAME}", "--for=condition=Ready", "--timeout=60s")
            finally:
                watch.terminate()
            show(f"$ kubectl get dbb --watch\n{watch.communicate()[0]}")

    def _show_resource(self) -> None:
        show("$ kubectl get dbb\n" + self._kubectl("get", "dbb"))

    def _plan(self) -> str:
        everything = self._kubectl("get", f"dbb/{NAME}", "--output=yaml")
        everything += "---\n" + self._kubectl("get", "secrets,configmaps", "--output=yaml")
        cluster = self._kubectl("get", "namespace/kube-system", "--output=jsonpath={.metadata.uid}")
        command = [str(COMMAND), "plan", "--file", "-", "--cluster-id", cluster]
        done = subprocess.run(
            command, input=everything, check=False, capture_output=True, text=True, cwd=self._scene.folder
        )
        return done.stdout + done.stderr

    def _metric(self, name: str) -> float:
        found = self._scene.operator.metrics()
        return sum(value for sample, value in found.items() if sample.partition("{")[0] == name)

    def _uri(self) -> str:
        encoded = self._kubectl("get", f"secret/{NAME}-db", "--output=jsonpath={.data.uri}")
        return base64.b64decode(encoded).decode()

    def _query(self, sql: str, *values: str) -> list[Any]:
        """Ask the database as the shop does, with the published Secret."""
        with psycopg.connect(self._uri()) as connection:
            return connection.cursor(row_factory=scalar_row).execute(sql.encode(), values).fetchall()

    def _count(self, what: str, *values: str) -> int:
        (count,) = self._query(f"SELECT count(*) FROM {what}", *values)
        return int(count)

    def _migrations(self) -> list[str]:
        return self._query("SELECT migration_name FROM _prisma_migrations ORDER BY started_at, migration_name")


def _manifest(kind: str, name: str, **content: object) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **content}
