"""What is checked before the operator acts: all that the shipped roles grant, so that no right is missed later."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from database_bootstrap.controller import preflight

MANIFESTS = Path(__file__).parents[3] / "manifests"
LATER = {
    "get namespaces",  # Who may not see that more is being deleted drops nothing, and says so.
    "get customresourcedefinitions",
}


def granted(path: Path) -> set[str]:
    """Return what a file of roles grants, as words."""
    roles: list[dict[str, Any]] = list(yaml.safe_load_all(path.read_text()))
    return {
        f"{verb} {resource}" + (f" ({group})" if group else "")
        for role in roles
        for rule in role.get("rules", [])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("path", ["rbac/operator_role.yaml", "namespaced/role.yaml"])
def test_every_right_that_is_granted_is_asked_for_at_the_start(path: str) -> None:
    asked = {str(right) for right in preflight.rights(watch_secrets=False)}
    of_servers = {str(right) for right in (*preflight.WATCH_SERVERS, preflight.TELL_OF_SERVERS)}
    there = {right.removesuffix(" (apiextensions.k8s.io)") for right in granted(MANIFESTS / path)}
    assert there - LATER - of_servers == asked
    assert not [right for right in there if "*" in right or right in {"list secrets", "watch secrets"}]


def test_overlay_grants_what_watching_secrets_needs() -> None:
    more = {str(right) for right in preflight.rights(watch_secrets=True)}
    asked = {str(right) for right in preflight.rights(watch_secrets=False)}
    assert granted(MANIFESTS / "overlays" / "watch-secrets" / "role.yaml") == more - asked
