"""How each resource stands, and since when: what was said is not said again, and who waits long is looked at less."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from database_bootstrap.kube.resource import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a visit found."""

    reason: str
    message: str
    since: float


class Standings:
    """Remembers what the last visit to each resource found; pure, with a clock that is given."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._standings: dict[Key, Standing] = {}

    def note(self, key: Key, reason: str, message: str = "") -> bool:
        """Take note of what a visit found, and return whether it is not what the one before it found."""
        before = self._standings.get(key)
        if before is not None and (before.reason, before.message) == (reason, message):
            return False
        self._standings[key] = Standing(reason=reason, message=message, since=self._clock())
        return True

    def lasted(self, key: Key) -> float:
        """Return for how many seconds it has been so, or nothing new was asked of us."""
        standing = self._standings.get(key)
        return self._clock() - standing.since if standing else 0.0

    def begin_anew(self, key: Key) -> None:
        """Count the time from now: somebody has changed something."""
        if standing := self._standings.get(key):
            self._standings[key] = replace(standing, since=self._clock())

    def forget(self, key: Key) -> None:
        """Forget a resource that is gone."""
        self._standings.pop(key, None)
