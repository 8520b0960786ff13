"""Real servers on loopback for tests, demo and benchmarks: kube-apiserver with etcd, and PostgreSQL."""

from localservers.binaries import BinariesNotFound
from localservers.controlplane import ControlPlane
from localservers.postgres import Credentials, Installation, PostgresServer, discover
from localservers.processes import ServerFailed

__all__ = [
    "BinariesNotFound",
    "ControlPlane",
    "Credentials",
    "Installation",
    "PostgresServer",
    "ServerFailed",
    "discover",
]
