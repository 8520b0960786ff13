"""Plain SQL files: which are migrations, in which order, and when nothing may follow."""

import time

import pytest

from database_bootstrap.bundles.bundle import File, bundle_of
from database_bootstrap.errors import BundleRejected, MigrationDiverged, MigrationHalfApplied
from database_bootstrap.tools.sql_files import SqlFiles, SqlSource, checksum_of
from database_bootstrap.tools.tool import Applied, Comparison, History, Options


def source(*paths: str, **texts: str) -> SqlSource:
    found = dict.fromkeys(paths, "SELECT 1;") | {f"{name}.sql": text for name, text in texts.items()}
    return SqlFiles().load(bundle_of(File(path=path, content=text.encode()) for path, text in found.items()))


def names(found: SqlSource) -> list[str]:
    return [file.name for file in found.files]


def compare(found: SqlSource, *rows: Applied, allow: frozenset[str] = frozenset()) -> Comparison:
    return SqlFiles().compare(
        found, History(table_exists=True, rows=rows), Options(schema="public", allow_out_of_order=allow)
    )


def applied(name: str, text: str = "SELECT 1;") -> Applied:
    return Applied(name=name, checksum=checksum_of(text.encode()))


def test_order_is_that_of_numbers() -> None:
    paths = ["10_b.sql", "2_c.sql", "V1__a.sql", "v1.10__d.sql", "1_2_e.sql", "1.9_f.up.sql", "20240301120000_g.sql"]
    assert names(source(*paths)) == [
        "V1__a.sql",
        "1_2_e.sql",
        "1.9_f.up.sql",
        "v1.10__d.sql",
        "2_c.sql",
        "10_b.sql",
        "20240301120000_g.sql",
    ]


@pytest.mark.parametrize(
    "beside",
    ["1_a.down.sql", "README", "README.md", "readme.SQL.txt", "docs/notes.md", "LICENSE", "changes.rst", ".gitignore"],
)
def test_what_is_no_migration_and_does_not_look_like_one_is_passed_over(beside: str) -> None:
    assert [file.migration.path for file in source("1_a.sql", beside).files] == ["1_a.sql"]


@pytest.mark.parametrize(
    "path",
    [
        "init.sql", "V__a.sql", "1.sql", "1_.sql", "R__view.sql", "U1__undo.sql", "a1_b.sql", "1_a.SQL", "1_a.sql.bak",
        "1_a.py", "schema.prisma", "-1_a.sql", "١_a.sql",
    ],
)  # fmt: skip
def test_file_that_is_no_migration_is_refused(path: str) -> None:
    with pytest.raises(BundleRejected, match=r"is no migration: its name must be a version, `_`, a word and \.sql"):
        source("0_ok.sql", path)


@pytest.mark.parametrize("twin", ["1__b.sql", "V1_b.sql", "1.0_b.sql", "001_b.up.sql", "01_a.sql", "sub/1_a.sql"])
def test_two_of_one_version_are_refused(twin: str) -> None:
    with pytest.raises(BundleRejected, match="have the same version"):
        source("1_a.sql", twin)


def test_source_without_a_migration_is_refused() -> None:
    with pytest.raises(BundleRejected, match="no file that is a migration"):
        source("README.md")


def test_folders_are_no_part_of_the_name() -> None:
    assert names(source("db/migrations/1_a.sql", "db/migrations/2024/2_b.sql")) == ["1_a.sql", "2_b.sql"]


@pytest.mark.parametrize(
    "paths",
    [
        ["v1/1_a.sql", "v2/2_b.sql"],
        ["1_a.sql", "db/2_b.sql"],
        ["README.md", "db/v1/1_a.sql", "db/v1/2_b.sql"],
    ],
)
def test_file_that_moves_is_no_divergence(paths: list[str]) -> None:
    assert compare(source(*paths), applied("1_a.sql")).pending == ("2_b.sql",)
    assert compare(source(*paths), applied("old/place/1_a.sql")).pending == ("2_b.sql",)


def test_pending_files_are_limited_together() -> None:
    texts = {f"{number}_a": "SELECT 1;" + "\n" * 1_500_000 for number in range(1, 7)}
    with pytest.raises(BundleRejected, match="more than 8388608 bytes together"):
        compare(source(**texts))
    rows = [applied(f"{number}_a.sql", texts[f"{number}_a"]) for number in range(1, 3)]
    assert len(compare(source(**texts), *rows).pending) == 4


