"""Alembic: what is pending is read from the source and the version table; applying runs in the sandbox."""

import contextlib
import hashlib
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

import psycopg

from database_bootstrap.bundles.bundle import Bundle
from database_bootstrap.errors import MigrationDiverged, MigrationHalfApplied, SandboxUnavailable
from database_bootstrap.postgres import ledger, locks
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ledger import MigrationRow
from database_bootstrap.settings import Sandbox
from database_bootstrap.tools import alembic_layout, alembic_table, alembic_verdict
from database_bootstrap.tools.alembic_graph import Graph, check_size, read_revision
from database_bootstrap.tools.alembic_layout import Layout
from database_bootstrap.tools.alembic_table import Table, one, quoted
from database_bootstrap.tools.alembic_verdict import Circumstances, Told
from database_bootstrap.tools.batch import Judged
from database_bootstrap.tools.migration import upto
from database_bootstrap.tools.resolution import Word, last_stop
from database_bootstrap.tools.sandbox import Lost, Zygote, level, wire
from database_bootstrap.tools.tool import Comparison, History, Options, Run, Standing

_LINE = re.compile(r" line (\d+): ")
_NEWEST = "SELECT coalesce(max(seq), 0) FROM dbbootstrap.migration"
_BASELINED = """
    SELECT EXISTS (SELECT FROM dbbootstrap.migration
        WHERE tool = 'Alembic' AND state = 'baselined' AND name = %s AND seq > %s)
"""
_SINCE = """
    SELECT DISTINCT name FROM dbbootstrap.migration
    WHERE tool = 'Alembic' AND state = 'applied' AND seq > %s AND name = ANY (%s)
"""
_END_SESSION = """
    SELECT pg_catalog.pg_terminate_backend(l.pid, 5000)
    FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_database AS d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND l.granted AND d.datname = pg_catalog.current_database()
      AND l.pid = %s AND l.classid = %s AND l.objid = %s AND l.objsubid = 1
"""
"""Ends a session, if it is the sandbox's; a killed client's statement otherwise runs on for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An Alembic project."""

    graph: Graph
    layout: Layout
    checksums: Mapping[str, str]
    """Revision → SHA-256 of its file."""


