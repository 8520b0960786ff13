"""Crash at every message: PostgreSQL's and the API server's, before it arrives and after it was answered."""

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from crashing.gates import Gate, Place
from crashing.scene import API, POSTGRES, Case, Scene, kill, kill_postgres
from crashing.stories import CHANGED, MADE
from crashing.verdict import faults
from crashing.walk import Trouble, Walk
from fix_operator import Operator

pytestmark = pytest.mark.timeout(7200)
MakeOperator = Callable[..., Operator]


@pytest.fixture(params=[MADE, CHANGED], ids=["made", "changed"])
def walk(
    request: pytest.FixtureRequest,
    scene: Scene,
    access: Path,
    make_operator: MakeOperator,
    step: int,
    tell: Callable[[Sequence[str]], None],
) -> Callable[[str, Trouble | None, Sequence[str]], None]:
    """Return a function that walks the points of all stories of a kind, and tells how many there were."""

    def run(name: str, trouble: Trouble | None, servers: Sequence[str]) -> None:
        operator = make_operator(kubeconfig=access).start(ready=False)
        # What a resource goes through later is walked less densely, or make test would take too long.
        thin = 3 if request.param is CHANGED and step > 1 else 1
        made = Walk(scene=scene, operator=operator, name=name, trouble=trouble, step=step * thin)
        # One that is killed knows nothing any more; the others go on with what they know, and are met a third as often.
        made.critical_step = thin * (1 if trouble is kill else min(step, 3))
        try:
            made.run(tuple(request.param), servers)
        finally:
            tell(made.told)

    return run


def test_operator_is_killed(walk: Callable[[str, Trouble | None, Sequence[str]], None]) -> None:
    walk("Operator killed", kill, (POSTGRES, API))


def test_connections_are_cut(walk: Callable[[str, Trouble | None, Sequence[str]], None]) -> None:
    walk("Connections cut", None, (POSTGRES, API))


def test_postgres_is_killed(walk: Callable[[str, Trouble | None, Sequence[str]], None]) -> None:
    walk("PostgreSQL killed", kill_postgres, (POSTGRES,))


@pytest.mark.parametrize("cuts", [False, True], ids=["killed", "cut"])
def test_start_of_the_operator(
    cuts: bool,
    scene: Scene,
    access: Path,
    make_operator: MakeOperator,
    step: int,
    tell: Callable[[Sequence[str]], None],
) -> None:
    operator = make_operator(kubeconfig=access)
    scene.proxy.start_gate = counted = Gate()
    first = scene.begin(scene.berths[0], MADE["SQL"])
    operator.start(ready=False)
    scene.wait([first], lambda case: case.is_ready)
    operator.kill()
    scene.clear([first])
    numbers = range(1 + random.randrange(step), len(counted.seen) + 2, step)
    points = list(itertools.product(numbers, Place))
    walked = 0
    while points:
        some, points = points[: len(scene.berths)], points[len(scene.berths) :]
        cases: list[Case] = []
        for berth, (number, place) in zip(scene.berths, some, strict=False):
            cases.append(scene.begin(berth, MADE["SQL"]))
            walked += _start(scene, operator, Gate(number, place, cut=(lambda: None) if cuts else None), cases[-1])
        scene.proxy.start_gate = None
        operator.start(ready=False)
        scene.wait(cases, lambda case: case.is_ready)
        operator.kill()
        assert [fault for case in cases for fault in faults(scene, case)] == []
        scene.clear(cases)
    what = "the connection cut" if cuts else "killed"
    tell([f"Operator's start, {what}: {walked} points of {len(counted.seen)} requests, before and after"])
    assert walked


def _start(scene: Scene, operator: Operator, gate: Gate, case: Case) -> bool:
    """Start the operator with trouble at one of its first requests, and end it; return whether it came to that."""
    scene.proxy.start_gate = gate
    operator.start(ready=False)
    if gate.cuts:
        scene.wait([case], lambda one: one.is_ready)
    else:
        scene.wait([case], lambda one: gate.fired or one.is_ready)
    operator.kill()
    scene.loop.call(gate.release)
    return gate.fired
