"""Alembic projects on a real server: applied once, told truly, and confirmed by Alembic's own command line."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from database_bootstrap import errors
from database_bootstrap.postgres import locks, session
from database_bootstrap.tools.alembic import Alembic
from database_bootstrap.tools.sandbox import Zygote
from database_bootstrap.tools.tool import Options
from fix_alembic import OPTIONS, Project, Shop, ShopMaker, until
from postgres import alembic_projects as projects

KINDS = {
    "sync": projects.project(projects.chain(projects.FIVE)),
    "async": projects.project(projects.chain(projects.FIVE), kind="async"),
    "per-migration": projects.project(projects.chain(projects.FIVE), projects.PER_MIGRATION),
    "own-transaction": projects.project(projects.chain(projects.FIVE), projects.OWN_TRANSACTION),
    "pyproject": {
        "pyproject.toml": projects.template("pyproject", "pyproject.toml.mako").replace("${script_location}", "db"),
        "db/env.py": projects.template("pyproject", "env.py"),
        **{f"db/versions/{path}": text for path, text in projects.chain(projects.FIVE).items()},
    },
    "no-configuration": {
        "env.py": projects.template("generic", "env.py"),
        **{f"versions/{path}": text for path, text in projects.chain(projects.FIVE).items()},
    },
    "flat": {"env.py": projects.template("generic", "env.py"), **projects.chain(projects.FIVE)},
    "bare": projects.chain(projects.FIVE),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_five_revisions_are_applied_and_recorded(shop: Shop, kind: str) -> None:
    after = await shop.apply(KINDS[kind])

    assert (after.pending, after.current, after.applied) == ((), "r005", 5)
    assert shop.applied == list(projects.FIVE)
    assert shop.ask("SELECT version_num FROM alembic_version") == ["r005"]
    assert shop.ask("SELECT name, email FROM customer") == ["Anna|ann@example.com"]
    assert shop.ask(
        "SELECT tool, version, name, mode, state, length(checksum) FROM dbbootstrap.migration ORDER BY seq"
    ) == [f"Alembic|public.alembic_version|{name}|transaction|applied|64" for name in projects.FIVE]
    assert shop.ask("SELECT stage, action, actor FROM dbbootstrap.audit_log ORDER BY seq") == [
        f"migrations|migration {name} applied|shop/orders" for name in projects.FIVE
    ]


async def test_alembic_confirms_what_was_applied(shop: Shop, tmp_path: Path) -> None:
    await shop.apply(KINDS["bare"])
    assert "r005 (head)" in await shop.says(tmp_path, KINDS["sync"], "current")
    assert "Running upgrade" not in await shop.says(tmp_path, KINDS["sync"], "upgrade", "head")


async def test_what_alembic_has_applied_is_not_pending(shop: Shop, tmp_path: Path) -> None:
    await shop.says(tmp_path, KINDS["sync"], "upgrade", "r003")
    assert (await shop.look(KINDS["sync"])).pending == ("r004", "r005")
    await shop.says(tmp_path, KINDS["sync"], "upgrade", "head")
    after = await shop.apply(KINDS["sync"])
    assert (after.pending, after.applied, shop.applied) == ((), 5, [])
    assert shop.ask("SELECT count(*) FROM dbbootstrap.migration") == ["0"]


@pytest.mark.parametrize("environment", [True, False], ids=["env.py", "bare"])
async def test_branches_merge_and_dependencies_end_at_all_heads(shop: Shop, tmp_path: Path, environment: bool) -> None:
    lay = projects.project if environment else dict
    after = await shop.apply(lay(projects.BRANCHES))
    assert (after.current, after.applied) == ("left, right", 3)
    current = await shop.says(tmp_path, projects.project(projects.BRANCHES), "current")
    assert {"left (head)", "right (head)"} <= set(current.splitlines())

    after = await shop.apply(lay(projects.MERGED))
    assert (after.pending, after.current) == ((), "other")
    current = await shop.says(tmp_path, projects.project(projects.MERGED), "current")
    assert "other (head)" in current.splitlines()
    assert shop.ask("SELECT version_num FROM alembic_version") == ["other"]


FAILING = projects.chain(
    projects.FIVE, r003='op.execute("SELECT 1")\nop.execute("INSERT INTO customer VALUES (1, 2, 3, 4)")'
)


@pytest.mark.parametrize(
    ("files", "path", "kept"),
    [
        pytest.param(projects.project(FAILING), "migrations/versions/r003_step.py", [], id="one-transaction"),
        pytest.param(
            projects.project(FAILING, projects.PER_MIGRATION),
            "migrations/versions/r003_step.py",
            ["r001", "r002"],
            id="per-migration",
        ),
        pytest.param(FAILING, "r003_step.py", ["r001", "r002"], id="bare"),
    ],
)
async def test_a_failure_names_the_revision_and_what_stayed(
    shop: Shop, files: Project, path: str, kept: list[str]
) -> None:
    with pytest.raises(errors.MigrationFailed) as failure:
        await shop.apply(files)

    error = failure.value
    assert (error.name, error.sql_state, error.line) == ("r003", "42601", 13)
    assert error.detail == "INSERT has more expressions than target columns (SQLSTATE 42601)"
    assert f"Revision r003 ({path} line 13) failed" in error.message
    assert ("Nothing of this run stayed" in error.message) == (not kept)
    assert shop.applied == kept
    assert shop.ask("SELECT name FROM dbbootstrap.migration ORDER BY seq") == kept
    assert shop.ask("SELECT version_num FROM alembic_version") == kept[-1:]
    # Repaired, it goes on from there.
    assert (await shop.apply({**files, path: KINDS["bare"]["r003_step.py"]})).pending == ()
    assert shop.applied == list(projects.FIVE)


async def test_success_that_persisted_nothing_is_a_failure(shop: Shop) -> None:
    with pytest.raises(errors.MigrationFailed, match=r"executes SQL on the connection before context\.configure\(\)"):
        await shop.apply(projects.project(projects.chain(projects.FIVE), projects.BEFORE_CONFIGURE))
    assert shop.tables() <= {"alembic_version"}
    assert shop.applied == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        pytest.param("", "never calls context.run_migrations()", id="empty"),
        pytest.param("raise SystemExit(0)", "SystemExit: 0", id="exit"),
        pytest.param("import os; os._exit(0)", "never calls", id="hard-exit"),
        pytest.param("import os; os._exit(7)", "ended itself with status 7", id="hard-exit-7"),
        pytest.param("import os; os.abort()", "ended itself with SIGABRT", id="abort"),
        pytest.param(
            projects.PER_MIGRATION.replace(", transaction_per_migration=True", "").replace(
                "with context.begin_transaction():", "if True:"
            ),
            "without `with context.begin_transaction():`",
            id="no-transaction",
        ),
        pytest.param(
            "import shop.models", "env.py line 1 imports 'shop', which is not part of the source", id="module"
        ),
        pytest.param("import asyncpg", "needs the driver 'asyncpg'", id="driver"),
        pytest.param("raise ValueError('no')", "env.py line 1) failed: ValueError: no", id="exception"),
        pytest.param("x = (", "SyntaxError: '(' was never closed", id="syntax"),
    ],
)
async def test_an_environment_that_does_not_work_is_named(shop: Shop, environment: str, words: str) -> None:
    with pytest.raises(errors.MigrationFailed) as failure:
        await shop.apply(projects.project(projects.chain(projects.FIVE), environment or "pass"))
    assert words in failure.value.message
    assert shop.tables() <= {"alembic_version"}


async def test_another_database_is_left_alone(shop: Shop, make_shop: ShopMaker) -> None:
    other: Shop = await make_shop("other")
    environment = projects.OWN_TRANSACTION.replace(
        'os.environ["DATABASE_URL"]', f'"postgresql:///{other.login.database}"'
    )
    shop.server.psql(f"GRANT CONNECT ON DATABASE {other.login.database} TO {shop.login.user}")
    with pytest.raises(errors.MigrationFailed, match=f"env.py connects to database {other.login.database}"):
        await shop.apply(projects.project(projects.chain(projects.FIVE), environment))
    assert other.tables() == set()


async def test_an_unknown_revision_stops(shop: Shop) -> None:
    await shop.apply(KINDS["sync"])
    older = projects.project(projects.chain(projects.FIVE[:3]))
    with pytest.raises(errors.MigrationDiverged, match="at revision r005, which the source does not have"):
        await shop.look(older)


async def test_overlapping_rows_stop(shop: Shop) -> None:
    await shop.apply(projects.chain(projects.FIVE[:3]))
    shop.ask("INSERT INTO alembic_version VALUES ('r001')")
    with pytest.raises(errors.MigrationDiverged, match="rows r003 and r001"):
        await shop.look(KINDS["bare"])


LEAKING = """
import os, sys
print(os.environ["DATABASE_URL"], os.environ["PGPASSWORD"], flush=True)
print(os.environ["PGPASSWORD"], file=sys.stderr)
raise RuntimeError(f"{os.environ['PGPASSWORD']} {os.environ['DATABASE_URL']} {os.environ['PGPASSWORD']!r}")
"""


async def test_the_password_is_in_no_error(shop: Shop) -> None:
    with pytest.raises(errors.MigrationFailed) as failure:
        await shop.apply(projects.chain(projects.FIVE, r002=LEAKING.strip()))
    shown = f"{failure.value.message} {failure.value.detail} {failure.value!r}"
    assert "RuntimeError: *** postgresql+psycopg://" in shown
    assert "p%w" not in shown
    assert "p%25w" not in shown


async def test_row_data_is_in_no_error(shop: Shop) -> None:
    twice = "for _ in range(2): op.execute(\"INSERT INTO customer (email) VALUES ('secret@example.com')\")"
    with pytest.raises(errors.MigrationFailed) as failure:
        await shop.apply(projects.chain(projects.FIVE, r005=twice))
    assert failure.value.sql_state == "23505"
    assert "secret@example.com" not in f"{failure.value.message} {failure.value.detail}"


async def test_an_unusual_version_table_is_found_again(shop: Shop, tmp_path: Path) -> None:
    files = projects.project(projects.chain(projects.FIVE), projects.OTHER_TABLE)
    assert (await shop.apply(files)).pending == ()
    assert shop.ask('SELECT version_num FROM "The History"."Shop.Version"') == ["r005"]
    assert shop.ask("SELECT DISTINCT version FROM dbbootstrap.migration") == ['"The History"."Shop.Version"']


async def test_an_unusual_version_table_of_somebody_else_is_asked_for_once(shop: Shop, tmp_path: Path) -> None:
    files = projects.project(projects.chain(projects.FIVE), projects.OTHER_TABLE)
    await shop.says(tmp_path, files, "upgrade", "head")
    assert (await shop.look(files)).pending == projects.FIVE
    assert (await shop.apply(files)).pending == ()
    assert shop.applied == []
    assert shop.ask("SELECT name, state FROM dbbootstrap.migration") == ["r005|baselined"]


async def test_revisions_work_in_the_wanted_schema(shop: Shop) -> None:
    shop.ask('CREATE SCHEMA "The Shop"')
    after = await shop.apply(KINDS["sync"], Options(schema="The Shop"))
    assert after.pending == ()
    assert shop.tables("The Shop") == {"customer", "alembic_version"}
    assert shop.tables() == set()


IN_BETWEEN = """
import psycopg, threading, time
def overtake():
    with psycopg.connect(autocommit=True) as other:
        other.execute("UPDATE alembic_version SET version_num = 'r003'")
