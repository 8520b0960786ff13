"""What a run of Alembic that did not end well means, in words that a person can act on."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from database_bootstrap import errors
from database_bootstrap.postgres.sqlstates import TRANSIENT
from database_bootstrap.tools.alembic_layout import Layout
from database_bootstrap.tools.resolution import advice
from database_bootstrap.tools.sandbox import wire
from database_bootstrap.tools.tool import Options

_PASSING_CLASSES = ("08", "53", "57P0", "58", "25006")
"""A lost connection, out of resources, a shutdown, an input/output error, a server that became read-only."""
_MADE_TWICE = ("23505", "42P07")
"""Two sessions made the version table at the same moment, and this was the second."""
_TEXT_LIMIT = 500
"""Characters of an exception's first line that are shown."""
_CANCELLED = "57014"
_HINTS = {
    "25001": "Put it into `with op.get_context().autocommit_block():`. ",
    "55P04": "Let env.py pass transaction_per_migration=True, so that each revision is committed before the next. ",
}
_DRIVERS = ("asyncpg", "psycopg2", "pg8000")


@dataclass(slots=True, kw_only=True)
class Told:
    """What the child has said so far."""

    backend: int | None = None
    """The server's process for the migrating session."""
    opened: wire.Opened | None = None
    running: str | None = None
    applied: list[str] = field(default_factory=list)
    """Version and ledger rows are written."""
    uncovered: list[str] = field(default_factory=list)
    """Revisions that have left the transaction, and whose version rows are not committed."""
    failed: wire.Failed | None = None
    ended: wire.Ended | None = None

    @property
    def half_applied(self) -> str | None:
        """The first revision of which a part stays although its version row does not."""
        return self.uncovered[0] if self.uncovered else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What must be known to put a failure into words."""

    told: Told
    kept: Sequence[str]
    """Those that this run has applied and that stay."""
    missing: Sequence[str]
    """Those that are still pending."""
    options: Options
    origin: str
    """Database and role, for messages."""
    stop: str | None = None
    """What names the stop of the half-applied revision in a person's word, once it is recorded."""


def in_place(told: Told, layout: Layout) -> Told:
    """Return it with file names as they are in the source."""
    failed = told.failed
    if failed is None or failed.file is None:
        return told
    return replace(told, failed=replace(failed, file=layout.moved.get(failed.file, failed.file)))


def error_of(case: Circumstances) -> errors.BootstrapError | None:
    """Return what went wrong, or None when nothing did and all is in the database."""
    told = case.told
    if told.half_applied is not None and told.half_applied in case.missing:
        return _half_applied(case, told.half_applied)
    if told.failed is not None:
        return _failed(case, told.failed)
    if told.ended is None or told.ended.status or told.ended.late or told.ended.excess:
        return _killed(case)
    return _nothing_persisted(case) if case.missing else None


def _half_applied(case: Circumstances, revision: str) -> errors.BootstrapError:
    failed = case.told.failed
    why = words_of(failed) if failed else "its process was ended"
    return errors.MigrationHalfApplied(
        f"Revision {revision} stopped after a part of it was committed (by an autocommit_block, its own COMMIT, or an "
        f"engine in autocommit mode): {why}. {_kept(case)} It is not run again by itself. "
        f"{next_step(revision, case.stop)}",
        name=revision,
        sql_state=failed.sql_state if failed else None,
        detail=why,
        line=failed.line if failed else None,
    )


def next_step(revision: str, stop: str | None) -> str:
    """Return what a person does about a revision of which a part was committed."""
    return (
        f"{advice(revision, stop)}. `alembic stamp {revision}` is as good for the first, and for the second the "
        "revision's file, changed so that it can run as a whole"
    )


def words_of(failed: wire.Failed) -> str:
    """Return what the ledger keeps of a failure."""
    return f"{_place(failed)}{_words(failed)}"


def _place(failed: wire.Failed) -> str:
    return f"{failed.file}{_line(failed)}: " if failed.file else ""


def _failed(case: Circumstances, failed: wire.Failed) -> errors.BootstrapError:
    refusals = {"locked": errors.LockHeld, "overtaken": errors.MigrationInterrupted}
    if kind := refusals.get(failed.kind):
        return kind(f"The migrations were not applied: {failed.text}. {_kept(case)}")
    if failed.kind == "destructive":
        return errors.DestructiveMigration(_destructive(case, failed))
    if failed.kind == "elsewhere":
        text = (
            f"env.py connects {failed.text}, and not to {case.origin}; let it use the configuration's `sqlalchemy.url` "
            "or DATABASE_URL of the environment"
        )
        return _migration_failed(failed, text)
    if failed.kind == "module":
        return _migration_failed(failed, _missing_module(failed))
    if failed.kind == "database" and _may_pass(failed, case.options):
        return errors.MigrationInterrupted(f"{_subject(failed)} was interrupted: {_words(failed)}. {_kept(case)}")
    hint = _HINTS.get(failed.sql_state or "", "")
    return _migration_failed(failed, f"{_subject(failed)} failed: {_words(failed)}. {hint}{_kept(case)}")


