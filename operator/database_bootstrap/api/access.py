"""Who gets in: the application, by its Secret, and other roles beside it."""

from enum import StrEnum
from typing import Annotated

from database_bootstrap.api import rules
from database_bootstrap.api.models import IDENTIFIER, OBJECT_NAME, Model


class ConnectionSecretSpec(Model):
    """The Secret that applications connect with."""

    name: Annotated[str, OBJECT_NAME, rules.object_name("connectionSecret.name", "Secret")]
    """Name of a Secret in the same namespace; it is made by the operator, after the first complete success."""


class AccessLevel(StrEnum):
    """What another role may do with the tables."""

    READ_ONLY = "ReadOnly"
    READ_WRITE = "ReadWrite"


class AccessSpec(Model):
    """Another role that may use the resource's tables."""

    role: Annotated[
        str,
        IDENTIFIER,
        rules.byte_length("access[].role"),
        rules.printable("access[].role"),
        rules.not_reserved("access[].role"),
    ]
    """Name of a role that somebody else makes, exactly as written; at most 63 bytes. It is waited for."""
    level: AccessLevel
    """ReadOnly: SELECT on tables, views and sequences. ReadWrite: INSERT, UPDATE, DELETE and the next number of a
    sequence as well. Both for what is there and for what the migrations make later."""
