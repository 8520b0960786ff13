"""The operator as a process, under the rights of its shipped ServiceAccount: start, refusal, signals, replicas."""

import json
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fix_operator import BOOTSTRAPS, SYSTEM_NAMESPACE, Operator, manifest, ready, until, writes
from localservers import ControlPlane

MakeOperator = Callable[..., Operator]
REFUSED = 2


def waits_for_its_secret(plane: ControlPlane, namespace: str, name: str = "shop") -> None:
    """Make a resource that can be visited without any PostgreSQL, and see that it was."""
    plane.request("POST", BOOTSTRAPS.format(namespace), manifest(name))
    until(10, lambda: state(plane, namespace, name) == ("False", "ReferenceNotFound"))


def state(plane: ControlPlane, namespace: str, name: str = "shop") -> tuple[str, str] | None:
    return ready(plane.request("GET", f"{BOOTSTRAPS.format(namespace)}/{name}"))


def refusal(operator: Operator) -> str:
    """Start an operator that cannot run, and return what it says."""
    operator.start(ready=False)
    assert operator.wait() == REFUSED
    *_, last = operator.messages
    assert last["level"] == "error"
    return str(last["message"])


def test_operator_serves_its_pages(operator: Operator) -> None:
    assert operator.get("/healthz") == (200, "ok\n")
    assert operator.get("/readyz?verbose") == (200, "ok\n")
    assert operator.get("/nothing")[0] == 404
    assert operator.metrics()["dbbootstrap_leader"] == 1


