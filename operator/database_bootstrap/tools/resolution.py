"""A person's word on a migration that stopped in the middle: `<migration>=applied@<which>` or `=rolled-back@<which>`.

What stands behind the @ names this one stop in this one database: the annotation may stay, and go with its manifest to
another database, where the same migration stops for the first time and nobody has undone anything.
"""

import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from database_bootstrap.api import names
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.tools.tool import Applied, History

_FORM = re.compile(r"(.+)=(applied|rolled-back)(?:@([0-9a-f]{8}))?", re.DOTALL)
_SHOWN = 200
"""Characters of a value that is quoted."""
_HAS_LEDGER = "SELECT pg_catalog.to_regclass('dbbootstrap.migration') IS NOT NULL"
_STOPS = """
    SELECT DISTINCT ON (m.name) m.name, pg_catalog.concat_ws(' ', i.incarnation, m.seq, extract(epoch FROM m.time))
    FROM dbbootstrap.migration AS m LEFT JOIN dbbootstrap.identity AS i ON true
    WHERE m.tool = %s AND m.name = ANY (%s) AND m.state IN ('running', 'failed')
    ORDER BY m.name, m.state = 'running' DESC, m.seq DESC
"""
"""The newest try of each. Its row alone would not do: numbers are the same in every database, and after a restore."""


class How(StrEnum):
    """What a person found, or did."""

    APPLIED = "applied"
    """All of it is there: finished by hand."""
    ROLLED_BACK = "rolled-back"
    """Nothing of it is there: undone by hand, and to be run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What the annotation says. It counts for the one stop that it names, and so once."""

    name: str
    how: How
    stop: str | None = None

    def __str__(self) -> str:
        return f"{self.name}={self.how}" + (f"@{self.stop}" if self.stop else "")


def parse(text: str) -> Word | None:
    """Return what a value of the annotation says, or None where it is none."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    name, how, stop = found.groups()
    return Word(name=name, how=How(how), stop=stop)


def stop_of(identity: str) -> str:
    """Return what names a stop in a person's word, short enough to be typed."""
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def due(text: str | None, history: History) -> Word | None:
    """Return the word that is to be carried out, with the migration's full name; None where there is none."""
    word = parse(text) if text else None
    if word is None:
        return None
    for row in _stuck(history):
        if _is_about(word, row) and word.stop is not None and word.stop == row.stop:
            return replace(word, name=row.name)
    return None


def remark(text: str | None, history: History) -> str | None:
    """Return what is to be said of a value that is not carried out; None where it says nothing wrong."""
    if not text:
        return None
    said = f"The annotation {names.ANNOTATION_RESOLVE} says {text[:_SHOWN]!r}, "
    word = parse(text)
    if word is None:
        return f"{said}which is neither <migration>=applied@… nor <migration>=rolled-back@…, and does nothing."
    stuck = _stuck(history)
    if not stuck or due(text, history):
        return None
    for row in stuck:
        if _is_about(word, row):
            right = replace(word, name=row.name, stop=row.stop)
            return f"{said}which does not count for this time: look at this database, and then say {right}."
    return f"{said}and that one did not stop in the middle."


def _stuck(history: History) -> Sequence[Applied]:
    return [row for row in history.rows if not (row.finished or row.rolled_back)]


def _is_about(word: Word, row: Applied) -> bool:
    return word.name in (row.name, row.name.removesuffix(".sql"))


def advice(name: str, stop: str | None) -> str:
    """Return what a person does about a migration that stopped in the middle."""
    if stop is None:
        return "Look at what of it is there, and finish or undo it by hand; the next look says what to annotate then"
    words = (Word(name=name, how=how, stop=stop) for how in How)
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


async def name_stops(connection: Connection, tool: str, rows: Iterable[Applied]) -> tuple[Applied, ...]:
    """Return the rows with what names each one's stop; the ledger is asked only of those that need it."""
    given = tuple(rows)
    stuck = [row.name for row in given if not (row.finished or row.rolled_back)]
    if not stuck:
        return given
    has_ledger = await (await connection.execute(_HAS_LEDGER)).fetchone()
    if has_ledger is None or not has_ledger[0]:
        return given
    found = await _stops(connection, tool, stuck)
    return tuple(replace(row, stop=found.get(row.name)) for row in given)


async def last_stop(connection: Connection, tool: str, name: str) -> str | None:
    """Return what names the newest try of this migration, as the ledger has it."""
    return (await _stops(connection, tool, [name])).get(name)


async def _stops(connection: Connection, tool: str, migrations: list[str]) -> dict[str, str]:
    cursor = await connection.execute(_STOPS, (tool, migrations))
    return {name: stop_of(identity) for name, identity in await cursor.fetchall()}