threading.Thread(target=overtake).start()
waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
while not op.get_bind().execute(waiting).scalar(): time.sleep(0.01)
"""


@pytest.mark.parametrize("environment", [projects.PER_MIGRATION, None], ids=["env.py", "bare"])
async def test_somebody_between_two_revisions_is_noticed(shop: Shop, environment: str | None) -> None:
    """Another session lines up for the version table while r002 runs, and is served before r003."""
    files = projects.chain(projects.FIVE, r002=IN_BETWEEN.strip(), r005="pass")
    files = projects.project(files, environment) if environment else files
    with pytest.raises(errors.MigrationInterrupted, match="another Alembic has migrated this database"):
        await shop.apply(files)
    assert shop.applied == ["r001", "r002"]
    assert (await shop.look(files)).pending == ("r004", "r005")


@pytest.mark.parametrize("environment", [projects.PER_MIGRATION, None], ids=["env.py", "bare"])
async def test_progress_is_told_without_waiting_for_the_next_revision(
    loose_shop: Shop, tmp_path: Path, environment: str | None
) -> None:
    """r002 goes on only after r001 was reported, and that is not tried before r002 has locked the version table."""
    reported, under_way = tmp_path / "reported", tmp_path / "under-way"
    body = f"import os, time\nopen({str(under_way)!r}, 'w').close()\n"
    body += f"while not os.path.exists({str(reported)!r}): time.sleep(0.01)"
    files = projects.chain(projects.FIVE[:2], r002=body)
    files = projects.project(files, environment) if environment else files
    asked = 0

    async def verify_lock() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            await until(under_way.exists)

    tool = Alembic(loose_shop.zygote)
    run = replace(loose_shop.run(replace(OPTIONS, timeout=30)), verify_lock=verify_lock)
    applying = asyncio.create_task(tool.apply(tool.load(projects.bundle(files)), ("r001", "r002"), run))
    await until(lambda: loose_shop.applied == ["r001"], applying)
    reported.touch()
    await applying
    assert loose_shop.applied == ["r001", "r002"]


HALF = """
with op.get_context().autocommit_block():
    op.execute("CREATE TYPE mood AS ENUM ('happy')")
