"""The gate before revisions that destroy rows: each statement is judged in its own session before it is sent.

Seen is what goes through SQLAlchemy, on whatever engine of this process; a cursor of the driver's own is not.
"""

import re
from typing import Any, TypeVar

from sqlalchemy import Connection

from database_bootstrap.tools import opaque, stakes
from database_bootstrap.tools.destructive import effects_of
from database_bootstrap.tools.effects import Effect, Finding, Kind, Made, Name
from database_bootstrap.tools.sandbox import wire
from database_bootstrap.tools.sql_text import TooIntricate
from database_bootstrap.tools.stakes import Asking, Ground

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
        self._row: str | None = None
        self._own: set[tuple[Kind, Name]] = set()
        """Functions and prepared statements of this run that can do no harm."""
        self._refusal: Loss | None = None
        self.losses: list[str] = []
        """What the revision that runs was allowed to destroy."""

    def open(self, connection: Connection, version_table: tuple[str, str]) -> None:
        """Remember what is there before the first revision: what a run makes itself is no loss."""
        if not self._gate.is_open and self._before is None:
            self._before = _ask(connection, stakes.snapshot())
            self._ignored = frozenset([".".join(version_table)])

    def judge(self, connection: Connection, statement: str, revision: str) -> None:
        """Raise `Loss` for a statement that would destroy rows without leave, and from then on for every one."""
        if self._refusal is not None:
            raise self._refusal
        if self._before is None:
            return
        findings = _findings(self._known(_effects(statement)))
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

    def _known(self, effects: list[Effect]) -> list[Effect]:
        """Return those that are not known to be harmless."""
        for effect in effects:
            if isinstance(effect, Made) and (effect.harmless or effect.kind is Kind.PREPARED):
                self._own.add((effect.kind, effect.name))
        return [one for one in effects if not (isinstance(one, Finding) and (one.kind, one.name) in self._own)]


def _effects(statement: str) -> list[Effect]:
    """Return the effects of a statement as the driver is given it, with its places for parameters."""
    try:
        return effects_of(_PARAMETER.sub("NULL", statement).replace("%%", "%"))
    except TooIntricate:
        # Longer than any file may be: rows are put in, or the words tell.
        return list(opaque.of_unparsed((), statement))


def _findings(effects: list[Effect]) -> list[Finding]:
    return [effect for effect in effects if isinstance(effect, Finding)]


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
