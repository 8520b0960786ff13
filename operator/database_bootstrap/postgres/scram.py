"""Passwords: made here, and given to the server only as SCRAM-SHA-256 verifiers."""

import secrets
import string

from database_bootstrap.postgres.connection import Connection

_ALPHABET = string.ascii_letters + string.digits


def generate_password() -> str:
    """Return 32 random letters and digits, some 190 bits: safe in any URI, file and shell without quoting."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(32))


def verifier(connection: Connection, user: str, password: str) -> str:
    """Return the verifier that PostgreSQL stores in place of the password.

    libpq makes it, as it is libpq that logs in with it later: what is not ASCII is normalised the same way (SASLprep).
    """
    return connection.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256").decode()
