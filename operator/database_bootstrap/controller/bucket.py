"""A token bucket: how many visits may begin, all resources together; pure, with a clock that is given."""

from collections.abc import Callable

PER_SECOND = 50.0
BURST = 300
"""What a person applies at once is visited at once; what never ends is slowed, whoever causes it."""


class Bucket:
    """Holds a token for each visit that may begin now, and gains one after another."""

    def __init__(self, clock: Callable[[], float], *, per_second: float = PER_SECOND, burst: int = BURST) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._filled = clock()

    def take(self) -> bool:
        """Take a token; return False where there is none now."""
        is_there = self.has_token()
        if is_there:
            self._tokens -= 1
        return is_there

    def has_token(self) -> bool:
        """Return whether there is a token now."""
        return self.wait() == 0

    def wait(self) -> float:
        """Return in how many seconds there is a token."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._per_second)
        self._filled = now
        return max(0.0, (1 - self._tokens) / self._per_second)
