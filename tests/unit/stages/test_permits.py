"""Who does what on the server, and what has been asked before: a list of all actions, so that none is forgotten."""

import importlib
import inspect
import pkgutil

import pytest

from database_bootstrap import stages
from database_bootstrap.postgres.spelling import cure
from database_bootstrap.stages.permits import lacking_attributes

ASKED = {
    "CreateRole": "permits.for_role",
    "SetPassword": "permits.for_role",
    "MarkRole": "permits.for_role",
    "AdoptRole": "permits.for_role",
    "role_actions.LimitConnections": "permits.for_role",
    "CreateDatabase": "permits.to_make_database",
    "HandOverDatabase": "adoption.check_database",
    "MakeLedger": "the role lets the administrator in, as the owner",
    "TakeLedger": "ledger_actions.may_take",
    "CreateExtension": "extension_permits.permit",
    "UpdateExtension": "extension_permits.permit",
}
"""What the administrator does, and where it is asked before whether it may."""
AS_THE_ROLE = {
    "database_actions.LimitConnections": "of its own database",
    "MarkDatabase": "its own",
    "TakeDatabase": "its own",
    "AdoptDatabase": "its own",
    "SetParameter": "owner_permits.for_database",
    "CreateSchema": "owner_permits.for_database",
    "SetLedgerAside": "its own",
    "CopyLedger": "its own",
    "ApplyMigrations": "owner_permits.to_migrate; what the files want beyond that is theirs",
    "Resolve": "in the ledger",
    "RunSeed": "its own tables",
    "Adopt": "in the ledger",
    "Give": "access.compare",
    "Take": "its own tables",
}
NOWHERE = {"KeepPassword", "RestorePassword", "ReplacePassword", "PublishPassword", "Publish", "Pin", "Note", "Await"}
"""Nothing on the server."""


def actions() -> dict[str, type]:
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(stages.__path__):
        name = f"{stages.__name__}.{module.name}"
        for cls in vars(importlib.import_module(name)).values():
            is_here = inspect.isclass(cls) and cls.__module__ == name
            if is_here and "run" in vars(cls) and "__str__" in vars(cls) and not getattr(cls, "_is_protocol", False):
                twice = cls.__name__ == "LimitConnections"
                found[f"{module.name}.{cls.__name__}" if twice else cls.__name__] = cls
    return found


def test_every_action_is_asked_for_or_is_the_roles_own() -> None:
    assert set(actions()) == set(ASKED) | set(AS_THE_ROLE) | NOWHERE


def test_what_is_the_roles_own_is_not_run_as_the_administrator() -> None:
    sources = {name: inspect.getsource(cls) for name, cls in actions().items()}
    wrong = {name for name in set(AS_THE_ROLE) | NOWHERE if "sessions.administrator" in sources[name]}
    assert wrong == set()


@pytest.mark.parametrize(
    ("roles", "databases", "expected"),
    [
        (True, True, []),
        (True, False, [("make databases", 'ALTER ROLE "a""b" CREATEDB')]),
        (False, True, [("make roles", 'ALTER ROLE "a""b" CREATEROLE')]),
        (False, False, [("make roles and databases", 'ALTER ROLE "a""b" CREATEROLE CREATEDB')]),
    ],
)
def test_lacking_attributes_come_with_one_statement(
    roles: bool, databases: bool, expected: list[tuple[str, str]]
) -> None:
    assert list(lacking_attributes('a"b', roles=roles, databases=databases)) == expected


def test_cure_says_where() -> None:
    assert cure("A", "B") == "let a superuser run: A; B"
    assert cure("A", database='x"y') == 'let a superuser run in database "x""y": A'
