"""What stands between Alembic and the database: the right one, one migrator at a time, each step told and recorded."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from alembic.runtime.migration import MigrationContext, StampStep, _ProxyTransaction
from sqlalchemy import Engine, event

from database_bootstrap.tools.sandbox import gate, session, wire
from database_bootstrap.tools.sql_text import CONCURRENT_INDEX

_COMMIT = re.compile(r"\s*(COMMIT|END)\b", re.IGNORECASE)


class Refused(Exception):
    """The guard does not let the run go on."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Guard:
    """Follows one run by way of the public methods of alembic.runtime.migration.MigrationContext."""

    def __init__(self, job: wire.Job, url: str, emit: Callable[[wire.Event], None]) -> None:
        self._job = job
        self._url = url
        self._emit = emit
        self._sessions: set[int] = set()
        self._table = ("", "")
        self._heads: set[str] = set()
        self._uncommitted: list[str] = []
        self._uncovered: list[str] = []
        self._in_upgrade = False
        self._gate = gate.Gate(job.gate)
        self._stamping = False
        self.running: str | None = None
        """The revision that runs, or ran last."""

    def install(self) -> None:
        """Take part in every migration of this process, whatever its env.py does."""
        guard = self
        run_migrations = MigrationContext.run_migrations
        begin_transaction = MigrationContext.begin_transaction
        autocommit_block = MigrationContext.autocommit_block

        def run(context: MigrationContext, **kw: Any) -> None:
            guard._enter(context)
            run_migrations(context, **kw)

        def begin(context: MigrationContext, _per_migration: bool = False) -> AbstractContextManager[Any, Any]:
            inner = begin_transaction(context, _per_migration)
            return guard._within(context, inner, again=_per_migration)

        @contextmanager
        def autocommit(context: MigrationContext) -> Iterator[None]:
            with autocommit_block(context):
                yield
            guard._lock_again(context)

        MigrationContext.run_migrations = run  # type: ignore[assignment, method-assign]
        MigrationContext.begin_transaction = begin  # type: ignore[assignment, method-assign]
        MigrationContext.autocommit_block = autocommit  # type: ignore[assignment, method-assign]
        event.listen(Engine, "before_cursor_execute", self._judges)

    def _enter(self, context: MigrationContext) -> None:
        if context.as_sql or context.connection is None:
            raise Refused("code", "env.py runs Alembic in offline mode, in which nothing reaches the database")
        pid, wrong = session.locate(context.connection, self._job.target)
        if wrong is not None:
            raise Refused("elsewhere", wrong)
        if not session.take_key(context.connection, self._sessions):
            raise Refused("locked", "another session migrates this database")
        self._sessions.add(pid)
        self._emit(wire.Entered(pid))
        session.make_table(context, self._url)
        session.lock_table(context)
        self._table = session.name_of_table(context)
        self._heads = set(context.get_current_heads())
        self._gate.open(context.connection, self._table)
        schema, table = self._table
        self._emit(wire.Opened(schema, table, bool(context._in_external_transaction)))
        self._follow(context)

    def _follow(self, context: MigrationContext) -> None:
        steps = context._migrations_fn
        assert steps is not None

        def followed(heads: Any, context: MigrationContext) -> Iterable[Any]:
            if self._job.baseline and not heads:
                self._stamping = True
                yield _stamp(context, self._job.baseline[-1])
                heads = self._job.baseline[-1:]
                self._stamping = False
            for step in steps(heads, context):
                self.running = step.revision.revision
                self._emit(wire.Running(step.revision.revision))
                self._in_upgrade = True
                if session.is_autocommit(context):
                    self._uncover()
                yield step

        context._migrations_fn = followed
        event.listen(context.connection, "commit", self._commits)
        event.listen(context.connection, "before_cursor_execute", self._executes)
        event.listen(context.connection, "after_cursor_execute", _has_executed)
        context.on_version_apply_callbacks = (*context.on_version_apply_callbacks, self._applied)

    def _applied(self, *, ctx: MigrationContext, heads: set[str], **_: Any) -> None:
        """Record the revision whose version row was just written; alembic calls it in the same transaction."""
        self._heads = set(heads)
        if self._stamping:
            for each in self._job.baseline:
                self._record(ctx, each, {"mode": None, "state": "baselined"})
            return
        revision = self.running
        assert revision is not None
        self._in_upgrade = False
        mode = "autocommit" if revision in self._uncovered else "transaction"
        self._record(ctx, revision, {"mode": mode, "state": "applied"})
        session.record_losses(ctx, revision, self._gate.losses, self._job.actor)
        self._gate.losses.clear()
        self._uncommitted.append(revision)
        self._emit(wire.Applied(revision))

    def _record(self, context: MigrationContext, revision: str, values: dict[str, Any]) -> None:
        schema, table = self._table
        row = {"schema": schema, "table": table, "name": revision, "checksum": self._job.checksums.get(revision)}
        session.record(context, row | values | {"actor": self._job.actor})

    @contextmanager
    def _within(self, context: MigrationContext, inner: AbstractContextManager[Any, Any], again: bool) -> Iterator[Any]:
        with inner as transaction:
            if again and isinstance(transaction, _ProxyTransaction):
                self._lock_again(context)
            yield transaction
        if isinstance(transaction, _ProxyTransaction):
            self._committed()

    def _commits(self, _: Any) -> None:
        """See a revision commit by itself, in an autocommit_block() or by hand: what it did before then stays."""
        if self._in_upgrade:
            self._uncover()

    def _executes(self, _connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if CONCURRENT_INDEX.match(statement):
            # It keeps nobody waiting, and an index that is given up is INVALID; the transaction may refuse it later.
            cursor.execute("SET lock_timeout = 0")
        if self._in_upgrade and _COMMIT.match(statement):
            self._uncover()

    def _judges(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if self._in_upgrade and self.running is not None:
            self._gate.judge(connection, statement, self.running)

    def _uncover(self) -> None:
        if self.running is not None and self.running not in self._uncovered:
            self._uncovered.append(self.running)
            self._emit(wire.Uncovered(self.running))

    def _committed(self) -> None:
        if self._uncommitted:
            self._uncommitted = []
            self._emit(wire.Committed())

    def _lock_again(self, context: MigrationContext) -> None:
        """Lock the version table in a new transaction, and see that nobody has used the gap."""
        session.lock_table(context)
        if set(context.get_current_heads()) != self._heads:
            raise Refused("overtaken", "another Alembic has migrated this database at the same time")


def _has_executed(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
    if CONCURRENT_INDEX.match(statement):
        cursor.execute("RESET lock_timeout")


def _stamp(context: MigrationContext, revision: str) -> StampStep:
    """Return what `alembic stamp` does in a version table without a row."""
    environment = context.environment_context
    assert environment is not None
    return StampStep((), revision, True, True, environment.script.revision_map)
