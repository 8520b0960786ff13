"""What a platform team's server allows: pure rules, and no rule that lets more through than it says."""

import re
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.api.servers import OWN_NAMES, LabelSelector, parse_server
from database_bootstrap.api.status import Status
from database_bootstrap.api.v1alpha1 import parse_spec
from database_bootstrap.errors import ServerRefused
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.stages import identity, policy
from database_bootstrap.stages.subject import Subject
from database_bootstrap.stages.surroundings import SharedServer

MIGRATIONS = {"tool": "SQL", "source": {"configMapRefs": [{"name": "m"}]}}
SEED = {"source": {"configMapRefs": [{"name": "s"}]}}
NAMESPACES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)


def server(*, labels: dict[str, str] | None = None, **spec: Any) -> SharedServer:
    least = {"adminSecretRef": {"namespace": "platform", "name": "postgres"}, "allowedNamespaces": {}}
    return SharedServer(name="main", spec=parse_server(least | spec), labels={} if labels is None else labels)


def subject(
    role: str | dict[str, Any] = "shop_app", database: str | dict[str, Any] = "shop_app", **spec: Any
) -> Subject:
    named = [{"name": it} if isinstance(it, str) else {"name": "shop_app"} | it for it in (role, database)]
    raw = {"server": {"ref": {"name": "main"}}, "role": named[0], "database": named[1], **spec}
    owner = Owner(cluster="c", namespace="shop", name="app", uid=str(uuid.uuid4()))
    return Subject(owner=owner, spec=parse_spec(raw), status=Status())


def expression(operator: str, *values: str) -> dict[str, Any]:
    more = {"values": list(values)} if values else {}
    return {"matchExpressions": [{"key": "a", "operator": operator, **more}]}


def refusal(offer: SharedServer, wanted: Subject, *, leaving: bool = False) -> str:
    with pytest.raises(ServerRefused) as caught:
        policy.check(offer, wanted, leaving=leaving)
    assert caught.value.message.startswith("DatabaseServer main does not allow this: ")
    return caught.value.message


def test_what_keeps_all_rules_is_let_through() -> None:
    offer = server(
        labels={"team": "shop"},
        allowedNamespaces={"matchLabels": {"team": "shop"}},
        allowedExtensions=["pg_trgm"],
        maxConnectionLimit={"role": 20, "database": 30},
    )
    wanted = subject(extensions=[{"name": "pg_trgm"}], role={"connectionLimit": 20})
    policy.check(offer, wanted)


