"""Stakes: the rows that would be lost, as queries without a session, which the operator and the sandbox both ask.

A row that the session may not see is no row that is not there: what cannot be read counts as at stake, unless the table
has not a single page.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from database_bootstrap.tools import stakes_sql
from database_bootstrap.tools.calls import Asking, opaque_calls
from database_bootstrap.tools.column_types import type_of_catalogue
from database_bootstrap.tools.effects import Code, Doubt, Finding, Kind

LIMIT = 1_000_000
"""More rows than that need not be counted."""
SOME = -1
"""There are rows, and nobody can tell which of them are meant."""
_NOT_OURS = " AND xmin::text NOT IN (SELECT xmin::text FROM dbbootstrap.migration)"
_WITH_TABLES = (Kind.TABLE, Kind.SCHEMA, Kind.TYPE, Kind.EXTENSION, Kind.ROLE)
_AT_ONCE = 100
_AT_A_GLANCE = 32 * 1024 * 1024
"""Bytes that are read in a moment."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What is known of the session and of the time before."""

    path: Sequence[str] | None
    """The schemas in which a name without one is looked for; None where that is not known, and each of them counts."""
    before: Mapping[int, int] | None = None
    """The tables from before the batch, by oid, and how many columns they had; None for all that are there."""
    ignored: frozenset[str] = frozenset()
    """Qualified names of tables whose rows are nobody's data."""
    without_ours: bool = False
    """Rows that a migration has put in, in one transaction with its record in the ledger, do not count."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Rows of one table."""

    table: str
    rows: int | None
    """None where they cannot be counted, `SOME` where that makes no sense."""

    def __str__(self) -> str:
        if self.rows == SOME:
            return f"there are rows, as in {self.table}"
        if self.rows is None:
            return f"{self.table}: rows that cannot be counted"
        number = f"more than {LIMIT}" if self.rows > LIMIT else str(self.rows)
        return f"{self.table}: {number} row{'' if self.rows == 1 else 's'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """What a finding would cost."""

    finding: Finding
    lost: tuple[Lost, ...]

    def __str__(self) -> str:
        more = f" and {len(self.lost) - _SHOWN} tables more" if len(self.lost) > _SHOWN else ""
        shown = ", ".join(map(str, self.lost[:_SHOWN]))
        what = f"{self.finding.what} {self.finding.written or self.finding.name}".rstrip()
        return f"{what} ({shown}{more})"


@dataclass(frozen=True, slots=True)
class _Table:
    """One that a finding reaches."""

    oid: int
    schema: str
    name: str
    columns: tuple[str, ...]
    """Only these of it."""
    is_readable: bool
    size: int | None
    """Bytes; None where they are not known."""

    @property
    def words(self) -> str:
        return f"{self.schema}.{self.name}"


def occupied(ground: Ground) -> Asking[str | None]:
    """Return a user table that has a row, or None where none has."""
    found = yield stakes_sql.USER_TABLES.format(ignored=sorted(ground.ignored)).as_string()
    tables = [_Table(oid, schema, name, (), readable, size) for oid, schema, name, readable, size in found]
    counted = [table for table in tables if ground.before is None or table.oid in ground.before]
    for table in counted:
        if not table.is_readable:
            return table.words
    for start in range(0, len(counted), _AT_ONCE):
        ((first,),) = yield _first_with_a_row(counted[start : start + _AT_ONCE], ground)
        if first:
            return str(first)
    return None


def is_there_a_table(ground: Ground) -> Asking[bool]:
    """Return whether there is any user table."""
    ((found,),) = yield stakes_sql.ANY_TABLE.format(ignored=sorted(ground.ignored)).as_string()
    return bool(found)


def locks(findings: Sequence[Finding], ground: Ground) -> Asking[str]:
    """Return the statements that lock the tables which these reach, each with a semicolon.

    Where rows are deleted or overwritten, others may go on reading; from a table that goes nobody may. Of a large one
    that loses a column each row is looked at behind the lock: so long others read, and the statement itself takes more.
    """
    of: dict[int, str] = {}
    for finding in findings:
        if finding.kind in _WITH_TABLES:
            found = yield stakes_sql.reached(finding, ground.path)
            for oid, _, _, columns, _, size in found:
                is_slow = bool(finding.columns or columns) and (size is None or size > _AT_A_GLANCE)
                mode = "SHARE ROW EXCLUSIVE" if finding.code is Code.DELETE or is_slow else "ACCESS EXCLUSIVE"
                if ground.before is None or oid in ground.before:
                    of[oid] = mode if of.get(oid) != "ACCESS EXCLUSIVE" else of[oid]
    lockable = (yield stakes_sql.LOCKABLE.format(oids=sorted(of)).as_string()) if of else []
    return "".join(
        sql.SQL("LOCK TABLE {} IN {} MODE; ").format(sql.Identifier(schema, name), sql.SQL(of[oid])).as_string()
        for oid, schema, name in lockable
    )


def _first_with_a_row(tables: Sequence[_Table], ground: Ground) -> str:
    where = sql.SQL(f" WHERE true{_NOT_OURS}" if ground.without_ours else "")
    cases = sql.SQL(" ").join(
        sql.SQL("WHEN EXISTS (SELECT FROM {}{}) THEN {}").format(
            sql.Identifier(table.schema, table.name), where, table.words
        )
        for table in tables
    )
    return sql.SQL("SELECT CASE {} END").format(cases).as_string()


def at_stake(findings: Sequence[Finding], ground: Ground, row: str | None) -> Asking[list[Stake]]:
    """Return what each of these would cost; `row` is a table that has one, which is enough for opaque code."""
    some = (Lost(row, SOME),) if row is not None else ()
    calls = yield from opaque_calls([one for one in findings if one.kind is Kind.FUNCTION])
    stakes = []
    for finding in findings:
        lost: Sequence[Lost] = ()
        if finding.kind is Kind.DATABASE:
            lost = (Lost(finding.name.name, None),)
        elif finding.kind is Kind.ANYTHING or (finding.kind is Kind.FUNCTION and finding.name in calls):
            lost = some
        elif finding.kind is not Kind.FUNCTION:
            lost, is_there = yield from _of_tables(finding, ground)
            if not lost and (finding.doubt is Doubt.ALWAYS or (finding.doubt is Doubt.ABSENT and not is_there)):
                lost = some
        stakes.append(Stake(finding=finding, lost=tuple(lost)))
    return stakes


def _of_tables(finding: Finding, ground: Ground) -> Asking[tuple[Sequence[Lost], bool]]:
    """Return the rows that are lost, and whether there is anything of that name."""
    found = yield stakes_sql.reached(finding, ground.path)
    tables = [
        _Table(oid, schema, name, tuple(columns or ()), readable, size)
        for oid, schema, name, columns, readable, size in found
        if ground.before is None or oid in ground.before
    ]
    lost, is_there = [], False
    for table in tables:
        if finding.columns:
            present, known = yield from _columns_at_stake(finding, table, ground)
            is_there = is_there or known
            if not present:
                continue
            one = yield from _count(replace(table, columns=present), ground)
        else:
            one = yield from _count(table, ground)
        lost.extend([one] if one else [])
    return lost, is_there or (bool(found) and not finding.columns)


def _columns_at_stake(finding: Finding, table: _Table, ground: Ground) -> Asking[tuple[tuple[str, ...], bool]]:
    """Return those of the columns that were there before and lose their values, and whether there is any of them."""
    found = yield stakes_sql.COLUMNS.format(oid=table.oid, names=list(finding.columns)).as_string()
    newest = ground.before[table.oid] if ground.before is not None else None
    present = []
    for number, name, type_name, modifier, is_array, is_enum, enums in found:
        if newest is not None and number > newest:
            continue
        if finding.code is Code.CHANGE_TYPE and finding.change is not None:
            old = type_of_catalogue(type_name, modifier, is_array=is_array, is_enum=is_enum)
            if finding.change.knowing(enums or ()).keeps(old):
                continue
        present.append(str(name))
    return tuple(present), bool(found)


def _count(table: _Table, ground: Ground) -> Asking[Lost | None]:
    """Return the table's rows, or those with a value in one of its columns; None where there is none."""
    if table.size == 0:
        return None
    if not table.is_readable:
        return Lost(table.words, None)
    condition = sql.SQL(" OR ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(each)) for each in table.columns)
    where = sql.SQL(" WHERE ({})").format(condition if table.columns else True)
    if ground.without_ours and table.size is not None:  # Views and foreign tables have no xmin.
        where += sql.SQL(_NOT_OURS)
    ((count,),) = yield (
        sql.SQL("SELECT pg_catalog.count(*) FROM (SELECT FROM {table}{where} LIMIT {limit}) AS counted")
        .format(table=sql.Identifier(table.schema, table.name), where=where, limit=LIMIT + 1)
        .as_string()
    )
    return Lost(table.words, int(count)) if count else None


def snapshot() -> Asking[dict[int, int]]:
    """Return the tables that are there, and how many columns each has had."""
    found = yield stakes_sql.SNAPSHOT
    return {int(oid): int(count) for oid, count in found}


def path(schema: str) -> Asking[tuple[str, ...]]:
    """Return where the migrating session looks for names, asked from one whose own search path is another."""
    if schema != "public":
        return (schema,)
    ((setting,),) = yield stakes_sql.PATH
    return tuple(_elements(str(setting)))


def _elements(setting: str) -> Iterator[str]:
    for word in setting.split(","):
        name = word.strip().strip('"')
        if name:
            yield name
