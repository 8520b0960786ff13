"""Names, types and help of the metrics are an interface: dashboards and alerts are built on them."""

from database_bootstrap import metrics

PUBLISHED = {
    "dbbootstrap_active_workers": "gauge",
    "dbbootstrap_alembic_sandbox": "gauge",
    "dbbootstrap_changes_total": "counter",
    "dbbootstrap_drops_total": "counter",
    "dbbootstrap_kube_requests_total": "counter",
    "dbbootstrap_leader": "gauge",
    "dbbootstrap_max_concurrent_reconciles": "gauge",
    "dbbootstrap_pending_migrations": "gauge",
    "dbbootstrap_reconcile_errors_total": "counter",
    "dbbootstrap_reconcile_time_seconds": "histogram",
    "dbbootstrap_reconcile_total": "counter",
    "dbbootstrap_resources": "gauge",
    "dbbootstrap_server_databases": "gauge",
    "dbbootstrap_server_ready": "gauge",
    "dbbootstrap_servers_away": "gauge",
    "dbbootstrap_workqueue_adds_total": "counter",
    "dbbootstrap_workqueue_depth": "gauge",
    "dbbootstrap_workqueue_queue_duration_seconds": "histogram",
    "dbbootstrap_workqueue_retries_total": "counter",
}


def exposed(word: str) -> dict[str, str]:
    lines = metrics.exposition().decode().splitlines()
    return dict(line.split(" ", 3)[2:4] for line in lines if line.startswith(f"# {word} dbbootstrap_"))


def test_metrics_are_those_that_were_published() -> None:
    assert exposed("TYPE") == PUBLISHED


def test_every_metric_says_what_it_is() -> None:
    texts = exposed("HELP")
    assert texts.keys() == PUBLISHED.keys()
    assert all(text.endswith(".") for text in texts.values())


def test_counters_end_in_total_and_nothing_else_does() -> None:
    assert {name for name, kind in PUBLISHED.items() if kind == "counter"} == {
        name for name in PUBLISHED if name.endswith("_total")
    }


def test_metrics_of_all_resources_go_at_once() -> None:
    metrics.PENDING_MIGRATIONS.labels(namespace="shop", name="db").set(1)
    metrics.forget_all()
    assert b'name="db"' not in metrics.exposition()


def test_metric_of_a_resource_that_is_gone_is_gone() -> None:
    metrics.PENDING_MIGRATIONS.labels(namespace="shop", name="db").set(1)
    metrics.forget("shop", "db")
    metrics.forget("shop", "db")
    assert b'name="db"' not in metrics.exposition()
