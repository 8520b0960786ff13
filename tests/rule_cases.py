"""Accepted and rejected objects for every rule of the resource; the models and the API server must agree on each."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import pytest

Json: TypeAlias = Any
Changes: TypeAlias = Mapping[str, Json]
GONE: Final = object()
"""As the value of a change: the field is absent."""

SOURCE = {"inline": [{"path": "20240101000000_init/migration.sql", "content": "SELECT 1;"}]}
BASE: dict[str, Any] = {
    "apiVersion": "dbbootstrap.io/v1alpha1",
    "kind": "DatabaseBootstrap",
    "metadata": {"name": "shop"},
    "spec": {
        "server": {"adminSecretRef": {"name": "postgres-admin"}},
        "role": {"name": "smart_dev", "passwordSecretRef": {"name": "shop-password"}},
        "database": {
            "name": "smart_ecommerce_dev",
            "locale": {"provider": "Libc", "name": "C"},
            "parameters": [{"name": "timezone", "value": "UTC"}],
        },
        "schemas": [{"name": "reports"}],
        "access": [{"role": "smart_report", "level": "ReadOnly"}],
        "extensions": [{"name": "uuid-ossp"}, {"name": "pg_trgm", "version": "1.6", "schema": "public"}],
        "migrations": {"tool": "Prisma", "source": SOURCE},
        "seed": {"source": {"configMapRefs": [{"name": "shop-seed"}]}},
        "connectionSecret": {"name": "shop-connection"},
    },
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One rule by its message, with what it lets through and what it stops."""

    message: str
    good: tuple[Changes, ...]
    bad: tuple[Changes, ...]
    before: Changes = field(default_factory=dict)
    """For a rule about changes: how the object was made."""
    about_change: bool = False


def changed(changes: Changes, base: Mapping[str, Any] = BASE) -> dict[str, Any]:
    """Return a copy of the object with other values at some dotted paths."""
    result: dict[str, Any] = copy.deepcopy(dict(base))
    for path, value in changes.items():
        _set(result, path.split("."), copy.deepcopy(value) if value is not GONE else GONE)
    return result


def _set(node: Json, path: list[str], value: Json) -> None:
    *parents, last = (int(part) if part.isdigit() else part for part in path)
    for part in parents:
        node = node[part] if isinstance(part, int) else node.setdefault(part, {})
    if value is GONE:
        node.pop(last, None)
    else:
        node[last] = value


def _identifier(path: str, name: str) -> tuple[Case, ...]:
    return (
        Case(
            message=f"`{name}` must be at most 63 bytes long in UTF-8",
            good=({path: "x" * 63}, {path: "é" * 31}),
            bad=({path: "é" * 32}, {path: "😀" * 16}),
        ),
        Case(
            message=f"`{name}` must not contain control characters",
            good=({path: "we\"ird; DROP--' $1 \\ été"},),
            bad=({path: "a\nb"}, {path: "a\x00b"}, {path: "a\x7f"}, {path: "\x85"}, {path: "trailing\n"}),
        ),
    )


def _reserved(path: str, name: str) -> Case:
    bad = ("postgres", "public", "none", "template0", "template1", "pg_x", "rdsadmin", "cloudsqladmin", "azure_sys")
    return Case(
        message=f"`{name}` must not be a reserved name: postgres, public, none, template0, template1, "
        "or one that begins with pg_, rds, cloudsql, azure_",
        good=({path: "postgres_app"}, {path: "Public"}, {path: "a_pg_b"}),
        bad=tuple({path: word} for word in bad),
    )


def _system_schema(path: str, name: str, *, good: tuple[str, ...], bad: tuple[str, ...] = ()) -> Case:
    words = ("dbbootstrap", "information_schema", "pg_toast", *bad)
    return Case(
        message=f"`{name}` must not be a reserved schema: dbbootstrap, information_schema, or one that begins with pg_",
        good=tuple({path: word} for word in good),
        bad=tuple({path: word} for word in words),
    )