op.execute("SELECT 1 / 0")
"""


@pytest.mark.parametrize("line", ["op.get_bind().commit()", "op.execute('commit')"])
async def test_a_revision_that_commits_by_itself_is_half_applied(shop: Shop, line: str) -> None:
    body = f"op.create_table('half', sa.Column('id', sa.Integer))\n{line}\nop.execute('SELECT 1 / 0')"
    with pytest.raises(errors.MigrationHalfApplied, match=r"Revision r003 .* r001, r002 stayed applied"):
        await shop.apply(projects.project(projects.chain(projects.FIVE, r003=body)))
    assert "half" in shop.tables()


async def test_a_statement_that_wants_no_transaction_gets_a_hint(shop: Shop) -> None:
    body = "op.execute('CREATE INDEX CONCURRENTLY c ON customer (name)')"
    with pytest.raises(
        errors.MigrationFailed, match=r"25001\)\. Put it into `with op\.get_context\(\)\.autocommit_block"
    ):
        await shop.apply(projects.chain(projects.FIVE, r003=body))


@pytest.mark.parametrize("environment", [True, False], ids=["env.py", "bare"])
async def test_a_half_applied_revision_is_not_run_again(shop: Shop, tmp_path: Path, environment: bool) -> None:
    lay = projects.project if environment else dict
    broken = projects.chain(projects.FIVE, r003=HALF.strip())
    with pytest.raises(errors.MigrationHalfApplied, match=r"Revision r003 .* r001, r002 stayed applied"):
        await shop.apply(lay(broken))
    assert shop.applied == ["r001", "r002"]
    assert shop.ask("SELECT name, state, sql_state FROM dbbootstrap.migration ORDER BY seq") == [
        *("r001|applied|", "r002|applied|", "r003|failed|22012"),
    ]
    with pytest.raises(errors.MigrationHalfApplied, match="is not run again by itself"):
        await shop.look(lay(broken))
    # A person has changed it, or has completed it by hand.
    assert (await shop.look(lay(projects.chain(projects.FIVE)))).pending == ("r003", "r004", "r005")
    await shop.says(tmp_path, projects.project(broken), "stamp", "r003")
    assert (await shop.look(lay(broken))).pending == ("r004", "r005")


async def test_an_engine_without_transactions_is_told_apart(shop: Shop) -> None:
    environment = projects.PER_MIGRATION.replace("poolclass=", 'isolation_level="AUTOCOMMIT", poolclass=')
    assert environment.count("AUTOCOMMIT") == 1
    broken = projects.project(projects.chain(projects.FIVE, r003=HALF.strip()), environment)
    with pytest.raises(errors.MigrationHalfApplied, match=r"Revision r003 .* r001, r002 stayed applied"):
        await shop.apply(broken)
    assert (await shop.apply(projects.project(projects.chain(projects.FIVE), environment))).pending == ()
    assert shop.ask("SELECT DISTINCT mode FROM dbbootstrap.migration") == ["autocommit"]


async def test_an_autocommit_block_that_ends_well_is_no_failure(shop: Shop) -> None:
    enum = HALF.strip().replace("1 / 0", "'happy'::mood")
    assert (await shop.apply(projects.project(projects.chain(projects.FIVE, r003=enum)))).pending == ()
    assert shop.applied == list(projects.FIVE)
    assert shop.ask("SELECT name FROM dbbootstrap.migration WHERE mode = 'autocommit'") == ["r003"]


async def test_a_lock_that_is_held_interrupts_and_leaves_nothing(shop: Shop) -> None:
    await shop.apply(projects.chain(projects.FIVE[:1]))
    async with await session.connect(shop.login, session.OWNER) as other, other.transaction():
        await other.execute("LOCK TABLE customer")
        with pytest.raises(errors.MigrationInterrupted, match=r"Revision r002 .* lock timeout \(SQLSTATE 55P03\)"):
            await shop.apply(KINDS["bare"], replace(OPTIONS, lock_timeout=1))
    assert (await shop.apply(KINDS["bare"])).pending == ()


async def test_a_statement_that_takes_too_long_is_a_failure(shop: Shop) -> None:
    slow = projects.chain(projects.FIVE, r002='op.execute("SELECT pg_sleep(100)")')
    with pytest.raises(errors.MigrationFailed) as failure:
        await shop.apply(slow, replace(OPTIONS, statement_timeout=1))
    assert failure.value.sql_state == "57014"


async def test_an_orphan_that_still_migrates_is_never_overtaken(shop: Shop) -> None:
    await locks.leave_to_child(shop.connection)
    async with await session.connect(shop.login, session.OWNER) as orphan:
        await orphan.execute("SELECT pg_advisory_lock(%s)", (locks.CHILD_KEY,))
        with pytest.raises(errors.LockHeld):
            await shop.apply(KINDS["sync"])
        assert shop.tables() == set()
        await orphan.execute("SELECT pg_advisory_unlock_all()")
        assert (await shop.apply(KINDS["sync"])).pending == ()


async def test_without_the_operators_lock_nothing_runs(shop: Shop) -> None:
    await locks.release(shop.connection)
    with pytest.raises(errors.LockHeld):
        await shop.apply(KINDS["sync"])
    assert shop.tables() == set()


async def test_a_server_on_which_the_operator_holds_no_lock_is_another_one(shop: Shop) -> None:
    async def believe() -> None:
        """Do not look."""

    await locks.release(shop.connection)
    tool = Alembic(shop.zygote)
    run = replace(shop.run(OPTIONS), verify_lock=believe)
    with pytest.raises(errors.MigrationFailed, match="to another server, and not to database"):
        await tool.apply(tool.load(projects.bundle(KINDS["sync"])), projects.FIVE, run)
    assert shop.tables() == set()


MEETING = """
import pathlib, time
folder = pathlib.Path({folder!r})
(folder / {name!r}).touch()
while len(list(folder.iterdir())) < 2: time.sleep(0.01)
op.execute("CREATE TABLE {name} (id integer)")
"""


async def test_two_runs_at_once_never_mix(make_shop: ShopMaker, loose_zygote: Zygote, tmp_path: Path) -> None:
    """Each of the two waits in the middle of a revision until the other is there too."""
    shops: list[Shop] = [replace(await make_shop(name), zygote=loose_zygote) for name in ("port", "starboard")]
    sources = [
        projects.project(
            projects.chain(projects.FIVE, r003=MEETING.format(folder=str(tmp_path), name=name).strip()), kind=kind
        )
        for name, kind in (("port", "generic"), ("starboard", "async"))
    ]
    after = await asyncio.gather(*(one.apply(files) for one, files in zip(shops, sources, strict=True)))
    assert [each.pending for each in after] == [(), ()]
    assert shops[0].tables() == {"alembic_version", "customer", "port"}
    assert shops[1].tables() == {"alembic_version", "customer", "starboard"}
    assert [one.applied for one in shops] == [list(projects.FIVE)] * 2


WAIT_FOR_THE_OTHER = """
import os, time
if os.environ["PGAPPNAME"].startswith("dbbootstrap") == {ours}:
    open({file!r}, "w").close()
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
    while not op.get_bind().execute(waiting).scalar(): time.sleep(0.01)
