"""A canary in every Secret: it is seen in no log, status, event, process list, and not in PostgreSQL's own log."""

import json
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fix_operator import until
from fix_status import StatusWatch
from fix_system import Tenant

CANARY = "kanari-Vogel+73/%x?"
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


class ProcessList:
    """Everything that `ps` showed while somebody looked at it all the time."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(stop,), daemon=True)
        thread.start()
        yield
        stop.set()
        thread.join(10)

    def _look(self, stop: threading.Event) -> None:
        while not stop.wait(0.05):
            shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False, timeout=10)
            self.seen.update(shown.stdout.splitlines())


@pytest.mark.parametrize("tool", ["Alembic", "Prisma"])
def test_canary_is_seen_nowhere(tenant: Tenant, status_watch: StatusWatch, tool: str) -> None:
    log_began = len(tenant.server.log.read_bytes())
    tenant.secret("own", {"password": CANARY})
    role = {"name": tenant.unique("r"), "passwordSecretRef": {"name": "own"}}
    files = {"Alembic": {"a1_users.py": REVISION}, "Prisma": {"1_users.sql": "CREATE TABLE users (id int)"}}[tool]
    bad = {"Alembic": {"a2_leak.py": LEAKY_REVISION}, "Prisma": {"2_bad.sql": "SELECT 1 / 0"}}[tool]
    seed = {"source": {"inline": [{"path": "users.sql", "content": "INSERT INTO users VALUES (1)"}]}}
    listed = ProcessList()
    with listed.watched():
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
    seen = {
        "the operator's log": tenant.operator.log,
        "the metrics": json.dumps(tenant.operator.metrics()),
        "a status": json.dumps(
            [*status_watch.versions(tenant.namespace, "shop"), *status_watch.versions(tenant.namespace, "other")]
        ),
        "an event": json.dumps(tenant.events()),
        "ps": "\n".join(listed.seen),
        "PostgreSQL's log": tenant.server.said(log_began),
    }
    assert "CREATE ROLE" in seen["PostgreSQL's log"]
    assert "MigrationFailed" in seen["a status"]
    for canary in (CANARY, tenant.admin.password):
        for form in {
            canary,
            urllib.parse.quote(canary, safe=""),
            urllib.parse.quote(canary),
            canary.replace("%", "%%"),
        }:
            assert [where for where, text in seen.items() if form in text] == []


def migrations(tool: str, files: dict[str, str]) -> dict[str, object]:
    inline = [{"path": path, "content": content} for path, content in files.items()]
    return {"tool": tool, "source": {"inline": inline}}