@pytest.mark.parametrize(
    ("offer", "wanted", "expected"),
    [
        pytest.param(
            server(allowedNamespaces=None),
            subject(),
            "namespace shop may not use it, as no namespace may",
            id="nobody is let in where nothing is said",
        ),
        pytest.param(
            server(allowedNamespaces={"matchLabels": {"team": "shop"}}, labels={"team": "other"}),
            subject(),
            "the labels of the namespace must fit allowedNamespaces (team=shop)",
            id="another team's namespace",
        ),
        pytest.param(
            server(),
            subject(role="other_app"),
            'role.name "other_app" is none of the allowedNames.roles (shop, shop_*)',
            id="the names of another namespace",
        ),
        pytest.param(
            server(allowedNames={"databases": []}),
            subject(),
            'database.name "shop_app" is none of the allowedNames.databases (none)',
            id="no name at all",
        ),
        pytest.param(
            server(),
            subject(extensions=[{"name": "dblink"}]),
            "extensions dblink are not among its allowedExtensions (none)",
            id="no extension is allowed where nothing is said",
        ),
        pytest.param(
            server(allowedExtensions=["pg_trgm"]),
            subject(extensions=[{"name": "pg_trgm"}, {"name": "dblink"}]),
            "extensions dblink are not among its allowedExtensions (pg_trgm)",
            id="an extension that is not in the list",
        ),
        pytest.param(
            server(),
            subject(access=[{"role": name, "level": "ReadOnly"} for name in ("shop_report", "team-b_app")]),
            'access[].role "team-b_app" is none of the allowedNames.accessRoles (shop, shop_*)',
            id="a role of another namespace",
        ),
        pytest.param(
            server(allowedNames={"accessRoles": []}),
            subject(access=[{"role": f"shop_{number}", "level": "ReadOnly"} for number in range(5)]),
            'access[].role "shop_0", "shop_1", "shop_2" and 2 more are none of the allowedNames.accessRoles (none)',
            id="many roles",
        ),
        pytest.param(
            server(maxConnectionLimit={"role": 20}),
            subject(role={"connectionLimit": 21}),
            "role.connectionLimit 21 is more than 20, its maxConnectionLimit.role",
            id="more connections of the role",
        ),
        pytest.param(
            server(maxConnectionLimit={"database": 20}),
            subject(database={"connectionLimit": 21}),
            "database.connectionLimit 21 is more than 20, its maxConnectionLimit.database",
            id="more connections of the database",
        ),
        pytest.param(
            server(maxTimeoutSeconds={"migrations": 1200}),
            subject(migrations={**MIGRATIONS, "timeoutSeconds": 1201}),
            "migrations.timeoutSeconds 1201 is more than 1200, its maxTimeoutSeconds.migrations",
            id="longer migrations",
        ),
        pytest.param(
            server(maxTimeoutSeconds={"migrations": 1, "seed": 60}),
            subject(seed={**SEED, "timeoutSeconds": 61}),
            "seed.timeoutSeconds 61 is more than 60, its maxTimeoutSeconds.seed",
            id="longer seed",
        ),
        pytest.param(
            server(),
            subject(adoption="Force", role={"passwordSecretRef": {"name": "p"}}),
            "adoption Force takes over what exists already, and its allowAdoption is false",
            id="adoption by force",
        ),
    ],
)
def test_refusal_says_which_rule_refused(offer: SharedServer, wanted: Subject, expected: str) -> None:
    assert expected in refusal(offer, wanted)


def test_all_rules_that_are_broken_are_named_at_once() -> None:
    said = refusal(server(allowedNamespaces=None), subject(role="a", database="b", extensions=[{"name": "c"}]))
    assert said.count("; ") == 3


def test_what_is_being_deleted_asks_for_nothing_more() -> None:
    access = [{"role": "other", "level": "ReadOnly"}]
    wanted = subject(extensions=[{"name": "dblink"}], role={"connectionLimit": 50}, access=access)
    policy.check(server(maxConnectionLimit={"role": 20}), wanted, leaving=True)
    refusal(server(allowedNamespaces=None), wanted, leaving=True)
    refusal(server(), subject(role="other"), leaving=True)


def test_labels_that_nobody_knows_are_not_judged() -> None:
    offer = server(allowedNamespaces={"matchLabels": {"team": "shop"}})
    policy.check(SharedServer(name="main", spec=offer.spec, labels=None), subject())
    with pytest.raises(ServerRefused):
        policy.check(SharedServer(name="main", spec=offer.spec, labels={}), subject())


def test_every_extension_is_let_through_by_one_star() -> None:
    policy.check(server(allowedExtensions=["*"]), subject(extensions=[{"name": "dblink"}]))


def test_who_names_no_limit_gets_the_largest_that_is_allowed() -> None:
    offer = server(maxConnectionLimit={"role": 20, "database": 30})
    spec = policy.applied(offer, subject(role={"connectionLimit": 5})).spec
    assert (spec.role.connection_limit, spec.database.connection_limit) == (5, 30)
    free = policy.applied(server(), subject()).spec
    assert (free.role.connection_limit, free.database.connection_limit) == (None, None)


def test_who_chooses_no_time_gets_no_more_than_is_allowed() -> None:
    offer, wanted = (
        server(maxTimeoutSeconds={"migrations": 60, "seed": 7200}),
        subject(migrations=MIGRATIONS, seed=SEED),
    )
    policy.check(offer, wanted)
    spec = policy.applied(offer, wanted).spec
    assert spec.migrations
    assert spec.seed
    assert (spec.migrations.timeout_seconds, spec.seed.timeout_seconds) == (60, 3600)
    neither = policy.applied(offer, subject()).spec
    assert (neither.migrations, neither.seed) == (None, None)
    # The API server writes defaults into what people have left out.
    policy.check(offer, subject(migrations={**MIGRATIONS, "timeoutSeconds": 600}))


