"""Logs: one JSON object a line, or text; what belongs to a resource names it."""

import json
import logging
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from database_bootstrap.settings import LogFormat

EXTRAS = ("object",)
"""The attributes of a record that are written as fields of their own; given to a logger as `extra`."""


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What ends a line, or what a terminal obeys."""
RETRY = re.compile(r"Request attempt #(\d+)\S* failed; will retry: ")


class Formatter(logging.Formatter):
    """Writes where an error came from without the error's own text, which may hold anything."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 the name is logging's
        kind, _, frames = ei
        return "".join(traceback.format_tb(frames)) + str(getattr(kind, "__name__", kind))


class JsonFormatter(Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in EXTRAS if hasattr(record, name)},
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


class TextFormatter(Formatter):
    """Writes a record for people, on one line but for a traceback: a server's words may be those of a migration."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 the name is logging's
        about: Mapping[str, str] = getattr(record, "object", {})
        where = "/".join(about[part] for part in ("namespace", "name") if part in about)
        line = super().formatMessage(record) + (f" [{where}]" if where else "")
        return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


class RetriesWarn(logging.Filter):
    """Makes a warning of what kopf calls an error though it tries again, as with a definition that comes back (429).

    While an API server is away it tries every second or two: of that many attempts the 1st, 2nd, 4th, 8th … are told.
    The message is made in `kopf/_cogs/clients/api.py`; what it gives up after is still an error.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        attempt = RETRY.match(str(record.msg)) if record.name.startswith("kopf.") else None
        if attempt is None:
            return True
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        return int(attempt[1]).bit_count() == 1


def set_up(level: str, form: LogFormat, stream: TextIO) -> None:
    """Send all logs of this process to the stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(RetriesWarn())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # What others tell is theirs: kopf a line for each event, asyncio the arguments of its tasks.
    for name in ("kopf", "kopf.objects", "asyncio", "aiohttp", "kubernetes"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def about(namespace: str, name: str) -> dict[str, Any]:
    """Return the `extra` of a record about one resource; a DatabaseServer is in no namespace."""
    if not namespace:
        return {"object": {"kind": "DatabaseServer", "name": name}}
    return {"object": {"kind": "DatabaseBootstrap", "namespace": namespace, "name": name}}
