"""The gate before revisions that destroy rows: each statement is judged in its own session before it is sent.

Seen is what goes through SQLAlchemy, on whatever engine of this process; a cursor of the driver's own is not.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Connection

from database_bootstrap.tools import opaque, stakes
from database_bootstrap.tools.calls import Asking
from database_bootstrap.tools.destructive import effects_of
from database_bootstrap.tools.effects import Changed, Code, Effect, Finding, Kind, Made, Name, Uses, Watch
from database_bootstrap.tools.sandbox import wire
from database_bootstrap.tools.sql_text import TooIntricate
from database_bootstrap.tools.stakes import Ground

Answer = TypeVar("Answer")
_PATH = "SELECT pg_catalog.current_schemas(true)::text[]"
_PARAMETER = re.compile(r"%\([^)]*\)s|%s")
_SHOWN = 5


class Loss(Exception):
    """A statement would destroy rows, and nobody has allowed it; the text says which."""


class Gate:
    """Judges what the revisions of one run send."""

    def __init__(self, gate: wire.Gate) -> None:
        self._gate = gate
        self._before: dict[int, int] | None = None
        self._ignored: frozenset[str] = frozenset()
        self._schema = ""
        self._row: str | None = None
        self._made: set[tuple[Kind, Name]] = set()
        """What this run has made."""
        self._watches: list[Watch] = []
        self._quiet: set[tuple[Name | None, bool]] = set()
        """Changes that were asked about already: what they run does no harm, or may."""
        self._refusal: Loss | None = None
        self.losses: list[str] = []
        """What the revision that runs was allowed to destroy."""

    def open(self, connection: Connection, version_table: tuple[str, str]) -> None:
        """Remember what is there before the first revision: what a run makes itself is no loss."""
        if not self._gate.is_open and self._before is None:
            self._before = _ask(connection, stakes.snapshot())
            self._ignored = frozenset([".".join(version_table)])
            self._schema = version_table[0]

    def judge(self, connection: Connection, statement: str, revision: str) -> None:
        """Raise `Loss` for a statement that would destroy rows without leave, and from then on for every one."""
        if self._refusal is not None:
            raise self._refusal
        if self._before is None:
            return
        findings = [one for effect in _effects(statement) for one in self._findings(effect)]
        is_free = not self._gate.refuses or revision in self._gate.allowed
        lost = self._lost(connection, findings)
        if not lost and not is_free and self._lock(connection, findings):
            lost = self._lost(connection, findings)
        if not lost:
            return
        if not is_free:
            more = f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
            self._refusal = Loss("; ".join(lost[:_SHOWN]) + more)
            raise self._refusal
        self.losses.extend(lost)

    def _lock(self, connection: Connection, findings: list[Finding]) -> bool:
        """Keep others from writing where no row was found, until the transaction ends; say whether there is one.

        What they wrote since the count is seen by another one.
        """
        if not findings or getattr(connection.connection.dbapi_connection, "autocommit", False):
            return False
        ((path,),) = _rows(connection, _PATH)
        statements = _ask(connection, stakes.locks(findings, Ground(path=path, before=self._before)))
        if statements:
            _send(connection, statements)
        return bool(statements)

    def _lost(self, connection: Connection, findings: list[Finding]) -> list[str]:
        """Return what these would cost, in words."""
        if not findings:
            return []
        ground = Ground(path=None, before=self._before, ignored=self._ignored)
        self._row = self._row or _ask(connection, stakes.occupied(ground))
        if self._row is None:
            return []
        ((path,),) = _rows(connection, _PATH)
        asking = stakes.at_stake(findings, Ground(path=path, before=self._before), self._row)
        return [str(stake) for stake in _ask(connection, asking) if stake.lost]

    def _findings(self, effect: Effect) -> Iterator[Finding]:
        """Yield what an effect may destroy; the functions that are called the database has by now."""
        match effect:
            case Made(column=None):
                self._quiet.clear()
                self._made.add((effect.kind, effect.name))
                if effect.runs_by_itself:
                    self._watches.append(Watch(table=None, what="fire a trigger", body=(_call(effect.name),)))
            case Watch():
                self._quiet.clear()
                self._watches.append(effect)
            case Uses() if (Kind.FUNCTION, effect.function) in self._made:
                yield _call(effect.function)
            case Changed():
                yield from self._fired_by(effect)
            case Finding() if effect.kind is not Kind.PREPARED or (effect.kind, effect.name) not in self._made:
                yield replace(effect, is_watched=bool(self._watches)) if effect.kind is Kind.FUNCTION else effect

    def _fired_by(self, changed: Changed) -> Iterator[Finding]:
        """Yield what runs by itself; new rows in a table of this run, which nothing watches, fire nothing.

        What watches it may change rows of any other table.
        """
        if changed.table and ".".join((changed.table.schema or self._schema, changed.table.name)) in self._ignored:
            return  # Alembic's own record.
        if (changed.table, changed.inserts) in self._quiet:
            return
        if self._row is not None:
            self._quiet.add((changed.table, changed.inserts))
        is_watched = any(watch.table in (None, changed.table) for watch in self._watches)
        if changed.inserts and (Kind.TABLE, changed.table) in self._made and not is_watched:
            return
        for watch in self._watches:
            for one in watch.body:
                if isinstance(one, Finding):
                    is_call = one.kind is Kind.FUNCTION
                    yield replace(one if is_call else opaque.unknown(), what=f"{watch.what}, and by that")


def _call(name: Name) -> Finding:
    return Finding(code=Code.OPAQUE, what="call", kind=Kind.FUNCTION, name=name)


def _effects(statement: str) -> list[Effect]:
    """Return the effects of a statement as the driver is given it, with its places for parameters."""
    try:
        return effects_of(_PARAMETER.sub("NULL", statement).replace("%%", "%"))
    except TooIntricate:
        # Longer than any file may be: rows are put in, or the words tell.
        return list(opaque.of_unparsed((), statement))


def _ask(connection: Connection, asking: Asking[Answer]) -> Answer:
    try:
        query = next(asking)
        while True:
            query = asking.send(_rows(connection, query))
    except StopIteration as end:
        answer: Answer = end.value
        return answer


def _send(connection: Connection, statements: str) -> None:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statements)
    finally:
        cursor.close()


def _rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    """Ask with a cursor of the driver: the events of SQLAlchemy, in which this runs, do not see it."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(query)
        return [tuple(row) for row in cursor.fetchall()]
    finally:
        cursor.close()