def test_word_of_a_person_to_take_over_counts_only_where_that_is_allowed() -> None:
    word = {"dbbootstrap.io/take-over": "uid-1"}
    wanted = replace(subject(), annotations=word)
    assert policy.applied(server(allowAdoption=True), wanted).taken_over == "uid-1"
    assert policy.applied(server(), wanted).taken_over is None
    assert policy.applied(server(), wanted).said_to_be_ours == "uid-1"


@pytest.mark.parametrize(("cluster", "where"), [("c", ";"), ("other", " in that cluster;")])
def test_where_to_look_for_the_owner_is_said_before_it_is_taken_over(cluster: str, where: str) -> None:
    said = identity.how_to_take(subject(), Owner(cluster=cluster, namespace="shop", name="old", uid="uid-1"))
    assert f"kubectl get dbb/old --namespace shop{where}" in said
    assert "dbbootstrap.io/take-over=uid-1" in said


@given(namespace=NAMESPACES, other=NAMESPACES, text=st.text(alphabet="ab-_*.é\n", max_size=6))
def test_names_of_a_namespaces_own_are_nobody_elses(namespace: str, other: str, text: str) -> None:
    name = f"{namespace}_{text}"
    assert any(policy.matches(pattern, name, namespace) for pattern in OWN_NAMES)
    is_others = any(policy.matches(pattern, name, other) for pattern in OWN_NAMES)
    assert is_others == (other == namespace)


@given(pattern=st.text(alphabet="ab*_.[]()|\\^$+?", min_size=1, max_size=8), name=st.text(max_size=8))
def test_nothing_but_the_star_means_more_than_itself(pattern: str, name: str) -> None:
    if policy.matches(pattern, name, "a"):
        assert [it for it in pattern if it != "*"] == [it for it in pattern if it != "*" and it in name]
        assert "*" in pattern or name == pattern
    assert policy.matches(pattern, pattern.replace("*", name), "a")


@given(prefix=st.text(min_size=1, max_size=4), name=st.text(max_size=6), suffix=st.text(min_size=1, max_size=4))
def test_the_whole_name_must_fit(prefix: str, name: str, suffix: str) -> None:
    pattern = re.sub(r"[*{}]", "_", name)
    assert policy.matches(pattern, pattern, "a")
    assert not policy.matches(pattern, prefix + pattern, "a")
    assert not policy.matches(pattern, pattern + suffix, "a")


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        pytest.param({}, {}, True, id="an empty one means all"),
        pytest.param({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True, id="more labels do no harm"),
        pytest.param({"matchLabels": {"a": "1", "b": "2"}}, {"a": "1"}, False, id="one is missing"),
        pytest.param({"matchLabels": {"a": ""}}, {}, False, id="an empty value is no missing one"),
        pytest.param(
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {"a": "1"}, True, id="In"
        ),
        pytest.param(expression("In", "1"), {"a": "1"}, True, id="In"),
        pytest.param(expression("In", "1"), {}, False, id="not In"),
        pytest.param(expression("NotIn", "1"), {}, True, id="NotIn"),
        pytest.param(expression("NotIn", "1"), {"a": "1"}, False, id="is in"),
        pytest.param(expression("Exists"), {"a": ""}, True, id="Exists"),
        pytest.param(expression("Exists"), {}, False, id="does not exist"),
        pytest.param(expression("DoesNotExist"), {}, True, id="DoesNotExist"),
        pytest.param(expression("DoesNotExist"), {"a": "1"}, False, id="exists"),
        pytest.param(
            {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]},
            {"a": "1"},
            False,
            id="all must hold",
        ),
    ],
)
def test_selectors_mean_what_they_mean_in_kubernetes(
    selector: dict[str, Any], labels: dict[str, str], expected: bool
) -> None:
    assert policy.selects(LabelSelector.model_validate(selector), labels) is expected
