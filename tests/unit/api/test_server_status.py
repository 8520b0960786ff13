"""The status of a DatabaseServer: kstatus understands every end of a look, and what is known is not lost."""

from datetime import UTC, datetime, timedelta

import pytest

from database_bootstrap.api import server_status
from database_bootstrap.api.server_status import MissingRight, ServerObjectStatus, derive, parse_server_status
from database_bootstrap.api.status import ServerStatus
from database_bootstrap.errors import BootstrapError, ReferenceRejected, ServerUnreachable
from status_linter import kstatus

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FOUND = ServerObjectStatus(server=ServerStatus(host="db", port=5432, version="18.6"), databases=3)
LACKING = FOUND.model_copy(update={"missing_rights": (MissingRight(right="CREATEDB", sql="ALTER ROLE a CREATEDB"),)})


def test_word_that_was_acted_upon_outlives_every_look() -> None:
    before = ServerObjectStatus(last_handled_reconcile_at="7")
    for error in (None, ServerUnreachable("no answer")):
        assert derive(FOUND, error, before=before, generation=1, now=NOW).last_handled_reconcile_at == "7"


def said(status: ServerObjectStatus) -> dict[str, tuple[str, str]]:
    return {it.type: (it.status, it.reason) for it in status.conditions}


@pytest.mark.parametrize(
    ("found", "error", "verdict", "expected"),
    [
        pytest.param(
            FOUND,
            None,
            "Current",
            {
                "Ready": ("True", "Succeeded"),
                "Reachable": ("True", "Succeeded"),
                "RightsSuffice": ("True", "Succeeded"),
            },
            id="all is well",
        ),
        pytest.param(
            LACKING,
            None,
            "Failed",
            {
                "Ready": ("False", "AccessDenied"),
                "Stalled": ("True", "AccessDenied"),
                "Reachable": ("True", "Succeeded"),
                "RightsSuffice": ("False", "AccessDenied"),
            },
            id="a right is missing",
        ),
        pytest.param(
            ServerObjectStatus(),
            ServerUnreachable("no answer"),
            "InProgress",
            {
                "Ready": ("False", "ServerUnreachable"),
                "Reconciling": ("True", "ProgressingWithRetry"),
                "Reachable": ("False", "ServerUnreachable"),
                "RightsSuffice": ("Unknown", "Blocked"),
            },
            id="it heals by itself",
        ),
        pytest.param(
            ServerObjectStatus(),
            ReferenceRejected("the Secret holds nonsense"),
            "Failed",
            {
                "Ready": ("False", "ReferenceRejected"),
                "Stalled": ("True", "ReferenceRejected"),
                "Reachable": ("False", "ReferenceRejected"),
                "RightsSuffice": ("Unknown", "Blocked"),
            },
            id="it needs a person",
        ),
    ],
)
def test_conditions_say_how_it_stands(
    found: ServerObjectStatus, error: BootstrapError | None, verdict: str, expected: dict[str, tuple[str, str]]
) -> None:
    status = derive(found, error, before=ServerObjectStatus(), generation=4, now=NOW)
    assert said(status) == expected
    obj = {"metadata": {"generation": 4}, "status": status.manifest()}
    assert kstatus(obj) == verdict
    assert {it["observedGeneration"] for it in obj["status"]["conditions"]} == {4}


def test_what_was_known_of_a_server_that_is_away_stays_known() -> None:
    before = derive(FOUND, None, before=ServerObjectStatus(), generation=1, now=NOW)
    later = NOW + timedelta(minutes=1)
    after = derive(ServerObjectStatus(), ServerUnreachable("no"), before=before, generation=1, now=later)
    assert (after.server, after.databases) == (FOUND.server, 3)
    assert {it.type: it.last_transition_time for it in after.conditions}["Ready"] == later
    again = derive(ServerObjectStatus(), ServerUnreachable("no"), before=after, generation=1, now=NOW + timedelta(1))
    assert again == after


def test_a_right_that_was_given_is_missing_no_more() -> None:
    before = derive(LACKING, None, before=ServerObjectStatus(), generation=1, now=NOW)
    assert "ALTER ROLE a CREATEDB" in before.conditions[0].message
    after = derive(FOUND, None, before=before, generation=1, now=NOW).manifest()
    assert "missingRights" not in after
    assert parse_server_status(after).databases == 3


def test_status_that_cannot_be_understood_is_as_if_nobody_had_looked() -> None:
    assert parse_server_status({"conditions": "none"}) == ServerObjectStatus()
    assert server_status.ServerObjectStatus().observed_generation == -1


def test_extensions_of_superusers_are_said_and_no_trouble() -> None:
    found = FOUND.model_copy(update={"extensions_for_superusers": ("dblink", "postgis")})
    status = derive(found, None, before=ServerObjectStatus(), generation=1, now=NOW)
    (suffice,) = [it for it in status.conditions if it.type == "RightsSuffice"]
    assert suffice.status == "True"
    assert "only a superuser can create dblink, postgis here" in suffice.message
    assert status.manifest()["extensionsForSuperusers"] == ["dblink", "postgis"]