def test_statements_of_pending_files_are_limited_together() -> None:
    texts = {f"{number}_a": "SELECT 1;" * 90_000 for number in range(1, 4)}
    found = source(**texts)
    for _ in range(2):
        with pytest.raises(BundleRejected, match=r"up to 3_a\.sql have too many statements"):
            compare(found)
    begun = time.process_time()
    with pytest.raises(BundleRejected, match="too many"):
        compare(found)
    assert time.process_time() - begun < 0.1  # Nothing is judged twice.
    assert len(compare(found, applied("1_a.sql", texts["1_a"])).pending) == 2


def test_file_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(BundleRejected, match="not UTF-8"):
        SqlFiles().load(bundle_of([File(path="1_a.sql", content=b"\xff")]))


def test_pending_is_what_is_not_applied() -> None:
    found = compare(source("1_a.sql", "2_b.sql", "3_c.sql"), applied("1_a.sql"))
    assert found == Comparison(pending=("2_b.sql", "3_c.sql"), current="1_a.sql", applied=1)


def test_without_a_history_all_are_pending() -> None:
    found = SqlFiles().compare(source("1_a.sql"), History(table_exists=False), Options(schema="public"))
    assert found == Comparison(pending=("1_a.sql",), current=None, applied=0)


@pytest.mark.parametrize("text", ["a;\nb;\n", "a;\r\nb;\r\n", "\ufeffa;\nb;\n"])
def test_line_ends_and_byte_order_marks_are_no_edit(text: str) -> None:
    assert compare(source(**{"1_a": text}), applied("1_a.sql", "a;\nb;\n")).pending == ()


@pytest.mark.parametrize(
    ("paths", "rows", "said"),
    [
        pytest.param(["1_a.sql"], [applied("1_a.sql", "other")], "were edited: 1_a.sql", id="edited"),
        pytest.param(["1_a.sql"], [applied("1_a.sql"), applied("2_b.sql")], "not have: 2_b.sql", id="Git rolled back"),
        pytest.param(["1_new.sql"], [applied("1_old.sql")], "not have: 1_old.sql", id="renamed"),
        pytest.param(["1_a.sql", "2_b.sql"], [applied("2_b.sql")], r"\(2_b.sql\): 1_a.sql", id="out of order"),
    ],
)
def test_history_that_differs_stops(paths: list[str], rows: list[Applied], said: str) -> None:
    with pytest.raises(MigrationDiverged, match=said):
        compare(source(*paths), *rows)


@pytest.mark.parametrize("allowed", ["1_a.sql", "1_a"])
def test_one_out_of_order_runs_when_it_is_named(allowed: str) -> None:
    found = source("1_a.sql", "1.5_x.sql", "2_b.sql")
    with pytest.raises(MigrationDiverged, match=r": 1\.5_x\.sql\."):
        compare(found, applied("2_b.sql"), allow=frozenset({allowed}))
    assert compare(found, applied("2_b.sql"), allow=frozenset({allowed, "1.5_x"})).pending == ("1_a.sql", "1.5_x.sql")


def test_half_applied_one_stops_with_the_next_step() -> None:
    row = Applied(name="1_it's.sql", finished=False, stop="0a1b2c3d", detail={"error": "statement 2 of 3 line 4: no"})
    with pytest.raises(MigrationHalfApplied) as caught:
        compare(source("1_it's.sql"), row)
    assert "statement 2 of 3 line 4: no" in caught.value.message
    assert """'dbbootstrap.io/resolve=1_it'"'"'s.sql=applied@0a1b2c3d'""" in caught.value.message
    assert (caught.value.name, caught.value.line) == ("1_it's.sql", 4)


def test_one_that_was_rolled_back_by_hand_is_pending_again() -> None:
    assert compare(source("1_a.sql"), Applied(name="1_a.sql", rolled_back=True)).pending == ("1_a.sql",)


def test_adopted_one_without_a_checksum_is_not_edited() -> None:
    assert compare(source("1_a.sql"), Applied(name="1_a.sql")).pending == ()


def test_pending_file_for_another_program_stops_the_comparison() -> None:
    with pytest.raises(BundleRejected, match="dbmate"):
        compare(source("1_a.sql", **{"2_b": "-- migrate:up\nSELECT 1;"}), applied("1_a.sql"))


def test_applied_file_is_not_judged_again() -> None:
    text = "-- migrate:up\nSELECT 1;"
    assert compare(source(**{"1_a": text}), applied("1_a.sql", text)).pending == ()
