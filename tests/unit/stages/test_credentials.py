"""Admin Secrets: those that people have, and a sentence for each that cannot be one."""

import pytest
from psycopg import pq

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
    with pytest.raises(ReferenceNotFound, match=f"has no key {missing}$"):
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


@pytest.mark.parametrize("keyword", sorted({option.keyword.decode() for option in pq.Conninfo.get_defaults()}))
def test_uri_sets_nothing_that_reaches_files_or_the_session(keyword: str) -> None:
    """Whatever the libpq at hand knows, spelled as it is and percent-encoded, in a URI and in a list of keywords."""
    known = {"host", "port", "user", "password", "dbname", "sslmode", "require_auth"}
    unused = {"connect_timeout", "channel_binding"}
    encoded = "".join(f"%{ord(character):02x}" for character in keyword)
    for text in (
        f"postgresql://a:topsecret@h/db?{keyword}=1",
        f"postgresql://a:topsecret@h/db?{encoded}=1",
        f"postgresql://a:topsecret@h/db?sslmode=require&{encoded}=%2Fetc%2Fpasswd",
        f"host=h user=a password=topsecret {keyword}='1'",
    ):
        if keyword in known | unused:
            continue
        with pytest.raises(ReferenceRejected, match=f"{keyword} cannot be set here") as refusal:
            administrator("admin", data(uri=text))
        assert "topsecret" not in refusal.value.message


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql://a:topsecret@%2Fvar%2Frun/db", "no socket"),
        ("postgresql://a:topsecret@%40abstract/db", "no socket"),
        ("postgresql://a:topsecret@/db?host=%2Ftmp", "no socket"),
        ("postgresql://a:topsecret@h1,h2/db", "no list"),
        ("postgresql://a:topsecret@h1:1,h2:2/db", "no list"),
        ("postgresql://a:topsecret@h/db?host=h2%2Ch3", "no list"),
        ("postgresql://a:topsecret@h:5432/db?port=1,2", "port must be"),
        ("postgresql://a:topsecret@/db", "key uri: gives no host$"),
        ("postgresql://", "key uri: gives no host and no user and no password"),
        ("postgresql://a:topsecret@h/db?ho%73taddr=192.0.2.1", "hostaddr cannot be set here"),
        ("postgresql://a:topsecret@h/db?sslmode=disable%20options", "sslmode must be"),
    ],
)
def test_uri_names_one_host_and_nothing_else(uri: str, said: str) -> None:
    with pytest.raises(ReferenceRejected, match=said) as refusal:
        administrator("admin", data(uri=uri))
    assert "topsecret" not in refusal.value.message


@pytest.mark.parametrize("uri", ["mysql://a:topsecret@h/db", "postgresql://a:topsecret@h:port/db%zz", "topsecret"])
def test_text_of_a_refused_uri_is_not_repeated(uri: str) -> None:
    with pytest.raises(ReferenceRejected) as refusal:
        administrator("admin", data(uri=uri))
    assert "topsecret" not in refusal.value.message
