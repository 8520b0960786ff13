"""The status: what is written, and what is understood of what somebody else wrote."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.api.status import (
    Condition,
    DatabaseStatus,
    ExtensionStatus,
    FailedMigration,
    LastChange,
    Origin,
    SeedState,
    SeedStatus,
    Status,
    clean,
    parse_status,
)

NOON = datetime(2026, 3, 1, 12, 0, 0, 987_654, tzinfo=timezone(timedelta(hours=2)))
READY = Condition(
    type="Ready", status="True", observed_generation=3, last_transition_time=NOON, reason="Succeeded", message="Yes."
)
FULL = Status(
    observed_generation=3,
    conditions=(READY,),
    database=DatabaseStatus(name="d", oid=4_294_967_295, origin=Origin.CREATED, incarnation="i", ledger_seq=0),
    extensions=(ExtensionStatus(name="pg_trgm", version="1.6", schema_name="public"),),
    seed=SeedStatus(state=SeedState.SEEDED, digest="sha256:1", completed_time=NOON),
    last_change=LastChange(time=NOON, generation=3, changes=12),
    last_handled_reconcile_at="now",
)


def test_a_status_is_written_in_camel_case_without_what_is_unknown() -> None:
    assert FULL.manifest() == {
        "observedGeneration": 3,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "observedGeneration": 3,
                "lastTransitionTime": "2026-03-01T10:00:00Z",
                "reason": "Succeeded",
                "message": "Yes.",
            }
        ],
        "database": {"name": "d", "oid": 4_294_967_295, "origin": "Created", "incarnation": "i", "ledgerSeq": 0},
        "extensions": [{"name": "pg_trgm", "version": "1.6", "schema": "public"}],
        "seed": {"state": "Seeded", "digest": "sha256:1", "completedTime": "2026-03-01T10:00:00Z"},
        "lastChange": {"time": "2026-03-01T10:00:00Z", "generation": 3, "changes": 12},
        "lastHandledReconcileAt": "now",
    }


def test_an_empty_status_says_that_nobody_has_looked() -> None:
    assert Status().manifest() == {"observedGeneration": -1}


def test_what_was_written_is_read_back_and_written_the_same() -> None:
    assert parse_status(FULL.manifest()).manifest() == FULL.manifest()


def test_a_newer_status_is_understood_as_far_as_possible() -> None:
    newer = FULL.manifest() | {"access": [1], "seed": {"state": "Renewed"}, "role": {"name": "r", "rank": 1}}
    read = parse_status(newer)
    assert read.seed is None
    assert read.role is not None
    assert read.role.name == "r"
    assert read.database == FULL.database


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"observedGeneration": None},
        {"conditions": "none"},
        {"conditions": [{"type": "Ready"}]},
        {"database": []},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_broken_status_is_nothing_worse_than_unknown(raw: dict[str, object]) -> None:
    assert parse_status(raw) == Status()


@given(st.text(), st.integers(1, 40))
def test_clean_text_is_short_printable_and_utf8(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in cleaned)
    cleaned.encode()
    if len(text) <= limit and text.isalnum():
        assert cleaned == text


def test_surrogates_are_cleaned() -> None:
    assert clean("a\ud800b", 10) == "a?b"


def test_what_a_server_says_is_cut_rather_than_refused() -> None:
    failed = FailedMigration(name="\x00" * 1000, message="x" * 10_000)
    assert failed.message is not None
    assert (len(failed.name), len(failed.message)) == (256, 4096)
    assert READY.model_copy().message == "Yes."
