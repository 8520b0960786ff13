"""The keys that people write themselves: each is explained in the README."""

from pathlib import Path

import pytest

from database_bootstrap.api import names

README = (Path(__file__).parents[3] / "README.md").read_text()


@pytest.mark.parametrize(
    "key",
    [
        names.LABEL_WATCH,
        names.ANNOTATION_RECONCILE_REQUESTED_AT,
        names.ANNOTATION_ACKNOWLEDGE_DATA_LOSS,
        names.ANNOTATION_ACCEPT_INCARNATION,
        names.ANNOTATION_TAKE_OVER,
        names.ANNOTATION_BUNDLE,
        "spec.suspend",
        "--watch-secrets",
        "--leader-elect",
    ],
)
def test_what_people_set_is_in_the_readme(key: str) -> None:
    assert key in README
