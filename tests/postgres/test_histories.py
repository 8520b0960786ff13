"""Histories that are not plain, through the whole engine: what somebody else made, and what stopped in the middle."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
import pytest

from database_bootstrap.api import names
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.stages.subject import Report
from fix_engine import Bootstrap, outcome, within
from fix_tools import cure_in
from postgres import alembic_projects as projects

USERS = "CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE)"
LOG = "CREATE TABLE audit_log (id int)"
AGE = "ALTER TABLE users ADD COLUMN age int DEFAULT 7"
FAILS = "SELECT 1 / 0"
HALF = f"-- dbbootstrap: transaction=off\n{LOG};\n{FAILS};\n"
STATES = "SELECT name, state FROM dbbootstrap.migration ORDER BY seq"
# Migrations run as the role, whoever the administrator is.
pytestmark = pytest.mark.parametrize("admin", ["createrole"], indirect=True)


@dataclass(frozen=True)
class Kind:
    """Three migrations of a tool, and the second one as it stops in the middle."""

    tool: str
    files: Mapping[str, str]
    half: str
    names: tuple[str, str, str]
    history: str
    """Lists what the tool's own table has as applied."""
    whole: tuple[str, ...]
    """What it has in the end."""

    def broken(self) -> dict[str, str]:
        return {**self.files, list(self.files)[1]: self.half}


def alembic() -> Kind:
    names = ("r001", "r002", "r003")
    bodies = {name: f'op.execute("{text}")' for name, text in zip(names, (USERS, LOG, AGE), strict=True)}
    block = f'with op.get_context().autocommit_block():\n    op.execute("{LOG}")\nop.execute("{FAILS}")'
    half = projects.chain(names, **{**bodies, "r002": block})["r002_step.py"]
    return Kind("Alembic", projects.chain(names, **bodies), half, names, "SELECT * FROM alembic_version", ("r003",))


def of_sql(tool: str, history: str, *names: str) -> Kind:
    first, second, third = names
    paths = [f"{name}/migration.sql" if tool == "Prisma" else name for name in names]
    files = dict(zip(paths, (USERS, LOG, AGE), strict=True))
    return Kind(tool, files, HALF, (first, second, third), history, names)


KINDS = {
    "Alembic": alembic(),
    "Prisma": of_sql(
        "Prisma",
        "SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL ORDER BY started_at",
        *("20240101000000_users", "20240102000000_log", "20240103000000_age"),
    ),
    "SQL": of_sql(
        "SQL",
        "SELECT name FROM dbbootstrap.migration WHERE state IN ('applied', 'baselined', 'resolved')"
        " AND mode IS DISTINCT FROM 'rolled-back' ORDER BY seq",
        *("1_users.sql", "2_log.sql", "10_age.sql"),
    ),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[str(request.param)]


def stopped(report: Report, reason: Reason) -> str:
    """Insist that the migrations stopped for this reason, and return the message."""
    assert report.trouble and report.trouble.stage is StageName.MIGRATIONS
    assert report.trouble.reason is reason, report.trouble.message
    return report.trouble.message


def standing(report: Report) -> tuple[int | None, int | None]:
    assert report.facts.migrations
    return report.facts.migrations.applied, report.facts.migrations.pending


async def test_tables_of_init_sql_are_adopted_with_all_their_rows(bootstrap: Bootstrap, kind: Kind) -> None:
    """The root cause of the story: stop, name a baseline, go on."""
    await bootstrap.ready()
    bootstrap.query(f"{USERS}; {LOG}; INSERT INTO users (email) VALUES ('a'), ('b')")
    bootstrap.migrate(kind.tool, kind.files)
    message = stopped(report := await bootstrap.apply(), Reason.SCHEMA_HAS_OTHER_OWNER)
    assert "public.audit_log, public.users" in message
    assert "in `migrations.baseline`, the last migration whose changes are all there" in message
    assert f"({kind.names[0]} to {kind.names[2]}):" in message
    assert standing(report) == (0, 3)
    assert (await bootstrap.plan()).trouble

    bootstrap.raw["migrations"]["baseline"] = "nobody"
    message = stopped(await bootstrap.apply(), Reason.SPEC_REJECTED)
    assert "`migrations.baseline` names nobody" in message
    assert bootstrap.query("SELECT count(*) FROM dbbootstrap.migration") == [(0,)]
    assert bootstrap.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1") == [
        ("audit_log",),
        ("users",),
    ]

    bootstrap.raw["migrations"]["baseline"] = kind.names[1]
    adopted = f"record 2 migrations up to {kind.names[1]} as applied, and run nothing of them (baseline)"
    (planned,) = (await bootstrap.plan()).changes
    assert planned.startswith(f"{adopted}; apply migration: {kind.names[2]}")
    report = await bootstrap.ready()
    assert [change for change in report.changes if "migration" in change] == [
        adopted,
        f"apply migration {kind.names[2]}",
    ]
    assert standing(report) == (3, 0)
    assert bootstrap.query("SELECT email, age FROM users ORDER BY id") == [("a", 7), ("b", 7)]
    assert bootstrap.query(STATES) == [
        *((name, "baselined") for name in kind.names[:2]),
        (kind.names[2], "applied"),
    ]
    assert [name for (name,) in bootstrap.query(kind.history)] == list(kind.whole)
    assert bootstrap.query("SELECT action FROM dbbootstrap.audit_log WHERE action ~ '^migration ' ORDER BY seq") == [
        *((f"migration {name} baselined",) for name in kind.names[:2]),
        (f"migration {kind.names[2]} applied",),
    ]
    # Where there is a history the field says nothing any more.
    for ignored in (kind.names[2], "nobody"):
        bootstrap.raw["migrations"]["baseline"] = ignored
        assert (await bootstrap.ready()).changes == ()


