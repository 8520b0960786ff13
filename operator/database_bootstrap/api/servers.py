"""What a platform team offers: the spec of a DatabaseServer; its docs are `kubectl explain`."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from database_bootstrap.api import refusals, rules
from database_bootstrap.api.models import DAY_SECONDS, NAMESPACE_NAME, OBJECT_NAME, Flag, Model, Whole, without_nulls
from database_bootstrap.api.rules import Rule, Unique
from database_bootstrap.errors import SpecRejected

NAMESPACE = "{namespace}"
"""Stands for the resource's own namespace in a pattern."""
ANY = "*"
OWN_NAMES = (NAMESPACE, f"{NAMESPACE}_*")
"""What a namespace may call its roles and databases where nothing else is said: nobody else's names."""
_OPEN_ENDED = r"\{namespace\}[-a-z0-9]*\*|\*[-a-z0-9]*\{namespace\}"
"""Namespaces hold `-` and no `_`: of `{namespace}-*` the namespace `a` would get the names of `a-b` too."""
_CONNECTIONS = Field(ge=3, le=262_143)
_LABEL_KEY = Field(strict=True, min_length=1, max_length=317)
_LABEL_VALUE = Field(strict=True, max_length=63)
_ATOMIC = {"x-kubernetes-list-type": "atomic"}


class TlsMode(StrEnum):
    """What is asked of the server's certificate; libpq's `sslmode`."""

    DISABLE = "Disable"
    PREFER = "Prefer"
    REQUIRE = "Require"
    VERIFY_CA = "VerifyCA"
    VERIFY_FULL = "VerifyFull"

    @property
    def sslmode(self) -> str:
        """The same in libpq's words."""
        return {"VerifyCA": "verify-ca", "VerifyFull": "verify-full"}.get(self.value, self.value.lower())


class ServerRef(Model):
    """A server that a platform team offers."""

    name: Annotated[str, OBJECT_NAME, rules.object_name("server.ref.name", "DatabaseServer")]
    """Name of a DatabaseServer, which belongs to no namespace."""


class PlatformSecretRef(Model):
    """A Secret with an administrator's access, in the platform team's own namespace."""

    namespace: Annotated[str, NAMESPACE_NAME, rules.namespace_name("adminSecretRef.namespace")]
    """Namespace of the Secret; no namespace that uses the server needs any right to it."""
    name: Annotated[str, OBJECT_NAME, rules.object_name("adminSecretRef.name", "Secret")]
    """Name of the Secret: `uri`, or `host`, `port`, `username`, `password`, `dbname` and more."""


class CertificateRef(Model):
    """A key of a Secret or ConfigMap with PEM certificates."""

    namespace: Annotated[str, NAMESPACE_NAME, rules.namespace_name("tls.ca*Ref.namespace")]
    """Namespace of the object."""
    name: Annotated[str, OBJECT_NAME, rules.object_name("tls.ca*Ref.name", "Secret or ConfigMap")]
    """Name of the object."""
    key: Annotated[str, OBJECT_NAME, rules.secret_key("tls.ca*Ref.key")] = "ca.crt"
    """The key that holds the certificates."""


class ClientCertificateRef(Model):
    """A Secret with a certificate and its key."""

    namespace: Annotated[str, NAMESPACE_NAME, rules.namespace_name("tls.clientCertificateRef.namespace")]
    """Namespace of the Secret."""
    name: Annotated[str, OBJECT_NAME, rules.object_name("tls.clientCertificateRef.name", "Secret")]
    """Name of the Secret, of type `kubernetes.io/tls`: `tls.crt` and `tls.key`."""


class TlsSpec(Model):
    """How connections are encrypted, whatever the admin Secret says."""

    obeys: ClassVar = (
        Rule(
            cel="!(has(self.caSecretRef) && has(self.caConfigMapRef))",
            message="`tls` must hold at most one of `caSecretRef` and `caConfigMapRef`",
            holds=lambda tls: tls.ca_secret_ref is None or tls.ca_config_map_ref is None,
        ),
    )

    mode: TlsMode = TlsMode.VERIFY_FULL
    """What is asked of the server's certificate: Disable, Prefer, Require, VerifyCA or VerifyFull (libpq's sslmode)."""
    ca_secret_ref: CertificateRef | None = None
    """The authorities that may have signed it, in a Secret. Without either reference: `ca.crt` of the admin Secret."""
    ca_config_map_ref: CertificateRef | None = None
    """The same in a ConfigMap."""
    client_certificate_ref: ClientCertificateRef | None = None
    """What the administrator shows beside the password. Roles of resources have none: their passwords suffice."""


class LabelOperator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelRequirement(Model):
    """What must hold of one label."""

    obeys: ClassVar = (
        Rule(
            cel="(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            message="`values` must be there for In and NotIn, and for nothing else",
            holds=lambda it: (it.operator in {LabelOperator.IN, LabelOperator.NOT_IN}) == bool(it.values),
        ),
    )

    key: Annotated[str, _LABEL_KEY, rules.label_key("allowedNamespaces.matchExpressions[].key")]
    """Key of the label; `kubernetes.io/metadata.name` is on every namespace, and has its name."""
    operator: LabelOperator
    """In, NotIn, Exists or DoesNotExist."""
    values: Annotated[
        tuple[Annotated[str, _LABEL_VALUE, rules.label_value("allowedNamespaces.matchExpressions[].values")], ...],
        Field(max_length=256),
        Unique(field="values"),
    ] = ()
    """The values for In and NotIn."""


