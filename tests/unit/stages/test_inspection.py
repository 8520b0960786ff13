"""What an administrator lacks, and the statement that a DBA runs."""

import pytest

from database_bootstrap.postgres.ownership import Mark, Origin, Owner
from database_bootstrap.stages.inspection import Administrator, Claim, missing_rights

OWNER = Owner(cluster="c", namespace="shop", name="app", uid="u")


def administrator(*, superuser: bool = False, roles: bool = True, databases: bool = True) -> Administrator:
    return Administrator(name='ad"min', is_superuser=superuser, creates_roles=roles, creates_databases=databases)


def claim(role: str, *, is_administered: bool = False, origin: Origin = Origin.CREATED) -> Claim:
    mark = Mark(owner=OWNER, database="d", origin=origin)
    return Claim(mark=mark, role=role, is_administered=is_administered)


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        pytest.param(administrator(), [], id="nothing"),
        pytest.param(administrator(superuser=True, roles=False, databases=False), [], id="a superuser lacks nothing"),
        pytest.param(administrator(roles=False), ['ALTER ROLE "ad""min" CREATEROLE'], id="roles"),
        pytest.param(administrator(databases=False), ['ALTER ROLE "ad""min" CREATEDB'], id="databases"),
        pytest.param(
            administrator(roles=False, databases=False), ['ALTER ROLE "ad""min" CREATEROLE CREATEDB'], id="both"
        ),
    ],
)
def test_missing_attributes_come_with_their_statement(who: Administrator, expected: list[str]) -> None:
    assert [it.sql for it in missing_rights(who, (), 16)] == expected


def test_roles_of_another_administrator_are_named_where_that_counts() -> None:
    claims = (claim("a"), claim("a"), claim("b", is_administered=True), claim("c", origin=Origin.ADOPTED))
    assert [it.sql for it in missing_rights(administrator(), claims, 16)] == [
        'GRANT "a" TO "ad""min" WITH ADMIN OPTION'
    ]
    assert missing_rights(administrator(), claims, 15) == ()
    assert missing_rights(administrator(superuser=True), claims, 16) == ()


def test_many_roles_do_not_make_a_long_list() -> None:
    found = missing_rights(administrator(), [claim(f"r{number}") for number in range(100)], 17)
    assert len(found) == 8
    assert len({it.right for it in found}) == 8
    assert found[-1].right.endswith("(and 92 more, which are named when these are seen to)")
    assert "more" not in missing_rights(administrator(), [claim(f"r{number}") for number in range(8)], 17)[-1].right
