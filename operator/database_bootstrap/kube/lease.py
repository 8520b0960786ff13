"""The Lease: one process acts, the others stand by. A courtesy; the fence is PostgreSQL's advisory lock."""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from database_bootstrap.errors import BootstrapError
from database_bootstrap.kube import client
from database_bootstrap.kube.client import LEASES, Call, Json, Kube

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a Lease lasts, in seconds."""

    duration: float = 15.0
    """Others wait for so long after the last renewal that they saw."""
    deadline: float = 10.0
    """The holder gives up when it could not renew for so long."""
    retry: float = 2.0


@dataclass(slots=True, kw_only=True)
class Elector:
    """Takes the Lease, keeps it, and gives it back."""

    kube: Kube
    namespace: str
    name: str
    identity: str
    terms: Terms = field(default_factory=Terms)
    clock: Callable[[], float] = time.monotonic
    _seen: tuple[str, str] = ("", "")
    _seen_at: float = 0.0
    _renewed_at: float = 0.0
    """When the last call began that made or kept it ours."""

    async def acquire(self) -> bool:
        """Return True once this process is the holder."""
        while True:
            if await self._tried():
                return True
            await asyncio.sleep(self.terms.retry * random.uniform(1.0, 1.2))  # noqa: S311 spreads, hides nothing

    async def hold(self) -> None:
        """Renew until that failed for too long; then somebody else may be the holder.

        Neither a pause nor a call that hangs goes beyond the deadline: what is left until the Lease is over belongs to
        the end of the visits that are under way.
        """
        while (left := self._left()) > 0:
            await asyncio.sleep(min(self.terms.retry, left))
            if not await self._tried(self._left()) and self._seen[0] not in {self.identity, ""}:
                return

    async def release(self) -> None:
        """Give the Lease back, so that nobody has to wait for its end."""
        try:
            lease = await self.kube.get(LEASES, self.namespace, self.name)
            if lease["spec"].get("holderIdentity") == self.identity:
                await self._put(lease, holder="", duration=1)
        except (BootstrapError, client.NotFoundError, client.ConflictError) as error:
            log.warning("Lease not released: %s", error)

    def _left(self) -> float:
        return self._renewed_at + self.terms.deadline - self.clock()

    async def _tried(self, patience: float = math.inf) -> bool:
        """Return whether the Lease is ours now."""
        began = self.clock()
        try:
            async with asyncio.timeout(max(0.0, min(patience, self.terms.deadline / 2))):
                is_ours = await self._try()
        except (BootstrapError, client.NotFoundError, client.ConflictError, TimeoutError) as error:
            log.info("Lease not taken: %s", str(error) or type(error).__name__)
            return False
        self._renewed_at = began if is_ours else self._renewed_at
        return is_ours

    async def _try(self) -> bool:
        try:
            lease = await self.kube.get(LEASES, self.namespace, self.name)
        except client.NotFoundError:
            await self.kube.create(LEASES, self.namespace, self._new())
            self._observe(self.identity, "")
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        self._observe(holder, spec.get("renewTime") or "")
        if holder not in {"", self.identity} and not self._is_over(spec):
            return False
        await self._put(lease, holder=self.identity, duration=round(self.terms.duration))
        self._observe(self.identity, "")
        return True

    def _observe(self, holder: str, renewed: str) -> None:
        # Clocks of two machines are never compared: what counts is how long nothing changed as seen from here.
        if (holder, renewed) != self._seen:
            self._seen, self._seen_at = (holder, renewed), self.clock()

    def _is_over(self, spec: dict[str, Any]) -> bool:
        duration = float(spec.get("leaseDurationSeconds") or self.terms.duration)
        return self.clock() - self._seen_at > duration

    async def _put(self, lease: Json, *, holder: str, duration: int) -> None:
        before = lease.get("spec") or {}
        taken = before.get("holderIdentity") != holder
        spec = {
            **before,
            "holderIdentity": holder,
            "leaseDurationSeconds": duration,
            "renewTime": _now(),
            "acquireTime": _now() if taken else before.get("acquireTime"),
            "leaseTransitions": (before.get("leaseTransitions") or 0) + (taken and bool(holder)),
        }
        body = {**lease, "spec": spec}
        await self.kube.send(
            Call(verb="update", kind=LEASES, namespace=self.namespace, name=self.name, body=body, timeout=5)
        )

    def _new(self) -> dict[str, Any]:
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self.terms.duration),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": 0,
        }
        metadata = {"name": self.name}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