async def test_baseline_at_the_newest_runs_nothing(bootstrap: Bootstrap, kind: Kind) -> None:
    await bootstrap.ready()
    bootstrap.query(f"{USERS}; {LOG}; INSERT INTO users (email) VALUES ('a')")
    bootstrap.migrate(kind.tool, kind.files, baseline=kind.names[2])
    report = await bootstrap.ready()
    assert (standing(report), (await bootstrap.ready()).changes) == ((3, 0), ())
    assert bootstrap.query("SELECT * FROM users") == [(1, "a")]


async def test_baseline_of_data_that_is_lost_since_says_nothing_of_what_is_there_now(
    bootstrap: Bootstrap, kind: Kind
) -> None:
    """The database is lost with its ledger, and one table is brought back by hand: the spec still has the baseline."""
    bootstrap.migrate(kind.tool, kind.files, baseline=kind.names[1])
    bootstrap.remember(await bootstrap.ready())
    lost = bootstrap.drawer.secrets["shop-db"].incarnation
    bootstrap.as_superuser(f'DROP DATABASE "{bootstrap.database}"')
    bootstrap.as_superuser(f'CREATE DATABASE "{bootstrap.database}" OWNER "{bootstrap.role}"')
    bootstrap.query(f"{USERS}; INSERT INTO users (email) VALUES ('a')")
    bootstrap.annotations["dbbootstrap.io/acknowledge-data-loss"] = str(lost)
    message = stopped(await bootstrap.apply(), Reason.SCHEMA_HAS_OTHER_OWNER)
    if kind.tool != "Alembic":
        assert "not there: audit_log. " in message
        bootstrap.query(LOG)
        message = stopped(await bootstrap.apply(), Reason.SCHEMA_HAS_OTHER_OWNER)
    assert f"incarnation {lost}, whose loss was acknowledged" in message
    ((found,),) = bootstrap.query("SELECT incarnation FROM dbbootstrap.identity")
    word = f"dbbootstrap.io/accept-incarnation={found}"
    assert word in message
    assert bootstrap.query(STATES) == []
    bootstrap.annotations["dbbootstrap.io/accept-incarnation"] = str(found)
    assert standing(await bootstrap.ready()) == (3, 0)
    assert bootstrap.query("SELECT email, age FROM users") == [("a", 7)]


async def test_tables_that_the_baseline_names_and_nobody_made_are_said(bootstrap: Bootstrap, kind: Kind) -> None:
    if kind.tool == "Alembic":
        pytest.skip("what revisions make is not in their text")
    await bootstrap.ready()
    bootstrap.query(f"{USERS}; INSERT INTO users (email) VALUES ('a')")
    bootstrap.migrate(kind.tool, kind.files, baseline=kind.names[1])
    message = stopped(await bootstrap.apply(), Reason.SCHEMA_HAS_OTHER_OWNER)
    assert "not there: audit_log. Nothing was recorded" in message
    assert bootstrap.query(STATES) == []
    bootstrap.query(LOG)
    assert standing(await bootstrap.ready()) == (3, 0)