class Alembic:
    """The tool `Alembic`."""

    name = "Alembic"

    def __init__(self, zygote: Zygote, sandbox: Sandbox | None = None) -> None:
        self._zygote = zygote
        self._refusal = level.refusal(sandbox or Sandbox(), level.available())

    def load(self, bundle: Bundle) -> Source:
        layout = alembic_layout.find(bundle)
        check_size(layout.revisions)
        graph = Graph(read_revision(file) for file in layout.revisions)
        contents = {file.path: file.content for file in layout.revisions}
        checksums = {each.name: hashlib.sha256(contents[each.path]).hexdigest() for each in graph.revisions.values()}
        return Source(graph=graph, layout=layout, checksums=checksums)

    async def read(self, connection: Connection, options: Options) -> History:
        return await alembic_table.read(connection, options)

    def compare(self, source: Source, history: History, options: Options) -> Comparison:
        rows = tuple(row.name for row in history.rows if row.finished)
        graph = source.graph
        if unknown := [row for row in rows if row not in graph.revisions]:
            raise MigrationDiverged(
                f"The database is at revision {', '.join(unknown)}, which the source does not have: the source is "
                "older than the database, or of another project. Nothing was run; bring the newer source back"
            )
        baseline = self.upto(source, options.baseline) if options.baseline and not history.rows else ()
        pending = graph.pending(rows or baseline)
        if pending and (pair := graph.overlapping(rows)):
            raise MigrationDiverged(
                f"The version table has rows {pair[0]} and {pair[1]}, of which the first contains the second; Alembic "
                "cannot go on from there. Delete the second row, or `alembic stamp` what is true"
            )
        _refuse_half_applied(source, history, pending)
        if (pending or baseline) and self._refusal is not None:
            raise SandboxUnavailable(f"{len(pending)} of {len(graph.revisions)} revisions are pending. {self._refusal}")
        return Comparison(
            pending=pending,
            current=", ".join(sorted(rows)) or None,
            applied=len(graph.closure(rows)),
            baseline=baseline,
        )

    def judge(self, source: Source, pending: tuple[str, ...]) -> tuple[Judged, ...]:
        return ()  # They are code, and are judged while they run.

    def standing(self, source: Source, history: History) -> Standing:
        graph, rows = source.graph, [row.name for row in history.rows if row.finished]
        current = ", ".join(sorted(rows)) or None
        if any(row not in graph.revisions for row in rows):
            return Standing(current=current)
        applied = len(graph.closure(rows))
        return Standing(current=current, applied=applied, pending=len(graph.revisions) - applied)

    def upto(self, source: Source, name: str) -> tuple[str, ...]:
        graph = source.graph
        before = graph.closure([name]) if name in graph.revisions else ()
        return upto([each for each in graph.pending(()) if each in before] or list(graph.heads), name)

    def assume(self, source: Source, history: History, word: Word) -> History:
        return alembic_table.assume(source.graph, history, word)

    async def resolve(self, source: Source, word: Word, run: Run) -> bool:
        return await alembic_table.resolve(source.graph, source.checksums, word, run)

    async def apply(self, source: Source, pending: tuple[str, ...], run: Run) -> None:
        if not (pending or run.baseline):
            return
        await run.verify_lock()
        await locks.leave_to_child(run.connection)
        table = await alembic_table.locate(run.connection, run.options)
        follower = _Follower(pending, run, await _newest(run.connection))
        told = follower.told
        try:
            await self._follow(_job(source, run), follower)
        finally:
            if told.backend is not None and (told.ended is None or told.ended.status):
                await _end_session(run.connection, told.backend)
        present = await _present(source.graph, told, table, run)
        await follower.report(present)
        case = Circumstances(
            told=alembic_verdict.in_place(told, source.layout),
            kept=follower.reported,
            missing=[name for name in (*run.baseline[-1:], *pending) if name not in present],
            options=run.options,
            origin=f"database {run.login.database} as {run.login.user}",
        )
        await _conclude(case, source, table, run)

    async def _follow(self, job: wire.Job, follower: "_Follower") -> None:
        with contextlib.suppress(Lost):
            async with aclosing(self._zygote.run(job)) as events:
                async for event in events:
                    await follower.note(event)


class _Follower:
    """Follows one run by what the child says, and believes only what the database shows."""

    def __init__(self, pending: tuple[str, ...], run: Run, newest: int) -> None:
        self.told = Told()
        self.reported: list[str] = []
        """What this run has applied, as another session sees it."""
        self._pending = frozenset(pending)
        self._run = run
        self._newest = newest
        self._baseline = run.baseline

    async def note(self, event: wire.Event) -> None:
        told = self.told
        match event:
            case wire.Entered(pid):
                told.backend = pid
            case wire.Opened():
                told.opened = event
            case wire.Running(revision):
                told.running = revision
                await self._run.verify_lock()
            case wire.Committed():
                # The ledger is asked, and not the version table, which the child has locked again by now.
                asked = [*told.applied, *told.uncovered]
                cursor = await self._run.connection.execute(_SINCE, (self._newest, asked))
                await self.report(frozenset(name for (name,) in await cursor.fetchall()))
            case _:
                self._note_progress(event)

    def _note_progress(self, event: wire.Event) -> None:
        told = self.told
        match event:
            case wire.Uncovered(revision):
                told.uncovered.append(revision)
            case wire.Applied(revision) if revision in self._pending and revision not in told.applied:
                told.applied.append(revision)
            case wire.Failed():
                told.failed = event
            case wire.Ended():
                told.ended = event

    async def report(self, present: frozenset[str]) -> None:
        """Tell of those that are in the database and were not told of yet, and of the baseline before them."""
        run = self._run
        if self._baseline and await one(run.connection, _BASELINED, (self._baseline[-1], self._newest)):
            self._baseline = ()
            await run.baselined()
        for name in self.told.applied:
            if name in present and name not in self.reported:
                self.reported.append(name)
                await run.applied(name)
        self.told.uncovered = [each for each in self.told.uncovered if each not in present]


