"""Secrets → logins, with a sentence for each that cannot be one."""

import unicodedata
from collections.abc import Mapping
from dataclasses import replace

import psycopg
from psycopg.conninfo import conninfo_to_dict

from database_bootstrap.api.binding import Connection, connection_of, secret_data
from database_bootstrap.errors import NotOwned, ReferenceNotFound, ReferenceRejected
from database_bootstrap.postgres.login import APPLICATION_NAME_LIMIT, Endpoint, Login
from database_bootstrap.stages.subject import Subject
from database_bootstrap.stages.surroundings import KeptSecret, Surroundings

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
    fields = _from_uri(secret, data) or _from_keys(secret, data)
    for name in ("host", "user", "password"):
        if not fields.get(name):
            raise ReferenceRejected(f"Secret {secret} gives no {name}")
    return Login(
        endpoint=_endpoint(secret, fields, data),
        user=fields["user"],
        password=fields["password"],
        database=fields.get("dbname", "*").replace("*", "postgres"),
    )


def _from_uri(secret: str, data: Mapping[str, bytes]) -> dict[str, str]:
    key = next((key for key in _URI_KEYS if key in data), None)
    if key is None:
        return {}
    try:
        fields = {k: str(v) for k, v in conninfo_to_dict(text_of(secret, key, data)).items() if v is not None}
    except psycopg.ProgrammingError:
        # The error's text quotes the string, which holds the password.
        raise ReferenceRejected(f"Secret {secret}, key {key}: not a connection URI of PostgreSQL") from None
    if strange := sorted(fields.keys() - _URI_OPTIONS):
        raise ReferenceRejected(f"Secret {secret}, key {key}: {', '.join(strange)} cannot be set here")
    return fields


def _from_keys(secret: str, data: Mapping[str, bytes]) -> dict[str, str]:
    fields = {
        "host": text_of(secret, "host", data),
        "user": text_of(secret, "username" if "username" in data else "user", data),
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
        ca=_certificate(secret, data),
        require_auth=fields.get("require_auth", "scram-sha-256"),
    )


def _certificate(secret: str, data: Mapping[str, bytes]) -> str | None:
    if "ca.crt" not in data:
        return None
    text = data["ca.crt"].decode(errors="replace")
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise ReferenceRejected(f"Secret {secret}, key ca.crt: no PEM certificate")
    return text


