"""Events: what a visit changed, and the trouble that it ran into, once."""

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from database_bootstrap.api import names
from database_bootstrap.errors import BootstrapError
from database_bootstrap.kube import client
from database_bootstrap.kube.client import EVENTS, Kube
from database_bootstrap.kube.resource import Resource

NOTE_BYTES = 1024
NAME_LENGTH = 253
ACTION = "Reconcile"
OF_NO_NAMESPACE = "default"
"""Where Kubernetes wants events about what is in no namespace."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One event."""

    type: Literal["Normal", "Warning"]
    reason: str
    text: str
    action: str = ACTION


class Recorder:
    """Posts events; one that cannot be posted is logged, and harms nothing."""

    def __init__(self, kube: Kube, instance: str) -> None:
        self._kube = kube
        self._instance = instance[:128]

    async def post(self, resource: Resource, note: Note) -> None:
        """Post one event about the resource."""
        try:
            await self._kube.create(EVENTS, resource.key.namespace or OF_NO_NAMESPACE, self._manifest(resource, note))
        except (BootstrapError, client.NotFoundError, client.ConflictError) as error:
            log.warning("Event not posted: %s", error)

    def _manifest(self, resource: Resource, note: Note) -> dict[str, Any]:
        suffix = f".{secrets.token_hex(8)}"
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": resource.key.name[: NAME_LENGTH - len(suffix)] + suffix},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": f"{names.GROUP}/{names.OPERATOR}",
            "reportingInstance": self._instance,
            "action": note.action,
            "type": note.type,
            "reason": note.reason,
            "note": shortened(note.text, NOTE_BYTES),
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": names.SERVER_KIND if resource.key.is_server else names.KIND,
                **({"namespace": resource.key.namespace} if resource.key.namespace else {}),
                "name": resource.key.name,
                "uid": resource.uid,
                "resourceVersion": resource.version,
            },
        }


def listed(changes: Sequence[str]) -> str:
    """Return the changes as one text that fits into an event; those that do not fit are counted."""
    for shown in range(len(changes), 0, -1):
        rest = len(changes) - shown
        text = "; ".join(changes[:shown]) + (f"; and {rest} more" if rest else "")
        if len(text.encode()) <= NOTE_BYTES:
            return text
    return shortened("; ".join(changes), NOTE_BYTES)


def shortened(text: str, limit: int) -> str:
    """Return the text in at most so many bytes of UTF-8, cut between characters."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - len("…".encode())].decode(errors="ignore") + "…"
