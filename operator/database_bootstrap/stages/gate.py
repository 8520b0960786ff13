"""Gate: what pending migrations would destroy, counted before any of them runs, and whether that is wanted."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from database_bootstrap.api import v1alpha1
from database_bootstrap.api.outcomes import StageName
from database_bootstrap.postgres import ledger
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.stages.risks import Risk, ask, check, recounts_of
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.visit import Visit
from database_bootstrap.tools import stakes
from database_bootstrap.tools.batch import Suspicion, suspicions_of
from database_bootstrap.tools.stakes import Ground, Stake
from database_bootstrap.tools.tool import Gate, History, Options, Tool

_REACHED = "all migrations applied for the first time"
"""What the audit log says when that was so."""
_SETTLED = """
    SELECT EXISTS (SELECT FROM dbbootstrap.audit_log WHERE stage = 'migrations' AND action = %s)
        OR EXISTS (SELECT FROM dbbootstrap.audit_log WHERE stage = 'connection')
        OR EXISTS (SELECT FROM dbbootstrap.seed)
"""
_OURS = "SELECT DISTINCT name FROM dbbootstrap.migration WHERE tool = %s AND state = 'applied' AND name = ANY (%s)"
_OWN_PATH = "SELECT pg_catalog.current_schemas(false)::text[]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about: the migrations that are pending, in a session as the role."""

    tool: Tool[Any]
    source: Any
    options: Options
    history: History
    pending: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What was judged, and what came of it."""

    risks: tuple[Risk, ...] = ()
    suspicions: tuple[Suspicion, ...] = ()
    path: Sequence[str] = ()


async def _judge(connection: Connection, question: Question, *, is_owner: bool) -> _Verdict:
    """Return what the pending migrations would destroy; `is_owner` says that the session is the one they will run in.

    Where no table has a row there is nothing to lose, and where there is no table nothing is judged: a fresh database
    loses no time by it. Tables without a row are looked at again in that session, just before each migration.
    """
    if question.tool.name == v1alpha1.Tool.ALEMBIC.value:
        return _Verdict()  # Revisions are code; they are judged in the sandbox, while they run.
    ground = Ground(path=(), ignored=frozenset(question.history.tables))
    row = await ask(connection, stakes.occupied(ground))
    if row is None and not (is_owner and await ask(connection, stakes.is_there_a_table(ground))):
        return _Verdict()
    judged = await asyncio.to_thread(question.tool.judge, question.source, question.pending)
    path = await _own_path(connection) if is_owner else await ask(connection, stakes.path(question.options.schema))
    schema = path[0] if path else question.options.schema
    suspicions = await asyncio.to_thread(suspicions_of, judged, schema)
    ground = Ground(path=None if suspicions.moves_path else path)
    found = await ask(connection, stakes.at_stake([one.finding for one in suspicions.found], ground, row))
    of: dict[str, list[Stake]] = {}
    for suspicion, stake in zip(suspicions.found, found, strict=True):
        if stake.lost:
            of.setdefault(suspicion.migration.name, []).append(stake)
    risks = tuple(Risk(migration=one, stakes=tuple(of[one.name])) for one in judged if one.name in of)
    return _Verdict(risks=risks, suspicions=suspicions.found, path=path)


async def _own_path(connection: Connection) -> Sequence[str]:
    ((path,),) = await rows(connection, _OWN_PATH, doing="read the search path")
    return tuple(path)


def _knows_password(visit: Visit) -> bool:
    """Whether an application may log in before the Secret for it is there: it need not wait to learn the password."""
    return visit.spec.role.password_secret_ref is not None


async def _is_first_run(visit: Visit, connection: Connection, question: Question) -> bool:
    """Whether our own first run has begun, and did not reach its end.

    Where nobody knows the password before that, all that is in the database comes from it. A history that somebody else
    has begun is no first run.
    """
    if not question.history.rows or not visit.ledger_exists or await _is_settled(connection):
        return False
    asked = (question.tool.name, [row.name for row in question.history.rows])
    found = await rows(connection, _OURS, asked, doing="read the ledger")
    ours = {name for (name,) in found}
    return all(row.name in ours for row in question.history.rows if not row.rolled_back)


async def _is_settled(connection: Connection) -> bool:
    """Whether the migrations were through once: from then on there may be rows that no migration can bring back."""
    ((settled,),) = await rows(connection, _SETTLED, (_REACHED,), doing="read the ledger")
    return bool(settled)


async def settle(visit: Visit, connection: Connection) -> None:
    """Note in the audit log that the migrations are through, the first time that they are."""
    if visit.ledger_exists and not await _is_settled(connection):
        entries = [(StageName.MIGRATIONS.value, _REACHED)]
        await ledger.record_audit(connection, str(visit.subject.owner), entries)


async def look(visit: Visit, connection: Connection, question: Question) -> tuple[Risk, ...]:
    """Return what the pending migrations would destroy, where that matters, over a session that only reads."""
    if not question.pending or not question.options.refuse_destructive:
        return ()
    first = await _is_first_run(visit, connection, question)
    if first and not _knows_password(visit):
        return ()
    verdict = await _judge(connection, question, is_owner=False)
    return tuple(replace(risk, never_done=first) for risk in verdict.risks)


async def pass_through(visit: Visit, connection: Connection, question: Question) -> Gate:
    """Judge once more in the session that will run the migrations; raise as `check` does."""
    first = await _is_first_run(visit, connection, question)
    is_open = first and not _knows_password(visit)
    verdict = _Verdict() if is_open else await _judge(connection, question, is_owner=True)
    found = tuple(replace(risk, never_done=first) for risk in verdict.risks)
    check(found, question.options)
    losses = {risk.migration.name: tuple(map(str, risk.stakes)) for risk in found}
    if not verdict.suspicions or not question.options.refuse_destructive:
        return Gate(is_open=is_open, losses=losses)
    ground = Ground(
        path=None,
        before=await ask(connection, stakes.snapshot()),
        ignored=frozenset(question.history.tables),
        without_ours=True,
    )
    recounts = recounts_of(verdict.suspicions, connection, question.options, verdict.path, ground)
    return Gate(is_open=is_open, losses=losses, recounts=recounts)
