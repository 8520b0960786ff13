"""The rules: each is told in CEL and in Python, and both have the same accepted and rejected objects.

tests/apiserver/test_crd.py puts the same objects to a real API server.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from database_bootstrap.api import schema, servers, v1alpha1
from database_bootstrap.errors import SpecRejected
from rule_cases import (
    CASES,
    MORE_BAD,
    MORE_GOOD,
    RULES,
    SERVER,
    SERVER_BAD,
    SERVER_CASES,
    TRANSITIONS,
    Case,
    Changes,
    changed,
    each,
)


def parse(obj: dict[str, Any]) -> v1alpha1.Spec:
    spec = v1alpha1.parse_spec(obj.get("spec", {}))
    v1alpha1.check_root(obj["metadata"]["name"], spec)
    return spec


def rules_in(node: Any) -> Iterator[dict[str, str]]:
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", [])
        for value in node.values():
            yield from rules_in(value)
    if isinstance(node, list):
        for value in node:
            yield from rules_in(value)


@pytest.mark.parametrize(("case", "changes"), each(RULES, "good"))
def test_models_accept_what_a_rule_lets_through(case: Case, changes: Changes) -> None:
    parse(changed(changes))


@pytest.mark.parametrize(("case", "changes"), each(RULES, "bad"))
def test_models_reject_with_the_words_of_the_rule(case: Case, changes: Changes) -> None:
    with pytest.raises(SpecRejected) as refusal:
        parse(changed(changes))
    assert case.message in refusal.value.message


@pytest.mark.parametrize(("case", "changes"), each(TRANSITIONS, "good"))
def test_what_stays_is_no_change(case: Case, changes: Changes) -> None:
    old = changed(case.before)
    v1alpha1.refuse_change(parse(changed(changes, old)), parse(old))


@pytest.mark.parametrize(("case", "changes"), each(TRANSITIONS, "bad"))
def test_identity_neither_changes_nor_appears_nor_disappears(case: Case, changes: Changes) -> None:
    with pytest.raises(SpecRejected) as refusal:
        v1alpha1.refuse_change(parse(changed(changes)), parse(changed(case.before)))
    assert case.message in refusal.value.message


def test_all_broken_promises_are_named_at_once() -> None:
    new = changed({"spec.role.name": "other", "spec.database.name": "other"})
    with pytest.raises(SpecRejected, match=r"`role.name` must stay.*; `database.name` must stay"):
        v1alpha1.refuse_change(parse(new), parse(changed({})))


@pytest.mark.parametrize("changes", MORE_GOOD, ids=str)
def test_models_accept(changes: Changes) -> None:
    parse(changed(changes))


@pytest.mark.parametrize("changes", MORE_BAD.values(), ids=MORE_BAD.keys())
def test_models_reject(changes: Changes) -> None:
    with pytest.raises(SpecRejected) as refusal:
        parse(changed(changes))
    assert len(refusal.value.message) < 500


@pytest.mark.parametrize(("case", "changes"), each(SERVER_CASES, "good"))
def test_server_models_accept_what_a_rule_lets_through(case: Case, changes: Changes) -> None:
    servers.parse_server(changed(changes, SERVER)["spec"])


@pytest.mark.parametrize(("case", "changes"), each(SERVER_CASES, "bad"))
def test_server_models_reject_with_the_words_of_the_rule(case: Case, changes: Changes) -> None:
    with pytest.raises(SpecRejected) as refusal:
        servers.parse_server(changed(changes, SERVER)["spec"])
    assert case.message in refusal.value.message


@pytest.mark.parametrize("changes", SERVER_BAD.values(), ids=SERVER_BAD.keys())
def test_server_models_reject(changes: Changes) -> None:
    with pytest.raises(SpecRejected):
        servers.parse_server(changed(changes, SERVER)["spec"])


def test_every_rule_of_servers_has_cases() -> None:
    assert {rule["message"] for rule in rules_in(schema.server_definition())} == {it.message for it in SERVER_CASES}


def test_every_rule_of_the_definition_has_cases_and_no_case_is_left_over() -> None:
    told = {rule["message"] for rule in rules_in(schema.definition())}
    assert told == {case.message for case in CASES}
    assert all(case.good and case.bad for case in CASES)


def test_messages_begin_with_the_field_and_must() -> None:
    messages = [rule["message"] for rule in rules_in([schema.definition(), schema.server_definition()])]
    assert [it for it in messages if not it.startswith("`") or not it.split("` ", 1)[1].startswith("must ")] == []
