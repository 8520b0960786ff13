"""Gates: count the messages of one resource to one server, and strike at the n-th."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Place(StrEnum):
    """Where a message is when the trouble begins."""

    BEFORE = "before"
    """It was not forwarded: the server knows nothing of it."""
    AFTER = "after"
    """The server has done it and has answered, and the answer reaches nobody: the lost acknowledgement of a COMMIT."""


@dataclass(frozen=True, slots=True)
class Message:
    """Something that the operator sends and the server answers as a whole."""

    words: str
    """What it is, without values: a statement, or method and path."""
    answered: bool = True
    """The server answers it by itself; data of a COPY is not answered one by one."""


class Gate:
    """What one resource sends to one server, in order.

    At the message with the number it is shut: that message is held (or its answer), and then the connection is closed
    once `release` is called; with `cut` at once, by that function.
    """

    def __init__(
        self, number: int | None = None, place: Place = Place.BEFORE, *, cut: Callable[[], None] | None = None
    ) -> None:
        self.seen: list[Message] = []
        self.struck: Message | None = None
        self._number = number
        self._place = place
        self._cut = cut
        self._fired = threading.Event()
        self._released = asyncio.Event()

    @property
    def cuts(self) -> bool:
        """Whether the connection is cut and nobody killed."""
        return self._cut is not None

    @property
    def fired(self) -> bool:
        """Whether the message has come."""
        return self._fired.is_set()

    def count(self, message: Message) -> Place | None:
        """Count a message; return where to strike if it is the one."""
        self.seen.append(message)
        return self._place if len(self.seen) == self._number else None

    async def strike(self, message: Message) -> None:
        """Hold the connection here until it is to be closed."""
        self.struck = message
        self._fired.set()
        if self._cut:
            self._cut()
        else:
            await self._released.wait()

    def release(self) -> None:
        """Let go of the connection that is held, so that it is closed; to be called in the proxies' loop."""
        self._released.set()
