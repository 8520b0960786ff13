"""How well this machine can confine a project's code, and whether that is enough."""

from dataclasses import dataclass

from database_bootstrap.settings import Sandbox, SandboxMode
from database_bootstrap.tools.sandbox import landlock, syscalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What the kernel has."""

    abi: int
    """Version of Landlock's interface, 0 for none."""
    filters: bool
    """Whether system calls can be filtered."""


def available() -> Level:
    """Ask the kernel."""
    return Level(abi=landlock.version(), filters=syscalls.is_available())


def refusal(sandbox: Sandbox, level: Level) -> str | None:
    """Return why Alembic's revisions are not run here, as a sentence; None where they are."""
    if sandbox.mode is SandboxMode.REFUSED:
        return (
            "The operator's administrator has switched Alembic off (--alembic-sandbox Refused); Prisma and SQL files "
            "are applied"
        )
    if sandbox.mode is SandboxMode.UNCONFINED or level.abi >= sandbox.min_abi:
        return None
    has = f"has version {level.abi}" if level.abi else "has none"
    return (
        f"Alembic's revisions are code, and this kernel cannot confine them as is demanded: Landlock, version "
        f"{sandbox.min_abi} (--alembic-sandbox-min-abi), and it {has}. Use a kernel with Landlock (5.13 and newer have "
        "it, where it is switched on), lower the demand, or let the operator's administrator accept the risk with "
        "--alembic-sandbox Unconfined"
    )


def describe(sandbox: Sandbox, level: Level) -> str:
    """Return in words what is in force."""
    if why := refusal(sandbox, level):
        return f"Alembic's revisions are not run. {why}"
    if sandbox.mode is SandboxMode.UNCONFINED:
        return "Alembic's revisions run unconfined: they can do what the operator can do"
    calls = "filtered" if level.filters else "not filtered"
    return f"Alembic's revisions run sandboxed: Landlock {level.abi} ({landlock.guarded(level.abi)}), calls {calls}"
