"""Batch: what a row of migrations destroys of what was there before its first one; what it makes itself is no loss."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from database_bootstrap.tools.destructive import effects_of
from database_bootstrap.tools.effects import (
    Changed,
    Code,
    Copied,
    Doubt,
    Effect,
    Finding,
    Joined,
    Kind,
    Made,
    Name,
    Renamed,
    Uses,
    Watch,
)
from database_bootstrap.tools.queries import TEMPORARY
from database_bootstrap.tools.running_code import RunningCode
from database_bootstrap.tools.sql_text import STEPS_LIMIT, TooIntricate
from database_bootstrap.tools.things import Thing, reached_by, sources_of

Key = tuple[Kind, str | None, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One migration and its effects."""

    name: str
    path: str
    """The file, as messages name it."""
    effects: tuple[Effect, ...]


def judged_of(name: str, path: str, text: str) -> Judged:
    """Return a script with its effects, each with its line."""
    return Judged(name=name, path=path, effects=tuple(effects_of(text)))


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A finding, with names as they were before the batch."""

    migration: Judged
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicions:
    """What to ask the database about."""

    found: tuple[Suspicion, ...]
    moves_path: bool
    """Names without a schema may mean another one than at the beginning."""


def suspicions_of(migrations: Iterable[Judged], schema: str) -> Suspicions:
    """Return what the migrations destroy, one after the other; `schema` is the first of the search path."""
    judged = tuple(migrations)
    moves = any(isinstance(one, Made) and one.kind is Kind.PATH for each in judged for one in each.effects)
    names = _Names(None if moves else schema)
    found: list[Suspicion] = []
    for migration in judged:
        for effect in migration.effects:
            if isinstance(effect, Finding | Changed | Uses):
                found.extend(Suspicion(migration, known) for known in names.judge(effect))
            else:
                names.note(effect)
        names.commit()
    return Suspicions(found=tuple(found), moves_path=moves)


class _Names:
    """Which name of now is which name of before."""

    def __init__(self, schema: str | None) -> None:
        self._schema = schema
        """None: the search path moves, and a name without a schema may be in any."""
        self._things: dict[Key, Thing] = {}
        self._columns: dict[tuple[Name, str], str | None] = {}
        self._enums: set[str] = set()
        self._prepared: set[str] = set()
        self._code = RunningCode(
            lambda name: self._key(Kind.FUNCTION, name)[1:], lambda name: self._thing(Kind.TABLE, name)
        )
        self._until_commit: set[Key] = set()
        self._loose: dict[tuple[Kind, str], Thing] = {}
        """What has a new name, in whichever schema, where the search path moves."""
        self._spoilt: set[str] = set()
        self._dropped_schemas: set[str] = set()
        self._doubt = Doubt.NONE
        self._renames_columns = False
        self._steps = 0

    def judge(self, effect: Finding | Changed | Uses) -> list[Finding]:
        """Return the findings with the names of before; none for what was not there then."""
        found = self._run(effect)
        if self._doubt is Doubt.NONE and any(one.kind is Kind.ANYTHING for one in found):
            self._doubt = Doubt.ABSENT
        return found

    def _run(self, effect: Finding | Changed | Uses) -> list[Finding]:
        match effect:
            case Changed():
                return self._code.change(effect)
            case Uses():
                return self._code.use(effect)
            case Finding(kind=Kind.FUNCTION):
                return self._code.call(effect)
            case Finding(kind=Kind.PREPARED):
                # Prepared by nobody here: it may be anything.
                return [] if effect.name.name in self._prepared else [replace(effect, kind=Kind.ANYTHING)]
        return self._destroy(effect)

    def _destroy(self, finding: Finding) -> list[Finding]:
        if finding.kind in (Kind.ANYTHING, Kind.ROLE, Kind.DATABASE):
            return [finding]
        thing = self._thing(finding.kind, finding.name)
        reached = list(reached_by(thing))
        of_before = [self._of_before(replace(finding, doubt=self._doubt_of(finding)), thing)]
        of_before += [self._of_before(replace(finding, kind=Kind.TABLE), one) for one in reached if one is not thing]
        last = [] if finding.code in (Code.CHANGE_TYPE, Code.UNLOG) else self._last_copies(finding, reached)
        self._forget(finding, thing)
        return [one for one in of_before if one is not None] + last

    def note(self, effect: Made | Renamed | Copied | Joined | Watch) -> None:
        """Keep in mind what was made or renamed, and what came into what."""
        match effect:
            case Watch() | Made(kind=Kind.FUNCTION) | Renamed(kind=Kind.FUNCTION):
                self._code.note(effect)
            case Renamed():
                self._rename(effect)
            case Copied():
                self._copy(effect)
            case Joined():
                self._join(effect)
            case Made(kind=Kind.ROLLBACK):
                self._roll_back()
            case Made(kind=Kind.COMMIT):
                self.commit()
            case Made(kind=Kind.HIDDEN):
                self._roll_back()
                self._doubt = Doubt.ALWAYS
            case _:
                self._make(effect)

    def _copy(self, effect: Copied) -> None:
        table = self._thing(Kind.TABLE, effect.into)
        table.copies.update({self._thing(Kind.TABLE, one): None for one in effect.sources})
        for one in effect.moved:
            self._thing(Kind.TABLE, one).is_spoilt = True

    def _join(self, effect: Joined) -> None:
        child, parent = self._thing(Kind.TABLE, effect.child), self._thing(Kind.TABLE, effect.parent)
        self._code.relate(child, parent)
        if not effect.is_new:
            self._put(child, parent, leaves=effect.leaves)

    def commit(self) -> None:
        """Forget what goes with the transaction."""
        for key in self._until_commit:
            self._things.pop(key, None)
        self._until_commit.clear()

    def _make(self, effect: Made) -> None:
        if effect.column is not None:
            if (table := self._thing(Kind.TABLE, effect.name).before) is not None:
                self._columns[table, effect.column] = None
            return
        key = self._key(effect.kind, effect.name)
        if effect.kind is Kind.PREPARED:
            self._prepared.add(effect.name.name)
        if effect.kind is Kind.TYPE:
            self._enums.add(effect.name.name)
        if self._schema is None and effect.kind in (Kind.TABLE, Kind.TYPE) and key[1] is None:
            return  # It may be in another schema than what has that name later.
        self._things[key] = thing = Thing(None)
        if effect.until_commit:
            self._until_commit.add(key)
        if effect.kind is Kind.TABLE and key[1] is not None and key[1] != TEMPORARY:
            self._put(thing, self._thing(Kind.SCHEMA, Name(None, key[1])), leaves=False)

    def _rename(self, effect: Renamed) -> None:
        thing = self._thing(Kind.TABLE if effect.columns else effect.kind, effect.old)
        if effect.columns is not None:
            self._renames_columns = True
            if (table := thing.before) is not None:
                old, new = effect.columns
                self._columns[table, new] = self._columns.get((table, old), old)
            return
        old_key, key = self._key(effect.kind, effect.old), self._key(effect.kind, effect.new)
        self._things[key] = thing
        is_loose = self._schema is None and thing.before is not None
        if is_loose and self._loose.setdefault((effect.kind, effect.new.name), thing) is not thing:
            self._doubt = Doubt.ALWAYS
        if effect.kind is Kind.TABLE and key[1] is not None and key[1] != old_key[1]:
            if old_key[1] is not None:
                self._put(thing, self._thing(Kind.SCHEMA, Name(None, old_key[1])), leaves=True)
            self._put(thing, self._thing(Kind.SCHEMA, Name(None, key[1])), leaves=False)
        if effect.kind is Kind.TYPE and effect.old.name in self._enums:
            self._enums.add(effect.new.name)

    @staticmethod
    def _put(thing: Thing, container: Thing, *, leaves: bool) -> None:
        if leaves:
            container.inside.pop(thing, None)
        else:
            container.inside[thing] = None

    def _thing(self, kind: Kind, name: Name) -> Thing:
        """Return what the name stands for, which may be something that nobody has told of yet."""
        key = self._key(kind, name)
        temporary = (kind, TEMPORARY, name.name)
        if name.schema is None and temporary in self._things:
            return self._things[temporary]
        if loose := self._loose.get((kind, name.name)):
            return loose
        if key not in self._things:
            self._things[key] = Thing(self._before(key, name))
        return self._things[key]

    def _before(self, key: Key, name: Name) -> Name | None:
        if key[0] is Kind.SCHEMA or key[1] is None:
            return name
        schema = self._thing(Kind.SCHEMA, Name(None, key[1])).before
        if schema is None:
            return None
        return name if schema.name == key[1] else Name(schema.name, name.name)

    def _key(self, kind: Kind, name: Name) -> Key:
        has_schema = kind not in (Kind.SCHEMA, Kind.EXTENSION, Kind.ROLE, Kind.DATABASE, Kind.PREPARED)
        return kind, (name.schema or self._schema if has_schema else None), name.name

    def _doubt_of(self, finding: Finding) -> Doubt:
        is_loose = self._schema is None and self._renames_columns and finding.columns
        return Doubt.ABSENT if is_loose and self._doubt is Doubt.NONE else self._doubt

    def _of_before(self, finding: Finding, thing: Thing) -> Finding | None:
        if thing.before is None:
            return None
        before = thing.before
        columns = tuple(self._columns.get((before, column), column) for column in finding.columns)
        left = tuple(column for column in columns if column is not None)
        if columns and not left:
            return None
        if finding.code not in (Code.CHANGE_TYPE, Code.UNLOG):
            thing.is_spoilt = True
            self._spoilt.add(before.name)
        change = finding.change.knowing(self._enums) if finding.change else None
        return replace(finding, name=before, written=finding.name, columns=left, change=change)

    def _last_copies(self, finding: Finding, reached: Iterable[Thing]) -> list[Finding]:
        """Return findings for the tables whose rows were left nowhere but in these."""
        sources = {source: None for one in reached for source in sources_of(one)}
        self._steps += len(sources)
        if self._steps > STEPS_LIMIT:
            raise TooIntricate
        return [
            replace(finding, kind=Kind.TABLE, name=source.before, written=finding.name, columns=(), change=None)
            for source in sources
            if source.before is not None and self._is_spoilt(source, source.before)
        ]

    def _is_spoilt(self, thing: Thing, before: Name) -> bool:
        is_loose = self._schema is None and before.name in self._spoilt
        return thing.is_spoilt or is_loose or before.schema in self._dropped_schemas

    def _forget(self, finding: Finding, thing: Thing) -> None:
        """Keep in mind that what is dropped once is not there to be dropped again."""
        if finding.code is Code.DROP_TABLE:
            temporary = (Kind.TABLE, TEMPORARY, finding.name.name)
            if finding.name.schema is None and temporary in self._things:
                del self._things[temporary]
                return
            self._loose.pop((Kind.TABLE, finding.name.name), None)
            self._things[self._key(finding.kind, finding.name)] = Thing(None)
        elif finding.code is Code.DROP_SCHEMA:
            self._dropped_schemas.add((thing.before or finding.name).name)
            thing.inside.clear()
        elif finding.code is Code.DROP_COLUMN and finding.kind is Kind.TABLE and thing.before is not None:
            self._columns.update({(thing.before, column): None for column in finding.columns})

    def _roll_back(self) -> None:
        """Take back what may not have come to be; a name that was given may still be the old table's."""
        self._things = {key: thing for key, thing in self._things.items() if thing.before is not None}
        self._columns = {key: column for key, column in self._columns.items() if column is not None}
