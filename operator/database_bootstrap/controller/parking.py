"""Keys that wait for the end of an outage; pure."""

from collections.abc import Callable
from functools import partial

from database_bootstrap.kube.resource import Key
from database_bootstrap.postgres.outage import Outage


class Parking:
    """Knows who waits for what: each key waits for one outage, the last that its visits ended by."""

    def __init__(self, back: Callable[[Key], None]) -> None:
        """Tell of each key whose outage is over."""
        self._back = back
        self._outages: dict[Key, Outage] = {}

    def __len__(self) -> int:
        return len(self._outages)

    def park(self, key: Key, outage: Outage) -> None:
        """Let the key wait; where the outage is over already, it does not."""
        self.leave(key)
        self._outages[key] = outage
        outage.when_over(key, partial(self._over, key))

    def leave(self, key: Key) -> None:
        """Let the key wait no more: it is visited now, or is gone."""
        if outage := self._outages.pop(key, None):
            outage.leave(key)

    def close(self) -> None:
        """Let nobody wait any more."""
        for key in list(self._outages):
            self.leave(key)

    def _over(self, key: Key) -> None:
        del self._outages[key]
        self._back(key)