def _object_name(path: str, name: str, kind: str) -> Case:
    return Case(
        message=f"`{name}` must be the name of a {kind}: lower-case letters, digits, `-` and `.`",
        good=({path: "a"}, {path: "a-1.b"}, {path: "x" * 253}),
        bad=tuple({path: word} for word in ("A", "a_b", "-a", "a-", "a..b", "a b", "a\n")),
    )


def _immutable(name: str, path: str, *, other: Json, optional: bool = False) -> Case:
    removed = ({path: GONE},) if optional else ()
    return Case(
        message=f"`{name}` must stay as it was when the resource was made",
        good=({}, {"spec.suspend": True}),
        bad=({path: other}, *removed),
        about_change=True,
    )


def _two_sources(first: int, second: int) -> Changes:
    return {
        "spec.migrations.source": {"inline": [{"path": "a", "content": "x" * first}]},
        "spec.seed.source": {
            "inline": [{"path": "b.sql", "content": "é" * (second - 1)}, {"path": "c", "content": "y"}]
        },
    }


INLINE_PATH = "spec.migrations.source.inline.0.path"
KEY = "spec.role.passwordSecretRef.key"
CASES: tuple[Case, ...] = (
    Case(
        message="`metadata.name` must be at most 248 characters long: `-role` and `-db` are added to it",
        good=({"metadata.name": "x" * 248},),
        bad=({"metadata.name": "x" * 249},),
    ),
    *_identifier("spec.role.name", "role.name"),
    _reserved("spec.role.name", "role.name"),
    *_identifier("spec.database.name", "database.name"),
    _reserved("spec.database.name", "database.name"),
    *_identifier("spec.schemas.0.name", "schemas[].name"),
    _system_schema("spec.schemas.0.name", "schemas[].name", good=("Public", "app_pg_x"), bad=("pg_catalog",)),
    Case(
        message="`schemas[].name` must not be public: it needs no entry, and is never altered or dropped",
        good=({"spec.schemas.0.name": "published"},),
        bad=({"spec.schemas.0.name": "public"},),
    ),
    *_identifier("spec.access.0.role", "access[].role"),
    _reserved("spec.access.0.role", "access[].role"),
    Case(
        message="`access[].role` must not be the resource's own role: it owns everything",
        good=({"spec.access.0.role": "Smart_dev"}, {"spec.access": GONE}, {"spec.access": []}),
        bad=({"spec.access.0.role": "smart_dev"}, {"spec.role.name": "smart_report"}),
    ),
    *_identifier("spec.extensions.0.schema", "extensions[].schema"),
    _system_schema("spec.extensions.0.schema", "extensions[].schema", good=("public", "pg_catalog", "x")),
    *_identifier("spec.migrations.schema", "migrations.schema"),
    _system_schema("spec.migrations.schema", "migrations.schema", good=("public", "app"), bad=("pg_catalog",)),
    _object_name("spec.server.adminSecretRef.name", "server.adminSecretRef.name", "Secret"),
    _object_name("spec.role.passwordSecretRef.name", "role.passwordSecretRef.name", "Secret"),
    _object_name("spec.connectionSecret.name", "connectionSecret.name", "Secret"),
    _object_name("spec.seed.source.configMapRefs.0.name", "source.configMapRefs[].name", "ConfigMap"),
    Case(
        message="`role.passwordSecretRef.key` must be a key of a Secret: letters, digits, `-`, `_` and `.`",
        good=({KEY: "password"}, {KEY: "My.key_1"}),
        bad=({KEY: "a/b"}, {KEY: "a b"}, {KEY: "é"}),
    ),
    Case(
        message="`database.encoding` must be an encoding as PostgreSQL prints it, such as `UTF8`",
        good=({"spec.database.encoding": "SQL_ASCII"}, {"spec.database.encoding": "LATIN1"}),
        bad=({"spec.database.encoding": "utf8"}, {"spec.database.encoding": "UTF-8"}),
    ),
    Case(
        message="`database.locale.name` must not contain control characters",
        good=({"spec.database.locale.name": "de-u-co-phonebk"}, {"spec.database.locale.name": "de_DE.utf8@euro"}),
        bad=({"spec.database.locale.name": "C\n"},),
    ),
    Case(
        message="`database.parameters[].name` must be a parameter's name in lower case, such as `timezone` or "
        "`statement_timeout`",
        good=({"spec.database.parameters.0.name": "pg_trgm.word_similarity_threshold"},),
        bad=tuple({"spec.database.parameters.0.name": it} for it in ("TimeZone", "a-b", "a..b", ".a", "1a", "a = b;")),
    ),
    Case(
        message="`database.parameters[].value` must not contain control characters",
        good=({"spec.database.parameters.0.value": ""}, {"spec.database.parameters.0.value": "'; DROP DATABASE x"}),
        bad=({"spec.database.parameters.0.value": "a\nb"},),
    ),
    Case(
        message="`extensions[].name` must be an extension's name: letters, digits, `_`, and single `-` between them",
        good=({"spec.extensions.0.name": "plpython3u"}, {"spec.extensions.0.name": "postgis-3_a"}),
        bad=tuple({"spec.extensions.0.name": it} for it in ("../x", "a--b", "-a", "a-", 'x"; DROP', "a b", "a.b")),
    ),
    Case(
        message="`extensions[].version` must be an extension's version: letters, digits, `.`, `_`, `+`, `~`, "
        "and single `-` between them",
        good=({"spec.extensions.0.version": "3.4.0-dev"}, {"spec.extensions.0.version": "1.0~rc1+x"}),
        bad=tuple({"spec.extensions.0.version": it} for it in ("1--2", "-1", "1-", "1/2", "1 2", "'")),
    ),
    Case(
        message="`source` must have exactly one of `configMapRefs` and `inline`",
        good=(
            {"spec.seed.source": SOURCE},
            {"spec.migrations.source": {"configMapRefs": [{"name": "a"}, {"name": "b"}]}},
        ),
        bad=({"spec.seed.source": {}}, {"spec.migrations.source.configMapRefs": [{"name": "a"}]}),
    ),
    Case(
        message="`source.inline[].path` must not contain control characters",
        good=({INLINE_PATH: "Add Users. Really/migration.sql"},),
        bad=({INLINE_PATH: "a\tb"}, {INLINE_PATH: "a/b\n"}),
    ),
    Case(
        message="`source.inline[].path` must be relative, with `/` between its parts, and without `.` and `..`",
        good=tuple({INLINE_PATH: it} for it in ("a", ".hidden/..b", "a/...", "V1__x.sql", "ünï/x.sql")),
        bad=tuple(
            {INLINE_PATH: it}
            for it in ("/a", "a/", "a//b", ".", "..", "./a", "../a", "a/./b", "a/../b", "a/..", "a\\b", "/", "//")
        ),
    ),
    Case(
        message="`source.inline` must hold at most 200 KiB (204800 characters) in all, migrations and seed together: "
        "use `configMapRefs` for more",
        good=(_two_sources(102400, 102400), {"spec.migrations.source.inline.0.content": "x" * 204800}),
        bad=(_two_sources(102400, 102401),),
    ),
    Case(
        message="`migrations.baseline` must not contain control characters",
        good=({"spec.migrations.baseline": "20240101000000_the first"},),
        bad=({"spec.migrations.baseline": "a\n"},),
    ),
    Case(
        message="`migrations.allowOutOfOrder[]` must not contain control characters",
        good=({"spec.migrations.allowOutOfOrder": ["20240101000000_late one"]},),
        bad=({"spec.migrations.allowOutOfOrder": ["a\n"]},),
    ),
    Case(
        message="`migrations.allowDestructive[]` must not contain control characters",
        good=({"spec.migrations.allowDestructive": ["20240301000000_drop cart", "ae1027a6acf"]},),
        bad=({"spec.migrations.allowDestructive": ["a\n"]},),
    ),
    Case(
        message="`seed.ignoreTables[]` must not contain control characters",
        good=({"spec.seed.ignoreTables": ["public.countries", 'a b."q"']},),
        bad=({"spec.seed.ignoreTables": ["a.b\n"]},),
    ),
    Case(
        message="`seed.ignoreTables[]` must be `schema.table`, each part of 1 to 63 bytes",
        good=({"spec.seed.ignoreTables": ["x" * 63 + "." + "y" * 63, "a.é"]},),
        bad=tuple(
            {"spec.seed.ignoreTables": [it]} for it in ("abc", "a.b.c", ".ab", "ab.", "a." + "é" * 32, "x" * 64 + ".y")
        ),
    ),
    Case(
        message="`connectionSecret.name` must not be a Secret that the resource reads: the operator writes it",
        good=(
            {"spec.connectionSecret": GONE},
            {"spec.role.passwordSecretRef": GONE, "spec.connectionSecret.name": "shop-password"},
        ),
        bad=({"spec.connectionSecret.name": "shop-password"}, {"spec.connectionSecret.name": "postgres-admin"}),
    ),
    Case(
        message="`role.passwordSecretRef` must be there for `adoption: Force`: adoption never sets a password",
        good=(
            {"spec.adoption": "Force"},
            {"spec.adoption": "WithCredentials", "spec.role.passwordSecretRef": GONE},
            {"spec.adoption": "Never", "spec.role.passwordSecretRef": GONE},
        ),
        bad=({"spec.adoption": "Force", "spec.role.passwordSecretRef": GONE},),
    ),
    Case(
        message="`server` must hold exactly one of `adminSecretRef` and `ref`",
        good=({}, {"spec.server": {"ref": {"name": "main"}}}),
        bad=(
            {"spec.server": {}},
            {"spec.server.ref": {"name": "main"}},
        ),
    ),
    Case(
        message="`server.ref.name` must be the name of a DatabaseServer: lower-case letters, digits, `-` and `.`",
        good=({"spec.server": {"ref": {"name": "main.eu-1"}}},),
        bad=({"spec.server": {"ref": {"name": "Main"}}}, {"spec.server": {"ref": {"name": "a/b"}}}),
    ),
    Case(
        message="`connectionSecret.name` must not be `<metadata.name>-role`: a generated password is kept there",
        good=(
            {"spec.connectionSecret": GONE},
            {"spec.connectionSecret.name": "other-role"},
            {"spec.connectionSecret.name": "shop-role-db"},
        ),
        bad=(
            {"spec.connectionSecret.name": "shop-role"},
            {"spec.connectionSecret.name": "shop-role", "spec.role.passwordSecretRef": GONE},
            {"metadata.name": "a.b-c", "spec.connectionSecret.name": "a.b-c-role"},
        ),
    ),
    _immutable("role.name", "spec.role.name", other="somebody_else"),
    _immutable("database.name", "spec.database.name", other="another"),
    _immutable("database.encoding", "spec.database.encoding", other="LATIN1"),
    _immutable("database.template", "spec.database.template", other="template0"),
    _immutable("database.locale", "spec.database.locale.name", other="POSIX"),
    _immutable("database.locale", "spec.database.locale", other={"provider": "Icu", "name": "C"}, optional=True),
    Case(
        message="`database.locale` must stay as it was when the resource was made",
        before={"spec.database.locale": GONE},
        good=({"spec.database.locale": GONE},),
        bad=({},),
        about_change=True,
    ),
)