"""


@pytest.mark.parametrize("ours", [True, False], ids=["we-are-first", "alembic-is-first"])
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "version-table-there"])
async def test_alembic_at_the_same_moment_ends_well_too(
    loose_shop: Shop, tmp_path: Path, ours: bool, fresh: bool
) -> None:
    """Whoever is first stands still in a revision until the other one waits for a lock."""
    if not fresh:
        await loose_shop.apply(projects.chain(projects.FIVE[:1]))
    mark = tmp_path / "standing"
    stop = WAIT_FOR_THE_OTHER.format(ours=ours, file=str(mark)).strip()
    files = projects.project(projects.chain(projects.FIVE, r004=stop))
    folder = tmp_path / "project"
    if ours:
        run = asyncio.create_task(loose_shop.apply(files))
        await until(mark.exists, run)
        process = loose_shop.alembic(folder, files, "upgrade", "head")
    else:
        process = loose_shop.alembic(folder, files, "upgrade", "head")
        await until(lambda: mark.exists() or process.poll() is not None)
        run = asyncio.create_task(loose_shop.apply(files))
    output, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, output
    assert (await run).pending == ()
    assert loose_shop.ask("SELECT version_num FROM alembic_version") == ["r005"]


async def test_concurrent_index_waits_for_a_long_transaction_of_the_application(shop: Shop) -> None:
    """Longer than lockTimeoutSeconds: it keeps nobody else waiting meanwhile, and given up it would be INVALID."""
    await shop.apply(projects.chain(projects.FIVE[:2]))
    body = (
        "with op.get_context().autocommit_block():\n"
        "    op.create_index('slow', 'customer', ['name'], postgresql_concurrently=True)\n"
        "op.execute(\"CREATE TABLE seen AS SELECT current_setting('lock_timeout')\")"
    )
    files = projects.chain(projects.FIVE[:3], r003=body)
    async with await session.connect(shop.login, session.OWNER) as application:
        async with application.transaction():
            await application.execute("INSERT INTO customer (name) VALUES ('Eve')")
            run = asyncio.create_task(shop.apply(files, replace(OPTIONS, lock_timeout=1)))
            waits = "SELECT 1 FROM pg_locks WHERE locktype IN ('virtualxid', 'transactionid') AND NOT granted"
            await until(lambda: shop.ask(waits) != [], run)
            await asyncio.sleep(1.5)
        assert (await run).pending == ()
    assert shop.ask("SELECT indisvalid FROM pg_index WHERE indexrelid = 'slow'::regclass") == ["t"]
    assert shop.ask("SELECT * FROM seen") == ["1s"]
