"""The spec: its defaults, its names in JSON and Python, and the sentences with which it is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from database_bootstrap.api import v1alpha1
from database_bootstrap.api.v1alpha1 import parse_spec
from database_bootstrap.errors import SpecRejected
from rule_cases import BASE, SOURCE, changed

SMALLEST = {"server": {"adminSecretRef": {"name": "a"}}, "role": {"name": "r"}, "database": {"name": "d"}}


def refusal(raw: Any) -> str:
    with pytest.raises(SpecRejected) as caught:
        parse_spec(raw)
    return caught.value.message


def test_defaults_are_those_of_the_design() -> None:
    spec = parse_spec(SMALLEST | {"migrations": {"tool": "SQL", "source": SOURCE}, "seed": {"source": SOURCE}})
    assert (spec.database.encoding, spec.database.template, spec.database.locale) == ("UTF8", "template1", None)
    assert (spec.suspend, spec.interval_seconds, spec.schemas, spec.extensions) == (False, 600, (), ())
    assert spec.migrations is not None
    assert (spec.migrations.tool, spec.migrations.schema_name) == (v1alpha1.Tool.SQL, "public")
    timeouts = (spec.migrations.lock_timeout_seconds, spec.migrations.statement_timeout_seconds)
    assert (*timeouts, spec.migrations.timeout_seconds) == (5, 0, 600)
    assert spec.seed is not None
    assert spec.seed.policy is v1alpha1.SeedPolicy.IF_EMPTY
    assert spec.role.password_secret_ref is None


def test_the_password_is_under_the_key_password_unless_it_is_said_otherwise() -> None:
    ref = parse_spec(BASE["spec"]).role.password_secret_ref
    assert ref is not None
    assert (ref.name, ref.key) == ("shop-password", "password")


def test_schema_is_schema_name_in_python_and_schema_in_json() -> None:
    extension = v1alpha1.ExtensionSpec(name="pg_trgm", schema_name="public")
    assert extension == v1alpha1.ExtensionSpec.model_validate({"name": "pg_trgm", "schema": "public"})
    assert extension.model_dump(by_alias=True) == {"name": "pg_trgm", "version": None, "schema": "public"}


def test_a_spec_written_in_python_is_the_one_read_from_json() -> None:
    written = v1alpha1.Spec(
        server=v1alpha1.ServerSpec(admin_secret_ref=v1alpha1.AdminSecretRef(name="a")),
        role=v1alpha1.RoleSpec(name="r"),
        database=v1alpha1.DatabaseSpec(name="d"),
    )
    assert written == parse_spec(SMALLEST)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse_spec(SMALLEST).suspend = True


def test_models_enforce_the_rules_without_a_parser() -> None:
    with pytest.raises(ValidationError, match="must not be a reserved name"):
        v1alpha1.RoleSpec(name="public")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param({"connectionSecret": {"name": "mine"}}, "mine", id="named"),
        pytest.param({}, "shop-db", id="default"),
    ],
)
def test_connection_secret_has_a_default_name(name: dict[str, Any], expected: str) -> None:
    assert parse_spec(SMALLEST | name).connection_secret_name("shop") == expected


def test_null_is_absent_as_on_the_api_server() -> None:
    assert parse_spec(
        SMALLEST | {"seed": None, "suspend": None, "database": {"name": "d", "locale": None}}
    ) == parse_spec(SMALLEST)


def test_a_null_within_a_list_is_none_of_ours() -> None:
    assert v1alpha1.without_nulls({"a": [None, {"b": None}]}) == {"a": [None, {}]}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param({}, "spec.server: is required; spec.role: is required; spec.database: is required", id="empty"),
        pytest.param(SMALLEST | {"databse": {}}, "spec.databse: is not a field of the resource", id="unknown"),
        pytest.param(SMALLEST | {"intervalSeconds": "5"}, "spec.intervalSeconds: must be a valid integer", id="type"),
        pytest.param(
            SMALLEST | {"migrations": {"tool": "Flyway", "source": SOURCE}},
            "spec.migrations.tool: must be 'Prisma', 'Alembic' or 'SQL'",
            id="enum",
        ),
        pytest.param(
            SMALLEST | {"schemas": [{"name": "a"}, {"name": "public"}]},
            "spec.schemas[1].name: `schemas[].name` must not be public: it needs no entry, and is never altered or "
            "dropped",
            id="rule",
        ),
    ],
)
def test_refusals_are_sentences_that_name_the_field(raw: dict[str, Any], expected: str) -> None:
    assert refusal(raw) == expected


def test_many_mistakes_are_counted() -> None:
    message = refusal(SMALLEST | {f"field{number}": 1 for number in range(10)})
    assert message.endswith("; and 7 more")
    assert message.count("is not a field") == 3


@pytest.mark.parametrize("place", ["spec.role.name", "spec.migrations.tool", "spec.suspend", "spec.migrations.source"])
def test_refusals_never_repeat_a_value(place: str) -> None:
    assert "canary" not in refusal(changed({place: "canary" * 100_000})["spec"])


def test_names_of_unknown_fields_are_cut_and_cleaned() -> None:
    message = refusal(SMALLEST | {"\x1b[31m" + "x" * 100_000: 1})
    assert "\x1b" not in message
    assert len(message) < 150


def test_text_that_is_no_text_is_refused() -> None:
    assert refusal(SMALLEST | {"role": {"name": "a\ud800"}}).startswith("spec.role.name: must be a valid string")


@pytest.mark.parametrize("name", ["Shop", "a_b", "x" * 249])
def test_a_resource_needs_a_name_that_its_secrets_can_have(name: str) -> None:
    with pytest.raises(SpecRejected, match=r"`metadata.name` must be"):
        v1alpha1.check_root(name, parse_spec(SMALLEST))