async def test_empty_database_has_nothing_to_adopt(bootstrap: Bootstrap, kind: Kind) -> None:
    """The same resource in another cluster, or after an acknowledged loss: every table must be made."""
    bootstrap.migrate(kind.tool, kind.files, baseline=kind.names[1])
    report = await bootstrap.ready()
    assert (standing(report), (await bootstrap.ready()).changes) == ((3, 0), ())
    assert bootstrap.query("SELECT count(age) FROM users") == [(0,)]
    assert bootstrap.query(STATES) == [(name, "applied") for name in kind.names]


async def test_failure_after_a_baseline_counts_what_was_adopted(bootstrap: Bootstrap, kind: Kind) -> None:
    await bootstrap.ready()
    bootstrap.query(f"{USERS}; {LOG}")
    last = list(kind.files)[2]
    broken = {**kind.files, last: kind.files[last].replace(AGE, FAILS)}
    bootstrap.migrate(kind.tool, broken, baseline=kind.names[1])
    report = await bootstrap.apply()
    stopped(report, Reason.MIGRATION_FAILED)
    assert standing(report) == (2, 1)
    bootstrap.migrate(kind.tool, kind.files, baseline=kind.names[1])
    assert standing(await bootstrap.ready()) == (3, 0)


async def test_half_applied_one_goes_on_with_a_person_s_word(bootstrap: Bootstrap, kind: Kind) -> None:
    name = kind.names[1]
    line = next(number for number, text in enumerate(kind.half.splitlines(), start=1) if FAILS in text)
    await bootstrap.ready()
    bootstrap.migrate(kind.tool, kind.broken())
    said: set[str] = set()
    for _ in range(2):
        report = await bootstrap.apply()
        message = stopped(report, Reason.MIGRATION_HALF_APPLIED)
        cures = {how: cure_in(message, how) for how in ("applied", "rolled-back")}
        assert all(cure.startswith(f"{name}={how}@") for how, cure in cures.items())
        said.update(cures.values())
        assert standing(report) == (1, 2)
        assert report.facts.migrations and (failed := report.facts.migrations.failed)
        assert (failed.name, failed.sql_state, failed.line) == (name, "22012", line)
        assert failed.message and "division by zero" in failed.message
    assert (report.changes, len(said)) == ((), 2)

    for nonsense in ("yes", f"{name}=done", cures["applied"].replace(name, kind.names[2]), f"{name}=applied@00000000"):
        bootstrap.annotations[names.ANNOTATION_RESOLVE] = nonsense
        report = await bootstrap.apply()
        assert f"says '{nonsense}'" in stopped(report, Reason.MIGRATION_HALF_APPLIED)
        assert report.changes == ()

    # Not undone in truth: it stops again, and the same word does not count a second time.
    bootstrap.annotations[names.ANNOTATION_RESOLVE] = cures["rolled-back"]
    assert (await bootstrap.plan()).changes[0] == f"record migration {name} as rolled back, as a person said"
    report = await bootstrap.apply()
    assert report.changes == (f"record migration {name} as rolled back, as a person said",)
    for _ in range(2):
        message = stopped(report, Reason.MIGRATION_HALF_APPLIED)
        again = cure_in(message, "applied")
        assert again not in said
        said.add(cure_in(message, "rolled-back"))
        assert report.facts.migrations and report.facts.migrations.failed
        assert report.facts.migrations.failed.sql_state == "42P07"
        report = await bootstrap.apply()
        assert report.changes == ()
    message = stopped(report, Reason.MIGRATION_HALF_APPLIED)
    assert "does not count for this time" in message
    assert f"then say {again.replace('=applied', '=rolled-back')}." in message
    assert len(said) == 3

    bootstrap.query("INSERT INTO users (email) VALUES ('a')")
    bootstrap.annotations[names.ANNOTATION_RESOLVE] = again
    report = await bootstrap.ready()
    assert [change for change in report.changes if "migration" in change] == [
        f"record migration {name} as applied, as a person said",
        f"apply migration {kind.names[2]}",
    ]
    assert standing(report) == (3, 0)
    assert report.facts.migrations and report.facts.migrations.failed is None
    assert [row for (row,) in bootstrap.query(kind.history)] == list(kind.whole)
    assert bootstrap.query("SELECT email, age FROM users") == [("a", 7)]
    assert bootstrap.query("SELECT action FROM dbbootstrap.audit_log WHERE action ~ 'resolved' ORDER BY seq") == [
        (f"migration {name} resolved as rolled-back",),
        (f"migration {name} resolved as applied",),
    ]
    assert (await bootstrap.ready()).changes == ()


