"""Every error has a reason that the status knows, a docstring, and a place in the tree."""

from collections.abc import Iterator

import pytest

from database_bootstrap import errors
from database_bootstrap.api.outcomes import Reason


def _leaves(kind: type[errors.BootstrapError]) -> Iterator[type[errors.BootstrapError]]:
    below = kind.__subclasses__()
    if not below:
        yield kind
    for one in below:
        yield from _leaves(one)


LEAVES = sorted(_leaves(errors.BootstrapError), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_error_is_a_reason_and_is_explained(kind: type[errors.BootstrapError]) -> None:
    assert kind.__name__ in set(Reason)
    assert kind.__doc__ and kind.__doc__.endswith(".")
    assert f" {kind.__name__} " in (errors.__doc__ or "")
    assert issubclass(kind, errors.Retryable | errors.Stalled)


def test_reasons_are_unique() -> None:
    assert len({kind.__name__ for kind in LEAVES}) == len(LEAVES)
