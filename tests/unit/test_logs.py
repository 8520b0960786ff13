"""A line of the log is one JSON object, names its resource, and repeats no exception's text."""

import io
import json
import logging

import pytest

from database_bootstrap import logs
from database_bootstrap.settings import LogFormat

CANARY = "s3cret-canary"
pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def fail() -> None:
    try:
        int(CANARY)  # Its text repeats what it was given.
    except ValueError:
        logging.getLogger("database_bootstrap.test").exception("Visit failed", extra=logs.about("shop", "db"))


def test_json_line_has_time_level_and_resource(stream: io.StringIO) -> None:
    logs.set_up("INFO", "json", stream)
    logging.getLogger("database_bootstrap.test").info("Created %s", "role", extra=logs.about("shop", "db"))
    line = json.loads(stream.getvalue())
    assert line["message"] == "Created role"
    assert line["level"] == "info"
    assert line["object"] == {"kind": "DatabaseBootstrap", "namespace": "shop", "name": "db"}
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("form", ["json", "text"])
def test_text_of_an_exception_is_not_repeated(stream: io.StringIO, form: LogFormat) -> None:
    logs.set_up("INFO", form, stream)
    fail()
    assert "ValueError" in stream.getvalue()
    assert "in fail" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_each_line_is_one_object_whatever_it_says(stream: io.StringIO) -> None:
    logs.set_up("INFO", "json", stream)
    logging.getLogger("x").warning("two\nlines")
    fail()
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == ["warning", "error"]


@pytest.mark.parametrize(("key", "shown"), [(("shop", "db"), "shop/db"), (("", "main"), "main")])
def test_text_line_names_the_resource(stream: io.StringIO, key: tuple[str, str], shown: str) -> None:
    logs.set_up("INFO", "text", stream)
    logging.getLogger("x").info("Created role", extra=logs.about(*key))
    assert stream.getvalue().endswith(f"Created role [{shown}]\n")


def test_text_is_one_line_whatever_a_server_says(stream: io.StringIO) -> None:
    logs.set_up("INFO", "text", stream)
    said = 'at or near "$$\n22:00:00 INFO    Changed: nothing\x1b[2J\u2028"'
    logging.getLogger("x").warning("Visit ended: %s", said, extra=logs.about("shop", "db"))
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert line.endswith(r'near "$$\n22:00:00 INFO    Changed: nothing\x1b[2J\u2028" [shop/db]')


@pytest.mark.parametrize("name", ["kopf", "kopf.objects", "asyncio", "aiohttp"])
def test_others_are_heard_only_when_something_is_wrong(stream: io.StringIO, name: str) -> None:
    logs.set_up("INFO", "json", stream)
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["trouble"]


@pytest.mark.parametrize(
    ("name", "message", "level"),
    [
        ("kopf._cogs.clients.watching", "Request attempt #1/5 failed; will retry: GET {} -> Busy()", "warning"),
        ("kopf._cogs.clients.watching", "Request attempt #5/5 failed; escalating: GET {} -> Busy()", "error"),
        ("database_bootstrap.test", "Request attempt #1/5 failed; will retry: GET {} -> Busy()", "error"),
    ],
)
def test_what_kopf_tries_again_is_a_warning(stream: io.StringIO, name: str, message: str, level: str) -> None:
    logs.set_up("INFO", "json", stream)
    logging.getLogger(name).error(message)
    assert json.loads(stream.getvalue())["level"] == level


def test_what_kopf_tries_again_and_again_is_told_less_and_less(stream: io.StringIO) -> None:
    logs.set_up("INFO", "json", stream)
    for attempt in range(1, 101):
        logging.getLogger("kopf.test").error(f"Request attempt #{attempt} failed; will retry: GET x -> Busy()")
    told = [json.loads(line)["message"].split()[2] for line in stream.getvalue().splitlines()]
    assert told == ["#1", "#2", "#4", "#8", "#16", "#32", "#64"]
