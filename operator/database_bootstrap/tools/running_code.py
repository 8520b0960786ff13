"""Running code: what a statement runs of the functions, triggers and rules that a batch has made."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from database_bootstrap.tools import opaque
from database_bootstrap.tools.effects import Changed, Code, Effect, Finding, Kind, Made, Name, Renamed, Uses, Watch
from database_bootstrap.tools.queries import NOWHERE
from database_bootstrap.tools.sql_text import STEPS_LIMIT
from database_bootstrap.tools.things import Thing

Place = tuple[str | None, str]
"""Schema and name, as far as the schema is known."""


class RunningCode:
    """The functions that a batch has made, and what runs by itself since then."""

    def __init__(self, place: Callable[[Name], Place], table: Callable[[Name], Thing]) -> None:
        self._place = place
        self._table = table
        self._bodies: dict[Place, tuple[Effect, ...]] = {}
        self._former: dict[Place, Name] = {}
        """Functions from before that have another name."""
        self._watches: list[tuple[Watch, Thing | None]] = []
        self._of_before: list[Watch] = []
        """Triggers that were there before the batch, whichever tables they watch."""
        self._related: set[Thing] = set()
        """Tables that rows may come into by way of another one."""
        self._watched: bool | None = None
        """Whether one of them destroys; None where that is to be found."""
        self._known: dict[tuple[Effect, ...], list[Finding]] = {}
        """What was found of code since the last of these came."""
        self._steps = 0

    def note(self, effect: Made | Renamed | Watch) -> None:
        """Keep in mind a function, its new name, or a trigger or rule."""
        self._watched = None
        self._known.clear()
        match effect:
            case Made():
                self._make(effect)
            case Renamed():
                self._rename(effect)
            case Watch():
                self._watches.append((effect, self._table(effect.table) if effect.table else None))

    def _make(self, effect: Made) -> None:
        # Of several with one name any may be meant.
        place = self._place(effect.name)
        self._bodies[place] = tuple(dict.fromkeys(self._bodies.get(place, ()) + effect.body))
        if effect.runs_by_itself:
            watch = Watch(table=None, what=f"fire a trigger by {effect.name}", body=effect.body)
            if watch not in self._of_before:
                self._of_before.append(watch)

    def _rename(self, effect: Renamed) -> None:
        old, new = self._place(effect.old), self._place(effect.new)
        if old in self._bodies:
            self._bodies[new] = self._bodies.get(new, ()) + self._bodies[old]
        else:
            self._former[new] = self._former.get(old, effect.old)

    def relate(self, *tables: Thing) -> None:
        """Say that these are partitions or children of one another."""
        self._related.update(tables)
        self._known.clear()

    def call(self, finding: Finding) -> list[Finding]:
        """Return what a call may destroy; for a function of the database, the call itself under its name of before."""
        place = self._place(finding.name)
        if place not in self._bodies:
            return [replace(finding, name=self._former.get(place, finding.name), is_watched=self._is_watched())]
        return self._told(self._bodies[place], f"call {finding.name}", finding.line)

    def use(self, uses: Uses) -> list[Finding]:
        """Return what a definition may destroy that has a function of the batch called."""
        place = self._place(uses.function)
        return self._told(self._bodies.get(place, ()), f"have {uses.function} called", uses.line)

    def change(self, changed: Changed) -> list[Finding]:
        """Return what a change of rows may destroy by what watches them."""
        found: list[Finding] = []
        # Hundreds of tables may have the same trigger.
        for watch in {one.body: one for one in self._fired_by(changed)}.values():
            found += self._told(watch.body, watch.what, changed.line)
            if any(one.kind is Kind.ANYTHING for one in found):
                break
        return found

    def _told(self, body: tuple[Effect, ...], words: str, line: int | None) -> list[Finding]:
        if body not in self._known:
            self._known[body] = list({(one.kind, one.name): one for one in self._run(body)}.values())
        found = self._known[body]
        if any(one.kind is not Kind.FUNCTION for one in found):
            what = f"{words}, which the migrations make, and which may destroy anything"
            return [Finding(code=Code.OPAQUE, what=what, kind=Kind.ANYTHING, name=NOWHERE, line=line)]
        is_watched = bool(found) and self._is_watched()
        return [replace(one, what=f"{words}, and by that", is_watched=is_watched, line=line) for one in found]

    def _run(self, body: Iterable[Effect]) -> Iterator[Finding]:
        """Yield what code destroys, and the functions of the database that it calls."""
        stack, seen = list(body), set[Place | int]()
        while stack:
            self._steps += 1
            if self._steps > STEPS_LIMIT:
                yield opaque.unknown()
                return
            effect = stack.pop()
            match effect:
                case Finding(kind=Kind.FUNCTION, name=name) | Uses(function=name):
                    place = self._place(name)
                    stack.extend(self._bodies.get(place, ()) if place not in seen else ())
                    seen.add(place)
                    if place not in self._bodies and isinstance(effect, Finding):
                        yield replace(effect, name=self._former.get(place, name))
                case Finding():
                    yield effect
                case Watch() | Made(kind=Kind.HIDDEN):
                    yield opaque.unknown()
                case Changed():
                    fired = [one for one in self._fired_by(effect) if id(one) not in seen]
                    seen.update(map(id, fired))
                    stack.extend(each for one in fired for each in one.body)

    def _fired_by(self, changed: Changed) -> Iterator[Watch]:
        """Yield what may run. Rows of a table from before may take others along in ways that no migration shows."""
        table = self._table(changed.table) if changed.table else None
        is_alone = table is not None and table.before is None and changed.inserts and table not in self._related
        for watch, watched in self._watches:
            if not is_alone or watched is None or watched is table:
                yield watch
        if not is_alone:
            yield from self._of_before

    def _is_watched(self) -> bool:
        """Whether to put rows in may be enough to run what destroys."""
        if self._watched is None:
            bodies = {watch.body for watch in [*(watch for watch, _ in self._watches), *self._of_before]}
            self._watched = any(one.kind is not Kind.FUNCTION for body in bodies for one in self._run(body))
        return self._watched