class Credentials:
    """The logins of one subject; each Secret is read when first needed, and once a visit."""

    def __init__(self, subject: Subject, surroundings: Surroundings) -> None:
        self._spec = subject.spec
        self._surroundings = surroundings
        owner = subject.owner
        self._application = f"dbbootstrap/{owner.namespace}/{owner.name}"[:APPLICATION_NAME_LIMIT]
        self._read: dict[str, KeptSecret | None] = {}
        self.password_secret = f"{owner.name}-role"
        """Where a generated password is kept."""
        self.connection_secret = (
            subject.spec.connection_secret.name if subject.spec.connection_secret else f"{owner.name}-db"
        )
        """Where the application finds everything."""

    async def administrator(self) -> Login:
        """Return the administrator's login; raise `ReferenceNotFound` or `ReferenceRejected`."""
        name = self._spec.server.admin_secret_ref.name
        secret = await self._secret(name)
        if secret is None:
            raise ReferenceNotFound(f"Secret {name} is not there; it is waited for (server.adminSecretRef)")
        login = administrator(name, secret.data)
        endpoint = replace(login.endpoint, host=self._surroundings.qualify(login.endpoint.host))
        return replace(login, endpoint=endpoint, application_name=self._application)

    async def endpoint(self) -> Endpoint:
        """Return where the server is: the admin Secret's word, or once that was taken away what was published."""
        if await self._secret(self._spec.server.admin_secret_ref.name) is None and (known := await self.published()):
            return Endpoint(host=known.host, port=known.port, sslmode=known.sslmode or "prefer", ca=known.ca)
        return (await self.administrator()).endpoint

    async def role(self) -> Login | None:
        """Return the role's login for its database, or None while it has no password."""
        password = await self.password()
        if password is None and (known := await self.published()):
            password = known.password
        if password is None:
            return None
        return Login(
            endpoint=await self.endpoint(),
            user=self._spec.role.name,
            password=password,
            database=self._spec.database.name,
            application_name=self._application,
        )

    async def password(self) -> str | None:
        """Return the role's password, or None where it is generated and not there.

        Raise `ReferenceNotFound` while the Secret that the resource names is missing, and `NotOwned` where the one of a
        generated password is somebody else's.
        """
        reference = self._spec.role.password_secret_ref
        if reference is None:
            secret = await self._secret(self.password_secret)
            if secret and not secret.ours:
                raise NotOwned(
                    f"Secret {self.password_secret} exists and is not this resource's; to use its password, name it in "
                    "role.passwordSecretRef"
                )
            return text_of(self.password_secret, "password", secret.data) if secret else None
        secret = await self._secret(reference.name)
        if secret is None:
            raise ReferenceNotFound(f"Secret {reference.name} is not there; it is waited for (role.passwordSecretRef)")
        return text_of(reference.name, reference.key, secret.data)

    async def published(self) -> Connection | None:
        """Return what the connection Secret says, if it is there and this resource's."""
        secret = await self._secret(self.connection_secret)
        return connection_of(secret.data) if secret and secret.ours else None

    async def pinned(self) -> str | None:
        """Return the incarnation that the connection Secret remembers, where it is about this very database."""
        known, secret = await self.published(), await self._secret(self.connection_secret)
        # A resource of the same name that wants another database leaves the Secret of the one before it behind.
        is_about_it = known is not None and known.database == self._spec.database.name
        return secret.incarnation if secret and is_about_it else None

    async def keep_password(self, password: str) -> None:
        """Keep a password in the Secret for it, before anybody sets it on the server; one that is kept already wins."""
        made = await self._surroundings.keep_password(self.password_secret, self._spec.role.name, password)
        if made:
            self._read[self.password_secret] = KeptSecret(data={"password": password.encode()}, ours=True)
        else:
            del self._read[self.password_secret]

    async def is_published(self) -> bool:
        """Whether the connection Secret says all that the application is to be told, word for word."""
        secret = await self._secret(self.connection_secret)
        wanted = {key: value.encode() for key, value in secret_data(await self.wanted_connection()).items()}
        # Of one that was taken back the mark is renewed, so that it can go with this resource one day.
        if secret is None or secret.inherited or await self._inherits_password():
            return False
        return secret.ours and dict(secret.data) == wanted

    async def is_pinned(self, incarnation: str | None) -> bool:
        """Whether the connection Secret remembers this incarnation."""
        secret = await self._secret(self.connection_secret)
        return secret is not None and (secret.imagined or secret.incarnation == incarnation)

    async def publish(self, incarnation: str | None) -> None:
        """Write the connection Secret with the incarnation on it; raise `NotOwned` where it is somebody else's."""
        wanted = await self.wanted_connection()
        if await self._inherits_password():
            await self.keep_password(wanted.password)
        await self._surroundings.publish(self.connection_secret, wanted, incarnation)
        data = {key: value.encode() for key, value in secret_data(wanted).items()}
        self._read[self.connection_secret] = KeptSecret(data=data, ours=True, incarnation=incarnation)

    async def wanted_connection(self) -> Connection:
        """Return what the application is to be told."""
        login = await self.role()
        if login is None:
            raise ReferenceNotFound(f"Secret {self.password_secret} has gone during the visit")
        return Connection(
            host=login.endpoint.host,
            port=login.endpoint.port,
            database=login.database,
            user=login.user,
            password=login.password,
            sslmode=login.endpoint.sslmode,
            ca=login.endpoint.ca,
        )

    async def _inherits_password(self) -> bool:
        """Whether an earlier resource of this name has generated the password of this role, and its Secret says so."""
        if self._spec.role.password_secret_ref is not None:
            return False
        secret = await self._secret(self.password_secret)
        if secret is None or not secret.inherited:
            return False
        return secret.data.get("username") == self._spec.role.name.encode()

    async def _secret(self, name: str) -> KeptSecret | None:
        if name not in self._read:
            self._read[name] = await self._surroundings.secret(name)
        return self._read[name]
