"""Which tables migrations leave behind, by their text."""

import pytest

from database_bootstrap.tools.batch import judged_of
from database_bootstrap.tools.making import missing, tables_of


@pytest.mark.parametrize(
    ("scripts", "expected"),
    [
        (["CREATE TABLE a (id int); CREATE TABLE s.b (id int)", 'CREATE TABLE "C d" ()'], ["a", "s.b", "C d"]),
        (["CREATE TABLE a (id int)", "DROP TABLE a"], []),
        (["CREATE TABLE a (id int)", "DROP TABLE public.a"], []),
        (["CREATE TABLE s.a ()", "DROP TABLE t.a"], ["s.a"]),
        (["CREATE TABLE a (id int)", "ALTER TABLE a RENAME TO b"], ["b"]),
        (["ALTER TABLE a RENAME TO b"], []),
        (["CREATE TABLE s.a ()", "ALTER SCHEMA s RENAME TO t"], ["t.a"]),
        (["CREATE TABLE a ()", "ALTER TABLE a SET SCHEMA s"], ["s.a"]),
        (["CREATE TABLE s.a ()", "DROP SCHEMA s CASCADE"], []),
        (["CREATE TEMP TABLE a (id int)"], []),
        (["CREATE TABLE a AS SELECT 1"], ["a"]),
        (["CREATE TABLE IF NOT EXISTS a ()", "CREATE VIEW v AS SELECT 1", "DROP INDEX i"], []),
        (["CREATE TABLE " + "a" * 70 + " ()"], ["a" * 63]),
    ],
)
def test_tables_that_are_left(scripts: list[str], expected: list[str]) -> None:
    judged = [judged_of(str(number), f"{number}.sql", text) for number, text in enumerate(scripts)]
    assert [str(name) for name in tables_of(judged)] == expected


def test_missing_is_what_is_in_no_schema_or_not_in_its_own() -> None:
    wanted = tables_of([judged_of("1", "1.sql", "CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE s.c ()")])
    assert missing(wanted, [("any", "a"), ("t", "c")]) == ("b", "s.c")
