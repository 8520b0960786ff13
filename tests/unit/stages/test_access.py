"""Access: what the audit log remembers of it, and what a level may take back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.api import rules
from database_bootstrap.api.access import AccessLevel
from database_bootstrap.stages import access, rights
from database_bootstrap.stages.rights import Gap, Wish

names = st.text(min_size=1, max_size=63).filter(
    lambda name: rules.printable("").holds(name) and rules.not_reserved("").holds(name)
)
gaps = st.builds(
    Gap,
    role=names,
    kind=st.sampled_from(sorted(rights.RIGHTS[AccessLevel.READ_ONLY])),
    name=st.just(("a", "b")),
    missing=st.sampled_from([(), ("SELECT",)]),
    surplus=st.sampled_from([(), ("INSERT",)]),
)
gives = st.builds(
    access.Give,
    role=names,
    level=st.sampled_from(AccessLevel),
    gaps=st.lists(gaps, max_size=3).map(tuple),
    is_less=st.booleans(),
)


@given(st.lists(st.one_of(gives, st.builds(access.Take, role=names, gaps=st.just(()))), max_size=6))
def test_the_log_remembers_what_was_given_last(actions: list[access.Give | access.Take]) -> None:
    known: dict[str, AccessLevel | None] = {
        action.role: action.level if isinstance(action, access.Give) else None for action in actions
    }
    wanted = {role: level for role, level in known.items() if level}
    assert access.given([str(action) for action in actions]) == wanted


@pytest.mark.parametrize("name", ["public", "none", "postgres", "pg_monitor", "rdsadmin"])
def test_the_log_cannot_name_reserved_roles(name: str) -> None:
    assert access.given([f'give role "{name}" ReadOnly access', "create role", ""]) == {}


READ, WRITE = AccessLevel.READ_ONLY, AccessLevel.READ_WRITE


@pytest.mark.parametrize(
    ("had", "wanted", "kind", "loose"),
    [
        (None, READ, "TABLE", ()),
        (READ, READ, "TABLE", ()),
        (READ, WRITE, "TABLE", ()),
        (WRITE, READ, "TABLE", ("DELETE", "INSERT", "UPDATE")),
        (WRITE, None, "TABLE", ("DELETE", "INSERT", "SELECT", "UPDATE")),
        (READ, None, "TABLE", ("SELECT",)),
        (None, READ, "HISTORY", ()),
        (None, WRITE, "HISTORY", ("DELETE", "INSERT", "UPDATE")),
        (WRITE, None, "HISTORY", ("DELETE", "INSERT", "SELECT", "UPDATE")),
        (READ, None, "DATABASE", ("CONNECT",)),
        (WRITE, READ, "SEQUENCE", ("USAGE",)),
    ],
)
def test_only_what_was_given_is_taken_back(
    had: AccessLevel | None, wanted: AccessLevel | None, kind: str, loose: tuple[str, ...]
) -> None:
    assert Wish(role="r", wanted=wanted, had=had).loose(kind) == loose
