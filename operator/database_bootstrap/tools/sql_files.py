"""Plain SQL: versioned files, recorded in the ledger."""

import hashlib
import re
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import PurePosixPath

from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.bundles.bundle import Bundle, File
from database_bootstrap.postgres import bounds, ledger
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ledger import MigrationRow
from database_bootstrap.tools.aftermath import half_applied
from database_bootstrap.tools.batch import Judged
from database_bootstrap.tools.job import Job
from database_bootstrap.tools.migration import Migration, check_pending, content_of, upto
from database_bootstrap.tools.migrators import Migrator, quiet
from database_bootstrap.tools.resolution import Word, advice, assume, due, name_stops
from database_bootstrap.tools.running import run_script
from database_bootstrap.tools.tool import Applied, Comparison, History, Options, Run, Standing

NAME = "SQL"
_FILE_NAME = re.compile(r"[Vv]?([0-9]+(?:[._][0-9]+)*)_{1,2}(.+?)(\.up)?\.sql")
_DOWN = ".down.sql"
_PROSE = (".md", ".txt", ".rst")
_LEDGER = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'dbbootstrap')"
_ROWS = f"""
    SELECT pg_catalog.left(name, {bounds.NAME}), pg_catalog.left(checksum, {bounds.NAME}), state,
           pg_catalog.left(mode, {bounds.NAME}), pg_catalog.left(error, {bounds.WORDS}) FROM (
        SELECT DISTINCT ON (name) name, checksum, state, mode, error, seq
        FROM dbbootstrap.migration WHERE tool = 'SQL' ORDER BY name, seq DESC
    ) AS newest ORDER BY seq LIMIT {bounds.HISTORY + 1}
"""  # noqa: S608 constants

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionedFile:
    """One migration and where it stands in the order."""

    version: Version
    migration: Migration

    @property
    def name(self) -> str:
        return self.migration.name


@dataclass(frozen=True, slots=True)
class SqlSource:
    """The migrations of a bundle, oldest first."""

    files: tuple[VersionedFile, ...]

    @property
    def by_name(self) -> Mapping[str, VersionedFile]:
        return {file.name: file for file in self.files}


class SqlFiles:
    """`V1__init.sql`, `002_users.sql`, `20240301120000_orders.up.sql`; compared as numbers."""

    name = NAME

    def load(self, bundle: Bundle) -> SqlSource:
        found = [_versioned(file) for file in bundle.files if not _is_passed_over(file.path)]
        ordered = sorted(found, key=lambda file: (file.version, file.name))
        for first, second in pairwise(ordered):
            if first.version == second.version:
                both = f"{first.migration.path} and {second.migration.path}"
                raise errors.BundleRejected(f"{both} have the same version")
        if not ordered:
            raise errors.BundleRejected("The source has no file that is a migration, like 001_users.sql")
        return SqlSource(tuple(ordered))

    async def read(self, connection: Connection, options: Options) -> History:
        exists = await (await connection.execute(_LEDGER)).fetchone()
        if exists is None or not exists[0]:
            return History(table_exists=False)
        rows = await quiet(connection, partial(_rows, connection), Migrator.US)
        return History(table_exists=True, rows=await name_stops(connection, NAME, rows))

    def compare(self, source: SqlSource, history: History, options: Options) -> Comparison:
        for row in history.rows:
            if not (row.finished or row.rolled_back):
                words = str(row.detail.get("error") or "a place that nobody recorded")
                raise half_applied(row.name, words, advice(row.name, row.stop), name=row.name)
        applied = _applied(history)
        _check_applied(source, applied)
        baseline = self.upto(source, options.baseline) if options.baseline and not history.rows else ()
        pending = [file for file in source.files if file.name not in applied and file.name not in baseline]
        newest = max((file for file in source.files if file.name in applied), key=lambda f: f.version, default=None)
        _check_order(pending, newest, options.allow_out_of_order)
        check_pending(file.migration for file in pending)
        return Comparison(
            pending=tuple(file.name for file in pending),
            current=newest.name if newest else None,
            applied=len(applied),
            baseline=baseline,
        )

    def judge(self, source: SqlSource, pending: tuple[str, ...]) -> tuple[Judged, ...]:
        files = source.by_name
        return tuple(files[name].migration.judged for name in pending)

    def standing(self, source: SqlSource, history: History) -> Standing:
        applied = _applied(history)
        done = [file.name for file in source.files if file.name in applied]
        return Standing(current=done[-1] if done else None, applied=len(applied), pending=len(source.files) - len(done))

    def upto(self, source: SqlSource, name: str) -> tuple[str, ...]:
        ordered = [file.name for file in source.files]
        return upto(ordered, f"{name}.sql" if f"{name}.sql" in ordered else name)

    def assume(self, source: SqlSource, history: History, word: Word) -> History:
        return assume(history, word)

    async def resolve(self, source: SqlSource, word: Word, run: Run) -> bool:
        if due(str(word), await self.read(run.connection, run.options)) != word:
            return False
        local = source.by_name.get(word.name)
        row = MigrationRow(tool=NAME, name=word.name, state="resolved", mode=word.how.value)
        await ledger.record_migration(
            run.connection, replace(row, checksum=local.migration.checksum if local else None), run.actor
        )
        return True

    async def apply(self, source: SqlSource, pending: tuple[str, ...], run: Run) -> None:
        files = source.by_name
        if run.baseline:
            await _record_baseline([files[name] for name in run.baseline], run)
        for name in pending:
            await run_script(run, _job_of(files[name], run))


