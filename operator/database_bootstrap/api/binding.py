"""The Secret that applications connect with: its keys for Service Binding and CloudNativePG, made and read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from database_bootstrap.api import names

TYPE = "postgresql"
PORTS = range(1, 65_536)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How the application reaches its database."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    sslmode: str = ""
    """Empty where the client's own default is meant."""
    ca: str | None = None
    """The certificates to trust, as PEM text."""


def secret_data(connection: Connection, provider: str = names.OPERATOR) -> dict[str, str]:
    """Return the data of the Secret; every URI in it parses back to the same connection."""
    it = connection
    optional = {"pgpass": _pgpass(it), "sslmode": it.sslmode, "ca.crt": it.ca or ""}
    return {
        "type": TYPE,
        "provider": provider,
        "host": it.host,
        "port": str(it.port),
        "database": it.database,
        "dbname": it.database,
        "username": it.user,
        "user": it.user,
        "password": it.password,
        "uri": _uri(it),
        "jdbc-uri": _jdbc_uri(it),
        **{key: value for key, value in optional.items() if value},
    }


def connection_of(data: Mapping[str, bytes]) -> Connection | None:
    """Return the connection that a Secret of ours holds; None when it is not complete or not readable."""
    try:
        text = {key: data[key].decode() for key in ("host", "port", "database", "username", "password")}
        sslmode, ca = data.get("sslmode", b"").decode(), data.get("ca.crt", b"").decode()
        port = int(text["port"])
    except (KeyError, ValueError):
        return None
    if port not in PORTS or not (text["host"] and text["database"] and text["username"]):
        return None
    return Connection(
        host=text["host"],
        port=port,
        database=text["database"],
        user=text["username"],
        password=text["password"],
        sslmode=sslmode,
        ca=ca or None,
    )


def _uri(it: Connection) -> str:
    # safe="": a slash, too, ends a part of a URI.
    login = f"{quote(it.user, safe='')}:{quote(it.password, safe='')}"
    options = f"?{_query({'sslmode': it.sslmode})}" if it.sslmode else ""
    return f"postgresql://{login}@{_host(it.host)}:{it.port}/{quote(it.database, safe='')}{options}"


def _jdbc_uri(it: Connection) -> str:
    options = {"user": it.user, "password": it.password} | ({"sslmode": it.sslmode} if it.sslmode else {})
    return f"jdbc:postgresql://{_host(it.host)}:{it.port}/{quote(it.database, safe='')}?{_query(options)}"


def _pgpass(it: Connection) -> str:
    fields = (it.host, str(it.port), it.database, it.user, it.password)
    if any(end in part for part in fields for end in "\r\n"):
        return ""  # The file has a line for each login, and no way to write a line's end.
    return ":".join(part.replace("\\", "\\\\").replace(":", "\\:") for part in fields) + "\n"


def _host(host: str) -> str:
    return f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="")


def _query(options: Mapping[str, str]) -> str:
    # Not quote_plus, which is urlencode's own choice: a plus sign is a space to some readers only.
    return urlencode(options, quote_via=quote)
