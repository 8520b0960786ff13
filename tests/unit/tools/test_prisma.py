"""Prisma's directories: what is a migration, what Prisma would say of the history, and where its versions disagree."""

import hashlib

import pytest

from database_bootstrap.bundles.bundle import File, bundle_of
from database_bootstrap.errors import BundleRejected, MigrationDiverged, MigrationHalfApplied
from database_bootstrap.tools.locale_order import locale_key
from database_bootstrap.tools.prisma import Prisma, PrismaSource, matches
from database_bootstrap.tools.tool import Applied, Comparison, History, Options

INIT, USERS, ORDERS = "20240101000000_init", "20240102000000_users", "20240103000000_orders"
SCRIPT = "SELECT 1;\n"


def source(*paths: str, **more: str) -> PrismaSource:
    files = dict.fromkeys(paths, SCRIPT) | more
    return Prisma().load(bundle_of(File(path=path, content=text.encode()) for path, text in files.items()))


def of(*names: str) -> PrismaSource:
    return source(*(f"{name}/migration.sql" for name in names))


def applied(name: str, text: str = SCRIPT) -> Applied:
    return Applied(name=name, checksum=hashlib.sha256(text.encode()).hexdigest())


def compare(found: PrismaSource, *rows: Applied) -> Comparison:
    return Prisma().compare(found, History(table_exists=True, rows=rows), Options(schema="public"))


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param([f"{INIT}/migration.sql", f"{USERS}/migration.sql"], id="the directory of migrations"),
        pytest.param([f"{INIT}.sql", f"{USERS}.sql", "migration_lock.toml"], id="keys of a ConfigMap"),
        pytest.param([f"{INIT}.sql", f"{USERS}/migration.sql"], id="both"),
        pytest.param(
            [
                f"prisma/migrations/{INIT}/migration.sql",
                f"prisma/migrations/{USERS}/migration.sql",
                "prisma/schema.prisma",
            ],
            id="the project",
        ),
        pytest.param([f"{INIT}/migration.sql", f"{USERS}/migration.sql", f"{USERS}/notes.md", "README.md"], id="notes"),
    ],
)
def test_migrations_are_found(paths: list[str]) -> None:
    found = source(*paths)
    assert [(one.name, one.path) for one in found.migrations] == [
        (INIT, f"{INIT}/migration.sql"),
        (USERS, f"{USERS}/migration.sql"),
    ]


def test_checksum_is_that_of_the_bytes_as_they_are() -> None:
    text = "\ufeffSELECT 'ä';\r\n"
    (found,) = source(**{"a/migration.sql": text}).migrations
    assert found.checksum == hashlib.sha256(text.encode()).hexdigest()
    assert found.script.text == text.removeprefix("\ufeff")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({"schema.prisma": ""}, "has no migration", id="none"),
        pytest.param({"migration.sql": ""}, "has no name", id="no directory"),
        pytest.param({"a/migration.sql": "", "a.sql": ""}, "is there twice: a/migration.sql and a.sql", id="twice"),
        pytest.param({"a/migration.sql": "", "b/readme.md": ""}, "b has no migration.sql", id="P3015"),
        pytest.param({"x/a/migration.sql": "", "y/b/migration.sql": ""}, "in several directories", id="two projects"),
        pytest.param({"x" * 256 + "/migration.sql": ""}, "256 characters", id="longer than the column"),
        pytest.param({"A/migration.sql": "", "a.sql": ""}, "differ in case only", id="case"),
        pytest.param(
            {"a/migration.sql": "", "migration_lock.toml": '# x\nprovider = "mysql"\n'}, "are for mysql", id="P3019"
        ),
        pytest.param(
            {"a/migration.sql": "", "migration_lock.toml": 'provider="cockroachdb"'},
            "are for cockroachdb",
            id="cockroach",
        ),
    ],
)
def test_files_that_are_no_migrations_are_refused(files: dict[str, str], said: str) -> None:
    with pytest.raises(BundleRejected) as caught:
        source(**files)
    assert said in caught.value.message


@pytest.mark.parametrize("lock", ['provider = "postgresql"', "# comment only", 'provider = "postgresql"\r\n'])
def test_lock_file_for_postgresql_is_accepted(lock: str) -> None:
    assert len(source(**{"a/migration.sql": "", "migration_lock.toml": lock}).migrations) == 1


def test_pending_is_what_is_not_applied() -> None:
    assert compare(of(INIT, USERS, ORDERS), applied(INIT)) == Comparison(
        pending=(USERS, ORDERS), current=INIT, applied=1
    )


