"""Which cluster the operator serves, and what it may do there."""

from dataclasses import dataclass

from database_bootstrap.kube.client import Kube


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the operator is."""

    kube: Kube
    id: str
    is_around: bool
    """The operator runs in the cluster that it serves, and resolves its Services."""
    watches_servers: bool = True
    """It may list and watch DatabaseServers."""
    tells_of_servers: bool = True
    """It may write their status."""
