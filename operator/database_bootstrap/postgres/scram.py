"""Passwords: made here, and given to the server only as SCRAM-SHA-256 verifiers."""

import base64
import hashlib
import hmac
import secrets
import string

_ITERATIONS = 4096
"""PostgreSQL's own default (scram_iterations)."""
_ALPHABET = string.ascii_letters + string.digits


def generate_password() -> str:
    """Return 32 random letters and digits, some 190 bits: safe in any URI, file and shell without quoting."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(32))


def verifier(password: str, salt: bytes | None = None) -> str:
    """Return the verifier that PostgreSQL stores in place of the password.

    The format is that of src/common/scram-common.c (scram_build_secret). Passwords outside ASCII would need SASLprep,
    which libpq skips for what it cannot prepare; they are taken as they are, exactly as libpq then does.
    """
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    server = _hmac(salted, b"Server Key")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
