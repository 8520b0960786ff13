"""Column types: from which to which every value is kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

_WIDER: Mapping[str, frozenset[str]] = {
    "int2": frozenset({"int4", "int8", "numeric", "float4", "float8", "text", "varchar"}),
    "int4": frozenset({"int8", "numeric", "float8", "text", "varchar"}),
    "int8": frozenset({"numeric", "text", "varchar"}),
    "float4": frozenset({"float8", "text", "varchar"}),
    "float8": frozenset({"text", "varchar"}),
    "numeric": frozenset({"text", "varchar"}),
    "varchar": frozenset({"text"}),
    "bpchar": frozenset({"text", "varchar"}),
    "text": frozenset({"varchar"}),
    "citext": frozenset({"text", "varchar"}),
    "name": frozenset({"text", "varchar"}),
    "bool": frozenset({"text", "varchar"}),
    "uuid": frozenset({"text", "varchar"}),
    "date": frozenset({"timestamp", "text", "varchar"}),
    "json": frozenset({"text", "varchar"}),
    "jsonb": frozenset({"json", "text", "varchar"}),
    "xml": frozenset({"text", "varchar"}),
    "cidr": frozenset({"inet", "text", "varchar"}),
    "inet": frozenset({"text", "varchar"}),
    "macaddr": frozenset({"text", "varchar"}),
    "bit": frozenset({"varbit"}),
}
"""From a type to those that hold each of its values; any other way counts as a loss, also where the server would rather
refuse it: it is asked about the values, and not about the plan."""
_TEXTS = frozenset({"text", "varchar", "citext"})
_LENGTHS = frozenset({"varchar", "bpchar", "varbit"})
_FRACTIONS = frozenset({"timestamp", "timestamptz", "time", "timetz"})
_MOST_FRACTION = 6
_DIGITS = {"int2": 5, "int4": 10, "int8": 19}


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """A type as a column has it."""

    name: str
    """Without its schema, as pg_type has it: int4, varchar."""
    modifiers: tuple[int, ...] | None = ()
    """None where they are of a form that is not known here."""
    is_array: bool = False
    is_enum: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A new type for a column, and the way to it."""

    new: Type
    steps: tuple[Type, ...] | None = ()
    """What USING casts the column to on the way; None where it computes something else."""

    def knowing(self, enums: Iterable[str]) -> "Change":
        """Return it with these types known to be enums."""
        names = frozenset(enums)
        steps = None if self.steps is None else tuple(_knowing(step, names) for step in self.steps)
        return replace(self, new=_knowing(self.new, names), steps=steps)

    def keeps(self, old: Type) -> bool:
        """Whether each value stays what it is, or the server refuses the change."""
        if self.steps is None:
            return False
        way = (old, *self.steps, self.new)
        return all(_keeps(before, after) for before, after in pairwise(way))


def _knowing(one: Type, enums: frozenset[str]) -> Type:
    return replace(one, is_enum=True) if one.name in enums else one


def _keeps(old: Type, new: Type) -> bool:
    if old.is_array != new.is_array:
        return False
    if new.is_enum and not old.is_enum:
        # A label that the enum has not is an error, and no loss: so Prisma takes a value away.
        return old.name in _TEXTS
    if old.name == new.name:
        return _fits(old, new)
    if new.modifiers == ():
        return new.name in _WIDER.get(old.name, ()) or (old.is_enum and new.name in _TEXTS)
    return new.name in _WIDER.get(old.name, ()) and _has_room(old, new)


def _fits(old: Type, new: Type) -> bool:
    """Whether the same type with other modifiers holds as much."""
    before, after = old.modifiers, new.modifiers
    if after in ((), before):
        return after is not None
    if not after or before is None:
        return False
    if new.name in _FRACTIONS:
        return after[0] >= (before[0] if before else _MOST_FRACTION)
    if not before:
        return False
    if new.name in _LENGTHS:
        return after[0] >= before[0]
    return new.name == "numeric" and _holds(after, *_whole_and_scale(before))


def _has_room(old: Type, new: Type) -> bool:
    """Whether a wider type with modifiers holds all of a narrower one."""
    after = new.modifiers
    if after is None:
        return False
    if new.name in _FRACTIONS:
        return old.name == "date"
    if new.name == "numeric":
        return old.name in _DIGITS and _holds(after, _DIGITS[old.name], 0)
    return (
        new.name in _LENGTHS and old.name in _LENGTHS and bool(old.modifiers) and after[0] >= (old.modifiers or (0,))[0]
    )


def _whole_and_scale(modifiers: tuple[int, ...]) -> tuple[int, int]:
    precision, scale = (*modifiers, 0)[:2]
    return precision - scale, scale


def _holds(modifiers: tuple[int, ...], whole: int, scale: int) -> bool:
    found_whole, found_scale = _whole_and_scale(modifiers)
    return found_whole >= whole and found_scale >= scale


def type_of_node(node: Mapping[str, Any]) -> Type:
    """Return the type that a TypeName of libpg_query is."""
    names = [str(each["String"]["sval"]) for each in node.get("names", ())]
    return Type(
        name=names[-1] if names else "",
        modifiers=_modifiers_of_nodes(node.get("typmods", ())),
        is_array=bool(node.get("arrayBounds")),
    )


def _modifiers_of_nodes(nodes: Iterable[Mapping[str, Any]]) -> tuple[int, ...] | None:
    found = []
    for node in nodes:
        value = node.get("A_Const", {}).get("ival")
        if value is None:
            return None
        found.append(int(value.get("ival", 0)))
    return tuple(found)


def type_of_catalogue(name: str, modifier: int, *, is_array: bool, is_enum: bool) -> Type:
    """Return the type that pg_attribute and pg_type tell of."""
    return Type(name=name, modifiers=_modifiers_of(name, modifier), is_array=is_array, is_enum=is_enum)


def _modifiers_of(name: str, modifier: int) -> tuple[int, ...] | None:
    if modifier < 0:
        return ()
    if name in ("varchar", "bpchar"):
        return (modifier - 4,)
    if name == "numeric":
        # numeric.c: 11 bits of scale, signed since PostgreSQL 15.
        scale = (((modifier - 4) & 0x7FF) ^ 1024) - 1024
        return (((modifier - 4) >> 16) & 0xFFFF, scale)
    return (modifier,) if name in (*_FRACTIONS, "bit", "varbit") else None
