"""A person's word: what the annotation may say, and when it counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.tools import resolution
from database_bootstrap.tools.resolution import How, Word
from database_bootstrap.tools.tool import Applied, History

STUCK = Applied(name="2_b.sql", finished=False)


def history(*rows: Applied) -> History:
    return History(table_exists=True, rows=(Applied(name="1_a.sql"), *rows))


@given(st.text(min_size=1, max_size=40), st.sampled_from(How), st.integers(1, 10**7 - 1))
def test_what_is_written_is_what_is_read(name: str, how: How, number: int) -> None:
    word = Word(name=name, how=how, number=number)
    assert resolution.parse(str(word)) == word


@given(st.text(max_size=60))
def test_nonsense_is_said_and_does_nothing(text: str) -> None:
    found = history(STUCK)
    if resolution.parse(text) is None:
        assert resolution.due(text, found) is None
        assert bool(resolution.remark(text, found)) == bool(text)


@pytest.mark.parametrize(
    ("text", "resolved", "due"),
    [
        pytest.param("2_b.sql=applied", 0, Word(name="2_b.sql", how=How.APPLIED), id="full name"),
        pytest.param("2_b=rolled-back", 0, Word(name="2_b.sql", how=How.ROLLED_BACK), id="without its ending"),
        pytest.param("2_b=rolled-back", 1, None, id="carried out before"),
        pytest.param("2_b=rolled-back#2", 1, Word(name="2_b.sql", how=How.ROLLED_BACK, number=2), id="a second word"),
        pytest.param("2_b=applied#2", 0, None, id="a number too high"),
        pytest.param("1_a=applied", 0, None, id="one that is applied"),
        pytest.param("3_c=applied", 0, None, id="one that never began"),
        pytest.param("2_b=done", 0, None, id="no such word"),
        pytest.param("2_b=applied#0", 0, None, id="no such number"),
        pytest.param("=applied", 0, None, id="no name"),
        pytest.param(None, 0, None, id="no annotation"),
    ],
)
def test_word_counts_once_and_for_what_stopped(text: str | None, resolved: int, due: Word | None) -> None:
    found = history(Applied(name="2_b.sql", finished=False, resolved=resolved))
    assert resolution.due(text, found) == due
    assert (resolution.remark(text, found) is None) == (due is not None or text is None)


def test_word_that_was_carried_out_can_stay() -> None:
    assert resolution.remark("2_b.sql=rolled-back", history(Applied(name="2_b.sql", rolled_back=True))) is None
    assert resolution.remark("2_b.sql=applied", history(Applied(name="2_b.sql"))) is None


def test_advice_is_what_counts() -> None:
    for resolved in range(3):
        found = history(Applied(name="2_b.sql", finished=False, resolved=resolved))
        advice = resolution.advice("2_b.sql", resolved)
        for how in How:
            word = str(Word(name="2_b.sql", how=how, number=resolved + 1))
            assert f"dbbootstrap.io/resolve={word}" in advice
            assert resolution.due(word, found)


def test_long_nonsense_is_shortened() -> None:
    assert len(resolution.remark("x" * 100_000, history()) or "") < 400
