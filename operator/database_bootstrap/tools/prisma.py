"""Prisma Migrate: the directories of `prisma/migrations`, recorded as `prisma migrate deploy` records them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.bundles.bundle import Bundle, File
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.ledger import MigrationRow, migration_statement
from database_bootstrap.tools import prisma_table
from database_bootstrap.tools.aftermath import half_applied
from database_bootstrap.tools.batch import Judged
from database_bootstrap.tools.job import Job
from database_bootstrap.tools.locale_order import locale_key
from database_bootstrap.tools.migration import Migration, check_pending, content_of, upto
from database_bootstrap.tools.migrators import Migrator, held, put_down
from database_bootstrap.tools.resolution import Word, advice, assume, due, stop_of
from database_bootstrap.tools.running import run_script
from database_bootstrap.tools.tool import Applied, Comparison, History, Options, Run, Standing

NAME = "Prisma"
_SCRIPT = "migration.sql"
_LOCK_FILE = "migration_lock.toml"
_NAME_LIMIT = 255
"""Characters of the column migration_name."""
_DEPLOY = "`prisma migrate deploy`"


@dataclass(frozen=True, slots=True)
class PrismaSource:
    """The migrations of a bundle, in byte order of their names."""

    migrations: tuple[Migration, ...]

    @property
    def by_name(self) -> Mapping[str, Migration]:
        return {migration.name: migration for migration in self.migrations}


class Prisma:
    """The tool; every rule is that of `migrate deploy` (schema-engine/commands/src/commands/apply_migrations.rs)."""

    name = NAME

    def load(self, bundle: Bundle) -> PrismaSource:
        base = _base_of(bundle)
        found: dict[str, Migration] = {}
        directories: set[str] = set()
        for file in bundle.files:
            path = file.path.removeprefix(base)
            if path == file.path and base:
                continue  # schema.prisma and whatever else stands beside the directory of migrations
            name = _name_of(path)
            if path == _LOCK_FILE:
                _check_provider(file)
            elif name is None:
                directories.update({path.split("/")[0]} if "/" in path else ())
            elif name in found:
                twins = f"{name}/{_SCRIPT} and {name}.sql, which stands for it"
                raise errors.BundleRejected(f"The migration {name} is there twice: {twins}")
            else:
                found[name] = _migration(name, file)
        _check_directories(directories - found.keys(), found)
        return PrismaSource(tuple(found[name] for name in sorted(found)))

    async def read(self, connection: Connection, options: Options) -> History:
        return await prisma_table.read(connection, options.schema)

    def compare(self, source: PrismaSource, history: History, options: Options) -> Comparison:
        for row in history.rows:
            if not (row.finished or row.rolled_back):
                words = str(row.detail.get("words") or "a place that nobody recorded")
                raise half_applied(row.name, words, _next_step(row.name, options.schema, row.stop), name=row.name)
        applied = _applied(history)
        baseline = self.upto(source, options.baseline) if options.baseline and not history.rows else ()
        done = applied.keys() | set(baseline)
        pending = [migration for migration in source.migrations if migration.name not in done]
        warnings = list(_differences(source, applied))
        if pending and warnings:
            raise errors.MigrationDiverged(
                f"{' '.join(warnings)} The database has {len(applied)} applied, up to {max(applied)}, and nothing was "
                f"run. Before {pending[0].name} can be applied, bring them back as they were when they were applied "
                "(Git has them), and write what has changed since as a new migration"
            )
        _check_order([migration.name for migration in pending])
        check_pending(pending)
        newest = max(applied, default=None)
        warnings.extend(_late(pending, newest))
        return Comparison(
            pending=tuple(migration.name for migration in pending),
            current=newest,
            applied=len(applied),
            warnings=tuple(warnings),
            baseline=baseline,
        )

    def judge(self, source: PrismaSource, pending: tuple[str, ...]) -> tuple[Judged, ...]:
        files = source.by_name
        return tuple(files[name].judged for name in pending)

    def standing(self, source: PrismaSource, history: History) -> Standing:
        applied = _applied(history)
        pending = sum(migration.name not in applied for migration in source.migrations)
        return Standing(current=max(applied, default=None), applied=len(applied), pending=pending)

    def upto(self, source: PrismaSource, name: str) -> tuple[str, ...]:
        return upto([migration.name for migration in source.migrations], name)

    def assume(self, source: PrismaSource, history: History, word: Word) -> History:
        return assume(history, word)

    async def resolve(self, source: PrismaSource, word: Word, run: Run) -> bool:
        schema = run.options.schema
        async with held(run.connection, Migrator.PRISMA, "Prisma"):
            history = await prisma_table.read(run.connection, schema)
            if due(str(word), history) != word:
                return False
            stuck = next(row for row in history.rows if row.name == word.name and not row.finished)
            local = source.by_name.get(word.name)
            checksum = local.checksum if local else stuck.checksum or ""
            row = MigrationRow(tool=NAME, name=word.name, checksum=checksum, state="resolved", mode=word.how.value)
            own = prisma_table.resolution(schema, word, checksum)
            await run.connection.execute(own + migration_statement(row, run.actor))
        return True

    async def apply(self, source: PrismaSource, pending: tuple[str, ...], run: Run) -> None:
        schema = run.options.schema
        async with held(run.connection, Migrator.PRISMA, _DEPLOY):
            # A deploy may have come between the look and the lock.
            history = await prisma_table.read(run.connection, schema)
            found = self.compare(source, history, run.options)
            if found.baseline != run.baseline:
                raise errors.MigrationInterrupted("Somebody else has begun the history meanwhile; it is read again")
            if not history.table_exists:
                await prisma_table.make(run.connection, schema)
            files, still = source.by_name, set(found.pending)
            if run.baseline:
                await _record_baseline([files[name] for name in run.baseline], run)
            for name in pending:
                if name in still:
                    await run_script(run, _job_of(files[name], run))


def _base_of(bundle: Bundle) -> str:
    """Return the directory of migrations, with a slash, or nothing when it is the bundle itself."""
    bases = {
        file.path.rsplit("/", 2)[0] + "/" for file in bundle.files if file.path.count("/") > 1 and _is_script(file)
    }
    bases |= {"" for file in bundle.files if file.path.count("/") == 1 and _is_script(file)}
    bases |= {"" for file in bundle.files if "/" not in file.path and _name_of(file.path) is not None}
    if len(bases) > 1:
        raise errors.BundleRejected(
            f"Migrations are in several directories: {', '.join(repr(b) for b in sorted(bases))}"
        )
    if not bases:
        raise errors.BundleRejected(
            f"The source has no migration: neither <name>/{_SCRIPT} nor a key <name>.sql, which stands for it"
        )
    return bases.pop()


def _is_script(file: File) -> bool:
    return file.path.endswith(f"/{_SCRIPT}")


def _name_of(path: str) -> str | None:
    """Return the migration that a file is, or None; `<name>.sql` is what a ConfigMap's key can hold of a directory."""
    if path.count("/") == 1 and path.endswith(f"/{_SCRIPT}"):
        return path.removesuffix(f"/{_SCRIPT}")
    if "/" in path or not path.endswith(".sql"):
        return None
    if path == _SCRIPT:
        raise errors.BundleRejected(f"{_SCRIPT} has no name: it must be <name>/{_SCRIPT} or a key <name>.sql")
    return path.removesuffix(".sql")


