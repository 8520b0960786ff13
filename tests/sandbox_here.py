"""How far this machine can confine Alembic's revisions."""

import pytest

from database_bootstrap.settings import Sandbox, SandboxMode
from database_bootstrap.tools.sandbox import level

LEVEL = level.available()
SANDBOX = Sandbox() if LEVEL.abi else Sandbox(mode=SandboxMode.UNCONFINED)
"""What tests can have here that need no confinement."""


def needs_landlock(version: int) -> pytest.MarkDecorator:
    """Skip a test where the kernel's Landlock is older."""
    reason = f"Landlock {version} is needed, and this kernel has {LEVEL.abi or 'none'}: THIS GUARD IS NOT TESTED HERE"
    return pytest.mark.skipif(version > LEVEL.abi, reason=reason)


needs_filters = pytest.mark.skipif(not LEVEL.filters, reason="No seccomp here: THIS GUARD IS NOT TESTED HERE")
