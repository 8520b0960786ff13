"""PostgreSQL's frontend protocol, as far as counting takes."""

import asyncio
import re
import struct
from collections.abc import AsyncIterator

from crashing.gates import Gate, Message
from crashing.proxies import Proxy

_SSL, _CANCEL, _GSS = 80877103, 80877102, 80877104
_NAMES = {b"p": "password", b"d": "COPY data", b"c": "COPY done", b"f": "COPY fail", b"X": "terminate", b"H": "flush"}
_ENDS_UNIT = b"QSpdcfXH"
"""What the server acts upon at once; Parse, Bind, Describe and Execute wait for the Sync that ends their query."""
_UNANSWERED = b"dfXH"
_LITERAL = re.compile(r"E?'(?:[^']|'')*'")
_NAME = re.compile(r"_\w*?[0-9a-f]{8}\b|\b\d+\b")


class PostgresProxy(Proxy):
    """In front of a server; whatever is sent through it passes its gate."""

    def __init__(self, host: str, port: int) -> None:
        self.gate = Gate()
        super().__init__(lambda: asyncio.open_connection(host, port, limit=1 << 24), self._units, _answers)

    async def _units(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> AsyncIterator[tuple[Message, bytes, Gate | None]]:
        """Yield what the client sends, as the server answers it: an extended query is one message."""
        while True:
            length, code = struct.unpack("!ii", await reader.readexactly(8))
            packet = struct.pack("!ii", length, code) + await reader.readexactly(length - 8)
            if code not in (_SSL, _GSS):
                break
            writer.write(b"N")
        if code == _CANCEL:
            yield Message("cancel", answered=False), packet, None
            return
        yield Message("startup"), packet, self.gate
        content, words = b"", ""
        while True:
            kind, body = await _message(reader)
            content += kind + struct.pack("!i", len(body) + 4) + body
            words = _words(kind, body) or words
            if kind in _ENDS_UNIT:
                yield Message(words or "sync", answered=kind not in _UNANSWERED), content, self.gate
                content, words = b"", ""


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, length = struct.unpack("!ci", await reader.readexactly(5))
    return kind, await reader.readexactly(length - 4)


def _words(kind: bytes, body: bytes) -> str:
    """Return what a message says, with neither a value nor a name of this one resource."""
    if kind == b"Q":
        return _plain(body.rstrip(b"\0"))
    if kind == b"P":
        return _plain(body.split(b"\0")[1])
    return _NAMES.get(kind, "")


def _plain(text: bytes) -> str:
    words = " ".join(_LITERAL.sub("…", text.decode(errors="replace")).split())
    return _NAME.sub("", words)[:160]


async def _answers(reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    authenticated = False
    while True:
        kind, body = await _message(reader)
        authenticated |= kind == b"Z"
        complete = kind in b"ZGW" or (not authenticated and (kind == b"E" or (kind == b"R" and body[:4] in _ASKS)))
        yield kind + struct.pack("!i", len(body) + 4) + body, complete


_ASKS = tuple(struct.pack("!i", code) for code in (3, 5, 10, 11))
"""AuthenticationRequests that wait for the client's next word."""
