"""The logins of one resource: from its own Secrets, or from the server that a platform team offers."""

from dataclasses import replace

from database_bootstrap.api.binding import Connection, connection_of, secret_data
from database_bootstrap.errors import NotOwned, ReferenceNotFound
from database_bootstrap.postgres.login import APPLICATION_NAME_LIMIT, Endpoint, Login
from database_bootstrap.stages import policy, shared
from database_bootstrap.stages.logins import administrator, text_of
from database_bootstrap.stages.subject import Subject
from database_bootstrap.stages.surroundings import KeptSecret, SharedServer, Surroundings


class Credentials:
    """The logins of one subject; each Secret is read when first needed, and once a visit."""

    def __init__(self, subject: Subject, surroundings: Surroundings, *, leaving: bool = False) -> None:
        """Of a resource that is being deleted only the rules count that say whose things it may have."""
        self._subject = subject
        self._spec = subject.spec
        self._surroundings = surroundings
        self._leaving = leaving
        owner = subject.owner
        self._application = f"dbbootstrap/{owner.namespace}/{owner.name}"[:APPLICATION_NAME_LIMIT]
        self._read: dict[str, KeptSecret | None] = {}
        self._offer: SharedServer | None = None
        self._shared_login: Login | None = None
        self.password_secret = f"{owner.name}-role"
        """Where a generated password is kept."""
        self.connection_secret = (
            subject.spec.connection_secret.name if subject.spec.connection_secret else f"{owner.name}-db"
        )
        """Where the application finds everything."""

    async def server(self) -> SharedServer | None:
        """Return the server that a platform team offers, where the resource refers to one.

        Raise `ServerRefused` where it does not allow what the resource asks for. Every login comes by here, so that
        nothing is asked of a server before all of its rules are kept.
        """
        if (reference := self._spec.server.ref) is None:
            return None
        if self._offer is None:
            offer = await self._surroundings.server(reference.name)
            policy.check(offer, self._subject, leaving=self._leaving)
            self._offer = offer
        return self._offer

    async def administrator(self) -> Login:
        """Return the administrator's login; raise `ReferenceNotFound` or `ReferenceRejected`."""
        offer = await self.server()
        login = await (self._administrator_of(offer) if offer else self._own_administrator())
        return replace(login, application_name=self._application)

    async def _administrator_of(self, offer: SharedServer) -> Login:
        if self._shared_login is None:
            self._shared_login = await shared.administrator_for_tenants(offer, self._surroundings)
        return self._shared_login

    async def _own_administrator(self) -> Login:
        reference = self._spec.server.admin_secret_ref
        assert reference, "one of the two is there"
        secret = await self._secret(reference.name)
        if secret is None:
            raise ReferenceNotFound(f"Secret {reference.name} is not there; it is waited for (server.adminSecretRef)")
        login = administrator(reference.name, secret.data)
        host = self._surroundings.qualify(login.endpoint.host)
        return replace(login, endpoint=replace(login.endpoint, host=host))

    async def endpoint(self) -> Endpoint:
        """Return where the server is: the admin Secret's word, or once that was taken away what was published."""
        reference = self._spec.server.admin_secret_ref
        if reference and await self._secret(reference.name) is None and (known := await self.published()):
            return Endpoint(host=known.host, port=known.port, sslmode=known.sslmode or "prefer", ca=known.ca)
        try:
            return (await self.administrator()).endpoint
        except ReferenceNotFound:
            if self._spec.server.ref and (last := await self._last_endpoint()):
                return last
            raise

    async def _last_endpoint(self) -> Endpoint | None:
        """Return where the operator itself was at the last success; what was published is the applications' address."""
        known, server = await self.published(), self._subject.status.server
        # Whoever may not use the server any more has been refused before.
        if self._offer is None or known is None or server is None or server.host is None or server.port is None:
            return None
        return Endpoint(host=server.host, port=server.port, sslmode=known.sslmode or "prefer", ca=known.ca)

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

    def _is_about_it(self, known: Connection) -> bool:
        return (known.user, known.database) == (self._spec.role.name, self._spec.database.name)

    async def is_kept(self) -> bool:
        """Whether the Secret of a generated password is there."""
        return await self._secret(self.password_secret) is not None

    async def rotation(self) -> str | None:
        """Return the word on which the password was made that is kept, if it was made on one."""
        secret = await self._secret(self.password_secret)
        return secret.rotation if secret else None

    async def is_outdated(self) -> bool:
        """Whether the connection Secret is about this role in this database, and has another password than is kept."""
        known, password = await self.published(), await self.password()
        return known is not None and password is not None and self._is_about_it(known) and known.password != password

    async def keep_password(self, password: str, rotation: str | None = None) -> None:
        """Keep a password in the Secret for it, before anybody sets it on the server; one that is kept already wins."""
        name = self.password_secret
        made = await self._surroundings.keep_password(name, self._spec.role.name, password, rotation)
        if made:
            self._read[name] = KeptSecret(data={"password": password.encode()}, ours=True, rotation=rotation)
        else:
            del self._read[name]

    async def replace_password(self, password: str, rotation: str) -> None:
        """Keep another password in place of the one that is kept, before anybody sets it on the server."""
        name = self.password_secret
        await self._surroundings.replace_password(name, self._spec.role.name, password, rotation)
        self._read[name] = KeptSecret(data={"password": password.encode()}, ours=True, rotation=rotation)

    async def publish_password(self) -> None:
        """Write the password that is kept into the connection Secret, and leave all else there as it is."""
        known, password = await self.published(), await self.password()
        secret = await self._secret(self.connection_secret)
        assert known
        assert secret
        assert password
        await self._publish(replace(known, password=password), secret.incarnation)

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
        await self._publish(wanted, incarnation)

    async def _publish(self, wanted: Connection, incarnation: str | None) -> None:
        await self._surroundings.publish(self.connection_secret, wanted, incarnation)
        data = {key: value.encode() for key, value in secret_data(wanted).items()}
        self._read[self.connection_secret] = KeptSecret(data=data, ours=True, incarnation=incarnation)

    async def wanted_connection(self) -> Connection:
        """Return what the application is to be told."""
        login = await self.role()
        if login is None:
            raise ReferenceNotFound(f"Secret {self.password_secret} has gone during the visit")
        offered = offer.spec if (offer := await self.server()) else None
        return Connection(
            host=(offered and offered.public_host) or login.endpoint.host,
            port=(offered and offered.public_port) or login.endpoint.port,
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
