"""Batch: what a row of migrations destroys of what was there before its first one; what it makes itself is no loss."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from database_bootstrap.tools.destructive import effects_of
from database_bootstrap.tools.effects import Code, Effect, Finding, Kind, Made, Name, Renamed
from database_bootstrap.tools.queries import NOWHERE, TEMPORARY

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
    found = []
    for migration in judged:
        for effect in migration.effects:
            if isinstance(effect, Finding):
                known = names.judge(effect)
                found.extend([Suspicion(migration, known)] if known else [])
            else:
                names.note(effect)
    return Suspicions(found=tuple(found), moves_path=moves)


class _Names:
    """Which name of now is which name of before."""

    def __init__(self, schema: str | None) -> None:
        self._schema = schema
        self._origins: dict[Key, Name | None] = {}
        """None: it is the batch's own, or is gone."""
        self._columns: dict[tuple[Name, str], str | None] = {}
        self._enums: set[str] = set()
        self._harmless: dict[Key, bool] = {}

    def judge(self, finding: Finding) -> Finding | None:
        """Return the finding with the names of before; None for what was not there then."""
        if finding.kind in (Kind.FUNCTION, Kind.PREPARED):
            return self._call(finding)
        temporary = (Kind.TABLE, TEMPORARY, finding.name.name)
        if finding.code is Code.DROP_TABLE and finding.name.schema is None and temporary in self._origins:
            del self._origins[temporary]
            return None
        origin = self._origin(finding.kind, finding.name)
        if origin is None:
            return None
        columns = tuple(self._columns.get((origin, column), column) for column in finding.columns)
        left = tuple(column for column in columns if column is not None)
        self._forget(finding, origin)
        if columns and not left:
            return None
        change = finding.change.knowing(self._enums) if finding.change else None
        return replace(finding, name=origin, written=finding.name, columns=left, change=change)

    def note(self, effect: Made | Renamed) -> None:
        """Keep in mind what was made or renamed."""
        if isinstance(effect, Renamed):
            self._rename(effect)
        elif effect.kind is Kind.ROLLBACK:
            self._roll_back()
        elif effect.column is not None:
            if (table := self._origin(Kind.TABLE, effect.name)) is not None:
                self._columns[table, effect.column] = None
        else:
            self._origins[self._key(effect.kind, effect.name)] = None
            self._harmless[self._key(effect.kind, effect.name)] = effect.harmless
            if effect.kind is Kind.TYPE:
                self._enums.add(effect.name.name)

    def _call(self, finding: Finding) -> Finding | None:
        key = self._key(finding.kind, finding.name)
        if key not in self._origins:
            # Prepared by nobody here: it may be anything.
            return replace(finding, kind=Kind.ANYTHING) if finding.kind is Kind.PREPARED else finding
        if finding.kind is Kind.PREPARED or self._harmless[key]:
            return None
        words = f"call {finding.name}, which the migrations make, and"
        return replace(finding, kind=Kind.ANYTHING, name=NOWHERE, what=f"{words} which may destroy anything")

    def _rename(self, effect: Renamed) -> None:
        if effect.columns is not None:
            if (table := self._origin(Kind.TABLE, effect.old)) is not None:
                old, new = effect.columns
                self._columns[table, new] = self._columns.get((table, old), old)
            return
        origin = self._origin(effect.kind, effect.old)
        self._origins[self._key(effect.kind, effect.new)] = origin
        if effect.kind is Kind.TYPE and effect.old.name in self._enums:
            self._enums.add(effect.new.name)

    def _origin(self, kind: Kind, name: Name) -> Name | None:
        """Return the name that it had before the batch; None where it had none."""
        temporary = (kind, TEMPORARY, name.name)
        if name.schema is None and temporary in self._origins:
            return self._origins[temporary]
        key = self._key(kind, name)
        if key in self._origins:
            return self._origins[key]
        if kind is Kind.SCHEMA or key[1] is None:
            return name
        schema = self._origin(Kind.SCHEMA, Name(None, key[1]))
        if schema is None:
            return None
        return name if schema.name == key[1] else Name(schema.name, name.name)

    def _key(self, kind: Kind, name: Name) -> Key:
        has_schema = kind not in (Kind.SCHEMA, Kind.EXTENSION, Kind.ROLE, Kind.DATABASE, Kind.PREPARED)
        return kind, (name.schema or self._schema if has_schema else None), name.name

    def _forget(self, finding: Finding, origin: Name) -> None:
        """Keep in mind that what is dropped once is not there to be dropped again."""
        if finding.code is Code.DROP_TABLE:
            self._origins[self._key(finding.kind, finding.name)] = None
        elif finding.code is Code.DROP_COLUMN and finding.kind is Kind.TABLE:
            self._columns.update({(origin, column): None for column in finding.columns})

    def _roll_back(self) -> None:
        """Take back what may not have come to be; a name that was given may still be the old table's."""
        self._origins = {key: origin for key, origin in self._origins.items() if origin is not None}
        self._columns = {key: column for key, column in self._columns.items() if column is not None}
