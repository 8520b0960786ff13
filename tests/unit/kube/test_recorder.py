"""Notes fit into an event, whatever they say."""

from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.kube.recorder import NOTE_BYTES, listed, shortened


def test_changes_that_do_not_fit_are_counted() -> None:
    text = listed([f"apply migration {n:04}" for n in range(434)])
    assert text.startswith("apply migration 0000; apply migration 0001; ")
    assert text.endswith(" more")
    assert len(text.encode()) <= NOTE_BYTES
    shown = text.count("apply migration")
    assert f"and {434 - shown} more" in text


def test_changes_that_fit_are_all_there() -> None:
    assert listed(["create role", "create database"]) == "create role; create database"


@given(st.lists(st.text(), min_size=1, max_size=20))
def test_list_always_fits(changes: list[str]) -> None:
    assert len(listed([change.encode(errors="replace").decode() for change in changes]).encode()) <= NOTE_BYTES


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50), st.integers(3, 60))
def test_text_is_cut_between_characters(text: str, limit: int) -> None:
    short = shortened(text, limit)
    assert len(short.encode()) <= limit
    assert text == short or (short.endswith("…") and text.startswith(short[:-1]))
