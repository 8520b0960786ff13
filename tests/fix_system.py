"""A tenant: one namespace, one server, the operator as a process, and kubectl's own words."""

import json
import secrets
import urllib.error
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from fix_operator import BOOTSTRAPS, Operator, ready, until
from fix_postgres import INSTALLATIONS
from localservers import ControlPlane, Credentials, PostgresServer

SERVERS = "/apis/dbbootstrap.io/v1alpha1/databaseservers"


def reached(get: Callable[[], dict[str, Any]], status: str, reason: str, seconds: float) -> dict[str, Any]:
    """Wait until Ready says this of the present generation of an object, and return the object's status."""

    def there() -> bool:
        found = get()
        return (
            ready(found) == (status, reason)
            and found["status"]["observedGeneration"] == found["metadata"]["generation"]
        )

    try:
        until(seconds, there)
    except pytest.fail.Exception:
        last = get()
        name = last["metadata"]["name"]
        pytest.fail(f"{name} is not {status}/{reason}: {json.dumps(last.get('status'), indent=1)}")
    found: dict[str, Any] = get()["status"]
    return found


@dataclass
class Tenant:
    """What an application team has: a namespace with Secrets, ConfigMaps and resources."""

    plane: ControlPlane
    namespace: str
    server: PostgresServer
    admin: Credentials
    operator: Operator
    unique: Callable[[str], str]
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def is_superuser(self) -> bool:
        """Whether the administrator is one, and not just CREATEROLE CREATEDB."""
        query = f"SELECT rolsuper FROM pg_roles WHERE rolname = '{self.admin.user}'"
        return self.server.psql(query) == "t"

    def secret(self, name: str, data: Mapping[str, str]) -> None:
        """Make a Secret, or replace what is in it."""
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(data)}
        self.apply(body)

    @property
    def admin_keys(self) -> dict[str, str]:
        """Return what the admin Secret holds."""
        return {
            "host": self.server.host,
            "port": str(self.server.port),
            "username": self.admin.user,
            "password": self.admin.password,
        }

    def admin_secret(self, **changed: str) -> None:
        """Make the admin Secret, right or wrong."""
        self.secret("admin", self.admin_keys | changed)

    def config_map(self, name: str, data: Mapping[str, str], *, watched: bool = False) -> None:
        """Make a ConfigMap, or replace what is in it."""
        labels = {"dbbootstrap.io/watch": "true"} if watched else {}
        metadata = {"name": name, "labels": labels}
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)})

    def apply(self, *bodies: Mapping[str, Any]) -> str:
        """Apply objects as a person does."""
        text = "\n---\n".join(json.dumps(body) for body in bodies)
        return self.plane.kubectl("-n", self.namespace, "apply", "-f", "-", input=text)

    def bootstrap(self, name: str = "shop", **spec: Any) -> dict[str, Any]:
        """Apply a resource with role and database of its own, and what else is asked for."""
        body = self._bootstrap(name, spec)
        self.apply(body)
        return body

    def bootstraps(self, names: Iterable[str], **spec: Any) -> None:
        """Apply many resources at once, each with role and database of its own."""
        self.apply(*(self._bootstrap(name, spec) for name in names))

    def _bootstrap(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        least = {
            "server": {"adminSecretRef": {"name": "admin"}},
            "role": {"name": self.unique(f"{name}_role")},
            "database": {"name": self.unique(f"{name}_db")},
        }
        body = {"apiVersion": "dbbootstrap.io/v1alpha1", "kind": "DatabaseBootstrap", "metadata": {"name": name}}
        return body | {"spec": least | spec}

    def get(self, name: str = "shop") -> dict[str, Any]:
        """Return the resource as the API server has it."""
        found: dict[str, Any] = self.plane.request("GET", f"{BOOTSTRAPS.format(self.namespace)}/{name}")
        return found

    def ready(self, name: str = "shop", seconds: float = 30) -> dict[str, Any]:
        """Wait until the resource is Ready in its present generation, and return its status."""
        self.reaches("True", "Succeeded", name, seconds)
        status: dict[str, Any] = self.get(name)["status"]
        return status

    def reaches(self, status: str, reason: str, name: str = "shop", seconds: float = 30) -> str:
        """Wait until Ready says this of the present generation, and return its message."""

        found = reached(lambda: self.get(name), status, reason, seconds)
        conditions = found["conditions"]
        return str(next(one["message"] for one in conditions if one["type"] == "Ready"))

    def connection(self, name: str = "shop") -> dict[str, Any]:
        """Return what the published Secret tells an application."""
        fields = ("host", "port", "database", "username", "password")
        words = {one: self.read_secret(f"{name}-db")[one] for one in fields}
        return {
            "host": words["host"],
            "port": words["port"],
            "dbname": words["database"],
            "user": words["username"],
            "password": words["password"],
        }

    def read_secret(self, name: str) -> dict[str, str]:
        """Return what a Secret holds."""
        import base64

        found: dict[str, Any] = self.plane.request("GET", f"/api/v1/namespaces/{self.namespace}/secrets/{name}")
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}

    def query(self, query: str, name: str = "shop") -> list[Any]:
        """Run a query as the application would."""
        with psycopg.connect(**self.connection(name)) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def request_visit(self, name: str = "shop", token: str = "now") -> None:
        """Ask for a visit, and wait until it was made."""
        annotation = {"metadata": {"annotations": {"dbbootstrap.io/reconcile-requested-at": token}}}
        self.plane.request("PATCH", f"{BOOTSTRAPS.format(self.namespace)}/{name}", annotation)
        until(30, lambda: self.get(name)["status"].get("lastHandledReconcileAt") == token)

    def events(self) -> list[dict[str, Any]]:
        """Return the namespace's events."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        items: list[dict[str, Any]] = self.plane.request("GET", path)["items"]
        return items


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what goes through the whole system on the oldest major as superuser and on the newest as the other kind.

    The stages themselves are tested on every major with every kind of administrator; the way to them is one for all.
    """
    majors = [installation.major for installation in config.stash[INSTALLATIONS]]
    if len(majors) < 2:
        return
    chosen = {(majors[0], "superuser"), (majors[-1], "createrole")}
    left_out = [item for item in items if "tenant" in _fixtures(item) and combination(item) not in chosen]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def combination(item: pytest.Item) -> tuple[int, str]:
    """Return major and kind of administrator of a test that has both."""
    parameters: dict[str, Any] = item.callspec.params  # type: ignore[attr-defined]
    return parameters["postgres_server"].major, parameters["admin"]


