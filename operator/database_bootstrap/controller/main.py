"""`run`: the process of the operator."""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

from database_bootstrap import logs, metrics
from database_bootstrap.controller import start
from database_bootstrap.controller.lookups import Addresses, Lookups
from database_bootstrap.errors import BootstrapError
from database_bootstrap.reconcile import Engine
from database_bootstrap.settings import Sandbox, SandboxMode, Settings
from database_bootstrap.tools.sandbox import confinement, level

log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Run the operator until a signal, and return the exit code of the process."""
    logs.set_up(settings.log_level, settings.log_format, sys.stderr)
    confinement.hide()
    _tell_of(settings.sandbox)
    engine = Engine(
        max_connections=settings.max_connections,
        sandbox=settings.sandbox,
        admin_secret_refs=settings.admin_secret_refs,
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(start.operate(settings, engine))
        except BootstrapError as error:
            log.error("Operator not started: %s", error.message)  # noqa: TRY400 a sentence, not a defect
        return start.REFUSED


def _tell_of(sandbox: Sandbox) -> None:
    """Log what confines Alembic's revisions, and keep it as a metric."""
    found = level.available()
    words = level.describe(sandbox, found)
    runs = level.refusal(sandbox, found) is None
    log.log(logging.INFO if runs and sandbox.mode is SandboxMode.SANDBOXED else logging.WARNING, "%s", words)
    confined = runs and sandbox.mode is SandboxMode.SANDBOXED
    metrics.SANDBOX.labels(
        mode=sandbox.mode if runs else SandboxMode.REFUSED,
        landlock_abi=str(found.abi) if confined else "0",
        seccomp=str(confined and found.filters).lower(),
    ).set(1)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 not on every platform
    except ImportError:
        return None
    lookups = Lookups()

    class Loop(uvloop.Loop):
        async def getaddrinfo(
            self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
        ) -> Addresses:
            return await lookups.answer(host, port, family, type, proto, flags)

    return Loop
