"""How often a resource is visited, told of and counted, on a real API server: no fight, no noise, no leftovers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from database_bootstrap import metrics
from database_bootstrap.api.outcomes import Reason, Verdict
from database_bootstrap.api.status import MigrationsStatus
from database_bootstrap.stages.subject import Facts, Report
from fix_operator import BOOTSTRAPS, Stage, all_done, soon, stopped
from fix_status import StatusWatch

REQUESTED = "dbbootstrap.io/reconcile-requested-at"
MIGRATIONS = {"tool": "SQL", "source": {"configMapRefs": [{"name": "files"}]}}
MISSING = stopped(Verdict.RETRY, Reason.REFERENCE_NOT_FOUND, "Secret admin is not there")


def status_writes(stage: Stage) -> int:
    """Return how often the status was written, by whomever."""
    return sum("databasebootstraps/status shop" in line for line in stage.writes())


def says(stage: Stage, report: Report) -> None:
    """Let the engine say this from now on."""

    async def play(*_: object) -> Report:
        return report

    stage.line.play = play


async def visited_again(stage: Stage, token: str) -> None:
    """Ask for a visit, and wait until it was told of."""
    stage.patch({"metadata": {"annotations": {REQUESTED: token}}})
    await soon(lambda: stage.get()["status"].get("lastHandledReconcileAt") == token)


async def test_two_operators_on_one_resource_do_not_fight_without_pause(
    make_stage: Callable[..., Awaitable[Stage]], status_watch: StatusWatch
) -> None:
    first, second = await make_stage(cluster_id="one"), await make_stage(cluster_id="two")
    status_watch.excuse(first.namespace, "shop")
    says(second, stopped(Verdict.STALLED, Reason.NOT_OWNED, "The other one's."))
    first.create()
    await soon(lambda: first.line.visits and second.line.visits)
    await asyncio.sleep(8)  # What is measured is how much happens in this time.
    # Each comes again after 1, 2, 4 s; without a pause there were hundreds.
    assert 3 <= status_writes(first) <= 16
    assert len(first.line.visits) + len(second.line.visits) <= 16


async def test_fight_costs_less_and_less(stage: Stage, status_watch: StatusWatch) -> None:
    status_watch.excuse(stage.namespace, "shop")
    stage.create()
    await soon(stage.ready)
    clock = asyncio.get_running_loop().time
    answers = []
    for _ in range(3):
        path = f"{BOOTSTRAPS.format(stage.namespace)}/shop/status"
        stage.plane.request("PUT", path, stage.get() | {"status": {}})
        began = clock()
        await soon(stage.ready)
        answers.append(clock() - began)
    assert answers[0] < answers[1] < answers[2]
    assert answers[2] > 3


async def test_trouble_is_a_warning_once_and_again_when_it_is_another_one(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [it.getMessage() for it in caplog.records if "ended with" in it.message and it.levelname == "WARNING"]

    says(stage, MISSING)
    with caplog.at_level(logging.DEBUG, "database_bootstrap"):
        stage.create()
        await soon(stage.ready)
        await visited_again(stage, "1")
        await visited_again(stage, "2")
        assert len(warnings()) == 1
        says(stage, stopped(Verdict.RETRY, Reason.REFERENCE_NOT_FOUND, "Secret other is not there"))
        await visited_again(stage, "3")
        assert len(warnings()) == 2
        says(stage, all_done())
        await visited_again(stage, "4")
        says(stage, MISSING)
        await visited_again(stage, "5")
        assert len(warnings()) == 3
        quiet = [it for it in caplog.records if "ended with" in it.message and it.levelname == "DEBUG"]
        assert len(quiet) >= 2


async def test_suspended_resource_is_told_of_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def told() -> int:
        return sum(it.message.startswith("Suspended") for it in caplog.records)

    with caplog.at_level(logging.INFO, "database_bootstrap"):
        stage.create(suspend=True)
        await soon(told)
        stage.patch({"metadata": {"annotations": {REQUESTED: "now"}}})
        stage.create("last-of-all")
        await soon(lambda: stage.ready("last-of-all"))
        assert told() == 1
    assert stage.ready() is None


def pending(stage: Stage) -> float | None:
    labels = {"namespace": stage.namespace, "name": "shop"}
    return metrics.REGISTRY.get_sample_value("dbbootstrap_pending_migrations", labels)


WITH_PENDING = Report(outcomes=all_done().outcomes, facts=Facts(migrations=MigrationsStatus(pending=3)))


async def test_pending_migrations_of_a_resource_are_shown_until_it_is_gone(stage: Stage) -> None:
    says(stage, WITH_PENDING)
    stage.create(migrations=MIGRATIONS)
    await soon(lambda: pending(stage) == 3)
    stage.delete()
    await soon(lambda: pending(stage) is None)


async def test_visit_that_outlives_its_resource_shows_nothing_of_it(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def play(*_: object) -> Report:
        await go_on.wait()
        return WITH_PENDING

    stage.line.play = play
    stage.create(migrations=MIGRATIONS)
    await soon(lambda: stage.line.visits)
    stage.delete()
    # Once a later resource is known, so is the deletion; there is one worker, and so its visit comes after this one.
    stage.create("last-of-all")
    await soon(lambda: metrics.REGISTRY.get_sample_value("dbbootstrap_workqueue_depth"))
    go_on.set()
    await soon(lambda: stage.ready("last-of-all"))
    assert pending(stage) is None


async def test_resource_without_migrations_any_more_has_none_pending(stage: Stage) -> None:
    says(stage, WITH_PENDING)
    stage.create(migrations=MIGRATIONS)
    await soon(lambda: pending(stage) == 3)
    stage.patch({"spec": {"migrations": None}})
    await soon(lambda: pending(stage) is None)


async def test_wrong_secret_is_looked_at_again_long_before_the_interval(stage: Stage) -> None:
    says(stage, stopped(Verdict.STALLED, Reason.REFERENCE_REJECTED, "Secret admin, key password: empty"))
    stage.create(intervalSeconds=3600)
    await soon(lambda: stage.ready() == ("False", "ReferenceRejected"))
    says(stage, all_done())
    await soon(lambda: stage.ready() == ("True", "Succeeded"), seconds=19)
