"""How `run` is set up: flags, with the environment for what is not given; pure."""

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeVar

LogFormat = Literal["json", "text"]
Value = TypeVar("Value")

PREFIX = "DBBOOTSTRAP_"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,252}")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
TRUE = {"1", "true", "yes"}
FALSE = {"0", "false", "no", ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the probes and the metrics are served."""

    host: str
    port: int


class SandboxMode(StrEnum):
    """What becomes of Python that resources bring."""

    SANDBOXED = "Sandboxed"
    """It runs confined by the kernel, or not at all."""
    REFUSED = "Refused"
    """It never runs."""
    UNCONFINED = "Unconfined"
    """It can do what the operator can do."""


class AdminSecretRefs(StrEnum):
    """Whether resources may bring an administrator's access of their own."""

    ALLOWED = "Allowed"
    REFUSED = "Refused"
    """They use the servers that a platform team offers, and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """Under which conditions Alembic's revisions run."""

    mode: SandboxMode = SandboxMode.SANDBOXED
    min_abi: int = 1
    """The version of Landlock's interface that the kernel must have; 1 guards files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be set."""

    namespaces: tuple[str, ...] = ()
    """Empty: all of the cluster."""
    cluster_id: str | None = None
    """Names the cluster in ownership marks. None: the uid of the namespace kube-system."""
    workers: int = 8
    max_connections: int = 10
    """Per PostgreSQL server."""
    health: Address = field(default_factory=lambda: Address(host="0.0.0.0", port=8080))  # noqa: S104 the kubelet asks
    leader_elect: bool = False
    lease_namespace: str | None = None
    """None: the namespace that the operator runs in."""
    lease_name: str = "database-bootstrap-operator"
    grace_seconds: float = 25.0
    """How long a visit may go on after SIGTERM."""
    log_level: str = "INFO"
    log_format: LogFormat = "json"
    watch_secrets: bool = False
    """Needs rights to list and watch all Secrets; without it a Secret that is waited for is asked for."""
    sandbox: Sandbox = Sandbox()
    admin_secret_refs: AdminSecretRefs = AdminSecretRefs.ALLOWED
    kubeconfig: str | None = None
    context: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; each can come from the environment, as DBBOOTSTRAP_ and its name in capitals."""
    add = parser.add_argument
    add("--namespace", action="append", metavar="NAME", help="serve this namespace only; repeatable (default: all)")
    add(
        "--cluster-id",
        type=cluster_id,
        metavar="ID",
        help="name of the cluster in ownership marks (default: uid of kube-system)",
    )
    add("--workers", type=_count, metavar="N", help="visits at once of one namespace (default: 8; 2 more for others)")
    add("--max-connections-per-server", type=_connections, metavar="N", help="to PostgreSQL, at once (default: 10)")
    add("--health-address", type=_address, metavar="HOST:PORT", help="probes and metrics (default: 0.0.0.0:8080)")
    add("--leader-elect", action=argparse.BooleanOptionalAction, default=None, help="act only while holding a Lease")
    add("--lease-namespace", metavar="NAME", help="namespace of the Lease (default: the operator's own)")
    add("--lease-name", metavar="NAME", help="name of the Lease (default: database-bootstrap-operator)")
    add("--grace-seconds", type=seconds, metavar="SECONDS", help="for visits to end after SIGTERM (default: 25)")
    add("--log-level", choices=LEVELS, type=str.upper, help="(default: INFO)")
    add("--log-format", choices=("json", "text"), help="(default: json)")
    add("--watch-secrets", action="store_true", default=None, help="act at once on Secrets; needs list and watch")
    add_sandbox_arguments(parser, default=SandboxMode.SANDBOXED)
    about = "whether resources may name an admin Secret of their own: Allowed | Refused (default: Allowed)"
    add("--admin-secret-refs", type=_admin_secret_refs, metavar="WORD", help=about)
    add("--kubeconfig", metavar="FILE", help="(default: the Pod's own access, else KUBECONFIG, else ~/.kube/config)")
    add("--context", metavar="NAME", help="context of the kubeconfig (default: its current one)")


def add_sandbox_arguments(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Add the flags for Alembic's revisions, which every command has that runs them."""
    about = f"what becomes of Alembic's revisions: {' | '.join(SandboxMode)} (default: {default})"
    parser.add_argument("--alembic-sandbox", type=_mode, metavar="MODE", help=about)
    about = "version of Landlock that the kernel must have for Sandboxed (default: 1, which guards files)"
    parser.add_argument("--alembic-sandbox-min-abi", type=_abi, metavar="N", help=about)


def sandbox_from_arguments(
    arguments: argparse.Namespace, environ: Mapping[str, str], default: SandboxMode = SandboxMode.SANDBOXED
) -> Sandbox:
    """Return what is set; raise `ValueError` with a sentence for what the environment sets and cannot be."""
    read = _Reader(arguments, environ)
    return Sandbox(
        mode=read.value("alembic_sandbox", _mode, default),
        min_abi=read.value("alembic_sandbox_min_abi", _abi, Sandbox().min_abi),
    )


def from_arguments(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Return the settings; raise `ValueError` with a sentence for what the environment sets and cannot be."""
    defaults = Settings()
    read = _Reader(arguments, environ)
    return Settings(
        namespaces=read.namespaces(),
        cluster_id=read.value("cluster_id", _cluster_id_or_none, None),
        workers=read.value("workers", _count, defaults.workers),
        max_connections=read.value("max_connections_per_server", _connections, defaults.max_connections),
        health=read.value("health_address", _address, defaults.health),
        leader_elect=read.value("leader_elect", _flag, False),
        lease_namespace=read.text("lease_namespace") or environ.get("POD_NAMESPACE") or None,
        lease_name=read.text("lease_name") or defaults.lease_name,
        grace_seconds=read.value("grace_seconds", seconds, defaults.grace_seconds),
        log_level=read.value("log_level", _level, defaults.log_level),
        log_format=read.value("log_format", _format, defaults.log_format),
        watch_secrets=read.value("watch_secrets", _flag, False),
        sandbox=sandbox_from_arguments(arguments, environ),
        admin_secret_refs=read.value("admin_secret_refs", _admin_secret_refs, defaults.admin_secret_refs),
        kubeconfig=read.text("kubeconfig"),
        context=read.text("context"),
    )


class _Reader:
    """Finds each value: the flag, else the environment, else the default."""

    def __init__(self, arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
        self._arguments = vars(arguments)
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._arguments.get(name) or self._environ.get(PREFIX + name.upper()) or None

    def value(self, name: str, parse: Callable[[str], Value], default: Value) -> Value:
        given: Value | None = self._arguments.get(name)
        if given is not None:
            return given
        variable = PREFIX + name.upper()
        try:
            return parse(self._environ[variable]) if self._environ.get(variable) else default
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"{variable}: {error}") from None

    def namespaces(self) -> tuple[str, ...]:
        given: list[str] | None = self._arguments.get("namespace")
        named = given or re.split(r"[,\s]+", self._environ.get(f"{PREFIX}NAMESPACE", ""))
        wrong = [name for name in named if name and not NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not the name of a namespace")
        return tuple(dict.fromkeys(filter(None, named)))


def is_id(text: object) -> bool:
    """Whether it can be the id of a cluster or the uid of a resource: one word, without quotes or blanks."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def cluster_id(text: str) -> str:
    """Return what names a cluster in marks of ownership; a mark with anything else would not be read back."""
    if not is_id(text):
        raise argparse.ArgumentTypeError("the id of a cluster is one word of letters, digits and . _ : / @ + -")
    return text


def _cluster_id_or_none(text: str) -> str | None:
    return cluster_id(text)


def _count(text: str) -> int:
    return _at_least(1, text)


def _connections(text: str) -> int:
    # A visit with Alembic may need three at once, and must not wait for itself.
    return _at_least(3, text)


def _abi(text: str) -> int:
    return _at_least(1, text)


def _mode(text: str) -> SandboxMode:
    try:
        return SandboxMode(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(SandboxMode)}") from None


def _admin_secret_refs(text: str) -> AdminSecretRefs:
    try:
        return AdminSecretRefs(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(AdminSecretRefs)}") from None


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def seconds(text: str) -> float:
    """Return a length of time; neither `nan` nor `inf` nor less than none is one."""
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return Address(host=host.strip("[]") or "0.0.0.0", port=int(port))  # noqa: S104 as in Go's ":8080"


def _flag(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in TRUE


def _level(text: str) -> str:
    if text.upper() not in LEVELS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(LEVELS)}")
    return text.upper()


def _format(text: str) -> LogFormat:
    match text:
        case "json" | "text":
            return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither json nor text")
