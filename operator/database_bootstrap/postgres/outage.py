"""An outage: one time for which a server is of no use, and who waits for its end; pure, with a clock that is given."""

from collections.abc import Callable, Hashable

FORGOTTEN_SECONDS = 60.0
"""For so long an outage is kept that nobody waits for: whoever has just been refused may be on the way to wait."""


class Outage:
    """From the visit that noticed it to the answer that ends it; it ends once."""

    def __init__(self, why: str, clock: Callable[[], float]) -> None:
        self.why = why
        """What is told to whoever comes meanwhile."""
        self.is_over = False
        self._clock = clock
        self._began = self._asked_for = clock()
        self._waiting: dict[Hashable, Callable[[], None]] = {}

    @property
    def waiting(self) -> int:
        """How many wait for its end."""
        return len(self._waiting)

    @property
    def lasted(self) -> float:
        """For how many seconds it has been known."""
        return self._clock() - self._began

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still asks for its end."""
        return bool(self._waiting) or self._clock() - self._asked_for < FORGOTTEN_SECONDS

    def touch(self) -> None:
        """Take note that somebody would have needed the server."""
        self._asked_for = self._clock()

    def when_over(self, who: Hashable, wake: Callable[[], None]) -> None:
        """Call back at the end, in the order of asking, and once for each who; at once where it is over already."""
        if self.is_over:
            wake()
        else:
            self._waiting[who] = wake

    def leave(self, who: Hashable) -> None:
        """Wait no more."""
        self._waiting.pop(who, None)
        self.touch()

    def end(self) -> None:
        """Let everybody go on."""
        self.is_over = True
        waiting, self._waiting = self._waiting, {}
        for wake in waiting.values():
            wake()
