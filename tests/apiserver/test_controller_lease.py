"""The Lease on a real API server: one holder at a time, and the next one as soon as it may be."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from database_bootstrap.kube.client import Kube
from database_bootstrap.kube.lease import Elector, Terms
from fix_operator import SYSTEM_NAMESPACE
from localservers import ControlPlane

SHORT = Terms(duration=1.0, deadline=0.8, retry=0.1)
UNEVEN = Terms(duration=3.0, deadline=2.0, retry=0.9)
"""The last pause, or the call behind it, would end after the Lease."""
SLOW = Terms(duration=60, deadline=50, retry=0.1)
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases"


@pytest.fixture
def elector(kube: Kube, namespace: str) -> Callable[[str], Elector]:
    """Return a function that makes a candidate for the test's own Lease."""

    def make(identity: str, terms: Terms = SHORT) -> Elector:
        return Elector(kube=kube, namespace=SYSTEM_NAMESPACE, name=namespace, identity=identity, terms=terms)

    return make


@asynccontextmanager
async def holding(elector: Elector) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(elector.hold())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def spec(plane: ControlPlane, name: str) -> dict[str, Any]:
    found: dict[str, Any] = plane.request("GET", f"{LEASES}/{name}")["spec"]
    return found


async def test_first_one_takes_the_lease(
    elector: Callable[[str], Elector], control_plane: ControlPlane, namespace: str
) -> None:
    await asyncio.wait_for(elector("a").acquire(), 5)
    assert spec(control_plane, namespace)["holderIdentity"] == "a"


async def test_second_one_waits_as_long_as_the_first_renews(elector: Callable[[str], Elector]) -> None:
    first = elector("a")
    await first.acquire()
    async with holding(first) as tenure:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(elector("b").acquire(), 2 * SHORT.duration)
        assert not tenure.done()


async def test_lease_that_is_given_back_is_taken_at_once(
    elector: Callable[..., Elector], control_plane: ControlPlane, namespace: str
) -> None:
    first = elector("a", SLOW)
    await first.acquire()
    await first.release()
    await asyncio.wait_for(elector("b", SLOW).acquire(), 5)
    assert spec(control_plane, namespace)["holderIdentity"] == "b"
    assert spec(control_plane, namespace)["leaseTransitions"] == 1


async def test_lease_of_a_dead_holder_is_taken_when_it_is_over_and_not_before(
    elector: Callable[[str], Elector],
) -> None:
    await elector("a").acquire()
    began = asyncio.get_running_loop().time()
    await asyncio.wait_for(elector("b").acquire(), 10)
    assert asyncio.get_running_loop().time() - began >= SHORT.duration


async def test_only_the_holder_gives_the_lease_back(
    elector: Callable[[str], Elector], control_plane: ControlPlane, namespace: str
) -> None:
    await elector("a").acquire()
    await elector("b").release()
    assert spec(control_plane, namespace)["holderIdentity"] == "a"


async def test_holder_that_cannot_renew_gives_up_before_the_lease_is_over(
    elector: Callable[..., Elector], control_plane: ControlPlane
) -> None:
    first = elector("a", UNEVEN)
    await first.acquire()
    async with holding(first) as tenure:
        control_plane.pause_apiserver()
        try:
            await asyncio.wait_for(tenure, UNEVEN.deadline + 0.3)
        finally:
            control_plane.resume_apiserver()


async def test_holder_that_lost_the_lease_to_another_one_sees_it(
    elector: Callable[..., Elector], control_plane: ControlPlane, namespace: str
) -> None:
    first = elector("a", SLOW)
    await first.acquire()
    async with holding(first) as tenure:
        patch = {"spec": {"holderIdentity": "b", "renewTime": "2030-01-01T00:00:00.000000Z"}}
        control_plane.request("PATCH", f"{LEASES}/{namespace}", patch)
        await asyncio.wait_for(tenure, 5)


async def test_silence_of_the_api_server_is_named(
    elector: Callable[[str], Elector], control_plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    control_plane.pause_apiserver()
    try:
        with caplog.at_level("INFO", "database_bootstrap"), pytest.raises(TimeoutError):
            await asyncio.wait_for(elector("a").acquire(), SHORT.deadline)
    finally:
        control_plane.resume_apiserver()
    assert "Lease not taken: TimeoutError" in caplog.text
