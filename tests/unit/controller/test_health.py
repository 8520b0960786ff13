"""Probes and metrics: whoever asks is served, and does no harm by not asking."""

import asyncio
import logging
import socket

import pytest

from database_bootstrap.controller.health import Health
from database_bootstrap.settings import Address


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