def _fixtures(item: pytest.Item) -> tuple[str, ...]:
    return tuple(getattr(item, "fixturenames", ()))


@pytest.fixture
def tenant(
    control_plane: ControlPlane,
    namespace: str,
    postgres_server: PostgresServer,
    admin: Credentials,
    operator: Operator,
    unique_name: Callable[[str], str],
) -> Tenant:
    """A tenant with an admin Secret, and an operator that serves its namespace under the shipped rights."""
    found = Tenant(
        plane=control_plane,
        namespace=namespace,
        server=postgres_server,
        admin=admin,
        operator=operator,
        unique=unique_name,
    )
    found.admin_secret()
    return found


@dataclass
class Platform:
    """What the platform team has: a namespace of its own, an admin Secret in it, and a DatabaseServer."""

    plane: ControlPlane
    namespace: str
    name: str

    def secret(self, **data: str) -> None:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "postgres"}, "stringData": data}
        self.plane.kubectl("-n", self.namespace, "apply", "-f", "-", input=json.dumps(body))

    def offer(self, **spec: Any) -> None:
        """Make the DatabaseServer, or offer it on other terms."""
        least = {
            "adminSecretRef": {"namespace": self.namespace, "name": "postgres"},
            "allowedNames": {"roles": ["*"], "databases": ["*"], "accessRoles": ["*"]},
        }
        body = {"apiVersion": "dbbootstrap.io/v1alpha1", "kind": "DatabaseServer", "metadata": {"name": self.name}}
        self.plane.kubectl("apply", "-f", "-", input=json.dumps(body | {"spec": least | spec}))

    def get(self) -> dict[str, Any]:
        found: dict[str, Any] = self.plane.request("GET", f"{SERVERS}/{self.name}")
        return found

    def reaches(self, status: str, reason: str, seconds: float = 30) -> dict[str, Any]:
        """Wait until Ready says this of the present generation, and return the status."""
        return reached(self.get, status, reason, seconds)

    def request_look(self) -> None:
        """Have the operator look at the server now."""
        annotation = {"dbbootstrap.io/reconcile-requested-at": secrets.token_hex(4)}
        self.plane.request("PATCH", f"{SERVERS}/{self.name}", {"metadata": {"annotations": annotation}})

    def delete(self) -> None:
        with suppress(urllib.error.HTTPError):
            self.plane.request("DELETE", f"{SERVERS}/{self.name}")


@pytest.fixture
def platform(control_plane: ControlPlane, make_namespace: Callable[[], str], tenant: Tenant) -> Iterator[Platform]:
    """A server that is not offered yet; its Secret is there."""
    found = Platform(control_plane, make_namespace(), f"main-{secrets.token_hex(4)}")
    found.secret(**tenant.admin_keys)
    tenant.plane.request("DELETE", f"/api/v1/namespaces/{tenant.namespace}/secrets/admin")
    yield found
    found.delete()