def test_one_that_was_rolled_back_is_pending_again() -> None:
    rolled_back = Applied(name=USERS, checksum="x", finished=False, rolled_back=True)
    assert compare(of(INIT, USERS), applied(INIT), rolled_back).pending == (USERS,)
    assert compare(of(INIT, USERS), applied(INIT), rolled_back, applied(USERS)).pending == ()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        pytest.param([applied(INIT, "other")], f"Edited after they were applied: {INIT}.", id="edited"),
        pytest.param([applied(INIT), applied("2023_gone")], "Applied, and not in the source: 2023_gone.", id="missing"),
    ],
)
def test_difference_is_a_warning_until_something_is_pending(rows: list[Applied], said: str) -> None:
    found = compare(of(INIT), *rows)
    assert (found.pending, found.warnings) == ((), (said,))
    with pytest.raises(MigrationDiverged) as caught:
        compare(of(INIT, USERS), *rows)
    assert said in caught.value.message
    assert USERS in caught.value.message


def test_older_one_is_applied_as_deploy_does_and_told() -> None:
    found = compare(of(INIT, USERS, ORDERS), applied(INIT), applied(ORDERS))
    assert found.pending == (USERS,)
    assert found.warnings == (f"Older than {ORDERS}, which is applied, and yet to be applied: {USERS}.",)


def test_failed_one_stops_even_with_nothing_else_pending() -> None:
    failed = Applied(name=INIT, checksum="x", finished=False, detail={"words": "statement 1 of 2 line 3: no"})
    with pytest.raises(MigrationHalfApplied) as caught:
        compare(of(INIT), failed)
    assert "statement 1 of 2 line 3: no" in caught.value.message
    assert f"prisma migrate resolve --applied {INIT}" in caught.value.message
    assert f"prisma migrate resolve --rolled-back {INIT}" in caught.value.message


@pytest.mark.parametrize("recorded", ["a;\nb;\n", "a;\r\nb;\r\n"])
@pytest.mark.parametrize("local", ["a;\nb;\n", "a;\r\nb;\r\n"])
def test_line_ends_are_no_edit(local: str, recorded: str) -> None:
    assert matches(local.encode(), hashlib.sha256(recorded.encode()).hexdigest())


def test_mixed_line_ends_match_as_they_are() -> None:
    mixed = "a;\r\nb;\n"
    assert matches(mixed.encode(), hashlib.sha256(mixed.encode()).hexdigest())
    assert not matches(mixed.encode(), hashlib.sha256(b"a;\r\nb").hexdigest())


def test_checksum_of_an_early_version_has_no_zeros() -> None:
    digest = hashlib.sha256(SCRIPT.encode()).digest()
    early = "".join(f"{byte:x}" for byte in digest)
    assert len(early) < 64
    assert matches(SCRIPT.encode(), early)
    assert not matches(SCRIPT.encode() + b" ", early)


@pytest.mark.parametrize(
    ("names", "agreed"),
    [
        pytest.param(["20240101000000_b", "20240102000000_a"], True, id="time stamps"),
        pytest.param(["20240101000000_Cart.v2", "20240102000000_add_Order"], True, id="capitals and dots behind them"),
        pytest.param(["1_a", "10_b", "2_c"], False, id="numbers without zeros"),
        pytest.param(["20240101000000_a", "20240101000000_B"], False, id="capital at one time"),
        pytest.param(["001_a", "002_b"], True, id="numbers with zeros"),
        pytest.param(["a_b", "a-b"], False, id="punctuation"),
    ],
)
def test_order_on_which_versions_of_prisma_disagree_is_refused(names: list[str], agreed: bool) -> None:
    if agreed:
        assert compare(of(*names)).pending == tuple(sorted(names))
    else:
        with pytest.raises(BundleRejected, match="depends on the version of Prisma"):
            compare(of(*names))
    assert compare(of(*names), *map(applied, names)).pending == ()


def test_order_of_local_compare() -> None:
    """What `node -e 'console.log([…].sort((a, b) => a.localeCompare(b)))'` prints (Node.js 20, ICU)."""
    wanted = [*"_-,.@#+~", "1_a", "10", "2", *"aAá", "a\xa0b", "a_b", "a-b", "ab", "aB", "Ab", *"bzZ"]
    assert sorted(sorted(wanted), key=locale_key) == wanted


def test_pending_script_for_another_program_stops_the_comparison() -> None:
    with pytest.raises(BundleRejected, match=f"{USERS}/migration.sql line 1: a backslash command"):
        compare(source(**{f"{INIT}/migration.sql": SCRIPT, f"{USERS}.sql": "\\q"}), applied(INIT))
