"""What the operator counts, in controller-runtime's shapes; Prometheus objects and nothing else."""

from contextlib import suppress

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)

RECONCILE_TOTAL = Counter(
    "dbbootstrap_reconcile_total",
    "Visits by their end: success, requeue (heals by itself) or error (needs a person, or is a defect).",
    ("result",),
    registry=REGISTRY,
)
RECONCILE_ERRORS = Counter(
    "dbbootstrap_reconcile_errors_total",
    "Visits that did not reach their end, by the reason that the status shows.",
    ("reason",),
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "dbbootstrap_reconcile_time_seconds",
    "How long a visit took.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
ACTIVE_WORKERS = Gauge(
    "dbbootstrap_active_workers",
    "Workers that are on a visit now.",
    registry=REGISTRY,
)
MAX_CONCURRENT_RECONCILES = Gauge(
    "dbbootstrap_max_concurrent_reconciles",
    "How many visits can run at once.",
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge(
    "dbbootstrap_workqueue_depth",
    "Resources that wait for a worker.",
    registry=REGISTRY,
)
QUEUE_ADDS = Counter(
    "dbbootstrap_workqueue_adds_total",
    "How often a resource was put into the queue.",
    registry=REGISTRY,
)
QUEUE_RETRIES = Counter(
    "dbbootstrap_workqueue_retries_total",
    "How often a resource was put off because its visit did not reach its end.",
    registry=REGISTRY,
)
QUEUE_SECONDS = Histogram(
    "dbbootstrap_workqueue_queue_duration_seconds",
    "How long a resource waited for a worker.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
RESOURCES = Gauge(
    "dbbootstrap_resources",
    "DatabaseBootstraps that the operator knows.",
    registry=REGISTRY,
)
CHANGES = Counter(
    "dbbootstrap_changes_total",
    "What was made or altered on PostgreSQL servers, by stage.",
    ("stage",),
    registry=REGISTRY,
)
DROPS = Counter(
    "dbbootstrap_drops_total",
    "What was dropped with resources that were deleted under deletionPolicy Delete: database, role or connection.",
    ("what",),
    registry=REGISTRY,
)
PENDING_MIGRATIONS = Gauge(
    "dbbootstrap_pending_migrations",
    "Migrations that a resource brings and its database does not have.",
    ("namespace", "name"),
    registry=REGISTRY,
)
SERVERS_AWAY = Gauge(
    "dbbootstrap_servers_away",
    "Servers, the API server too, whose return is waited for, by the reason that the status shows.",
    ("reason",),
    registry=REGISTRY,
)
SERVER_READY = Gauge(
    "dbbootstrap_server_ready",
    "1 where the DatabaseServer was found ready at the last look, 0 where it was not.",
    ("server",),
    registry=REGISTRY,
)
SERVER_DATABASES = Gauge(
    "dbbootstrap_server_databases",
    "Databases that resources of this cluster have on the DatabaseServer, as of the last look.",
    ("server",),
    registry=REGISTRY,
)
KUBE_REQUESTS = Counter(
    "dbbootstrap_kube_requests_total",
    "Calls to the Kubernetes API, without the watches; code is none where there was no answer.",
    ("verb", "resource", "code"),
    registry=REGISTRY,
)
LEADER = Gauge(
    "dbbootstrap_leader",
    "1 while this process acts, 0 while it stands by.",
    registry=REGISTRY,
)
SANDBOX = Gauge(
    "dbbootstrap_alembic_sandbox",
    "1 for what confines Alembic's revisions; landlock_abi is 0 where nothing does.",
    ("mode", "landlock_abi", "seccomp"),
    registry=REGISTRY,
)


def exposition() -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


def forget_all() -> None:
    """Take all resources out of the metrics: whoever begins to act finds out anew which there are."""
    RESOURCES.set(0)
    for metric in (PENDING_MIGRATIONS, SERVER_READY, SERVER_DATABASES):
        metric.clear()


def forget(namespace: str, name: str) -> None:
    """Take a resource that is gone out of the metrics."""
    with suppress(KeyError):
        PENDING_MIGRATIONS.remove(namespace, name)


def forget_server(name: str) -> None:
    """Take a DatabaseServer that is gone out of the metrics."""
    for metric in (SERVER_READY, SERVER_DATABASES):
        with suppress(KeyError):
            metric.remove(name)
