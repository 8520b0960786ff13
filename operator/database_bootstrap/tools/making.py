"""Making: which tables are there when migrations have run, as far as their text says so."""

from collections.abc import Iterable

from database_bootstrap.tools.batch import Judged
from database_bootstrap.tools.effects import Code, Effect, Finding, Kind, Made, Name, Renamed
from database_bootstrap.tools.queries import TEMPORARY

_NAME_BYTES = 63
"""PostgreSQL cuts off what is longer (NAMEDATALEN)."""


def tables_of(migrations: Iterable[Judged]) -> tuple[Name, ...]:
    """Return the tables that these migrations make and leave; those within code, or made IF NOT EXISTS, do not count.

    A name without a schema is in whatever schema was in the search path then.
    """
    made: dict[Name, None] = {}
    for migration in migrations:
        for effect in migration.effects:
            _follow(made, effect)
    return tuple(made)


def _follow(made: dict[Name, None], effect: Effect) -> None:
    if isinstance(effect, Made):
        if effect.kind is Kind.TABLE and effect.name.schema != TEMPORARY:
            made[_short(effect.name)] = None
    elif isinstance(effect, Renamed):
        _rename(made, effect)
    elif isinstance(effect, Finding) and effect.code in (Code.DROP_SCHEMA, Code.DROP_OWNED):
        made.clear()  # Nobody knows which of them are gone.
    elif isinstance(effect, Finding) and effect.code is Code.DROP_TABLE:
        _take(made, effect.name)


def _rename(made: dict[Name, None], effect: Renamed) -> None:
    if effect.kind is Kind.SCHEMA:
        there = [name for name in made if name.schema == effect.old.name]
        for name in there:
            del made[name]
            made[Name(effect.new.name, name.name)] = None
    elif effect.kind is Kind.TABLE and _take(made, effect.old):
        made[_short(effect.new)] = None


def _take(made: dict[Name, None], name: Name) -> bool:
    """Take out what the name may mean, and return whether there was anything."""
    there = [one for one in made if one.name == _short(name).name and _may_be(one.schema, name.schema)]
    for one in there:
        del made[one]
    return bool(there)


def _may_be(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


def _short(name: Name) -> Name:
    return Name(name.schema, name.name.encode()[:_NAME_BYTES].decode(errors="ignore"))


def missing(wanted: Iterable[Name], there: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return those of the tables that are not there, in words; `there` is schema and table."""
    exact = set(there)
    bare = {table for _, table in exact}
    return tuple(
        str(name) for name in wanted if (name.name not in bare if name.schema is None else tuple(name) not in exact)
    )