def _destructive(case: Circumstances, failed: wire.Failed) -> str:
    return (
        f"{_subject(failed)} would lose rows, and was stopped before that: {failed.text}. {_kept(case)} If that is "
        f"wanted, set migrations.allowDestructive: [{failed.revision}] (or onDestructive: Allow, for all that will "
        "ever come); if not, take the statement out"
    )


def _may_pass(failed: wire.Failed, options: Options) -> bool:
    state = failed.sql_state
    if state is None:
        return failed.broken
    if state == _CANCELLED:
        return options.statement_timeout == 0  # Somebody has cancelled it by hand.
    if failed.revision is None and state in _MADE_TWICE:
        return True
    return state in TRANSIENT or state.startswith(_PASSING_CLASSES)


def _missing_module(failed: wire.Failed) -> str:
    module = failed.text
    if module.partition(".")[0] in _DRIVERS:
        return (
            f"{failed.file or 'env.py'} needs the driver {module!r}, which the operator does not have; use the URL "
            "that it is given, `postgresql+psycopg://…`, which serves create_engine and create_async_engine"
        )
    return (
        f"{failed.file or 'env.py'}{_line(failed)} imports {module!r}, which is not part of the source; add what the "
        "migrations need to the source, or import it only where it is used: `upgrade` needs no target_metadata"
    )


def _killed(case: Circumstances) -> errors.BootstrapError:
    told, ended = case.told, case.told.ended
    at = f" while revision {told.running} ran" if told.running else ""
    if ended is not None and ended.excess:
        text = f"The process that ran the migrations was ended{at}: {ended.excess}. {_kept(case)}"
        return errors.MigrationFailed(text, name=told.running or "env.py")
    if ended is not None and ended.late:
        return errors.MigrationTimedOut(
            f"The migrations were stopped after {case.options.timeout} s (migrations.timeoutSeconds){at}. {_kept(case)}"
        )
    status = ended.status if ended is not None else -signal.SIGKILL
    if status in (-signal.SIGKILL, -signal.SIGTERM):
        return errors.MigrationInterrupted(f"The process that ran the migrations was killed{at}. {_kept(case)}")
    name = told.running or "env.py"
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    text = f"The process that ran the migrations ended itself with {how}{at}, without an exception. {_kept(case)}"
    return errors.MigrationFailed(text, name=name)


def _nothing_persisted(case: Circumstances) -> errors.BootstrapError:
    """Alembic was content, and another session does not see its work."""
    opened = case.told.opened
    if opened is None:
        why = "env.py never calls context.run_migrations()"
    elif opened.external:
        why = (
            "env.py executes SQL on the connection before context.configure(), which begins a transaction that Alembic "
            "then leaves to env.py, and env.py does not commit it; call connection.commit() before context.configure()"
        )
    else:
        why = (
            "env.py rolled it back, or it calls context.run_migrations() without `with context.begin_transaction():`, "
            "so that nobody commits"
        )
    return errors.MigrationFailed(
        f"Alembic reported success, and revision {case.missing[0]} is not in the database: {why}. {_kept(case)}",
        name=case.missing[0],
    )


def _migration_failed(failed: wire.Failed, text: str) -> errors.MigrationFailed:
    return errors.MigrationFailed(
        text, name=failed.revision or "env.py", sql_state=failed.sql_state, detail=_words(failed), line=failed.line
    )


def _subject(failed: wire.Failed) -> str:
    place = f" ({failed.file}{_line(failed)})" if failed.file else ""
    return f"Revision {failed.revision}{place}" if failed.revision else f"Alembic's environment{place}"


def _line(failed: wire.Failed) -> str:
    return f" line {failed.line}" if failed.line else ""


def _words(failed: wire.Failed) -> str:
    text = failed.text if len(failed.text) <= _TEXT_LIMIT else f"{failed.text[:_TEXT_LIMIT]}…"
    if failed.kind == "destructive":
        return f"it was stopped before it would lose rows: {text}"
    if failed.kind == "database":
        state = f" (SQLSTATE {failed.sql_state})" if failed.sql_state else ""
        return f"{text}{state}"
    return f"{failed.type}: {text}" if text else failed.type


def _kept(case: Circumstances) -> str:
    if not case.kept:
        return "Nothing of this run stayed."
    shown = ", ".join(case.kept[:10]) + (f" and {len(case.kept) - 10} more" if len(case.kept) > 10 else "")
    return f"Of this run {shown} stayed applied."