async def test_undone_one_is_run_again_once_a_person_says_so(bootstrap: Bootstrap, kind: Kind) -> None:
    # Words that were there before: from another database, with the manifest. Nobody has looked at this one.
    bootstrap.annotations[names.ANNOTATION_RESOLVE] = f"{kind.names[1]}=rolled-back@0a1b2c3d"
    await bootstrap.ready()
    bootstrap.migrate(kind.tool, kind.broken())
    for _ in range(2):
        message = stopped(await bootstrap.apply(), Reason.MIGRATION_HALF_APPLIED)
    assert bootstrap.query("SELECT count(*) FROM dbbootstrap.migration WHERE state = 'resolved'") == [(0,)]
    bootstrap.as_superuser("DROP TABLE audit_log", bootstrap.database)
    bootstrap.migrate(kind.tool, kind.files)
    bootstrap.annotations[names.ANNOTATION_RESOLVE] = cure_in(message, "rolled-back")
    assert standing(await bootstrap.ready()) == (3, 0)
    assert (await bootstrap.ready()).changes == ()
    assert [row for (row,) in bootstrap.query(kind.history)] == list(kind.whole)


async def test_nonsense_with_nothing_to_resolve_is_only_said(bootstrap: Bootstrap, kind: Kind) -> None:
    bootstrap.migrate(kind.tool, kind.files)
    bootstrap.annotations[names.ANNOTATION_RESOLVE] = "nonsense"
    report = await bootstrap.ready()
    (warning,) = outcome(report, StageName.MIGRATIONS).warnings
    assert "'nonsense'" in warning
    bootstrap.annotations[names.ANNOTATION_RESOLVE] = f"{kind.names[1]}=applied"
    report = await bootstrap.ready()
    assert (outcome(report, StageName.MIGRATIONS).warnings, report.changes) == ((), ())


async def test_source_that_was_rolled_back_stops_and_the_status_says_how_far_it_is(
    bootstrap: Bootstrap, kind: Kind
) -> None:
    bootstrap.migrate(kind.tool, kind.files)
    await bootstrap.ready()
    bootstrap.query("INSERT INTO users (email) VALUES ('a')")
    first, second, _ = kind.files
    # Prisma goes on without a file that is applied as long as nothing is pending.
    more = {"20240104000000_new/migration.sql": "CREATE TABLE never ()"} if kind.tool == "Prisma" else {}
    bootstrap.migrate(kind.tool, {path: kind.files[path] for path in (first, second)} | more)
    report = await bootstrap.apply()
    message = stopped(report, Reason.MIGRATION_DIVERGED)
    assert kind.names[2] in message
    assert "othing was run" in message
    assert report.facts.migrations and report.facts.migrations.current in (kind.names[1], kind.names[2])
    assert report.changes == ()
    assert bootstrap.query("SELECT email, to_regclass('never') FROM users") == [("a", None)]
    bootstrap.migrate(kind.tool, kind.files)
    assert (await bootstrap.ready()).changes == ()


async def test_what_a_run_has_left_and_mended_is_said_by_the_same_visit(bootstrap: Bootstrap) -> None:
    kind = KINDS["SQL"]
    bootstrap.migrate(kind.tool, kind.files)
    await bootstrap.ready()
    other = f"{bootstrap.role}_2"  # The fixture drops all that begin like the role.
    bootstrap.as_superuser(f'CREATE ROLE "{other}"; GRANT "{other}" TO "{bootstrap.role}"')
    bootstrap.as_superuser(
        f'CREATE TABLE mended (id int); ALTER TABLE mended OWNER TO "{other}";'
        f'GRANT CREATE ON SCHEMA public TO "{other}"',
        bootstrap.database,
    )
    (before,) = outcome(await bootstrap.ready(), StageName.MIGRATIONS).warnings
    assert f"table public.mended ({other})" in before
    run = (
        f'ALTER TABLE mended OWNER TO CURRENT_USER; CREATE TABLE left_over (); ALTER TABLE left_over OWNER TO "{other}"'
    )
    bootstrap.migrate(kind.tool, {**kind.files, "11_owners.sql": run})
    report = await bootstrap.ready()
    assert report.changes
    (after,) = outcome(report, StageName.MIGRATIONS).warnings
    assert f"table public.left_over ({other})" in after and "mended" not in after
    (later,) = outcome(await bootstrap.ready(), StageName.MIGRATIONS).warnings
    assert later == after
    bootstrap.as_superuser("DROP TABLE left_over", bootstrap.database)
    bootstrap.as_superuser(f'REVOKE CREATE ON SCHEMA public FROM "{other}"', bootstrap.database)


