"""The connection Secret: whatever the password is, each form of it reads back as the same connection."""

import re
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from database_bootstrap.api.binding import Connection, connection_of, secret_data

PLAIN = Connection(host="db.shop", port=5432, database="shop", user="smart_dev", password="secret", sslmode="require")

# What PostgreSQL and a Secret can hold: UTF-8 without NUL.
text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40)
hosts = st.sampled_from(["localhost", "db.shop.svc.cluster.local", "10.0.0.1", "::1", "fe80::1%eth0", "fd00::a:1"])
connections = st.builds(
    Connection,
    host=hosts,
    port=st.integers(1, 65_535),
    database=text,
    user=text,
    password=text,
    sslmode=st.sampled_from(["", "disable", "require", "verify-full"]),
    ca=st.none() | text,
)
HOSTILE = [
    ":@/?#[]%",
    "a+b c",
    "%41%00",
    "\\:\\\\:",
    "'\"; DROP",
    "p@ss:w/ord&user=root",
    "é😀",
    "a\nb\r",
    "?sslmode=off",
]


def hostile(password: str) -> Connection:
    return Connection(host="::1", port=1, database=password, user=password, password=password, sslmode="require")


def parts(connection: Connection) -> dict[str, str]:
    it = connection
    told = {"host": it.host, "port": str(it.port), "dbname": it.database, "user": it.user, "password": it.password}
    return told | ({"sslmode": it.sslmode} if it.sslmode else {})


def parse_jdbc(uri: str) -> dict[str, str]:
    """Read as the JDBC driver does: host, port and database from the path, everything else from the query."""
    found = re.fullmatch(r"jdbc:postgresql://(\[[^]]*]|[^:/]*):(\d+)/([^?]*)\?(.*)", uri)
    assert found is not None
    host, port, database, query = found.groups()
    options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
    return {"host": unquote(host.strip("[]")), "port": port, "dbname": unquote(database)} | options


def parse_pgpass(line: str) -> list[str]:
    """Read as libpq does: a backslash takes what follows it as it is, a colon ends a field."""
    fields, rest = [""], iter(line.removesuffix("\n"))
    for letter in rest:
        if letter == ":":
            fields.append("")
        else:
            fields[-1] += next(rest) if letter == "\\" else letter
    return fields


def with_examples(test: Callable[[Connection], None]) -> Callable[[], None]:
    for password in HOSTILE:
        test = example(connection=hostile(password))(test)
    return given(connection=connections)(test)


@with_examples
def test_uri_is_read_by_libpq(connection: Connection) -> None:
    assert conninfo_to_dict(secret_data(connection)["uri"]) == parts(connection)


@with_examples
def test_uri_is_read_by_urllib(connection: Connection) -> None:
    uri = urlsplit(secret_data(connection)["uri"])
    assert uri.scheme == "postgresql"
    assert unquote(str(uri.username)) == connection.user
    assert unquote(str(uri.password)) == connection.password
    assert unquote(str(uri.hostname)) == connection.host
    assert uri.port == connection.port
    assert unquote(uri.path) == f"/{connection.database}"


@with_examples
def test_jdbc_uri_is_read_back(connection: Connection) -> None:
    assert parse_jdbc(secret_data(connection)["jdbc-uri"]) == parts(connection)


@with_examples
def test_uris_are_plain_ascii_without_a_doubtful_plus(connection: Connection) -> None:
    data = secret_data(connection)
    assert all(re.fullmatch(r"[!-*,-~]+", data[key]) for key in ("uri", "jdbc-uri"))


@with_examples
def test_pgpass_is_read_back_or_absent(connection: Connection) -> None:
    line = secret_data(connection).get("pgpass")
    if any(end in it for it in (connection.database, connection.user, connection.password) for end in "\r\n"):
        assert line is None
    else:
        assert line is not None
        it = connection
        assert parse_pgpass(line) == [it.host, str(it.port), it.database, it.user, it.password]


@with_examples
def test_a_connection_is_read_back_from_its_secret(connection: Connection) -> None:
    data = {key: value.encode() for key, value in secret_data(connection).items()}
    assert connection_of(data) == connection


def test_both_families_of_keys_are_there() -> None:
    data = secret_data(PLAIN)
    assert set(data) >= {"type", "provider", "host", "port", "database", "username", "password", "uri"}
    assert set(data) >= {"dbname", "user", "jdbc-uri", "pgpass"}
    assert (data["type"], data["provider"]) == ("postgresql", "database-bootstrap-operator")
    assert data["sslmode"] == "require"
    assert "ca.crt" not in data


def test_values_are_those_that_people_expect() -> None:
    data = secret_data(PLAIN, provider="somebody")
    assert data["uri"] == "postgresql://smart_dev:secret@db.shop:5432/shop?sslmode=require"
    assert data["jdbc-uri"] == "jdbc:postgresql://db.shop:5432/shop?user=smart_dev&password=secret&sslmode=require"
    assert data["pgpass"] == "db.shop:5432:shop:smart_dev:secret\n"
    assert data["provider"] == "somebody"


def test_the_password_is_not_in_the_repr() -> None:
    assert "secret" not in repr(PLAIN)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"password": None}, "a key is missing"),
        ({"port": b"many"}, "the port is no number"),
        ({"port": b"70000"}, "the port is none"),
        ({"user": b"x", "username": b""}, "nobody logs in"),
        ({"password": b"\xff"}, "it is not text"),
        ({"ca.crt": b"\xff"}, "the certificate is not text"),
    ],
)
def test_an_unreadable_secret_holds_no_connection(change: dict[str, bytes | None], why: str) -> None:
    data = {key: value.encode() for key, value in secret_data(PLAIN).items()}
    broken = {key: value for key, value in (data | change).items() if value is not None}
    assert connection_of(broken) is None, why
