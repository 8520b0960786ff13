"""The walk: every point of every story without trouble, or every k-th and those that matter most."""

import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from crashing import half_applied
from crashing.gates import Message, Place
from crashing.scene import Case, Point, Scene, short
from crashing.stories import STORIES
from crashing.verdict import faults, picture
from fix_operator import Operator

Trouble = Callable[[Scene, Operator, Sequence[Case]], None]
CRITICAL = re.compile(
    r"CREATE (ROLE|DATABASE|SCHEMA dbbootstrap|INDEX)|COMMENT ON DATABASE|INSERT INTO dbbootstrap\.(migration|seed)"
    r"|COMMIT|POST secrets|PATCH |ALTER ROLE|\"walk_reader\""
)
"""What writes where a second time, or none, would be seen."""
FAULTS_LIMIT = 10


@dataclass(kw_only=True)
class Walk:
    """One kind of trouble at many points."""

    scene: Scene
    operator: Operator
    name: str
    trouble: Trouble | None
    """What happens once all are held; None: each connection is cut by itself."""
    step: int = 1
    """Every how manieth point is walked."""
    critical_step: int = 1
    """Every how manieth of those that matter most is walked besides."""
    offset: int = 0
    walked: Counter[tuple[str, str, Place]] = field(default_factory=Counter)
    missed: int = 0
    """How often the message did not come: fewer were sent than in the run that was counted."""
    half_applied: int = 0
    slowest: float = 0.0
    found: list[str] = field(default_factory=list)
    """What is wrong, and where."""
    told: list[str] = field(default_factory=list)
    """The figures, for people."""

    def run(self, stories: Sequence[str], servers: Sequence[str]) -> None:
        """Walk all points of these stories and servers; fail with what is wrong, and where."""
        began = time.monotonic()
        self.offset = random.randrange(self.step)
        points = list(self._points(stories, servers))
        random.shuffle(points)
        try:
            while points and len(self.found) < FAULTS_LIMIT:
                batch, points = points[: len(self.scene.berths)], points[len(self.scene.berths) :]
                self._batch(batch)
        finally:
            self._tell(time.monotonic() - began)
        if self.found:
            pytest.fail("\n".join([f"{self.name}:", *self.found]))

    def _points(self, stories: Sequence[str], servers: Sequence[str]) -> Iterator[Point]:
        """Count the messages of a run without trouble, and yield the points to walk."""
        scene = self.scene
        cases = [scene.begin(berth, STORIES[name]) for berth, name in zip(scene.berths, stories, strict=False)]
        scene.change(cases)
        scene.wait_until_held(cases)
        scene.release(cases)
        self.found += [
            f"without any trouble, {name}: {fault}"
            for name, case in zip(stories, cases, strict=True)
            for fault in self._ask(case)
        ]
        for name, case in zip(stories, cases, strict=True):
            for server in servers:
                yield from self._chosen(name, server, case.gates[server].seen)
        scene.clear(cases)

    def _chosen(self, story: str, server: str, seen: Sequence[Message]) -> Iterator[Point]:
        numbers, critical = itertools.count(self.offset), itertools.count(self.offset)
        # A run may send one message more than the one that was counted: the walk goes on until one does not fire.
        for number, message in enumerate([*seen, Message("beyond", answered=False)], 1):
            for place in Place if message.answered else (Place.BEFORE,):
                matters = bool(CRITICAL.search(message.words)) and next(critical) % self.critical_step == 0
                if next(numbers) % self.step == 0 or matters:
                    yield Point(story=story, server=server, number=number, place=place)

    def _batch(self, points: Sequence[Point]) -> None:
        scene = self.scene
        pairs = zip(scene.berths, points, strict=False)
        cases = [scene.begin(berth, STORIES[point.story], point, cuts=self.trouble is None) for berth, point in pairs]
        scene.change(cases)
        if self.trouble:
            scene.wait_until_held(cases)
            for case in cases:
                self.found += [f"{case.point}: {fault}" for fault in case.story.lasting(scene, case)]
            self.trouble(scene, self.operator, cases)
        began = time.monotonic()
        scene.wait_until_settled(cases)
        if self.trouble is None:
            scene.release(cases)
        self.slowest = max(self.slowest, time.monotonic() - began)
        for case, point in zip(cases, points, strict=True):
            self._judge(case, point)
        self._look_again([case for case in cases if case.story.change])
        scene.clear(cases)

    def _look_again(self, cases: Sequence[Case]) -> None:
        """A change is made once: another visit finds nothing to do."""
        before = [picture(self.scene, case) for case in cases]
        self.scene.ask_for_visit(cases)
        self.scene.wait(cases, lambda case: case.is_ready)
        for case, seen in zip(cases, before, strict=True):
            if picture(self.scene, case) != seen:
                self.found.append(f"{case.point}: another visit has changed something")

    def _judge(self, case: Case, point: Point) -> None:
        struck = any(gate.fired for gate in case.gates.values())
        self.missed += not struck
        if struck:
            self.walked[point.story, point.server, point.place] += 1
        where = f"{point} ({short(case.struck) or 'did not come'})"
        if case.is_half_applied:
            self.half_applied += 1
            self.found += [f"{where}: {fault}" for fault in half_applied.go_on(self.scene, case)]
        self.found += [f"{where}: {fault}" for fault in self._ask(case)]

    def _ask(self, case: Case) -> list[str]:
        return faults(self.scene, case) if case.is_ready else [f"needs a person: {' '.join(case.ready)}"]

    def _tell(self, seconds: float) -> None:
        """Say how many points were walked."""
        stories: dict[str, list[str]] = {}
        for (story, server, place), count in sorted(self.walked.items()):
            stories.setdefault(f"{story}, {server}", []).append(f"{count} {place}")
        chosen = (
            "every point" if self.step == 1 else f"every {self.step}th from {self.offset} on, and the critical ones"
        )
        self.told += [
            f"{self.name}: {self.walked.total()} points in {seconds:.0f} s ({chosen}; {self.missed} did not come)",
            *(f"  {story}: {', '.join(counts)}" for story, counts in stories.items()),
            f"  slowest way back {self.slowest:.1f} s; half-applied and cured: {self.half_applied}",
            *(f"  WRONG: {one}" for one in self.found),
        ]
