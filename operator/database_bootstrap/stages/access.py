"""Access: other roles at the resource's tables, by direct grants of the owner, and of what comes later.

It is the last stage, so that a role which is not there yet holds nothing up, and all that migrations and seed have made
is seen in the same visit.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from database_bootstrap import errors
from database_bootstrap.api import rules
from database_bootstrap.api.access import AccessLevel
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.postgres import ledger
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.postgres.sqlstates import error_of, server_words
from database_bootstrap.stages import rights, seeding
from database_bootstrap.stages.catalogue import wanted_schemas
from database_bootstrap.stages.rights import Gap, Wish
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.stage import NOTED, Action, Conclusion, Stage
from database_bootstrap.stages.visit import Visit

_ROLES = """
    SELECT rolname::text, oid = (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'dbbootstrap')
    FROM pg_catalog.pg_roles WHERE rolname = ANY(%s)
"""
_SAID = """
    SELECT action FROM (
        SELECT seq, action FROM (
            SELECT DISTINCT ON (who) seq, action
            FROM dbbootstrap.audit_log, pg_catalog.substring(action, ' role "(.*)"') AS who
            WHERE stage = 'access' AND pg_catalog.length(action) <= 500 ORDER BY who, seq DESC
        ) AS newest WHERE action NOT LIKE 'take %' ORDER BY seq DESC LIMIT 1000
    ) AS said ORDER BY seq
"""
"""The last word on each role, however long ago; and of what the role may have written no more than can be borne."""
_GIVEN = re.compile(r'(?:give|limit) role "(.*)" (?:to )?(ReadOnly|ReadWrite) access(?:: [^"]*)?')
_TAKEN = re.compile(r'take access from role "(.*)"')
"""What the actions below are called in the audit log, which remembers what was given to whom."""
_GONE = (psycopg.errors.UndefinedObject, psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Which roles are there, and where they have not what they should."""

    wishes: tuple[Wish, ...]
    there: frozenset[str]
    """Of those that the resource names."""
    administrators: frozenset[str]
    """Of those: who owns the ledger."""
    gaps: tuple[Gap, ...] | None
    """None where there is no database yet."""


async def observe(visit: Visit) -> Found:
    """Look for the roles, and at what they may do; a resource that never gave access asks one question."""
    wanted = {it.role: it.level for it in visit.spec.access}
    view = visit.sessions.as_role if visit.database_exists else None
    had = given(await _said(visit)) if view and visit.ledger_exists else {}
    wishes = tuple(
        Wish(role=role, wanted=wanted.get(role), had=had.get(role))
        for role in dict.fromkeys([*wanted, *had])
        if role != visit.spec.role.name
    )
    if not wishes:
        return Found(wishes=(), there=frozenset(), administrators=frozenset(), gaps=())
    roles = dict(await rows(view or await visit.view(), _ROLES, (list(wanted),), doing="look for the roles of access"))
    schemas = ("public", *wanted_schemas(visit.spec))
    return Found(
        wishes=wishes,
        there=frozenset(roles),
        administrators=frozenset(role for role, is_administrator in roles.items() if is_administrator),
        gaps=await rights.gaps(view, wishes, schemas, await _histories(visit)) if view else None,
    )


async def _histories(visit: Visit) -> tuple[str, ...]:
    known = visit.history_tables
    return known if known is not None else await seeding.history_tables(visit)


async def _said(visit: Visit) -> list[str]:
    view = visit.sessions.as_role
    assert view is not None
    return [action for (action,) in await rows(view, _SAID, doing="read what access was given")]


def given(said: Sequence[str]) -> Mapping[str, AccessLevel]:
    """Return who was given what, and not taken back since, as the audit log says; pure.

    The role may write into the log as well. All that this can do is what the role can: take rights from its own tables.
    """
    known: dict[str, AccessLevel] = {}
    for action in said:
        if found := _GIVEN.fullmatch(action):
            known[found[1]] = AccessLevel(found[2])
        elif found := _TAKEN.fullmatch(action):
            known.pop(found[1], None)
    can_be = rules.not_reserved("").holds
    return {role: level for role, level in known.items() if can_be(role)}