def _migration(name: str, file: File) -> Migration:
    if len(name) > _NAME_LIMIT:
        raise errors.BundleRejected(f"The name {name[:60]}… has {len(name)} characters; {_NAME_LIMIT} are the limit")
    return Migration(
        name=name,
        path=f"{name}/{_SCRIPT}",
        content=content_of(file),
        checksum=hashlib.sha256(file.content).hexdigest(),
        own_transactions=True,
    )


def _check_provider(file: File) -> None:
    """Do as Prisma's P3019 does: the first line that begins with `provider` decides, and no line is no check."""
    for line in file.text.splitlines():
        if line.startswith("provider"):
            provider = line.partition("=")[2].strip().strip('"')
            if provider not in ("postgresql", "postgres"):
                raise errors.BundleRejected(f"{file.path}: the migrations are for {provider}, not for postgresql")
            return


def _check_directories(empty: set[str], found: Mapping[str, Migration]) -> None:
    if empty:
        raise errors.BundleRejected(f"The directory {min(empty)} has no {_SCRIPT} (Prisma's P3015)")
    folded: dict[str, str] = {}
    for name in found:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise errors.BundleRejected(f"The migrations {other} and {name} differ in case only")


def _differences(source: PrismaSource, applied: Mapping[str, Applied]) -> Iterable[str]:
    files = source.by_name
    missing = [name for name in applied if name not in files]
    if missing:
        yield f"Applied, and not in the source: {_listed(missing)}."
    edited = [
        name for name, row in applied.items() if name in files and not matches(files[name].content, row.checksum or "")
    ]
    if edited:
        yield f"Edited after they were applied: {_listed(edited)}."


