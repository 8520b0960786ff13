"""Lookups of names, each in a thread of its own: one that nobody answers keeps none of the others waiting.

uvloop has two threads for all of them, and goes on with what was given up. With two names whose servers are silent, and
anybody may write such a name into a Secret, no visit would find its database any more.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

Addresses = list[tuple[Any, ...]]
Question = tuple[Any, ...]

LIMIT = 500
"""Questions at once, each with a thread that waits."""


class Lookups:
    """All lookups of one process."""

    def __init__(self, ask: Callable[..., Addresses] = socket.getaddrinfo, limit: int = LIMIT) -> None:
        self._ask = ask
        self._limit = limit
        self._under_way: dict[Question, Future[Addresses]] = {}

    async def answer(self, *question: Any) -> Addresses:
        """Return what `getaddrinfo` says to this; what is being asked already is not asked once more."""
        return await asyncio.wrap_future(self._under_way.get(question) or self._begin(question))

    def _begin(self, question: Question) -> Future[Addresses]:
        if len(self._under_way) >= self._limit:
            raise socket.gaierror(socket.EAI_AGAIN, "Too many names are being looked up")
        asked: Future[Addresses] = Future()
        asked.set_running_or_notify_cancel()  # Whoever gives it up does so for nobody else.
        self._under_way[question] = asked
        try:
            # A daemon: the process does not wait for it at its end.
            threading.Thread(target=self._run, args=(question, asked), name="lookup", daemon=True).start()
        except RuntimeError:
            del self._under_way[question]
            raise socket.gaierror(socket.EAI_AGAIN, "The system gives no thread to look it up") from None
        return asked

    def _run(self, question: Question, asked: "Future[Addresses]") -> None:
        told = partial(asked.set_exception, socket.gaierror(socket.EAI_FAIL, "The lookup itself failed"))
        try:
            found = self._ask(*question)
            told = partial(asked.set_result, found)
        except (OSError, ValueError, OverflowError) as error:
            told = partial(asked.set_exception, error)
        finally:
            del self._under_way[question]
            told()
