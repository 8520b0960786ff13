"""A Kubernetes control plane without nodes: etcd and kube-apiserver, and kube-controller-manager where asked for."""

import http.client
import json
import secrets
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

from localservers import binaries, processes
from localservers.processes import Order, Server

Json: TypeAlias = Any

READY_SECONDS = 60.0
POLL_SECONDS = 0.03

CONTROLLERS = (
    "deployment-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
)

# Who wrote what; reads would drown it.
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
"""


class ControlPlane:
    """One API server with its own storage, on free ports of loopback, with RBAC and an audit log of writes.

    It is made by `start`, and stops at the end of a `with` block or with this process, whichever comes first.
    """

    def __init__(self, folder: Path, *, may_build: bool = False) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.programs = binaries.find(may_build=may_build)
        self.token = secrets.token_hex(16)
        self.kubeconfig = self.folder / "kubeconfig"
        self.audit_log = self.folder / "audit.log"
        self.certificates = self.folder / "certificates"
        self.ca_file = self.certificates / "apiserver.crt"
        self._manager_token = secrets.token_hex(16)
        self._servers: dict[str, Server] = {}
        self._port = 0
        self._etcd_url = ""

    @classmethod
    def start(cls, folder: Path, *, controller_manager: bool = False, may_build: bool = False) -> Self:
        """Return a control plane that answers; raises ServerFailed with the end of the log, or BinariesNotFound."""
        plane = cls(folder, may_build=may_build)
        plane._write_files()
        try:
            processes.on_free_ports(plane._start_on_new_ports)
            if controller_manager:
                plane.start_controller_manager()
        except BaseException:
            plane.stop()
            raise
        return plane

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def pids(self) -> list[int]:
        return [server.pid for server in self._servers.values()]

    def stop(self) -> None:
        """Stop everything; the files stay in the folder."""
        # Storage last, and nobody waits for the graceful end of a server that is thrown away.
        for name in reversed(self._servers):
            self._servers[name].begin_stop(signal.SIGKILL)
        for server in self._servers.values():
            server.stop()
        self._servers.clear()

    def start_apiserver(self) -> None:
        """Start the API server again, on the port and with the data it had."""
        self._launch("kube-apiserver", self._apiserver_command())
        self._wait_until_ready()

    def stop_apiserver(self) -> None:
        self._servers.pop("kube-apiserver").stop()

    def restart_apiserver(self) -> None:
        self.stop_apiserver()
        self.start_apiserver()

    def pause_apiserver(self) -> None:
        """Let the API server hang: connections stay open, and nothing is answered."""
        self._servers["kube-apiserver"].send(signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        self._servers["kube-apiserver"].send(signal.SIGCONT)

    def start_controller_manager(self) -> None:
        """Start what collects garbage, finishes namespaces and makes a Job's Pods."""
        self._launch("kube-controller-manager", self._manager_command())

    def stop_controller_manager(self) -> None:
        self._servers.pop("kube-controller-manager").stop()

    def kubectl(
        self, *arguments: str | Path, input: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> str:
        """Run kubectl as the administrator, or as whom `kubeconfig` says, and return what it printed.

        Raises ServerFailed with kubectl's words; with `check=False` they are part of what is returned.
        """
        identity = ["--kubeconfig", str(kubeconfig or self.kubeconfig), "--cache-dir", str(self.folder / "cache")]
        done = subprocess.run(
            [self.programs.kubectl, *identity, *map(str, arguments)],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode and check:
            raise processes.ServerFailed(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout if check else done.stdout + done.stderr

    def request(self, method: str, path: str, body: object = None) -> Json:
        """Ask the API server as its administrator and return the decoded answer; raises urllib's HTTPError."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30, context=self._tls()) as answer:
            content = answer.read()
        return json.loads(content) if content.startswith(b"{") else content.decode()

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Return a kubeconfig with a fresh token of a ServiceAccount, and with nobody else's rights."""
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration", "24h").strip()
        return self.write_kubeconfig(f"{namespace}-{name}", token, namespace=namespace)

    def write_kubeconfig(self, name: str, token: str, *, namespace: str = "default") -> Path:
        """Write a kubeconfig for the bearer of a token."""
        path = self.kubeconfig if name == "admin" else self.folder / f"kubeconfig-{name}"
        _write_private(path, _kubeconfig(self.url, self.ca_file, token, namespace))
        return path

    def _start_on_new_ports(self) -> None:
        self.stop()
        self._port = processes.free_port()
        self._etcd_url = f"http://127.0.0.1:{processes.free_port()}"
        self._launch("etcd", self._etcd_command(peers=f"http://127.0.0.1:{processes.free_port()}"))
        self._launch("kube-apiserver", self._apiserver_command())
        self._wait_until_ready()
        self.write_kubeconfig("admin", self.token)

    def _write_files(self) -> None:
        users = (
            f'{self.token},admin,admin,"system:masters"',
            f'{self._manager_token},system:kube-controller-manager,manager,"system:masters"',
        )
        _write_private(self.folder / "tokens.csv", "".join(f"{line}\n" for line in users))
        (self.folder / "audit-policy.yaml").write_text(AUDIT_POLICY)

    def _launch(self, name: str, command: Sequence[str | Path]) -> None:
        log = self.folder / f"{name}.log"
        # An API server waits long for open watches to end; the clients under test have to survive a hard end anyway.
        self._servers[name] = Server(Order(command=command, log=log, folder=self.folder, grace=2.0))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            for name, server in self._servers.items():
                if not server.is_running:
                    raise processes.failure(f"{name} ended", server.order.log)
            if time.monotonic() > deadline:
                log = self.folder / "kube-apiserver.log"
                raise processes.failure(f"kube-apiserver was not ready within {READY_SECONDS:.0f} s", log)
            time.sleep(POLL_SECONDS)

    def _is_ready(self) -> bool:
        try:
            return bool(self.request("GET", "/readyz") == "ok")
        except (OSError, http.client.HTTPException):
            return False

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _etcd_command(self, *, peers: str) -> list[str | Path]:
        return [
            self.programs.etcd,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _apiserver_command(self) -> list[str | Path]:
        # The server makes itself a certificate and a key before it reads the key of the service accounts: one pair
        # serves both, and nothing has to be generated here.
        key = self.certificates / "apiserver.key"
        return [
            self.programs.kube_apiserver,
            f"--etcd-servers={self._etcd_url}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.certificates}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--disable-admission-plugins=ServiceAccount",
            f"--audit-policy-file={self.folder / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
        ]

    def _manager_command(self) -> list[str | Path]:
        kubeconfig = self.write_kubeconfig("controller-manager", self._manager_token)
        return [
            self.programs.kube_controller_manager,
            f"--kubeconfig={kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--root-ca-file={self.ca_file}",
            "--leader-elect=false",
            "--secure-port=0",
        ]


def _write_private(path: Path, content: str) -> None:
    path.touch(mode=0o600)
    path.write_text(content)


def _kubeconfig(url: str, ca_file: Path, token: str, namespace: str) -> str:
    # JSON is YAML, and needs no library.
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "local",
            "clusters": [{"name": "local", "cluster": {"server": url, "certificate-authority": str(ca_file)}}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "user", "namespace": namespace}}],
        },
        indent=2,
    )
