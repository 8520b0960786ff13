"""A line in which everybody has an own one: whoever brings a thousand keys keeps nobody else waiting; pure."""

from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Whose = Callable[[Key], Hashable]
"""Says whose a key is."""


class FairLine(Generic[Key]):
    """Keys that wait; those of one owner come in the order in which they were added, and the owners take turns."""

    def __init__(self, whose: Whose[Key]) -> None:
        self._whose = whose
        self._lines: dict[Hashable, deque[Key]] = {}
        """The owner whose turn was the longest ago is first."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, key: Key) -> None:
        """Put a key that is not in line at the end of its owner's."""
        self._lines.setdefault(self._whose(key), deque()).append(key)
        self._length += 1

    def remove(self, key: Key) -> bool:
        """Take a key out of the line; False where it is not in it."""
        owner = self._whose(key)
        if key not in (line := self._lines.get(owner, deque())):
            return False
        line.remove(key)
        if not line:
            del self._lines[owner]
        self._length -= 1
        return True

    def take(self, under_way: Counter[Hashable], *, for_all: bool) -> Key | None:
        """Return a key of the owner with the fewest under way; unless it is for all, of one that has none at all."""
        owner = self._next(under_way, for_all=for_all)
        if owner is None:
            return None
        line = self._lines.pop(owner)
        key = line.popleft()
        if line:
            self._lines[owner] = line
        self._length -= 1
        return key

    def _next(self, under_way: Counter[Hashable], *, for_all: bool) -> Hashable | None:
        best = None
        for owner in self._lines:
            if not under_way[owner]:
                return owner  # So no more owners are looked at than have something under way, and one.
            if for_all and (best is None or under_way[owner] < under_way[best]):
                best = owner
        return best