RULES = tuple(case for case in CASES if not case.about_change)
TRANSITIONS = tuple(case for case in CASES if case.about_change)


def each(cases: tuple[Case, ...], kind: Literal["good", "bad"]) -> list[Json]:
    """Return the objects of the cases as parameters for a test, one by one."""
    return [
        pytest.param(case, changes, id=f"{case.message[:48]}-{number}")
        for case in cases
        for number, changes in enumerate(case.good if kind == "good" else case.bad)
    ]


LONG = "x" * 1_048_576
MORE_GOOD: tuple[Changes, ...] = (
    {},
    {"spec.role.connectionLimit": 3, "spec.database.connectionLimit": 262_143},
    {"spec.schemas": [], "spec.extensions": [], "spec.database.parameters": []},
    {"spec.migrations": GONE, "spec.seed": GONE, "spec.schemas": GONE, "spec.extensions": GONE},
    {"spec.migrations": None, "spec.seed": None, "spec.suspend": None, "spec.database.locale": None},
    {"spec.migrations.tool": "Alembic", "spec.seed.policy": "Once", "spec.intervalSeconds": 86_400},
    {"spec.deletionPolicy": "Delete"},
    {"spec.access": [{"role": "a", "level": "ReadWrite"}, {"role": "A", "level": "ReadOnly"}]},
    {"spec.migrations.statementTimeoutSeconds": 0, "spec.migrations.lockTimeoutSeconds": 600},
)
MORE_BAD: dict[str, Changes] = {
    "no server": {"spec.server": GONE},
    "no role": {"spec.role": GONE},
    "no database name": {"spec.database.name": GONE},
    "null role name": {"spec.role.name": None},
    "unknown field": {"spec.databse": {}},
    "unknown field within": {"spec.role.superuser": True},
    "unknown tool": {"spec.migrations.tool": "prisma"},
    "unknown policy": {"spec.seed.policy": "Always"},
    "unknown access level": {"spec.access.0.level": "readOnly"},
    "access without a level": {"spec.access": [{"role": "a"}]},
    "same access twice": {"spec.access": [{"role": "a", "level": "ReadOnly"}, {"role": "a", "level": "ReadWrite"}]},
    "65 others": {"spec.access": [{"role": f"r{number}", "level": "ReadOnly"} for number in range(65)]},
    "unknown deletion policy": {"spec.deletionPolicy": "Orphan"},
    "unknown provider": {"spec.database.locale.provider": "libc"},
    "another template": {"spec.database.template": "postgres"},
    "64 characters": {"spec.role.name": "x" * 64},
    "empty name": {"spec.role.name": ""},
    "a mebibyte": {"spec.database.name": LONG},
    "a mebibyte of content": {"spec.migrations.source.inline.0.content": LONG},
    "role limit of 2": {"spec.role.connectionLimit": 2},
    "database limit of 2": {"spec.database.connectionLimit": 2},
    "limit too high": {"spec.role.connectionLimit": 262_144},
    "lock timeout of 0": {"spec.migrations.lockTimeoutSeconds": 0},
    "statement timeout below 0": {"spec.migrations.statementTimeoutSeconds": -1},
    "timeout of 0": {"spec.migrations.timeoutSeconds": 0},
    "interval of 4": {"spec.intervalSeconds": 4},
    "interval as text": {"spec.intervalSeconds": "600"},
    "suspend as text": {"spec.suspend": "yes"},
    "suspend as number": {"spec.suspend": 1},
    "version as number": {"spec.extensions.0.version": 1.6},
    "schemas as object": {"spec.schemas": {"name": "a"}},
    "a null in a list": {"spec.schemas": [None]},
    "spec as text": {"spec": "none"},
    "same schema twice": {"spec.schemas": [{"name": "a"}, {"name": "a"}]},
    "same extension twice": {"spec.extensions": [{"name": "a"}, {"name": "a", "version": "2"}]},
    "same parameter twice": {"spec.database.parameters": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]},
    "same ConfigMap twice": {"spec.seed.source.configMapRefs": [{"name": "a"}, {"name": "a"}]},
    "same path twice": {"spec.seed.source": {"inline": [{"path": "a", "content": "1"}, {"path": "a", "content": "2"}]}},
    "same exception twice": {"spec.migrations.allowOutOfOrder": ["a", "a"]},
    "same destroyer twice": {"spec.migrations.allowDestructive": ["a", "a"]},
    "65 destroyers": {"spec.migrations.allowDestructive": [f"m{number}" for number in range(65)]},
    "nameless destroyer": {"spec.migrations.allowDestructive": [""]},
    "onDestructive in lower case": {"spec.migrations.onDestructive": "allow"},
    "same table twice": {"spec.seed.ignoreTables": ["a.b", "a.b"]},
    "no ConfigMap": {"spec.seed.source.configMapRefs": []},
    "no file": {"spec.migrations.source.inline": []},
    "65 schemas": {"spec.schemas": [{"name": f"s{number}"} for number in range(65)]},
}


