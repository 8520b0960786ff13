"""Calls: which functions of the database may destroy rows, by their sources, and by those of what they call."""

from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypeVar

from database_bootstrap.tools import opaque, stakes_sql
from database_bootstrap.tools.destructive import body_of, effects_of
from database_bootstrap.tools.effects import Changed, Effect, Finding, Kind, Made, Name, Watch
from database_bootstrap.tools.sql_text import TooIntricate

Answer = TypeVar("Answer")
Asking = Generator[str, list[tuple[Any, ...]], Answer]
"""Yields queries, is sent their rows, and returns an answer."""
_KNOWN = frozenset(
    {
        "lo_unlink", "drop_chunks", "dropgeometrycolumn", "dropgeometrytable", "drop_partition_id",
        "drop_partition_time", "dblink_exec", "delete_data_node",
    }
)  # fmt: skip
"""PostgreSQL's own, and those of extensions, which are trusted otherwise: TimescaleDB's, PostGIS's, pg_partman's."""


def opaque_calls(findings: Sequence[Finding]) -> Asking[frozenset[Name]]:
    """Return those functions that may destroy rows: somebody of this database has written them, and it shows."""
    bodies: dict[Name, list[Effect]] = {}
    asked: set[str] = set()
    wanted = {finding.name.name for finding in findings}
    while wanted:
        asked |= wanted
        found = yield stakes_sql.FUNCTIONS.format(names=sorted(wanted)).as_string()
        for schema, name, language, source, body in found:
            effects = _effects(language, source, body)
            for known in (Name(schema, name), Name(None, name)):
                bodies.setdefault(known, []).extend(effects)
            wanted |= {name.name for name in _called(effects)}
        wanted -= asked
    watched = any(finding.is_watched for finding in findings)
    guilty = {name for name, effects in bodies.items() if any(_destroys(one, watched) for one in effects)}
    called = {finding.name for finding in findings}.union(*map(_called, bodies.values()))
    guilty |= {name for name in called if name.name in _KNOWN}
    while more := {name for name, effects in bodies.items() if name not in guilty and _called(effects) & guilty}:
        guilty |= more
    return frozenset(guilty)


def _effects(language: str, source: str | None, body: str | None) -> list[Effect]:
    if source is None:
        return [opaque.unknown()]
    try:
        if body is None:
            return body_of(language, source)
        made = effects_of(f"CREATE FUNCTION f() RETURNS void LANGUAGE sql {body}")
        return [each for one in made if isinstance(one, Made) for each in one.body]
    except TooIntricate:
        return [opaque.unknown()]


def _called(effects: Iterable[Effect]) -> set[Name]:
    return {one.name for one in effects if isinstance(one, Finding) and one.kind is Kind.FUNCTION}


def _destroys(effect: Effect, watched: bool) -> bool:
    match effect:
        case Finding(kind=kind):
            return kind is not Kind.FUNCTION
        case Changed():
            return watched
        case Watch() | Made(kind=Kind.HIDDEN):
            return True
    return False