class LabelSelector(Model):
    """Labels that an object must carry; an empty selector selects everything."""

    match_labels: Annotated[
        dict[str, Annotated[str, _LABEL_VALUE, rules.label_value("allowedNamespaces.matchLabels")]],
        Field(max_length=64),
        rules.label_keys("allowedNamespaces.matchLabels"),
    ] = {}  # noqa: RUF012 pydantic copies it
    """Labels with their values, all of which must be there."""
    match_expressions: Annotated[
        tuple[LabelRequirement, ...], Field(max_length=64, json_schema_extra=dict(_ATOMIC))
    ] = ()
    """Further requirements, all of which must hold."""


Pattern = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=128),
    rules.printable("allowedNames"),
    Rule(
        cel="!self.replace('{namespace}', '').matches('[{}]')",
        message="`allowedNames` must not hold braces but those of `{namespace}`",
        holds=lambda pattern: not re.search("[{}]", pattern.replace(NAMESPACE, "")),
    ),
    Rule(
        cel=f"!self.matches(r'{_OPEN_ENDED}')",
        message="`allowedNames` must put a character that no namespace has, such as `_`, between `{namespace}` and `*`",
        holds=lambda pattern: re.search(_OPEN_ENDED, pattern) is None,
    ),
]


class AllowedNames(Model):
    """Which names may be asked for."""

    roles: Annotated[tuple[Pattern, ...], Field(max_length=64), Unique(field="allowedNames.roles")] = OWN_NAMES
    """Patterns for `role.name`: `*` is any text, `{namespace}` the namespace of the resource; the whole name counts."""
    databases: Annotated[tuple[Pattern, ...], Field(max_length=64), Unique(field="allowedNames.databases")] = OWN_NAMES
    """The same for `database.name`."""
    access_roles: Annotated[tuple[Pattern, ...], Field(max_length=64), Unique(field="allowedNames.accessRoles")] = (
        OWN_NAMES
    )
    """The same for `access[].role`: whom a resource may let in. `*` lets it name the roles of other namespaces too."""


class ConnectionCaps(Model):
    """The most that a resource may ask for."""

    role: Annotated[Whole, _CONNECTIONS] | None = None
    """The largest `role.connectionLimit`; a resource that names none gets this one."""
    database: Annotated[Whole, _CONNECTIONS] | None = None
    """The largest `database.connectionLimit`; a resource that names none gets this one."""


class TimeoutCaps(Model):
    """The longest that a resource may ask for."""

    migrations: Annotated[Whole, Field(ge=1, le=DAY_SECONDS)] | None = None
    """The largest `migrations.timeoutSeconds`; a resource that has its default gets no more than this."""
    seed: Annotated[Whole, Field(ge=1, le=DAY_SECONDS)] | None = None
    """The largest `seed.timeoutSeconds`; a resource that has its default gets no more than this."""


class DatabaseServerSpec(Model):
    """A PostgreSQL server, 15 or newer, for the namespaces that may use it."""

    admin_secret_ref: PlatformSecretRef
    """The administrator's access: a superuser, or a role with CREATEROLE and CREATEDB."""
    tls: TlsSpec | None = None
    """How connections are encrypted. Without it as the admin Secret says: `sslmode` and `ca.crt`."""
    allowed_namespaces: LabelSelector | None = None
    """The namespaces whose resources may use the server, by their labels.

    Without it none may; an empty selector lets all of them."""
    allowed_names: AllowedNames = AllowedNames()
    """What roles and databases may be called, and which roles may be given access.

    Each of the three without it: only names of the namespace's own, `{namespace}` and `{namespace}_*`."""
    allowed_extensions: Annotated[
        tuple[
            Annotated[
                str,
                Field(strict=True, min_length=1, max_length=63),
                rules.matches(
                    "allowedExtensions[]",
                    r"^(\*|[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*)$",
                    "be an extension's name, or `*` for every extension",
                ),
            ],
            ...,
        ],
        Field(max_length=256),
        Unique(field="allowedExtensions"),
    ] = ()
    """Extensions that a resource may ask for; `*` is every one. Without it none.

    Those that PostgreSQL calls trusted a database's owner can create in its migrations, whatever stands here."""
    max_connection_limit: ConnectionCaps | None = None
    """The most connections that a role and a database may be given."""
    max_timeout_seconds: TimeoutCaps | None = None
    """The longest that the migrations and the seed of a resource may take: until then they keep their connections."""
    allow_adoption: Flag = False
    """Whether resources may take over what exists already: what no resource has made, and by the annotation
    `dbbootstrap.io/take-over` what another one has made."""
    public_host: (
        Annotated[
            str,
            Field(strict=True, min_length=1, max_length=253),
            rules.matches(
                "publicHost",
                # With one colon it is a host with a port, which has a field of its own.
                r"^([A-Za-z0-9._-]+|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)$",
                "be one host name or address, without a port (`publicPort`)",
            ),
        ]
        | None
    ) = None
    """Where applications reach the server, for their Secrets. Without it where the operator does."""
    public_port: Annotated[Whole, Field(ge=1, le=65_535)] | None = None
    """The port on which applications reach it. Without it the operator's."""
    max_connections: Annotated[Whole, Field(ge=3, le=1_000)] = 10
    """How many connections the operator itself may have open at once on this server.

    The last three of them are only for namespaces that have none. Where several DatabaseServers are one address, the
    smallest of theirs counts."""
    interval_seconds: Annotated[Whole, Field(ge=5, le=DAY_SECONDS)] = 600
    """How often an unchanged server is looked at again for its own status."""


def parse_server(raw: Mapping[str, Any]) -> DatabaseServerSpec:
    """Return the spec that a manifest holds, with its defaults; raise `SpecRejected` with a sentence per mistake."""
    try:
        return DatabaseServerSpec.model_validate(without_nulls(raw))
    except ValidationError as error:
        raise SpecRejected(refusals.sentence(error)) from None
