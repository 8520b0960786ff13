"""The linter itself: each rule has an object that breaks only what it says, made from one that breaks nothing."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest

from database_bootstrap.api import conditions, names
from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.status import Status
from status_linter import kstatus, lint_history, lint_status

Json: TypeAlias = Any
Break: TypeAlias = Callable[[Json], object]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DONE = [
    Outcome(stage=it, verdict=Verdict.DONE, reason=Reason.NOT_REQUESTED, message="Nothing asked.") for it in StageName
]


def version(*outcomes: Outcome, middle: bool = False) -> dict[str, Any]:
    write = conditions.progress if middle else conditions.derive
    told = write(outcomes, previous=(), generation=2, now=NOW)
    meta = {"generation": 2, "managedFields": [managed(names.FIELD_MANAGER, "Apply")]}
    return {"metadata": meta, "status": Status(observed_generation=2, conditions=told).manifest()}


def managed(manager: str, operation: str) -> dict[str, str]:
    return {"manager": manager, "operation": operation, "subresource": "status"}


def ended(stage: StageName, verdict: Verdict, reason: Reason) -> list[Outcome]:
    before = DONE[: list(StageName).index(stage)]
    return [*before, Outcome(stage=stage, verdict=verdict, reason=reason, message="It is not there.")]


READY = version(*DONE)
RETRIED = version(*ended(StageName.MIGRATIONS, Verdict.RETRY, Reason.LOCK_HELD))
FAILED = version(*ended(StageName.MIGRATIONS, Verdict.STALLED, Reason.MIGRATION_FAILED))
MIDDLE = version(*DONE[:2], middle=True)
CREATED = {"metadata": {"generation": 1}, "status": {"observedGeneration": -1}}
EDITED = READY | {"metadata": READY["metadata"] | {"generation": 3}}


def told(obj: Json, kind: str) -> Json:
    return next(it for it in obj["status"]["conditions"] if it["type"] == kind)


def put(obj: Json, kind: str, **fields: Json) -> Json:
    return told(obj, kind).update(fields)


def add(obj: Json, kind: str, **fields: Json) -> None:
    like = copy.deepcopy(obj["status"]["conditions"][0])
    obj["status"]["conditions"].append(like | {"type": kind} | fields)


def drop(obj: Json, kind: str) -> Json:
    return obj["status"]["conditions"].remove(told(obj, kind))


def observe(obj: Json, generation: int | None) -> None:
    obj["status"]["observedGeneration"] = generation


def everywhere(obj: Json, **fields: Json) -> Json:
    return [condition.update(fields) for condition in obj["status"]["conditions"]]


@pytest.mark.parametrize("obj", [READY, RETRIED, FAILED, MIDDLE, CREATED, EDITED])
def test_good_objects_have_no_findings(obj: Json) -> None:
    assert lint_status(obj) == []


BROKEN: list[tuple[str, Json, Break]] = [
    ("no observedGeneration at the root", READY, lambda it: observe(it, None)),
    ("observedGeneration 3 at generation 2", READY, lambda it: observe(it, 3)),
    ("observedGeneration -2 at generation 2", READY, lambda it: observe(it, -2)),
    ("somebody has looked, and there is no condition", CREATED, lambda it: observe(it, 1)),
    ("status.phase has no place here", READY, lambda it: it["status"].update(phase="Ready")),
    ("status.kopf has no place here", READY, lambda it: it["status"].update(kopf={})),
    ("a login or a password", READY, lambda it: put(it, "Ready", message="Tried postgresql://u:p@h/d in vain.")),
    ("a login or a password", READY, lambda it: put(it, "Ready", message="Tried host=h password=p in vain.")),
    ("kopf wrote the status", READY, lambda it: it["metadata"]["managedFields"].append(managed("kopf", "Update"))),
    ("wrote the status by Update", READY, lambda it: it["metadata"].update(
        managedFields=[managed(names.FIELD_MANAGER, "Update")])),
    ("Happy is no condition of ours", READY, lambda it: add(it, "Happy")),
    ("Seeded is Maybe", READY, lambda it: put(it, "Seeded", status="Maybe")),
    ("reason Because, which is not in the list", READY, lambda it: put(it, "Seeded", reason="Because")),
    ("Seeded has observedGeneration None", READY, lambda it: told(it, "Seeded").pop("observedGeneration")),
    ("Seeded has observedGeneration 3", READY, lambda it: put(it, "Seeded", observedGeneration=3)),
    ("Seeded has no message", READY, lambda it: put(it, "Seeded", message="")),
    ("Seeded has no message, one that is too long", READY, lambda it: put(it, "Seeded", message="x" * 32_769)),
    ("or one with control characters", READY, lambda it: put(it, "Seeded", message="\x1b[31m")),
    ("transition time yesterday", READY, lambda it: put(it, "Seeded", lastTransitionTime="yesterday")),
    ("a type of condition occurs twice", READY, lambda it: add(it, "Ready")),
    ("no Ready although", READY, lambda it: drop(it, "Ready")),
    ("no RoleReady, Seeded although", READY, lambda it: (drop(it, "Seeded"), drop(it, "RoleReady"))),
    ("Stalled is False, and should be absent", READY, lambda it: add(it, "Stalled", status="False")),
    ("Reconciling is Unknown, and should be absent", RETRIED, lambda it: put(it, "Reconciling", status="Unknown")),
    ("Reconciling and Stalled at once", FAILED, lambda it: add(it, "Reconciling", status="True")),
    ("Ready is True beside Reconciling", READY, lambda it: add(it, "Reconciling", reason="Progressing")),
    ("Ready is True beside Stalled", READY, lambda it: add(it, "Stalled")),
    ("Ready is False with neither", RETRIED, lambda it: drop(it, "Reconciling")),
    ("Ready is Unknown without Reconciling", MIDDLE, lambda it: drop(it, "Reconciling")),
    ("Stalled without the same reason", FAILED, lambda it: put(it, "Stalled", reason="SeedFailed")),
    ("Ready is True for the reason NotRequested", READY, lambda it: put(it, "Ready", reason="NotRequested")),
    ("Ready is Unknown for the reason Blocked", MIDDLE, lambda it: put(it, "Ready", reason="Blocked")),
    ("Reconciling says Progressing beside", RETRIED, lambda it: put(it, "Reconciling", reason="Progressing")),
    ("Reconciling says ProgressingWithRetry", MIDDLE, lambda it: put(it, "Reconciling", reason="ProgressingWithRetry")),
    ("Ready is True, and 0 stages", READY, lambda it: put(it, "RoleReady", status="False")),
    ("Ready is False, and 7 stages of 7", FAILED, lambda it: (
        everywhere(it, status="True"), put(it, "Ready", status="False"))),
    ("Ready says LockHeld, and", RETRIED, lambda it: put(it, "MigrationsApplied", reason="ServerBusy")),
    ("Seeded is not Blocked after a failure", RETRIED, lambda it: put(it, "Seeded", status="True")),
    ("Seeded is not Blocked after a failure", RETRIED, lambda it: put(it, "Seeded", reason="LockHeld")),
    ("Seeded is not Unknown/Progressing", MIDDLE, lambda it: put(it, "Seeded", status="True")),
    ("conditions of different generations: ['1', '2']", READY, lambda it: put(it, "Seeded", observedGeneration=1)),
    ("a visit ended at generation 1, and the root says 2", READY, lambda it: everywhere(it, observedGeneration=1)),
    ("kstatus says Current, and the situation is Failed", FAILED, lambda it: (
        put(it, "Stalled", status="False"), put(it, "Ready", status="True"))),
]  # fmt: skip


@pytest.mark.parametrize(("finding", "good", "break_it"), BROKEN, ids=[row[0] for row in BROKEN])
def test_each_rule_finds_what_it_is_for(finding: str, good: Json, break_it: Break) -> None:
    bad = copy.deepcopy(good)
    break_it(bad)
    assert any(finding in found for found in lint_status(bad)), lint_status(bad)


def later(obj: Json, *kinds: str, **fields: Json) -> Json:
    result = copy.deepcopy(obj)
    for kind in kinds:
        put(result, kind, **{"lastTransitionTime": "2026-03-01T13:00:00Z"} | fields)
    return result


@pytest.mark.parametrize(
    ("versions", "findings"),
    [
        pytest.param([READY, READY], [], id="unchanged"),
        pytest.param([CREATED, MIDDLE, READY, EDITED], [], id="the usual way"),
        pytest.param([READY, later(READY, "Seeded", status="False")], [], id="status moved"),
        pytest.param([READY, later(READY, "Seeded")], ["Seeded stayed True"], id="time moved alone"),
        pytest.param(
            [later(READY, "Seeded"), READY], ["Seeded stayed True", "Seeded changed before"], id="time went back"
        ),
        pytest.param([READY, CREATED], ["all conditions have gone", "went back from 2 to -1"], id="status lost"),
    ],
)
def test_history(versions: list[Json], findings: list[str]) -> None:
    found = lint_history(versions)
    assert len(found) == len(findings)
    assert all(expected in actual for expected, actual in zip(findings, found, strict=True))


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(READY, "Current", id="done"),
        pytest.param(RETRIED, "InProgress", id="retry"),
        pytest.param(FAILED, "Failed", id="stalled"),
        pytest.param(MIDDLE, "InProgress", id="middle"),
        pytest.param(CREATED, "InProgress", id="created"),
        pytest.param(EDITED, "InProgress", id="edited"),
        pytest.param({"metadata": {"generation": 1}}, "Current", id="no status at all"),
    ],
)
def test_kstatus(obj: Json, expected: str) -> None:
    assert kstatus(obj) == expected