SERVER: dict[str, Any] = {
    "apiVersion": "dbbootstrap.io/v1alpha1",
    "kind": "DatabaseServer",
    "metadata": {"name": "main"},
    "spec": {
        "adminSecretRef": {"namespace": "platform", "name": "postgres"},
        "tls": {"mode": "VerifyFull", "caConfigMapRef": {"namespace": "platform", "name": "postgres-ca"}},
        "allowedNamespaces": {
            "matchLabels": {"team": "shop"},
            "matchExpressions": [{"key": "stage", "operator": "In", "values": ["dev"]}],
        },
        "allowedNames": {"roles": ["{namespace}_*"], "databases": ["{namespace}_*"]},
        "allowedExtensions": ["uuid-ossp"],
    },
}
_CA = {"namespace": "platform", "name": "postgres-ca"}
_LIMITED = "spec.allowedNames.roles"
_LABELS = "spec.allowedNamespaces.matchLabels"
_EXPRESSIONS = "spec.allowedNamespaces.matchExpressions"
SERVER_CASES = (
    Case(
        message="`adminSecretRef.namespace` must be the name of a namespace",
        good=({"spec.adminSecretRef.namespace": "a-1"},),
        bad=({"spec.adminSecretRef.namespace": "a.b"}, {"spec.adminSecretRef.namespace": "../a"}),
    ),
    Case(
        message="`adminSecretRef.name` must be the name of a Secret: lower-case letters, digits, `-` and `.`",
        good=({"spec.adminSecretRef.name": "a.b-1"},),
        bad=({"spec.adminSecretRef.name": "A"},),
    ),
    Case(
        message="`tls` must hold at most one of `caSecretRef` and `caConfigMapRef`",
        good=({"spec.tls": {}}, {"spec.tls": {"caSecretRef": _CA}}),
        bad=({"spec.tls.caSecretRef": _CA},),
    ),
    Case(
        message="`tls.ca*Ref.namespace` must be the name of a namespace",
        good=({"spec.tls.caConfigMapRef.namespace": "a"},),
        bad=({"spec.tls.caConfigMapRef.namespace": "A"},),
    ),
    Case(
        message="`tls.ca*Ref.name` must be the name of a Secret or ConfigMap: lower-case letters, digits, `-` and `.`",
        good=({"spec.tls.caConfigMapRef.name": "a.b"},),
        bad=({"spec.tls.caConfigMapRef.name": "a_b"},),
    ),
    Case(
        message="`tls.ca*Ref.key` must be a key of a Secret: letters, digits, `-`, `_` and `.`",
        good=({"spec.tls.caConfigMapRef.key": "ca-bundle.crt"},),
        bad=({"spec.tls.caConfigMapRef.key": "../ca"},),
    ),
    Case(
        message="`tls.clientCertificateRef.namespace` must be the name of a namespace",
        good=({"spec.tls.clientCertificateRef": _CA},),
        bad=({"spec.tls.clientCertificateRef": _CA | {"namespace": "A"}},),
    ),
    Case(
        message="`tls.clientCertificateRef.name` must be the name of a Secret: lower-case letters, digits, `-` and `.`",
        good=({"spec.tls.clientCertificateRef": _CA},),
        bad=({"spec.tls.clientCertificateRef": _CA | {"name": "a_b"}},),
    ),
    Case(
        message="`values` must be there for In and NotIn, and for nothing else",
        good=(
            {"spec.allowedNamespaces.matchExpressions": [{"key": "a", "operator": "Exists"}]},
            {"spec.allowedNamespaces.matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]},
        ),
        bad=(
            {"spec.allowedNamespaces.matchExpressions": [{"key": "a", "operator": "In"}]},
            {"spec.allowedNamespaces.matchExpressions": [{"key": "a", "operator": "In", "values": []}]},
            {"spec.allowedNamespaces.matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
        ),
    ),
    Case(
        message="`allowedNamespaces.matchLabels` must be the key of a label, such as `team` or `example.com/team`: "
        "no other ever matches",
        good=({_LABELS: {"example.com/team": "a", "Team_1.x": "a", "a" * 63: "a"}},),
        bad=tuple({_LABELS: {key: "a"}} for key in ("", "te am", "a/b/c", "-a", "A.example/a", "a/", "a" * 64)),
    ),
    Case(
        message="`allowedNamespaces.matchLabels` must be a label's value: letters, digits, `-`, `_` and `.`, or "
        "nothing",
        good=({_LABELS: {"a": ""}}, {_LABELS: {"a": "v1.0_x-Y"}}),
        bad=tuple({_LABELS: {"a": value}} for value in ("two words", "-a", "a.", "é", "a/b")),
    ),
    Case(
        message="`allowedNamespaces.matchExpressions[].key` must be the key of a label, such as `team` or "
        "`example.com/team`: no other ever matches",
        good=({_EXPRESSIONS: [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]},),
        bad=tuple({_EXPRESSIONS: [{"key": key, "operator": "Exists"}]} for key in ("a b", "a//b", "a" * 64)),
    ),
    Case(
        message="`allowedNamespaces.matchExpressions[].values` must be a label's value: letters, digits, `-`, `_` and "
        "`.`, or nothing",
        good=({_EXPRESSIONS: [{"key": "a", "operator": "In", "values": ["", "a.b"]}]},),
        bad=({_EXPRESSIONS: [{"key": "a", "operator": "NotIn", "values": ["a", "*"]}]},),
    ),
    Case(
        message="`allowedNames` must not contain control characters",
        good=({_LIMITED: ["é*"]}, {"spec.allowedNames.accessRoles": []}),
        bad=({_LIMITED: ["a\nb"]}, {"spec.allowedNames.accessRoles": ["a\x00"]}),
    ),
    Case(
        message="`allowedNames` must not hold braces but those of `{namespace}`",
        good=({_LIMITED: ["{namespace}", "x_{namespace}_{namespace}"]},),
        bad=({_LIMITED: ["{name}"]}, {_LIMITED: ["{namespace"]}, {_LIMITED: ["{{namespace}}"]}),
    ),
    Case(
        message="`allowedNames` must put a character that no namespace has, such as `_`, between `{namespace}` and `*`",
        good=({_LIMITED: ["*", "{namespace}_*", "*_{namespace}", "{namespace}app", "{namespace}-_*"]},),
        bad=({_LIMITED: ["{namespace}*"]}, {_LIMITED: ["{namespace}-*"]}, {_LIMITED: ["*-a{namespace}_x"]}),
    ),
    Case(
        message="`allowedExtensions[]` must be an extension's name, or `*` for every extension",
        good=({"spec.allowedExtensions": ["*"]}, {"spec.allowedExtensions": ["uuid-ossp", "pg_trgm"]}),
        bad=({"spec.allowedExtensions": ["pg_*"]}, {"spec.allowedExtensions": ["a;b"]}),
    ),
    Case(
        message="`publicHost` must be one host name or address, without a port (`publicPort`)",
        good=(
            {"spec.publicHost": "db.example.org"},
            {"spec.publicHost": "::1"},
            {"spec.publicHost": "::ffff:10.0.0.1"},
        ),
        bad=tuple(
            {"spec.publicHost": host} for host in ("a,b", "/tmp", "a b", "db.example.org:6432", "10.0.0.1:1", "b:1")
        ),
    ),
)
SERVER_BAD: dict[str, Changes] = {
    "no administrator": {"spec.adminSecretRef": GONE},
    "no namespace": {"spec.adminSecretRef.namespace": GONE},
    "unknown field": {"spec.allowedDatabases": ["*"]},
    "libpq's word for TLS": {"spec.tls.mode": "verify-full"},
    "unknown operator": {"spec.allowedNamespaces.matchExpressions": [{"key": "a", "operator": "Is"}]},
    "label that is no text": {"spec.allowedNamespaces.matchLabels": {"team": 1}},
    "same name twice": {_LIMITED: ["a", "a"]},
    "empty name": {_LIMITED: [""]},
    "same extension twice": {"spec.allowedExtensions": ["a", "a"]},
    "limit of 2": {"spec.maxConnectionLimit": {"role": 2}},
    "no time at all": {"spec.maxTimeoutSeconds": {"migrations": 0}},
    "budget of 2": {"spec.maxConnections": 2},
    "port 0": {"spec.publicPort": 0},
    "interval of 4": {"spec.intervalSeconds": 4},
    "adoption as text": {"spec.allowAdoption": "yes"},
}
