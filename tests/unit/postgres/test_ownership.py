"""Marks in comments: read back as written, and people's text before them is kept."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.postgres.ownership import Mark, Origin, Owner, mark_in, with_mark, without_mark

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,40}", fullmatch=True)
dns = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?", fullmatch=True)
marks = st.builds(
    Mark,
    owner=st.builds(Owner, cluster=ids, namespace=dns, name=dns, uid=ids),
    database=texts,
    origin=st.sampled_from(Origin),
    role_unmarked=st.booleans(),
)


@given(mark=marks, comment=st.none() | texts)
def test_mark_is_read_back(mark: Mark, comment: str | None) -> None:
    assert mark_in(with_mark(comment, mark)) == mark


@given(mark=marks)
def test_words_of_people_outlive_the_mark(mark: Mark) -> None:
    assert without_mark(with_mark("ask Ann\nfirst", mark)) == "ask Ann\nfirst"
    assert without_mark(with_mark(None, mark)) is None


@given(first=marks, second=marks)
def test_second_mark_replaces_the_first(first: Mark, second: Mark) -> None:
    comment = with_mark(with_mark("ask Ann\nfirst", first), second)
    assert mark_in(comment) == second
    assert comment.count("dbbootstrap.io/owner") >= 1
    assert comment.startswith("ask Ann\nfirst\n")


@pytest.mark.parametrize(
    "comment",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("the shop's database", id="people's"),
        pytest.param("dbbootstrap.io/owner {", id="no json"),
        pytest.param("dbbootstrap.io/owner []", id="no object"),
        pytest.param("dbbootstrap.io/owner " + "[" * 100_000, id="deeper than a parser goes"),
        pytest.param('dbbootstrap.io/owner {"owner": {}, "database": "x", "origin": "Created"}', id="no owner"),
        pytest.param(
            'dbbootstrap.io/owner {"owner": {"cluster": "c", "namespace": "n", "name": "n", "uid": "u"},'
            ' "database": "x", "origin": "Stolen"}',
            id="unknown origin",
        ),
    ],
)
def test_comment_without_a_mark_is_nobodys(comment: str | None) -> None:
    assert mark_in(comment) is None


@pytest.mark.parametrize("field", ["cluster", "namespace", "name", "uid"])
@pytest.mark.parametrize("text", ["", "1; then run as superuser: ALTER ROLE x SUPERUSER", "a\nb", "x" * 254, "a b"])
def test_names_that_no_resource_has_are_no_mark(field: str, text: str) -> None:
    owner = Owner(cluster="c", namespace="n", name="x", uid="u")
    mark = Mark(owner=owner, database="d", origin=Origin.CREATED)
    assert mark_in(with_mark(None, mark)) == mark
    assert mark_in(with_mark(None, replace(mark, owner=replace(owner, **{field: text})))) is None


def test_mark_counts_in_the_last_line_only() -> None:
    mark = Mark(owner=Owner(cluster="c", namespace="n", name="x", uid="u"), database="d", origin=Origin.CREATED)
    assert mark_in(with_mark(None, mark) + "\nsomebody's note") is None
