"""`run`: the process of the operator."""

import asyncio
import logging
import sys
from collections.abc import Callable

from database_bootstrap import logs
from database_bootstrap.controller import start
from database_bootstrap.errors import BootstrapError
from database_bootstrap.reconcile import Engine
from database_bootstrap.settings import Settings

log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Run the operator until a signal or the loss of the Lease, and return the exit code of the process."""
    logs.set_up(settings.log_level, settings.log_format, sys.stderr)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(start.operate(settings, Engine(max_connections=settings.max_connections)))
        except BootstrapError as error:
            log.error("Operator not started: %s", error.message)  # noqa: TRY400 a sentence, not a defect
        return start.REFUSED


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
