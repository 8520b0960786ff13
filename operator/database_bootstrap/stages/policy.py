"""Policy: what a platform team's server lets a resource ask for; pure, and judged before the server is asked."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from database_bootstrap import errors
from database_bootstrap.api.seeds import SeedSpec
from database_bootstrap.api.servers import ANY, NAMESPACE, LabelOperator, LabelRequirement, LabelSelector, TimeoutCaps
from database_bootstrap.api.v1alpha1 import Adoption, MigrationsSpec, Spec
from database_bootstrap.stages.subject import Subject
from database_bootstrap.stages.surroundings import SharedServer

SHOWN = 3
"""Names that are named one by one."""


def check(server: SharedServer, subject: Subject, *, leaving: bool = False) -> None:
    """Raise `ServerRefused` with a sentence for each rule that is not kept.

    What is being deleted asks for nothing more, so only the rules count that say whose it is.
    """
    broken = list(_whose(server, subject))
    if not leaving:
        broken += _asked_for(server, subject)
    if broken:
        raise errors.ServerRefused(f"DatabaseServer {server.name} does not allow this: {'; '.join(broken)}")


def applied(server: SharedServer, subject: Subject) -> Subject:
    """Return the subject as the server's rules make it: limits where it names none, and nobody else's things."""
    spec, caps = subject.spec, server.spec.max_connection_limit
    if caps and caps.role and spec.role.connection_limit is None:
        spec = spec.model_copy(update={"role": spec.role.model_copy(update={"connection_limit": caps.role})})
    if caps and caps.database and spec.database.connection_limit is None:
        limited = spec.database.model_copy(update={"connection_limit": caps.database})
        spec = spec.model_copy(update={"database": limited})
    spec = spec.model_copy(update=dict(_shortened(server, spec)))
    return replace(subject, spec=spec, adoption_refused_by=None if server.spec.allow_adoption else server.name)


def _shortened(server: SharedServer, spec: Spec) -> Iterator[tuple[str, MigrationsSpec | SeedSpec]]:
    """Yield what takes as long as its field's default allows, as no longer than the server allows."""
    caps = server.spec.max_timeout_seconds or TimeoutCaps()
    wanted: tuple[tuple[str, MigrationsSpec | SeedSpec | None, int | None], ...] = (
        ("migrations", spec.migrations, caps.migrations),
        ("seed", spec.seed, caps.seed),
    )
    for field, work, cap in wanted:
        if work is not None and cap is not None and work.timeout_seconds > cap:
            yield field, work.model_copy(update={"timeout_seconds": cap})


def adoption_refusal(server: str, what: str) -> errors.ServerRefused:
    """Return the error for what exists, and must not be taken over on this server."""
    return errors.ServerRefused(
        f"{what}; DatabaseServer {server} does not allow it to be taken over: its allowAdoption is false. Choose "
        "another name, or ask whoever runs the server"
    )


def matches(pattern: str, name: str, namespace: str) -> bool:
    """Whether the whole name fits the pattern: `*` is any text, `{namespace}` is the namespace."""
    parts = (re.escape(part.replace(NAMESPACE, namespace)) for part in pattern.split(ANY))
    return re.fullmatch(".*".join(parts), name, re.DOTALL) is not None


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether the labels are those of an object that the selector means; as Kubernetes has it."""
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions
    )


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case LabelOperator.IN:
            return value is not None and value in requirement.values
        case LabelOperator.NOT_IN:
            return value is None or value not in requirement.values
        case LabelOperator.EXISTS:
            return value is not None
        case LabelOperator.DOES_NOT_EXIST:
            return value is None


def _whose(server: SharedServer, subject: Subject) -> Iterator[str]:
    namespace, selector, allowed = subject.owner.namespace, server.spec.allowed_namespaces, server.spec.allowed_names
    if selector is None:
        yield f"namespace {namespace} may not use it, as no namespace may (it has no allowedNamespaces)"
    elif server.labels is not None and not selects(selector, server.labels):
        yield f"namespace {namespace} may not use it: the labels of the namespace must fit {_told(selector)}"
    yield from _names("role.name", [subject.spec.role.name], "roles", allowed.roles, namespace)
    yield from _names("database.name", [subject.spec.database.name], "databases", allowed.databases, namespace)


def _names(field: str, names: Sequence[str], rule: str, patterns: Sequence[str], namespace: str) -> Iterator[str]:
    refused = [name for name in names if not any(matches(pattern, name, namespace) for pattern in patterns)]
    if refused:
        listed = ", ".join(f'"{name}"' for name in refused[:SHOWN])
        more = f" and {len(refused) - SHOWN} more are" if len(refused) > SHOWN else " is"
        allowed_here = ", ".join(pattern.replace(NAMESPACE, namespace) for pattern in patterns) or "none"
        yield f"{field} {listed}{more} none of the allowedNames.{rule} ({allowed_here})"


def _asked_for(server: SharedServer, subject: Subject) -> Iterator[str]:
    spec, patterns = subject.spec, server.spec.allowed_names.access_roles
    yield from _names(
        "access[].role", [it.role for it in spec.access], "accessRoles", patterns, subject.owner.namespace
    )
    yield from _extensions(server, spec)
    yield from _caps(server, spec)
    yield from _adoption(server, spec)


def _told(selector: LabelSelector) -> str:
    exact = [f"{key}={value}" for key, value in selector.match_labels.items()]
    others = [
        f"{it.key} {it.operator.value}" + (f" ({', '.join(it.values)})" if it.values else "")
        for it in selector.match_expressions
    ]
    return f"allowedNamespaces ({', '.join([*exact, *others])})"


def _extensions(server: SharedServer, spec: Spec) -> Iterator[str]:
    allowed = server.spec.allowed_extensions
    refused = [] if ANY in allowed else [it.name for it in spec.extensions if it.name not in allowed]
    if refused:
        yield f"extensions {', '.join(refused)} are not among its allowedExtensions ({', '.join(allowed) or 'none'})"


def _caps(server: SharedServer, spec: Spec) -> Iterator[str]:
    connections, seconds = server.spec.max_connection_limit, server.spec.max_timeout_seconds
    wanted: list[tuple[str, int | None, str, int | None]] = []
    if connections is not None:
        rule = "maxConnectionLimit"
        wanted += [
            ("role.connectionLimit", spec.role.connection_limit, f"{rule}.role", connections.role),
            ("database.connectionLimit", spec.database.connection_limit, f"{rule}.database", connections.database),
        ]
    if seconds is not None:
        rule = "maxTimeoutSeconds"
        wanted += [
            ("migrations.timeoutSeconds", _chosen(spec.migrations), f"{rule}.migrations", seconds.migrations),
            ("seed.timeoutSeconds", _chosen(spec.seed), f"{rule}.seed", seconds.seed),
        ]
    for field, value, rule, cap in wanted:
        if cap is not None and value is not None and value > cap:
            yield f"{field} {value} is more than {cap}, its {rule}"


def _chosen(work: MigrationsSpec | SeedSpec | None) -> int | None:
    """Return how long the work may take, where somebody has chosen that: the API server writes defaults in."""
    if work is None or work.timeout_seconds == type(work).model_fields["timeout_seconds"].default:
        return None
    return work.timeout_seconds


def _adoption(server: SharedServer, spec: Spec) -> Iterator[str]:
    if spec.adoption is Adoption.FORCE and not server.spec.allow_adoption:
        yield (
            "adoption Force takes over what exists already, and its allowAdoption is false: use "
            f"{Adoption.NEVER}, or leave the field out"
        )