def _is_passed_over(path: str) -> bool:
    name = PurePosixPath(path).name.lower()
    return name.endswith((_DOWN, *_PROSE)) or name.startswith(("readme", "license", "."))


def _versioned(file: File) -> VersionedFile:
    path = PurePosixPath(file.path)
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise errors.BundleRejected(
            f"{file.path} is no migration: its name must be a version, `_`, a word and .sql, like 001_users.sql, "
            "V1.2__users.sql or 20240301120000_users.up.sql"
        )
    return VersionedFile(
        version=_version_of(match.group(1)),
        migration=Migration(
            # Without its folder: whoever moves files has changed nothing, and no two have the same version.
            name=path.name,
            path=file.path,
            content=content_of(file),
            checksum=checksum_of(file.content),
        ),
    )


def _version_of(text: str) -> Version:
    """Return the version's numbers; 1 and 1.0 are the same."""
    numbers = [int(number) for number in re.split(r"[._]", text)]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def checksum_of(content: bytes) -> str:
    """Return the SHA-256 that neither line ends nor a byte order mark change: Git and editors do that by themselves."""
    return hashlib.sha256(content.removeprefix(BOM_UTF8).replace(b"\r\n", b"\n")).hexdigest()


async def _rows(connection: Connection) -> tuple[Applied, ...]:
    cursor = await connection.execute(_ROWS)
    return tuple(
        Applied(
            name=name,
            checksum=checksum,
            finished=state in ("applied", "baselined", "resolved"),
            rolled_back=state == "resolved" and mode == "rolled-back",
            detail={"error": error},
        )
        for name, checksum, state, mode, error in bounds.history(await cursor.fetchall())
    )


def _check_applied(source: SqlSource, applied: Mapping[str, Applied]) -> None:
    files = source.by_name
    missing = [name for name in applied if name not in files]
    if missing:
        raise errors.MigrationDiverged(
            f"The database has migrations that the source does not have: {_listed(missing)}. The source is older than "
            "the database, or files were renamed or removed. Nothing was run; bring them back"
        )
    edited = [
        file.name
        for file in source.files
        if (row := applied.get(file.name)) and row.checksum and row.checksum != file.migration.checksum
    ]
    if edited:
        raise errors.MigrationDiverged(
            f"Applied migrations were edited: {_listed(edited)}. Nothing was run; put back what they were, "
            "and write the change as a new migration"
        )


def _check_order(pending: Sequence[VersionedFile], newest: VersionedFile | None, allowed: frozenset[str]) -> None:
    late = [
        file.name
        for file in pending
        if newest and file.version < newest.version and allowed.isdisjoint({file.name, file.name.removesuffix(".sql")})
    ]
    if late:
        raise errors.MigrationDiverged(
            f"Older than what is applied already ({newest.name if newest else ''}): {_listed(late)}. Nothing was "
            "run; give them a newer version, or name them in `migrations.allowOutOfOrder`"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _applied(history: History) -> dict[str, Applied]:
    rows = (row for row in history.rows if row.finished and not row.rolled_back)
    return {PurePosixPath(row.name).name: row for row in rows}


async def _record_baseline(files: Sequence[VersionedFile], run: Run) -> None:
    """Record these as made by somebody else; one message is one transaction."""
    statements = [ledger.migration_statement(_row_of(file, "baselined"), run.actor) for file in files]
    await run.connection.execute(sql.Composed(statements))
    await run.baselined()


def _row_of(file: VersionedFile, state: str) -> MigrationRow:
    version = ".".join(str(number) for number in file.version)
    return MigrationRow(tool=NAME, name=file.name, version=version, checksum=file.migration.checksum, state=state)


def _job_of(file: VersionedFile, run: Run) -> Job:
    migration = file.migration
    return Job(
        script=migration.script,
        row=replace(_row_of(file, "running"), losses=run.gate.losses.get(migration.name, ())),
        is_applied=sql.SQL(
            "SELECT FROM (SELECT state FROM dbbootstrap.migration WHERE tool = 'SQL' AND name = {} ORDER BY seq DESC"
            " LIMIT 1) AS newest WHERE state = 'applied'"
        ).format(migration.name),
        next_step=partial(advice, migration.name),
    )
