"""Secrets → logins, with a sentence for each that cannot be one; pure."""

import unicodedata
from collections.abc import Mapping

import psycopg
from psycopg.conninfo import conninfo_to_dict

from database_bootstrap.errors import ReferenceNotFound, ReferenceRejected
from database_bootstrap.postgres.login import Endpoint, Login

_URI_KEYS = ("fqdn-uri", "uri")
"""CloudNativePG's Secret has both, and only the first works from another namespace."""
_URI_OPTIONS = frozenset(
    {"host", "port", "user", "password", "dbname", "sslmode", "require_auth", "connect_timeout", "channel_binding"}
)
"""What a `uri` may say; others could read files or change the session (passfile, service, sslkey, options …)."""
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


def text_of(secret: str, key: str, data: Mapping[str, bytes]) -> str:
    """Return one value as text; raise for one that is missing, or that nobody can have meant."""
    if key not in data:
        raise ReferenceNotFound(f"Secret {secret} has no key {key}")
    try:
        text = data[key].decode()
    except UnicodeDecodeError:
        raise ReferenceRejected(f"Secret {secret}, key {key}: not UTF-8 text") from None
    if text.endswith(("\n", "\r")):
        raise ReferenceRejected(
            f"Secret {secret}, key {key}: ends with a line break; write it without (printf, not echo)"
        )
    if not text or any(unicodedata.category(character) == "Cc" for character in text):
        raise ReferenceRejected(f"Secret {secret}, key {key}: empty, or holds control characters")
    return text


def administrator(secret: str, data: Mapping[str, bytes]) -> Login:
    """Return the administrator's login from a Secret with `uri`, or with `host`, `username` and `password`."""
    key = next((key for key in _URI_KEYS if key in data), None)
    fields = _from_uri(secret, key, data) if key else _from_keys(secret, data)
    return Login(
        endpoint=_endpoint(secret, fields, data),
        user=fields["user"],
        password=fields["password"],
        database=fields.get("dbname", "*").replace("*", "postgres"),
    )


def _from_uri(secret: str, key: str, data: Mapping[str, bytes]) -> dict[str, str]:
    try:
        fields = {k: str(v) for k, v in conninfo_to_dict(text_of(secret, key, data)).items() if v is not None}
    except psycopg.ProgrammingError:
        # The error's text quotes the string, which holds the password.
        raise ReferenceRejected(f"Secret {secret}, key {key}: not a connection URI of PostgreSQL") from None
    if strange := sorted(fields.keys() - _URI_OPTIONS):
        raise ReferenceRejected(f"Secret {secret}, key {key}: {', '.join(strange)} cannot be set here")
    if missing := [name for name in ("host", "user", "password") if not fields.get(name)]:
        raise ReferenceRejected(f"Secret {secret}, key {key}: gives no {' and no '.join(missing)}")
    return fields


def _from_keys(secret: str, data: Mapping[str, bytes]) -> dict[str, str]:
    fields = {
        "host": text_of(secret, "host", data),
        "user": text_of(secret, "user" if "user" in data and "username" not in data else "username", data),
        "password": text_of(secret, "password", data),
    }
    optional = {"port": "port", "dbname": "dbname", "sslmode": "sslmode", "require_auth": "require_auth"}
    optional["database" if "database" in data and "dbname" not in data else "dbname"] = "dbname"
    return fields | {name: text_of(secret, key, data) for key, name in optional.items() if key in data}


def _endpoint(secret: str, fields: Mapping[str, str], data: Mapping[str, bytes]) -> Endpoint:
    host = fields["host"]
    if host.startswith(("/", "@")) or "," in host:
        raise ReferenceRejected(f"Secret {secret}: host must be one name or address, no socket and no list")
    port = fields.get("port", "5432")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ReferenceRejected(f"Secret {secret}: port must be a number from 1 to 65535")
    sslmode = fields.get("sslmode", "prefer")
    if sslmode not in _SSL_MODES:
        raise ReferenceRejected(f"Secret {secret}: sslmode must be one of {', '.join(sorted(_SSL_MODES))}")
    return Endpoint(
        host=host,
        port=int(port),
        sslmode=sslmode,
        ca=certificate(secret, data),
        require_auth=fields.get("require_auth", "scram-sha-256"),
    )


def certificate(secret: str, data: Mapping[str, bytes], key: str = "ca.crt") -> str | None:
    """Return the authorities that a Secret or ConfigMap names, or None where it names none."""
    if key not in data:
        return None
    text = data[key].decode(errors="replace")
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise ReferenceRejected(f"Secret {secret}, key {key}: no PEM certificate")
    if "PRIVATE KEY-----" in text:  # Authorities are published to applications.
        raise ReferenceRejected(f"Secret {secret}, key {key}: holds a private key; name certificates alone")
    return text
