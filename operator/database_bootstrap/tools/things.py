"""Things: what a name of a batch stands for, what came into it, and whose rows it has."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from database_bootstrap.tools.effects import Name


@dataclass(eq=False, slots=True)
class Thing:
    """What a name stands for at some point of the batch."""

    before: Name | None
    """The name that it had before the batch; None: it is the batch's own, or is gone."""
    inside: dict["Thing", None] = field(default_factory=dict)
    """Tables that came in, and go with it."""
    copies: dict["Thing", None] = field(default_factory=dict)
    """Tables of which it has rows."""
    is_spoilt: bool = False
    """Rows or columns of it are gone: a copy may be the last one."""


def reached_by(thing: Thing) -> Iterator[Thing]:
    """Yield a thing and all that came into it."""
    found, stack = {thing: None}, [thing]
    while stack:
        one = stack.pop()
        yield one
        new = [each for each in one.inside if each not in found]
        found.update(dict.fromkeys(new))
        stack.extend(new)


def sources_of(thing: Thing) -> Iterator[Thing]:
    """Yield all whose rows it has, from copy to copy."""
    found, stack = {thing: None}, [thing]
    while stack:
        new = [each for each in stack.pop().copies if each not in found]
        found.update(dict.fromkeys(new))
        stack.extend(new)
        yield from new
