"""A person's word: what the annotation may say, and when it counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.tools import resolution
from database_bootstrap.tools.resolution import How, Word
from database_bootstrap.tools.tool import Applied, History

STOP = "0a1b2c3d"
STUCK = Applied(name="2_b.sql", finished=False, stop=STOP)


def history(*rows: Applied) -> History:
    return History(table_exists=True, rows=(Applied(name="1_a.sql"), *rows))


@given(st.text(min_size=1, max_size=40), st.sampled_from(How), st.none() | st.from_regex("[0-9a-f]{8}", fullmatch=True))
def test_what_is_written_is_what_is_read(name: str, how: How, stop: str | None) -> None:
    word = Word(name=name, how=how, stop=stop)
    assert resolution.parse(str(word)) == word


@given(st.text(max_size=60))
def test_nonsense_is_said_and_does_nothing(text: str) -> None:
    found = history(STUCK)
    if resolution.parse(text) is None:
        assert resolution.due(text, found) is None
        assert bool(resolution.remark(text, found)) == bool(text)


@pytest.mark.parametrize(
    ("text", "due"),
    [
        pytest.param(f"2_b.sql=applied@{STOP}", Word(name="2_b.sql", how=How.APPLIED, stop=STOP), id="full name"),
        pytest.param(f"2_b=rolled-back@{STOP}", Word(name="2_b.sql", how=How.ROLLED_BACK, stop=STOP), id="no ending"),
        pytest.param("2_b=rolled-back@00000000", None, id="of another time, or another database"),
        pytest.param("2_b=rolled-back", None, id="of any time"),
        pytest.param(f"1_a=applied@{STOP}", None, id="one that is applied"),
        pytest.param(f"3_c=applied@{STOP}", None, id="one that never began"),
        pytest.param(f"2_b=done@{STOP}", None, id="no such word"),
        pytest.param("2_b=applied@0", None, id="no such stop"),
        pytest.param(f"=applied@{STOP}", None, id="no name"),
        pytest.param(None, None, id="no annotation"),
    ],
)
def test_word_counts_for_the_stop_that_it_names(text: str | None, due: Word | None) -> None:
    assert resolution.due(text, history(STUCK)) == due
    assert (resolution.remark(text, history(STUCK)) is None) == (due is not None or text is None)
    assert resolution.due(text, history(Applied(name="2_b.sql", finished=False))) is None


@pytest.mark.parametrize("text", ["2_b=rolled-back", "2_b.sql=rolled-back@00000000"])
def test_word_of_another_time_is_answered_with_the_right_one(text: str) -> None:
    assert f"look at this database, and then say 2_b.sql=rolled-back@{STOP}." in (
        resolution.remark(text, history(STUCK)) or ""
    )


def test_word_that_was_carried_out_can_stay() -> None:
    assert resolution.remark(f"2_b.sql=rolled-back@{STOP}", history(Applied(name="2_b.sql", rolled_back=True))) is None
    assert resolution.remark(f"2_b.sql=applied@{STOP}", history(Applied(name="2_b.sql"))) is None


def test_advice_is_what_counts() -> None:
    advice = resolution.advice("2_b.sql", STOP)
    for how in How:
        word = str(Word(name="2_b.sql", how=how, stop=STOP))
        assert f"dbbootstrap.io/resolve={word}" in advice
        assert resolution.due(word, history(STUCK))
    assert "dbbootstrap.io" not in resolution.advice("2_b.sql", None)


def test_long_nonsense_is_shortened() -> None:
    assert len(resolution.remark("x" * 100_000, history()) or "") < 400
