"""What crosses between operator and sandbox: nothing forged is believed, and no form of a password gets through."""

import socket
from urllib.parse import quote

import pytest

from database_bootstrap.tools.sandbox import scrub, wire

PASSWORD = "p%w/: 'ü\\x"
EVENTS: list[wire.Event] = [
    wire.Entered(4711),
    wire.Opened("public", "alembic_version", False),
    wire.Running("r1"),
    wire.Uncovered("r1"),
    wire.Applied("r1"),
    wire.Committed(),
    wire.Failed(kind="code", type="ValueError", text="no", revision="r1", file="env.py", line=3),
]
ENDED = wire.Ended(status=-9, late=True, output="…")


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_arrives_as_it_was_sent(event: wire.Event) -> None:
    assert wire.decode_event(wire.encode_event(event).rstrip(b"\n"), wire.CHILD) == event


def test_only_the_supervisor_says_that_a_run_has_ended() -> None:
    line = wire.encode_event(ENDED)
    assert wire.decode_event(line, wire.OWNER) == ENDED
    assert wire.decode_event(line, wire.CHILD) is None
    assert wire.decode_event(wire.encode_event(EVENTS[0]), wire.OWNER) is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b"{}",
        b'{"event": 1}',
        b'{"event": []}',
        b'{"event": "running"}',
        b'{"event": "running", "revision": 7}',
        b'{"event": "running", "revision": "r1", "more": 1}',
        b"[" * 60000,
    ],
)
def test_what_is_no_event_is_ignored(line: bytes) -> None:
    assert wire.decode_event(line, wire.CHILD) is None


def test_a_job_travels_without_its_password() -> None:
    job = wire.Job(
        project=wire.Project(
            root="", config=None, toml=None, script_location="", version_locations=("v",), recursive=False,
            environment=None,
        ),
        target=wire.Target(
            host="h", port=1, user="u", database="d", application_name="a", sslmode="prefer", require_auth="", ca=None,
            schema="public", lock_timeout=5, statement_timeout=0, owner_pid=7,
        ),
        limits=wire.Limits(seconds=3),
        actor="shop/orders",
        checksums={"r1": "00"},
        files=(("v/a.py", b"\0\xff"), ("b", b"")),
        password=PASSWORD,
    )  # fmt: skip
    encoded = wire.encode_job(job)
    assert PASSWORD.encode() not in encoded
    assert PASSWORD not in repr(job)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encoded)
        received = wire.receive_job(theirs)
        assert (received.files, received.target, received.project) == (job.files, job.target, job.project)
        assert received.password == ""
        ours.sendall(encoded[:20])
        ours.close()
        with pytest.raises(EOFError):
            wire.receive_job(theirs)


@pytest.mark.parametrize(
    "form",
    [PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), repr(PASSWORD)[1:-1], PASSWORD.replace("%", "%%")],
)
def test_no_form_of_the_password_is_left_in_a_text(form: str) -> None:
    assert scrub.text(f"a {form} b {form}", PASSWORD) == "a *** b ***"


def test_every_text_of_an_event_is_scrubbed() -> None:
    failed = wire.Failed(kind="code", type=f"E{PASSWORD}", text=PASSWORD, revision=PASSWORD, file=PASSWORD, line=1)
    assert PASSWORD not in repr(scrub.event(failed, PASSWORD))
    assert PASSWORD not in repr(scrub.event(wire.Ended(status=0, late=False, output=f"x{PASSWORD}"), PASSWORD))


def test_an_empty_password_masks_nothing() -> None:
    assert scrub.text("words", "") == "words"
