"""Probes and metrics: whoever asks is served, and does no harm by not asking."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator

import pytest
import uvloop
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from database_bootstrap import metrics
from database_bootstrap.controller.health import SECONDS, Health
from database_bootstrap.settings import Address
from process_here import connections


def test_end_of_the_process_is_no_defect_for_whoever_has_asked_nothing_yet(
    caplog: pytest.LogCaptureFixture, unused_tcp_port: int
) -> None:
    async def main() -> None:
        health = Health(lambda: True)
        await health.start(Address(host="127.0.0.1", port=unused_tcp_port))
        silent.connect(("127.0.0.1", unused_tcp_port))
        while not any("Health._serve" in repr(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
        await health.stop()

    with socket.socket() as silent:
        asyncio.run(main())
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


class Large:
    """Metrics of more bytes than any kernel takes for somebody who does not read."""

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("large", "Large.", labels=["name"])
        for number in range(16):
            family.add_metric([f"{number}{'x' * 1_000_000}"], 1)
        yield family


@pytest.fixture
def large() -> Iterator[None]:
    collector = Large()
    metrics.REGISTRY.register(collector)
    yield
    metrics.REGISTRY.unregister(collector)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_whoever_takes_no_answer_is_left(loop: Callable[[], asyncio.AbstractEventLoop], unused_tcp_port: int) -> None:
    async def main() -> None:
        health = Health(lambda: True)
        await health.start(Address(host="127.0.0.1", port=unused_tcp_port))
        before = connections()
        deaf.connect(("127.0.0.1", unused_tcp_port))
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(4 * SECONDS):
            while connections() == before:
                await asyncio.sleep(0.01)
            while connections() != before:
                await asyncio.sleep(0.01)
        await health.stop()

    with asyncio.Runner(loop_factory=loop) as runner, socket.socket() as deaf:
        runner.run(main())


@pytest.mark.usefixtures("large")
async def test_large_answer_is_whole(unused_tcp_port: int) -> None:
    health = Health(lambda: True)
    await health.start(Address(host="127.0.0.1", port=unused_tcp_port))
    reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert len(body) > 16_000_000
    writer.close()
    await writer.wait_closed()
    await health.stop()