def matches(content: bytes, checksum: str) -> bool:
    """Whether Prisma takes a script for the one that it recorded (checksum.rs, script_matches_checksum)."""
    if hashlib.sha256(content).hexdigest() == checksum:
        return True
    unix = content.replace(b"\r\n", b"\n")
    digests = [hashlib.sha256(form).digest() for form in (content, unix, unix.replace(b"\n", b"\r\n"))]
    if len(checksum) == 64:
        return any(digest.hex() == checksum for digest in digests)
    # Early versions wrote bytes below 16 as one digit (prisma-engines #1887).
    return any("".join(f"{byte:x}" for byte in digest) == checksum for digest in digests)


def _check_order(pending: Sequence[str]) -> None:
    """Stop where Prisma's versions do not agree what comes first: until 6.5 bytes decided, since 6.6 localeCompare."""
    for in_bytes, in_locale in zip(sorted(pending), sorted(pending, key=locale_key), strict=True):
        if in_bytes != in_locale:
            raise errors.BundleRejected(
                f"Whether {in_bytes} or {in_locale} comes first depends on the version of Prisma; give them names that "
                "begin with a 14-digit time stamp and continue in lower case"
            )


def _late(pending: Sequence[Migration], newest: str | None) -> Iterable[str]:
    late = [migration.name for migration in pending if newest is not None and migration.name < newest]
    if late:
        yield f"Older than {newest}, which is applied, and yet to be applied: {_listed(late)}."


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _applied(history: History) -> dict[str, Applied]:
    return {row.name: row for row in history.rows if row.finished and not row.rolled_back}


async def _record_baseline(migrations: Sequence[Migration], run: Run) -> None:
    """Record these as `prisma migrate resolve --applied` does; one message is one transaction."""
    statements = [
        prisma_table.applied_by_hand(run.options.schema, migration.name, migration.checksum)
        + migration_statement(
            MigrationRow(tool=NAME, name=migration.name, checksum=migration.checksum, state="baselined"), run.actor
        )
        for migration in migrations
    ]
    await run.connection.execute(sql.Composed(statements))
    await run.baselined()


def _job_of(migration: Migration, run: Run) -> Job:
    schema, name = run.options.schema, migration.name
    losses, identifier = run.gate.losses.get(name, ()), str(uuid4())
    return Job(
        script=migration.script,
        row=MigrationRow(tool=NAME, name=name, checksum=migration.checksum, state="running", losses=losses),
        records=prisma_table.records_of(schema, name, migration.checksum, identifier),
        is_applied=prisma_table.is_applied(schema, name),
        alone=partial(put_down, run.connection, Migrator.PRISMA, _DEPLOY),
        next_step=partial(_next_step, name, schema),
        stop=stop_of(identifier),
    )


def _next_step(name: str, schema: str, stop: str | None) -> str:
    """Return what a person does about a migration that stopped in the middle."""
    return (
        f"{advice(name, stop)} (schema {schema}). `prisma migrate resolve --applied {name}` and "
        f"`prisma migrate resolve --rolled-back {name}` do the same"
    )
