"""HTTP to the API server, as far as counting takes: plain on the operator's side, TLS on the other."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from crashing.gates import Gate, Message
from crashing.proxies import BLOCK, Proxy

_WITHIN = re.compile(r"/namespaces/([^/?]+)/([^?]+)")


class ApiProxy(Proxy):
    """In front of an API server; a request about a namespace passes that namespace's gate, any other `start`."""

    def __init__(self, url: str, ca_file: Path) -> None:
        self.gates: dict[str, Gate] = {}
        self.start_gate: Gate | None = None
        address = urlsplit(url)
        context = ssl.create_default_context(cafile=str(ca_file))
        connect = partial(asyncio.open_connection, address.hostname, address.port, ssl=context, limit=1 << 24)
        super().__init__(connect, self._requests, _pieces)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> AsyncIterator[tuple[Message, bytes, Gate | None]]:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").lower().split("\r\n")
            lengths = [line.partition(":")[2] for line in lines if line.startswith("content-length:")]
            assert not any(line.startswith("transfer-encoding:") for line in lines)
            body = await reader.readexactly(int(lengths[0])) if lengths else b""
            method, path, _ = head.decode("latin-1").split(" ", 2)
            within = _WITHIN.search(path)
            gate = self.gates.get(within.group(1)) if within else None
            yield Message(_words(method, path)), head + body, gate or self.start_gate


def _words(method: str, path: str) -> str:
    """Return method and kind of object; names are this one resource's."""
    if not (within := _WITHIN.search(path)):
        return f"{method} {path.partition('&')[0]}"
    kind, *rest = within.group(2).split("/")
    return "/".join((f"{method} {kind}", *rest[1:]))


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    # The head of an answer comes once the request is done: what was written is stored by then.
    while piece := await reader.read(BLOCK):
        yield piece, True
