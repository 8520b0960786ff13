"""A person's word on a migration that stopped in the middle: `<migration>=applied` or `<migration>=rolled-back`."""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from database_bootstrap.api import names
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.tools.tool import Applied, History

_FORM = re.compile(r"(.+)=(applied|rolled-back)(?:#([1-9][0-9]{0,6}))?", re.DOTALL)
_SHOWN = 200
"""Characters of a value that is quoted."""
_HAS_LEDGER = "SELECT pg_catalog.to_regclass('dbbootstrap.migration') IS NOT NULL"
_COUNT = """
    SELECT name, pg_catalog.count(*) FROM dbbootstrap.migration
    WHERE tool = %s AND state = 'resolved' AND name = ANY (%s) GROUP BY name
"""


class How(StrEnum):
    """What a person found, or did."""

    APPLIED = "applied"
    """All of it is there: finished by hand."""
    ROLLED_BACK = "rolled-back"
    """Nothing of it is there: undone by hand, and to be run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What the annotation says. It counts once: a second word on the same migration ends with `#2`."""

    name: str
    how: How
    number: int = 1

    def __str__(self) -> str:
        return f"{self.name}={self.how}" + (f"#{self.number}" if self.number > 1 else "")


def parse(text: str) -> Word | None:
    """Return what a value of the annotation says, or None where it is none."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    name, how, number = found.groups()
    return Word(name=name, how=How(how), number=int(number or 1))


def due(text: str | None, history: History) -> Word | None:
    """Return the word that is to be carried out, with the migration's full name; None where there is none."""
    word = parse(text) if text else None
    if word is None:
        return None
    for row in _stuck(history):
        if _is_about(word, row) and word.number == row.resolved + 1:
            return replace(word, name=row.name)
    return None


def remark(text: str | None, history: History) -> str | None:
    """Return what is to be said of a value that is not carried out; None where it says nothing wrong."""
    if not text:
        return None
    said = f"The annotation {names.ANNOTATION_RESOLVE} says {text[:_SHOWN]!r}, "
    word = parse(text)
    if word is None:
        return f"{said}which is neither <migration>=applied nor <migration>=rolled-back, and does nothing."
    stuck = _stuck(history)
    if not stuck or due(text, history):
        return None
    if any(_is_about(word, row) for row in stuck):
        return f"{said}which does not count for this time."
    return f"{said}and that one did not stop in the middle."


def _stuck(history: History) -> Sequence[Applied]:
    return [row for row in history.rows if not (row.finished or row.rolled_back)]


def _is_about(word: Word, row: Applied) -> bool:
    return word.name in (row.name, row.name.removesuffix(".sql"))


def advice(name: str, resolved: int) -> str:
    """Return what a person does about a migration that stopped in the middle."""
    words = (Word(name=name, how=how, number=resolved + 1) for how in How)
    applied, rolled_back = (shlex.quote(f"{names.ANNOTATION_RESOLVE}={word}") for word in words)
    return (
        f"Look at what of it is there. Either finish it by hand and annotate the resource with {applied}, or undo it "
        f"and annotate the resource with {rolled_back}, after which it is applied again"
    )


def assume(history: History, word: Word) -> History:
    """Return the history as it will be once the word is carried out."""
    return replace(
        history,
        rows=tuple(
            replace(row, finished=word.how is How.APPLIED, rolled_back=word.how is How.ROLLED_BACK)
            if row.name == word.name and not (row.finished or row.rolled_back)
            else row
            for row in history.rows
        ),
    )


async def count(connection: Connection, tool: str, rows: Iterable[Applied]) -> tuple[Applied, ...]:
    """Return the rows with how often a person's word has counted; it is asked only of those that need one."""
    given = tuple(rows)
    stuck = [row.name for row in given if not (row.finished or row.rolled_back)]
    if not stuck:
        return given
    has_ledger = await (await connection.execute(_HAS_LEDGER)).fetchone()
    if has_ledger is None or not has_ledger[0]:
        return given
    found = await _counts(connection, tool, stuck)
    return tuple(replace(row, resolved=found.get(row.name, 0)) for row in given)


async def how_often(connection: Connection, tool: str, name: str) -> int:
    """Return how often a person's word on this migration has counted."""
    return (await _counts(connection, tool, [name])).get(name, 0)


async def _counts(connection: Connection, tool: str, migrations: list[str]) -> dict[str, int]:
    return dict(await (await connection.execute(_COUNT, (tool, migrations))).fetchall())
