"""Flags first, then the environment, then the default; what cannot be is refused with a sentence."""

import argparse
from typing import Any

import pytest

from database_bootstrap import settings
from database_bootstrap.settings import Address, AdminSecretRefs, Sandbox, SandboxMode, Settings


def parse(*arguments: str, **environ: str) -> Settings:
    parser = argparse.ArgumentParser(exit_on_error=False)
    settings.add_arguments(parser)
    return settings.from_arguments(parser.parse_args(arguments), environ)


def test_defaults_are_those_of_the_type() -> None:
    assert parse() == Settings()


@pytest.mark.parametrize(
    ("arguments", "environ", "field", "value"),
    [
        (["--namespace", "a", "--namespace", "b"], {}, "namespaces", ("a", "b")),
        ([], {"DBBOOTSTRAP_NAMESPACE": "a, b,a"}, "namespaces", ("a", "b")),
        (["--namespace", "a"], {"DBBOOTSTRAP_NAMESPACE": "b"}, "namespaces", ("a",)),
        (["--cluster-id", "prod"], {}, "cluster_id", "prod"),
        ([], {"DBBOOTSTRAP_CLUSTER_ID": "prod"}, "cluster_id", "prod"),
        (["--workers", "2"], {"DBBOOTSTRAP_WORKERS": "3"}, "workers", 2),
        ([], {"DBBOOTSTRAP_WORKERS": "3"}, "workers", 3),
        ([], {"DBBOOTSTRAP_WORKERS": ""}, "workers", Settings().workers),
        (["--max-connections-per-server", "3"], {}, "max_connections", 3),
        (["--health-address", ":9000"], {}, "health", Address(host="0.0.0.0", port=9000)),
        (["--health-address", "[::1]:0"], {}, "health", Address(host="::1", port=0)),
        (["--leader-elect"], {}, "leader_elect", True),
        (["--no-leader-elect"], {"DBBOOTSTRAP_LEADER_ELECT": "true"}, "leader_elect", False),
        ([], {"DBBOOTSTRAP_LEADER_ELECT": "true"}, "leader_elect", True),
        ([], {"DBBOOTSTRAP_LEADER_ELECT": "0"}, "leader_elect", False),
        ([], {"POD_NAMESPACE": "here"}, "lease_namespace", "here"),
        (["--lease-namespace", "there"], {"POD_NAMESPACE": "here"}, "lease_namespace", "there"),
        (["--grace-seconds", "1.5"], {}, "grace_seconds", 1.5),
        (["--log-level", "debug"], {}, "log_level", "DEBUG"),
        ([], {"DBBOOTSTRAP_LOG_FORMAT": "text"}, "log_format", "text"),
        (["--watch-secrets"], {}, "watch_secrets", True),
        (["--kubeconfig", "x", "--context", "y"], {}, "context", "y"),
        (["--admin-secret-refs", "Refused"], {}, "admin_secret_refs", AdminSecretRefs.REFUSED),
        ([], {"DBBOOTSTRAP_ADMIN_SECRET_REFS": "Refused"}, "admin_secret_refs", AdminSecretRefs.REFUSED),
        (["--alembic-sandbox", "Refused"], {}, "sandbox", Sandbox(mode=SandboxMode.REFUSED)),
        ([], {"DBBOOTSTRAP_ALEMBIC_SANDBOX": "Unconfined"}, "sandbox", Sandbox(mode=SandboxMode.UNCONFINED)),
        (
            ["--alembic-sandbox-min-abi", "4"],
            {"DBBOOTSTRAP_ALEMBIC_SANDBOX_MIN_ABI": "5"},
            "sandbox",
            Sandbox(min_abi=4),
        ),
        ([], {"DBBOOTSTRAP_ALEMBIC_SANDBOX_MIN_ABI": "6"}, "sandbox", Sandbox(min_abi=6)),
    ],
)
def test_value_comes_from_flag_or_environment(
    arguments: list[str], environ: dict[str, str], field: str, value: Any
) -> None:
    assert getattr(parse(*arguments, **environ), field) == value


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DBBOOTSTRAP_WORKERS", "0", "at least 1"),
        ("DBBOOTSTRAP_WORKERS", "many", "at least 1"),
        ("DBBOOTSTRAP_MAX_CONNECTIONS_PER_SERVER", "2", "at least 3"),
        ("DBBOOTSTRAP_HEALTH_ADDRESS", "8080", "HOST:PORT"),
        ("DBBOOTSTRAP_HEALTH_ADDRESS", ":70000", "HOST:PORT"),
        ("DBBOOTSTRAP_LEADER_ELECT", "perhaps", "neither true nor false"),
        ("DBBOOTSTRAP_LOG_LEVEL", "LOUD", "INFO"),
        ("DBBOOTSTRAP_LOG_FORMAT", "xml", "neither json nor text"),
        ("DBBOOTSTRAP_GRACE_SECONDS", "-1", "number of seconds"),
        ("DBBOOTSTRAP_ALEMBIC_SANDBOX", "off", "'off' is none of Sandboxed, Refused, Unconfined"),
        ("DBBOOTSTRAP_ALEMBIC_SANDBOX_MIN_ABI", "0", "at least 1"),
        ("DBBOOTSTRAP_CLUSTER_ID", "our cluster", "one word"),
        ("DBBOOTSTRAP_NAMESPACE", "Shop", "'Shop' is not the name of a namespace"),
    ],
)
def test_value_of_the_environment_that_cannot_be_is_refused(variable: str, value: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(**{variable: value})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workers", "0"],
        ["--max-connections-per-server", "2"],
        ["--health-address", "x"],
        ["--log-level", "loud"],
        ["--cluster-id", "our cluster"],
        ["--admin-secret-refs", "refused"],
        ["--alembic-sandbox", "Off"],
        ["--alembic-sandbox-min-abi", "x"],
    ],
    ids=str,
)
def test_flag_that_cannot_be_is_refused(arguments: list[str]) -> None:
    with pytest.raises(argparse.ArgumentError):
        parse(*arguments)


def test_every_flag_is_explained() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    settings.add_arguments(parser)
    assert all(action.help for action in parser._actions)