NONSENSE = (b"POST /metrics HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"\x16\x03\x01", b"x" * 100_000, b"")


def test_nonsense_at_the_port_does_no_harm(operator: Operator) -> None:
    for nonsense in NONSENSE:
        with socket.create_connection(("127.0.0.1", operator.port), timeout=5) as client, suppress(ConnectionError):
            client.sendall(nonsense)
            client.shutdown(socket.SHUT_WR)
            assert b"200" not in client.recv(100)
    assert operator.get("/healthz")[0] == 200
    assert "Traceback" not in operator.log


def test_sigterm_ends_the_operator_at_once_and_well(
    operator: Operator, control_plane: ControlPlane, namespace: str
) -> None:
    waits_for_its_secret(control_plane, namespace)
    began = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - began < 5
    assert operator.messages[-1]["message"] == "Operator stopped"
    assert "Traceback" not in operator.log


def test_operator_that_serves_all_namespaces_finds_this_one(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    make_operator().start()
    waits_for_its_secret(control_plane, namespace)


def test_operator_of_another_namespace_leaves_this_one_alone(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    operator = make_operator("--namespace", SYSTEM_NAMESPACE).start()
    control_plane.request("POST", BOOTSTRAPS.format(namespace), manifest())
    control_plane.request("POST", BOOTSTRAPS.format(SYSTEM_NAMESPACE), manifest("elsewhere"))
    try:
        until(10, lambda: state(control_plane, SYSTEM_NAMESPACE, "elsewhere"))
        assert state(control_plane, namespace) is None
        assert operator.metrics()["dbbootstrap_resources"] == 1
    finally:
        control_plane.request("DELETE", f"{BOOTSTRAPS.format(SYSTEM_NAMESPACE)}/elsewhere")


def test_start_with_a_resource_that_waits_writes_nothing(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    operator = make_operator("--namespace", namespace).start()
    waits_for_its_secret(control_plane, namespace)
    operator.stop()
    before = writes(control_plane, namespace)
    operator.start()
    until(10, lambda: operator.metrics().get('dbbootstrap_reconcile_total{result="requeue"}', 0) >= 1)
    assert writes(control_plane, namespace) == before


def test_log_is_json_and_names_the_resource(operator: Operator, control_plane: ControlPlane, namespace: str) -> None:
    waits_for_its_secret(control_plane, namespace)
    about = [it["object"] for it in operator.messages if "object" in it]
    assert {"kind": "DatabaseBootstrap", "namespace": namespace, "name": "shop"} in about
    assert all(line.startswith("{") for line in operator.log.splitlines())


def test_rights_that_are_missing_are_named(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.kubectl("create", "serviceaccount", "poor", "--namespace", namespace)
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "poor")
    said = refusal(make_operator("--namespace", namespace, kubeconfig=kubeconfig))
    assert "may not get databasebootstraps (dbbootstrap.io), list databasebootstraps (dbbootstrap.io)" in said
    assert "patch databasebootstraps/status (dbbootstrap.io)" in said
    assert "create secrets" in said
    assert f"in namespace {namespace}" in said


def test_namespaced_operator_without_a_cluster_id_says_what_it_needs(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    kubeconfig = namespaced_account(control_plane, namespace)
    said = refusal(make_operator("--namespace", namespace, kubeconfig=kubeconfig))
    assert "--cluster-id" in said
    make_operator("--namespace", namespace, "--cluster-id", "tests", kubeconfig=kubeconfig).start()
    waits_for_its_secret(control_plane, namespace)


def namespaced_account(plane: ControlPlane, namespace: str) -> Path:
    """Return the access of a ServiceAccount with the operator's rights in one namespace, and nowhere else."""
    plane.kubectl("create", "serviceaccount", "one-namespace", "--namespace", namespace)
    plane.kubectl(
        "create", "rolebinding", "one-namespace", "--namespace", namespace,
        "--clusterrole=database-bootstrap-operator", f"--serviceaccount={namespace}:one-namespace",
    )  # fmt: skip
    return plane.service_account_kubeconfig(namespace, "one-namespace")


def test_watching_secrets_needs_rights_that_are_not_shipped(make_operator: MakeOperator, namespace: str) -> None:
    said = refusal(make_operator("--namespace", namespace, "--watch-secrets"))
    assert "may not list secrets, watch secrets" in said


def test_secret_acts_at_once_where_secrets_are_watched(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    kubeconfig = namespaced_account(control_plane, namespace)
    control_plane.kubectl(
        "create", "role", "watch-secrets", "--namespace", namespace, "--verb=list,watch", "--resource=secrets"
    )
    control_plane.kubectl(
        "create", "rolebinding", "watch-secrets", "--namespace", namespace,
        "--role=watch-secrets", f"--serviceaccount={namespace}:one-namespace",
    )  # fmt: skip
    operator = make_operator(
        "--namespace", namespace, "--cluster-id", "tests", "--watch-secrets", kubeconfig=kubeconfig
    ).start()
    waits_for_its_secret(control_plane, namespace)
    control_plane.request(
        "POST", f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "admin"}, "stringData": {"host": "x"}}
    )
    # The next visit would be up to 4.8 s away.
    until(2, lambda: state(control_plane, namespace) != ("False", "ReferenceNotFound") or _asked_again(operator))


def _asked_again(operator: Operator) -> bool:
    return operator.metrics().get("dbbootstrap_workqueue_adds_total", 0) >= 2


def test_kubeconfig_that_is_not_there_is_named(make_operator: MakeOperator, tmp_path: Path) -> None:
    assert "no access to a Kubernetes API" in refusal(make_operator(kubeconfig=tmp_path / "nothing"))


def test_definition_that_is_not_there_is_named(make_operator: MakeOperator, tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path / "empty") as empty:
        said = refusal(make_operator(kubeconfig=empty.kubeconfig))
    assert "databasebootstraps.dbbootstrap.io" in said
    assert "database-bootstrap crd" in said


def test_port_that_is_taken_is_named(operator: Operator, make_operator: MakeOperator) -> None:
    second = make_operator(health=f"127.0.0.1:{operator.port}")
    assert f"127.0.0.1:{operator.port}" in refusal(second)


def test_standby_takes_over_at_once_when_the_first_one_is_stopped(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    first, second = pair(make_operator, namespace)
    waits_for_its_secret(control_plane, namespace)
    assert second.metrics()["dbbootstrap_leader"] == 0
    assert second.get("/readyz")[0] == 200
    assert first.stop() == 0
    until(6, lambda: second.metrics().get("dbbootstrap_leader") == 1)
    waits_for_its_secret(control_plane, namespace, "second")


def test_standby_takes_over_when_the_first_one_is_killed(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    first, second = pair(make_operator, namespace)
    began = time.monotonic()
    first.kill()
    until(30, lambda: second.metrics().get("dbbootstrap_leader") == 1)
    # Not before the Lease of the dead one is over, as seen from the standby.
    assert time.monotonic() - began > 10
    waits_for_its_secret(control_plane, namespace)


def test_operator_that_was_stopped_for_too_long_stands_by_when_another_one_acts(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    first, second = pair(make_operator, namespace)
    first.send(signal.SIGSTOP)
    until(30, lambda: second.metrics().get("dbbootstrap_leader") == 1)
    first.send(signal.SIGCONT)
    until(15, lambda: "stepping down" in first.log and first.metrics().get("dbbootstrap_leader") == 0)
    assert second.metrics()["dbbootstrap_leader"] == 1
    # It is of use again, without a new process.
    assert second.stop() == 0
    until(10, lambda: first.metrics().get("dbbootstrap_leader") == 1)
    waits_for_its_secret(control_plane, namespace)
    assert "raceback" not in first.log


def pair(make_operator: MakeOperator, namespace: str) -> tuple[Operator, Operator]:
    """Return two operators for one Lease; the first one holds it."""
    lease = ("--leader-elect", "--lease-name", namespace, "--lease-namespace", SYSTEM_NAMESPACE)
    flags = ("--namespace", namespace, *lease)
    first = make_operator(*flags).start()
    until(10, lambda: first.metrics().get("dbbootstrap_leader") == 1)
    return first, make_operator(*flags).start()


def test_election_outside_of_a_pod_needs_a_namespace(make_operator: MakeOperator) -> None:
    assert "--lease-namespace" in refusal(make_operator("--leader-elect"))


def test_operator_waits_for_an_api_server_that_is_just_starting(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.stop_apiserver()
    try:
        operator = make_operator("--namespace", namespace).start(ready=False)
        until(10, lambda: any("Not ready yet" in it["message"] for it in operator.messages))
        assert operator.get("/healthz")[0] == 200
        assert operator.get("/readyz")[0] == 503
    finally:
        control_plane.start_apiserver()
    until(20, lambda: operator.get("/readyz")[0] == 200)
    waits_for_its_secret(control_plane, namespace)


def test_signal_during_the_checks_ends_the_operator_well(
    make_operator: MakeOperator, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.pause_apiserver()
    try:
        operator = make_operator("--namespace", namespace).start(ready=False)
        until(10, lambda: operator.get("/healthz")[0] == 200)
        assert operator.stop() == 0
    finally:
        control_plane.resume_apiserver()


def test_bad_value_in_the_environment_is_refused(make_operator: MakeOperator) -> None:
    operator = make_operator(environment={"DBBOOTSTRAP_WORKERS": "none"}).start(ready=False)
    assert operator.wait() == REFUSED
    assert "DBBOOTSTRAP_WORKERS" in operator.log


def test_token_is_in_no_line_of_the_log(operator: Operator, operator_access: Path) -> None:
    token = json.loads(operator_access.read_text())["users"][0]["user"]["token"]
    operator.stop()
    assert token not in operator.log
