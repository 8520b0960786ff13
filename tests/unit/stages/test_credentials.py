"""Admin Secrets: those that people have, and a sentence for each that cannot be one."""

import pytest

from database_bootstrap.errors import ReferenceNotFound, ReferenceRejected
from database_bootstrap.stages.logins import administrator


def data(**values: str) -> dict[str, bytes]:
    return {key.replace("__", "-").replace("ca_crt", "ca.crt"): value.encode() for key, value in values.items()}


PLAIN = {"host": "db.example.com", "username": "postgres", "password": "p@ss: /?#"}


def test_plain_keys() -> None:
    login = administrator("admin", data(**PLAIN, port="6432", dbname="main", sslmode="verify-full"))
    assert (login.endpoint.host, login.endpoint.port, login.user, login.password, login.database) == (
        "db.example.com",
        6432,
        "postgres",
        "p@ss: /?#",
        "main",
    )
    assert login.endpoint.sslmode == "verify-full"


def test_uri() -> None:
    login = administrator("admin", data(uri="postgresql://ann:p%40ss@[::1]:6000/db?sslmode=require"))
    assert (login.endpoint.host, login.endpoint.port, login.user, login.password) == ("::1", 6000, "ann", "p@ss")


def test_cloudnativepg_prefers_the_qualified_uri_and_knows_the_star() -> None:
    login = administrator("admin", data(uri="postgresql://a:b@short/*", fqdn__uri="postgresql://a:b@long.ns:5432/*"))
    assert (login.endpoint.host, login.database) == ("long.ns", "postgres")


def test_service_binding_keys() -> None:
    login = administrator("admin", data(**PLAIN, database="main", type="postgresql", provider="x"))
    assert login.database == "main"


def test_password_is_not_in_the_repr() -> None:
    assert "p@ss" not in repr(administrator("admin", data(**PLAIN)))


@pytest.mark.parametrize("missing", ["host", "username", "password"])
def test_missing_key_is_named(missing: str) -> None:
    values = {key: value for key, value in PLAIN.items() if key != missing}
    with pytest.raises(ReferenceNotFound, match="has no key"):
        administrator("admin", data(**values))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"password": "secret\n"}, "line break", id="trailing newline"),
        pytest.param({"password": ""}, "empty", id="empty"),
        pytest.param({"password": "a\x00b"}, "control", id="nul"),
        pytest.param({"port": "70000"}, "port", id="port too great"),
        pytest.param({"port": "x"}, "port", id="port no number"),
        pytest.param({"port": "٣"}, "port", id="port in other digits"),
        pytest.param({"host": "/var/run"}, "socket", id="socket"),
        pytest.param({"host": "a,b"}, "list", id="several hosts"),
        pytest.param({"sslmode": "maybe"}, "sslmode", id="sslmode"),
        pytest.param({"ca_crt": "not pem"}, "PEM", id="no certificate"),
    ],
)
def test_value_that_cannot_be_meant_is_refused(changed: dict[str, str], said: str) -> None:
    with pytest.raises(ReferenceRejected, match=said):
        administrator("admin", data(**(PLAIN | changed)))


@pytest.mark.parametrize(
    "query",
    [
        "options=-csearch_path%3Devil",
        "passfile=/etc/passwd",
        "service=x",
        "sslkey=/x",
        "sslrootcert=/x",
        "target_session_attrs=any",
    ],
)
def test_uri_cannot_set_what_reaches_files_or_the_session(query: str) -> None:
    with pytest.raises(ReferenceRejected, match="cannot be set here"):
        administrator("admin", data(uri=f"postgresql://a:topsecret@h/db?{query}"))


@pytest.mark.parametrize("uri", ["mysql://a:topsecret@h/db", "postgresql://a:topsecret@h:port/db%zz", "topsecret"])
def test_text_of_a_refused_uri_is_not_repeated(uri: str) -> None:
    with pytest.raises(ReferenceRejected) as refusal:
        administrator("admin", data(uri=uri))
    assert "topsecret" not in refusal.value.message