async def test_what_keeps_later_migrations_from_working_is_said_with_its_cure(bootstrap: Bootstrap) -> None:
    kind = KINDS["SQL"]
    bootstrap.migrate(kind.tool, kind.files)
    await bootstrap.ready()
    assert outcome(await bootstrap.ready(), StageName.MIGRATIONS).warnings == ()
    bootstrap.query("INSERT INTO users (email, age) VALUES ('a', 1), ('b', 1)")
    bootstrap.as_superuser(
        "SET client_min_messages = error; CREATE EXTENSION hstore;"  # Its objects are the superuser's by right.
        "CREATE TABLE stray (id serial); CREATE VIEW v AS SELECT 1; CREATE DOMAIN d AS int; CREATE TYPE e AS ENUM ();"
        "CREATE SEQUENCE q; CREATE VIEW w AS SELECT 2;"
        "CREATE FUNCTION lent(a int) RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'",  # A DBA's on purpose.
        bootstrap.database,
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        await _build_index(bootstrap)
    report = await bootstrap.ready()
    assert report.changes == ()
    index, others = outcome(report, StageName.MIGRATIONS).warnings
    assert "REINDEX INDEX CONCURRENTLY public.same, or DROP INDEX CONCURRENTLY public.same." in index
    owner = bootstrap.as_superuser("SELECT current_user::text")[0][0]
    assert f"table public.stray ({owner})" in others
    assert "; and 1 more" in others
    cures = re.findall(r'ALTER [A-Z ]+ [^;]+? OWNER TO "\w+"', others)
    assert len(cures) == 5
    bootstrap.as_superuser("; ".join(cures), bootstrap.database)
    bootstrap.query("DROP INDEX same")
    (rest,) = outcome(await bootstrap.ready(), StageName.MIGRATIONS).warnings
    assert "lent" not in others + rest
    bootstrap.as_superuser(re.findall(r"ALTER .*?(?=\.$)", rest)[0], bootstrap.database)
    assert outcome(await bootstrap.ready(), StageName.MIGRATIONS).warnings == ()
    # Also right after a run, when the visit had looked before it.
    bootstrap.as_superuser("ALTER TABLE stray OWNER TO CURRENT_USER", bootstrap.database)
    bootstrap.migrate(kind.tool, {**kind.files, "11_more.sql": "SELECT 1"})
    report = await bootstrap.ready()
    assert len(report.changes) == 1
    assert len(outcome(report, StageName.MIGRATIONS).warnings) == 1


async def _build_index(bootstrap: Bootstrap) -> None:
    async with await psycopg.AsyncConnection.connect(**bootstrap.connection(), autocommit=True) as connection:
        await connection.execute("CREATE UNIQUE INDEX CONCURRENTLY same ON users (age)")


async def test_one_whose_session_was_lost_is_looked_at_again_at_once(bootstrap: Bootstrap) -> None:
    alone = "-- dbbootstrap: transaction=off\nCREATE TABLE a (id int);\nSELECT pg_sleep(60);"
    bootstrap.migrate("SQL", {"1_a.sql": alone})
    visit = asyncio.create_task(bootstrap.apply())
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND pid <> pg_backend_pid()"
    )
    await within(20, lambda: bool(bootstrap.as_superuser(query)))
    report = await visit
    assert report.trouble and report.trouble.reason is Reason.MIGRATION_INTERRUPTED
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.MIGRATION_HALF_APPLIED
    assert "dbbootstrap.io/resolve=1_a.sql=rolled-back@" in report.trouble.message