async def _conclude(case: Circumstances, source: Source, known: Table, run: Run) -> None:
    """Put into the ledger what the child could not, and raise what went wrong."""
    error = alembic_verdict.error_of(case)
    opened = case.told.opened
    found = (opened.schema, opened.table) if opened else known
    if isinstance(error, MigrationHalfApplied):
        name = case.told.half_applied or ""
        failed = case.told.failed
        row = MigrationRow(tool=Alembic.name, name=name, state="failed", version=quoted(found), mode="autocommit")
        state, words = (failed.sql_state, alembic_verdict.words_of(failed)) if failed else (None, None)
        row = replace(row, checksum=source.checksums.get(name), sql_state=state, error=words)
        await ledger.record_migration(run.connection, row, run.actor)
        error = alembic_verdict.error_of(replace(case, stop=await last_stop(run.connection, Alembic.name, name)))
    elif error is None and not case.told.applied and found != known:
        # Somebody else has applied all, in a table that only env.py knows: remember it, or each visit would ask again.
        for name in source.graph.heads:
            row = MigrationRow(tool=Alembic.name, name=name, state="baselined", version=quoted(found))
            row = replace(row, checksum=source.checksums.get(name))
            await ledger.record_migration(run.connection, row, run.actor)
    if error is not None:
        raise error


def _refuse_half_applied(source: Source, history: History, pending: tuple[str, ...]) -> None:
    """Raise while a half-applied revision is neither changed nor recorded by Alembic itself."""
    for row in history.rows:
        if not row.finished and row.name in pending and row.checksum == source.checksums.get(row.name):
            why = str(row.detail.get("error") or "its process was ended")
            line = _LINE.search(why)
            raise MigrationHalfApplied(
                f"Revision {row.name} stopped after a part of it was committed: {why}. It is not run again by itself. "
                f"{alembic_verdict.next_step(row.name, row.stop)}",
                name=row.name,
                sql_state=row.detail.get("state"),
                detail=why,
                line=int(line[1]) if line else None,
            )


async def _present(graph: Graph, told: Told, known: Table, run: Run) -> frozenset[str]:
    """Return what is applied, as this session sees it, which is not the child's."""
    table = (told.opened.schema, told.opened.table) if told.opened else known
    history = await alembic_table.history_in(run.connection, table)
    return graph.closure(row.name for row in history.rows if row.name in graph.revisions)


async def _newest(connection: Connection) -> int:
    cursor = await connection.execute(_NEWEST)
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _end_session(connection: Connection, backend: int) -> None:
    with contextlib.suppress(psycopg.Error):
        await connection.execute(_END_SESSION, (backend, locks.CHILD_KEY >> 32, locks.CHILD_KEY & 0xFFFFFFFF))


def _job(source: Source, run: Run) -> wire.Job:
    login, endpoint, options = run.login, run.login.endpoint, run.options
    target = wire.Target(
        host=endpoint.host,
        port=endpoint.port,
        user=login.user,
        database=login.database,
        application_name=login.application_name,
        sslmode=endpoint.sslmode,
        require_auth=endpoint.require_auth,
        ca=endpoint.ca,
        schema=options.schema,
        lock_timeout=options.lock_timeout,
        statement_timeout=options.statement_timeout,
        owner_pid=run.connection.info.backend_pid,
    )
    return wire.Job(
        project=source.layout.project,
        target=target,
        limits=wire.Limits(seconds=options.timeout),
        gate=wire.Gate(run.gate.is_open, options.refuse_destructive, tuple(options.allow_destructive)),
        actor=run.actor,
        checksums=source.checksums,
        baseline=run.baseline,
        files=tuple((file.path, file.content) for file in source.layout.files),
        password=login.password,
    )
