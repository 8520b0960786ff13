"""The servers that everything else is tested on: they run, they keep their data, and they never outlive their owner."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

from fix_apiserver import empty_namespace
from localservers import ControlPlane, Credentials, Installation, PostgresServer, ServerFailed, processes

TESTS = Path(__file__).parent.parent

OWNER = """
import pathlib, sys, time
from localservers import PostgresServer, discover
with PostgresServer.start(pathlib.Path(sys.argv[1]), discover()[-1]) as server:
    print(server.pid, server.datadir, flush=True)
    time.sleep(600)
"""

PLANE_OWNER = """
import pathlib, sys, time
from localservers import ControlPlane
with ControlPlane.start(pathlib.Path(sys.argv[1]), controller_manager=True) as plane:
    print(*plane.pids, flush=True)
    time.sleep(600)
"""


def start_owner(program: str, folder: Path) -> tuple["subprocess.Popen[str]", list[str]]:
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert owner.stdout
    with owner.stdout as report:
        return owner, report.readline().split()


def kill(owner: "subprocess.Popen[str]") -> None:
    owner.kill()
    owner.wait()


def test_no_postgres_outlives_its_killed_owner(postgres_server: PostgresServer, tmp_path: Path) -> None:
    owner, (pid, datadir) = start_owner(OWNER, tmp_path)
    postmaster = int(pid)
    all_of_it = [postmaster, *processes.children(postmaster)]
    assert len(all_of_it) > 1
    kill(owner)
    processes.wait_until_gone(all_of_it, 20)
    # Data that had to be outside the owner's folder, which nobody else would remove.
    until(lambda: tmp_path in Path(datadir).parents or not Path(datadir).parent.exists())


def test_no_control_plane_outlives_its_killed_owner(control_plane: ControlPlane, tmp_path: Path) -> None:
    owner, pids = start_owner(PLANE_OWNER, tmp_path)
    assert len(pids) == 3
    kill(owner)
    processes.wait_until_gone(map(int, pids), 20)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot tell a child of its parent's death")
def test_no_server_outlives_its_killed_guard(postgres_server: PostgresServer, tmp_path: Path) -> None:
    with PostgresServer.start(tmp_path, postgres_server.installation) as server:
        all_of_it = [server.pid, *processes.children(server.pid)]
        os.kill(processes.parent(server.pid), signal.SIGKILL)
        processes.wait_until_gone(all_of_it, 20)


def test_two_servers_get_different_ports(postgres_server: PostgresServer, tmp_path: Path) -> None:
    with PostgresServer.start(tmp_path, postgres_server.installation) as second:
        assert second.port != postgres_server.port
        assert second.psql("SHOW port") == str(second.port)


@pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill], ids=["stop", "kill"])
def test_postgres_keeps_data_and_port(
    postgres_server: PostgresServer, tmp_path: Path, end: Callable[[PostgresServer], None]
) -> None:
    with PostgresServer.start(tmp_path, postgres_server.installation) as server:
        server.psql("CREATE TABLE kept AS SELECT 42 AS answer")
        before = server.dsn()
        end(server)
        with pytest.raises(ServerFailed, match="refused"):
            server.psql("SELECT 1")
        server.start_again()
        assert server.psql("SELECT answer FROM kept") == "42"
        assert server.dsn() == before


def test_passwords_are_needed_and_in_no_log(postgres_server: PostgresServer, admin: Credentials) -> None:
    assert postgres_server.psql("SELECT current_user", credentials=admin) == admin.user
    with pytest.raises(ServerFailed, match="authentication failed"):
        postgres_server.psql("SELECT 1", credentials=Credentials(user=admin.user, password="wrong"))
    log = postgres_server.said()
    assert "authentication failed" in log
    assert admin.password not in log
    assert postgres_server.password not in log
    assert admin.password not in repr(admin)


def test_own_identity_is_not_the_templates(installation: Installation, tmp_path: Path) -> None:
    def identity(name: str, *, own: bool) -> str:
        with PostgresServer.start(tmp_path / name, installation, own_identity=own) as server:
            return server.psql("SELECT system_identifier FROM pg_control_system()")

    assert identity("copy", own=False) != identity("own", own=True)


def test_control_plane_keeps_data_and_address(control_plane: ControlPlane, tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path) as plane:
        address = plane.url
        assert address != control_plane.url
        plane.kubectl("create", "configmap", "kept", "--from-literal=answer=42")
        plane.restart_apiserver()
        assert plane.url == address
        assert plane.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.answer}") == "42"


def test_service_account_has_only_its_own_rights(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "nobody", "--namespace", namespace)
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "nobody")
    with pytest.raises(ServerFailed, match="Forbidden"):
        control_plane.kubectl("get", "secrets", kubeconfig=kubeconfig)


def test_audit_log_has_writes_and_no_reads(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "configmap", "written", "--namespace", namespace)
    control_plane.kubectl("get", "configmap", "written", "--namespace", namespace)
    lines = [line for line in control_plane.audit_log.read_text().splitlines() if '"name":"written"' in line]
    assert len(lines) == 1
    assert '"verb":"create"' in lines[0]


def test_paused_apiserver_answers_again(control_plane: ControlPlane, tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path) as plane:
        plane.pause_apiserver()
        with pytest.raises(ServerFailed):
            plane.kubectl("get", "namespaces", "--request-timeout=300ms")
        plane.resume_apiserver()
        assert "default" in plane.kubectl("get", "namespaces")


def test_controller_manager_makes_pods_of_jobs(control_plane: ControlPlane, tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path, controller_manager=True) as plane:
        plane.kubectl("create", "job", "once", "--image=example.invalid/none")
        until(lambda: "once-" in plane.kubectl("get", "pods"))


def test_removed_namespace_is_gone(control_plane: ControlPlane, namespace: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="Conflict"):
        control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})


def test_namespace_is_emptied_of_finalized_custom_resources(control_plane: ControlPlane, namespace: str) -> None:
    plural = f"things{namespace.removeprefix('test-')}"
    control_plane.kubectl("apply", "-f", "-", input=json.dumps(definition(plural)))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", f"{plural}.local.test")
    thing = {"apiVersion": "local.test/v1", "kind": "Thing", "metadata": {"name": "it", "finalizers": ["local.test/f"]}}
    path = f"/apis/local.test/v1/namespaces/{namespace}/{plural}"
    until(lambda: "items" in control_plane.kubectl("get", "--raw", path, check=False))
    control_plane.request("POST", path, thing)
    empty_namespace(control_plane, namespace)
    assert control_plane.request("GET", path)["items"] == []
    control_plane.kubectl("delete", "crd", f"{plural}.local.test")


def definition(plural: str) -> dict[str, object]:
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.local.test"},
        "spec": {
            "group": "local.test",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": "Thing"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def installation(postgres_server: PostgresServer) -> Installation:
    return postgres_server.installation