def compare(visit: Visit, found: Found) -> Sequence[Action]:
    """Return what gives and takes, a transaction for each role; raise for what cannot be given."""
    if found.administrators:
        raise errors.SpecRejected(
            f'Role "{min(found.administrators)}" (spec.access) is the administrator, who has its rights already; take '
            "it out of the list"
        )
    if closed := next((gap for gap in found.gaps or () if gap.closed and gap.missing), None):
        (schema,) = closed.name
        grant = f"GRANT USAGE ON SCHEMA {sql_name(schema)} TO {sql_name(closed.role)}"
        raise errors.AccessDenied(
            f'Schema "{schema}" does not belong to role "{visit.spec.role.name}", which cannot let others in; '
            + cure(grant, database=visit.spec.database.name)
        )
    return tuple(_compare(visit, found))


def _compare(visit: Visit, found: Found) -> Iterator[Action]:
    for wish in found.wishes:
        gaps = tuple(gap for gap in found.gaps or () if gap.role == wish.role)
        if wish.wanted is None:
            yield Take(role=wish.role, gaps=gaps)
        elif wish.role not in found.there:
            if visit.planning:
                yield Await(role=wish.role)
        elif gaps or found.gaps is None or _is_less(wish):
            yield Give(role=wish.role, level=wish.wanted, gaps=gaps, is_less=_is_less(wish))


def _is_less(wish: Wish) -> bool:
    return wish.had is AccessLevel.READ_WRITE and wish.wanted is AccessLevel.READ_ONLY


def conclude(visit: Visit, found: Found) -> Conclusion:
    """Say who has access; raise `AccessRoleNotFound` for who is not there, now that all others have theirs."""
    wanted = {it.role: it.level for it in visit.spec.access}
    if missing := [role for role in wanted if role not in found.there]:
        raise errors.AccessRoleNotFound(
            f"Waits for {', '.join(map(_quoted, missing))} (spec.access), which is not there; all else is in place. "
            f"Make it, as with CREATE ROLE {sql_name(missing[0])} LOGIN, or take it out of the list"
        )
    if not wanted:
        return Conclusion(reason=Reason.NOT_REQUESTED, message="No access for other roles is asked for")
    named = ", ".join(f"{_quoted(role)} ({level})" for role, level in wanted.items())
    return Conclusion(reason=Reason.ACCESS_GIVEN, message=f"Access for {named}")


def _quoted(role: str) -> str:
    return f'role "{role}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Give:
    """Grant what is missing and take back what is too much, in one transaction with the entry of the audit log."""

    role: str
    level: AccessLevel
    gaps: tuple[Gap, ...]
    is_less: bool = False
    """It was given more before."""

    def __str__(self) -> str:
        if self.is_less or (self.gaps and not any(gap.missing for gap in self.gaps)):
            return f'limit role "{self.role}" to {self.level} access'
        words = rights.in_words(self.gaps)
        return f'give role "{self.role}" {self.level} access' + (f": {words}" if words else "")

    async def run(self, visit: Visit) -> bool:
        return await _settle(visit, self, self.role, self.gaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Take back what was given, and note that it was."""

    role: str
    gaps: tuple[Gap, ...]

    def __str__(self) -> str:
        return f'take access from role "{self.role}"'

    async def run(self, visit: Visit) -> bool:
        return await _settle(visit, self, self.role, self.gaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Await:
    """Stands in a plan for a role that is not there."""

    role: str

    def __str__(self) -> str:
        return f'wait for role "{self.role}", which is to have access and is not there'

    async def run(self, visit: Visit) -> None:
        """Do nothing: only a plan has it."""


async def _settle(visit: Visit, action: Action, role: str, gaps: Sequence[Gap]) -> bool:
    connection = await visit.sessions.owner()
    entry = ledger.audit_statement(StageName.ACCESS.value, str(action), str(visit.subject.owner))
    statements = [*rights.statements(gaps, role, visit.spec.role.name), entry]
    try:
        # The statements of one message are one transaction: what was given is always known to be.
        await connection.execute(";\n".join(one.as_string(connection) for one in statements).encode())
    except _GONE as error:
        raise errors.NotConverging(f"Something went away meanwhile: {server_words(error)}") from None
    except psycopg.Error as error:
        raise error_of(error, str(action)) from None
    visit.changed(StageName.ACCESS, str(action), audited=True)
    return NOTED


STAGE = Stage(name=StageName.ACCESS, observe=observe, compare=compare, conclude=conclude)
