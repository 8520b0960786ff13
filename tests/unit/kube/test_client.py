"""What the API refuses, in our own words."""

import json

import pytest

from database_bootstrap import errors
from database_bootstrap.kube import client
from database_bootstrap.kube.client import (
    CONFIG_MAPS,
    GROUPS,
    SECRETS,
    Call,
    ConflictError,
    ExpiredError,
    Kind,
    NotFoundError,
)

CANARY = "s3cret-canary"
GET = Call(verb="get", kind=SECRETS, namespace="shop", name="admin")


def refusal(call: Call, status: int, **said: str) -> Exception:
    """Return the error that a refusal becomes."""
    with pytest.raises(Exception) as caught:
        client._refuse(call, status, json.dumps(said).encode())
    return caught.value


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.ReferenceRejected),
        (401, errors.ClusterUnavailable),
        (403, errors.ClusterUnavailable),
        (404, NotFoundError),
        (409, ConflictError),
        (410, ExpiredError),
        (413, errors.ReferenceRejected),
        (422, errors.ReferenceRejected),
        (429, errors.ClusterUnavailable),
        (500, errors.ClusterUnavailable),
        (503, errors.ClusterUnavailable),
    ],
)
def test_every_refusal_is_an_error_of_ours(status: int, error: type[Exception]) -> None:
    assert type(refusal(GET, status, message="No.")) is error


def test_sentence_names_what_was_asked_and_what_was_said() -> None:
    said = str(refusal(GET, 403, message="No, you may not."))
    assert said.endswith('get secrets "admin" in namespace shop: No, you may not.')


def test_missing_right_is_told_from_an_outage() -> None:
    forbidden, away = refusal(GET, 403, message="No."), refusal(GET, 503, message="No.")
    assert isinstance(forbidden, errors.ClusterUnavailable)
    assert isinstance(away, errors.ClusterUnavailable)
    assert forbidden.forbidden
    assert not away.forbidden


def test_refusal_of_a_secret_that_was_sent_repeats_only_the_reason() -> None:
    sent = Call(verb="create", kind=SECRETS, namespace="shop", body={"data": {"password": CANARY}})
    said = str(refusal(sent, 422, message=f'Invalid value: "{CANARY}"', reason="Invalid"))
    assert CANARY not in said
    assert said.endswith("Invalid")


def test_call_does_not_show_what_it_sends() -> None:
    assert CANARY not in repr(Call(verb="create", kind=SECRETS, body={"data": CANARY}))


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"kind": "Status"}', b"\xff"], ids=repr)
def test_answer_that_is_no_answer_is_survived(content: bytes) -> None:
    with pytest.raises(errors.ClusterUnavailable, match="no reason given"):
        client._refuse(GET, 502, content)


def test_long_answer_is_cut() -> None:
    assert len(str(refusal(GET, 500, message="x" * 10_000))) < 700


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (GROUPS.path(None), "/apis"),
        (CONFIG_MAPS.path(None), "/api/v1/configmaps"),
        (CONFIG_MAPS.path("shop"), "/api/v1/namespaces/shop/configmaps"),
        (CONFIG_MAPS.path("shop", "a"), "/api/v1/namespaces/shop/configmaps/a"),
        (Kind("g.io", "v1", "things").path("n", "a", "status"), "/apis/g.io/v1/namespaces/n/things/a/status"),
        (Kind("g.io", "v1", "").path(None), "/apis/g.io/v1"),
        (CONFIG_MAPS.path("shop", "../secrets/x"), "/api/v1/namespaces/shop/configmaps/..%2Fsecrets%2Fx"),
    ],
)
def test_path_is_that_of_the_api(path: str, expected: str) -> None:
    assert path == expected
