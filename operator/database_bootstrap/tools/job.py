"""Job: one migration that is a script, and how it is recorded."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

from psycopg import sql

from database_bootstrap.postgres.ledger import MigrationRow
from database_bootstrap.tools.scripts import Script

Sql = sql.SQL | sql.Composed
_NOTHING = sql.SQL("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What a tool writes into a table of its own, each with a semicolon at its end; nothing, where the ledger is it."""

    whole: Sql = field(default_factory=lambda: _NOTHING)
    """In the transaction of the script, after it."""
    begin: Sql = field(default_factory=lambda: _NOTHING)
    """Where there is no such transaction, before the script."""
    finish: Sql = field(default_factory=lambda: _NOTHING)
    """Then, after it."""
    fail: Callable[[str], Sql] = lambda _: _NOTHING
    """Or, when it failed, with the words that say why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One migration to be applied, and how it is recorded."""

    script: Script
    row: MigrationRow
    """What the ledger's rows have in common; the state is filled in."""
    records: Records = field(default_factory=Records)
    is_applied: sql.Composed
    """A query that gives a row when somebody has applied it meanwhile."""
    next_step: Callable[[str | None], str]
    """What a person does when it stopped half-way, with what names this stop."""
    stop: str | None = None
    """What would name it; None: it is the ledger that says so."""
    alone: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Around statements that run alone: what must not be held meanwhile is put down."""
