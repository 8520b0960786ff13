"""Probes and metrics over HTTP: three paths, one answer for each connection."""

import asyncio
import logging
from collections.abc import Callable

from database_bootstrap import metrics
from database_bootstrap.errors import AccessDenied
from database_bootstrap.settings import Address

REQUEST_BYTES = 16 * 1024
SECONDS = 5

log = logging.getLogger(__name__)


class Health:
    """Answers /healthz, /readyz and /metrics, on the standby too."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready
        self._server: asyncio.Server | None = None

    async def start(self, address: Address) -> None:
        """Listen; raise `AccessDenied` where the address cannot be had."""
        try:
            self._server = await asyncio.start_server(self._serve, address.host, address.port, limit=REQUEST_BYTES)
        except OSError as error:
            reason = error.strerror or "not an address of this machine"
            raise AccessDenied(f"Cannot serve probes and metrics at {address.host}:{address.port}: {reason}.") from None
        port = self._server.sockets[0].getsockname()[1]
        log.info("Serving probes and metrics at %s:%d", address.host, port)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # It has left us when it is said to be drained.
        try:
            async with asyncio.timeout(SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(request))
                await writer.drain()
            writer.close()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # Whoever asked is gone, did not ask for anything, or does not take the answer.
        except asyncio.CancelledError:
            pass  # The end of the process, which streams would log as a defect.
        finally:
            writer.transport.abort()

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        if method not in {b"GET", b"HEAD"}:
            return _response("405 Method Not Allowed", b"")
        match rest.partition(b" ")[0].partition(b"?")[0]:
            case b"/healthz":
                return _response("200 OK", b"ok\n")
            case b"/readyz" if self._is_ready():
                return _response("200 OK", b"ok\n")
            case b"/readyz":
                return _response("503 Service Unavailable", b"not ready\n")
            case b"/metrics":
                return _response("200 OK", metrics.exposition(), metrics.CONTENT_TYPE)
        return _response("404 Not Found", b"")


def _response(status: str, body: bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
