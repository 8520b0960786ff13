"""Rules told twice, side by side: to the API server in CEL, and to Python as a predicate."""

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

IDENTIFIER_BYTES = 63
CONTROL = r"[\x00-\x1f\x7f-\x9f]"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SECRET_KEY = r"^[-._a-zA-Z0-9]+$"  # noqa: S105 a pattern
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_KEY = rf"^({DNS_SUBDOMAIN[1:-1]}/)?{_LABEL_NAME}$"
LABEL_VALUE = rf"^({_LABEL_NAME})?$"
RESERVED_NAMES = ("postgres", "public", "none", "template0", "template1")
RESERVED_PREFIXES = ("pg_", "rds", "cloudsql", "azure_")
RESERVED_SCHEMAS = ("dbbootstrap", "information_schema")

_LABEL_KEY_WORDS = "be the key of a label, such as `team` or `example.com/team`: no other ever matches"

VALIDATIONS = "x-kubernetes-validations"

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What must hold of a value; as metadata of a type it works in pydantic and shows in the CRD."""

    cel: str
    message: str
    holds: Callable[[Any], bool]

    def check(self, value: Value) -> Value:
        """Return the value, or refuse it with the rule's own sentence."""
        if not self.holds(value):
            # A custom error: pydantic puts "Value error, " before the text of a ValueError.
            raise PydanticCustomError("rule", "{sentence}", {"sentence": self.message})
        return value

    def told(self) -> dict[str, str]:
        """Return the rule as the CRD has it."""
        return {"rule": self.cel, "message": self.message}

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        schema.setdefault(VALIDATIONS, []).append(self.told())
        return schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Immutable:
    """A field of an object that stays as it was made: it neither changes, nor appears, nor disappears."""

    field: str
    """Its name in JSON."""
    attribute: str
    message: str

    @property
    def cel(self) -> str:
        """The transition rule, for the object that holds the field."""
        new, old = f"self.{self.field}", f"oldSelf.{self.field}"
        return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"

    def told(self) -> dict[str, str]:
        """Return the rule as the CRD has it."""
        return {"rule": self.cel, "message": self.message}

    def holds(self, new: object, old: object) -> bool:
        """Whether both objects have the same value, or both none."""
        return bool(getattr(new, self.attribute) == getattr(old, self.attribute))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """A list without duplicates: `set` of scalars, or `map` of objects by one of their fields."""

    field: str
    key: str = ""

    def check(self, value: Sequence[Any]) -> Sequence[Any]:
        """Return the list, or name what it refuses; as the API server, which does this without CEL."""
        keys: list[Hashable] = [getattr(item, self.key) if self.key else item for item in value]
        if len(set(keys)) < len(keys):
            what = f" the same `{self.key}`" if self.key else ""
            sentence = f"`{self.field}` must not hold{what or ' a value'} twice"
            raise PydanticCustomError("rule", "{sentence}", {"sentence": sentence})
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        schema["x-kubernetes-list-type"] = "map" if self.key else "set"
        if self.key:
            schema["x-kubernetes-list-map-keys"] = [self.key]
        return schema


def byte_length(field: str, limit: int = IDENTIFIER_BYTES) -> Rule:
    """PostgreSQL cuts identifiers at 63 bytes without a word; a cut name would be somebody else's."""
    return Rule(
        cel=f"size(bytes(self)) <= {limit}",
        message=f"`{field}` must be at most {limit} bytes long in UTF-8",
        holds=lambda value: len(value.encode()) <= limit,
    )


def printable(field: str) -> Rule:
    """No control characters: they hide in logs and terminals, and PostgreSQL has no NUL."""
    return Rule(
        cel=f"!self.matches(r'{CONTROL}')",
        message=f"`{field}` must not contain control characters",
        holds=lambda value: re.search(CONTROL, value) is None,
    )


def matches(field: str, pattern: str, words: str) -> Rule:
    """The value has the form of the pattern, which means the same in RE2 and in Python."""
    return Rule(
        cel=f"self.matches(r'{pattern}')",
        message=f"`{field}` must {words}",
        holds=lambda value: re.fullmatch(pattern, value) is not None,
    )


def object_name(field: str, kind: str) -> Rule:
    """The value can be the name of an object in the cluster."""
    return matches(field, DNS_SUBDOMAIN, f"be the name of a {kind}: lower-case letters, digits, `-` and `.`")


def namespace_name(field: str) -> Rule:
    """The value can be the name of a namespace."""
    return matches(field, DNS_LABEL, "be the name of a namespace")


def secret_key(field: str) -> Rule:
    """The value can be a key in a Secret."""
    return matches(field, SECRET_KEY, "be a key of a Secret: letters, digits, `-`, `_` and `.`")


def label_key(field: str) -> Rule:
    """The value can be the key of a label."""
    return matches(field, LABEL_KEY, _LABEL_KEY_WORDS)


def label_keys(field: str) -> Rule:
    """The keys of the map can be those of labels."""
    return Rule(
        cel=f"self.all(key, key.matches(r'{LABEL_KEY}'))",
        message=f"`{field}` must {_LABEL_KEY_WORDS}",
        holds=lambda labels: all(re.fullmatch(LABEL_KEY, key) for key in labels),
    )


def label_value(field: str) -> Rule:
    """The value can be that of a label."""
    return matches(field, LABEL_VALUE, "be a label's value: letters, digits, `-`, `_` and `.`, or nothing")


def not_reserved(field: str) -> Rule:
    """Roles and databases of PostgreSQL itself and of its providers; a quoted "public" in a GRANT still is PUBLIC."""
    prefixes = " && ".join(f"!self.startsWith('{prefix}')" for prefix in RESERVED_PREFIXES)
    return Rule(
        cel=f"!(self in {list(RESERVED_NAMES)}) && {prefixes}",
        message=f"`{field}` must not be a reserved name: {', '.join(RESERVED_NAMES)}, "
        f"or one that begins with {', '.join(RESERVED_PREFIXES)}",
        holds=lambda value: value not in RESERVED_NAMES and not value.startswith(RESERVED_PREFIXES),
    )


def no_system_schema(field: str, *, allowed: tuple[str, ...] = ()) -> Rule:
    """The server's own schemas, and ours."""
    free = f"self in {list(allowed)} || " if allowed else ""
    return Rule(
        cel=f"{free}(!(self in {list(RESERVED_SCHEMAS)}) && !self.startsWith('pg_'))",
        message=f"`{field}` must not be a reserved schema: {', '.join(RESERVED_SCHEMAS)}, or one that begins with pg_",
        holds=lambda value: value in allowed or not (value in RESERVED_SCHEMAS or value.startswith("pg_")),
    )
