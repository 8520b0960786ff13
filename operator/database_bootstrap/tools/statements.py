"""Statements: what PostgreSQL's own grammar says one is, and what follows for the transaction that it runs in."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pgparse

Node = Mapping[str, Any]
"""A node of libpg_query's JSON tree, with the attributes of parsenodes.h."""

_DEPTH_LIMIT = 3000
"""libpg_query writes its tree recursively and without a check of the stack: an expression of 200,000 `+1` ends the
process (tried with pgparse 1.0.3), one of 20,000 does not."""


class Control(StrEnum):
    """What a statement does to the transaction that is open."""

    NONE = "none"
    BEGIN = "begin"
    COMMIT = "commit"
    OTHER = "other"
    """BEGIN with options, ROLLBACK, COMMIT AND CHAIN, PREPARE TRANSACTION …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of a script."""

    start: int
    """Where its first token stands, in characters of the script."""
    line: int
    text: str
    parsed: bool
    """False: newer, or other, than the parser's grammar; the server decides."""
    alone: str | None
    """What it is, when PostgreSQL refuses to run it within a transaction."""
    control: Control = Control.NONE
    opens: bool = False
    """Whether a transaction is open behind it; counts only where `control` is not NONE."""
    copies: bool = False
    """COPY from or to the client, which only psql can do."""


def parse(text: str, depth: int) -> list[Node] | None:
    """Return the statements' entries of the parse tree, or None when the grammar does not know them."""
    if depth > _DEPTH_LIMIT:
        return None
    try:
        found: list[Node] = pgparse.parse(text)
    # RecursionError: json reads about 300 nested expressions.
    except (pgparse.PGQueryError, RecursionError):
        return None
    return found


def statement_of(node: Node, text: str, start: int, line: int) -> Statement:
    """Return the statement that a node of the tree describes."""
    kind, body = next(iter(node.items()))
    control, opens = _control_of(body) if kind == "TransactionStmt" else (Control.NONE, False)
    return Statement(
        start=start,
        line=line,
        text=text,
        parsed=True,
        alone=alone_of(kind, body),
        control=control,
        opens=opens,
        copies=kind == "CopyStmt" and not body.get("filename") and not body.get("is_program"),
    )


def statement_of_words(words: tuple[str, ...], text: str, start: int, line: int) -> Statement:
    """Return what can be said of a statement that the grammar does not know."""
    first = words[0] if words else ""
    control, opens = Control.NONE, False
    if first in ("begin", "start"):
        control, opens = Control.OTHER, True
    elif first in ("commit", "end", "abort") or words[:2] == ("prepare", "transaction"):
        control = Control.OTHER
    elif first == "rollback" and "to" not in words:
        control = Control.OTHER
    copies = first == "copy" and _is_copy_of_client(text)
    return Statement(
        start=start, line=line, text=text, parsed=False, alone=None, control=control, opens=opens, copies=copies
    )


def _is_copy_of_client(text: str) -> bool:
    words = text.lower().split()
    pairs = set(zip(words, words[1:], strict=False))
    return not pairs.isdisjoint({("from", "stdin"), ("to", "stdout")})


def _control_of(body: Node) -> tuple[Control, bool]:
    kind = str(body["kind"]).removeprefix("TRANS_STMT_")
    if kind in ("SAVEPOINT", "RELEASE", "ROLLBACK_TO"):
        return Control.NONE, False
    if kind in ("BEGIN", "START"):
        return (Control.OTHER if body.get("options") else Control.BEGIN), True
    chained = bool(body.get("chain"))
    return (Control.COMMIT if kind == "COMMIT" and not chained else Control.OTHER), chained


def alone_of(kind: str, body: Node) -> str | None:  # noqa: PLR0911 a table, written as one
    """Return what the statement is called, when it cannot run within a transaction (PreventInTransactionBlock)."""
    match kind:
        case "IndexStmt" if body.get("concurrent"):
            return "CREATE INDEX CONCURRENTLY"
        case "DropStmt" if body.get("concurrent"):
            return "DROP INDEX CONCURRENTLY"
        case "ReindexStmt":
            return _reindex(body)
        case "VacuumStmt" if body.get("is_vacuumcmd"):
            return "VACUUM"
        case "ClusterStmt" if "relation" not in body:
            return "CLUSTER without a table"
        case "AlterTableStmt" if any(_detaches_concurrently(cmd) for cmd in body.get("cmds", ())):
            return "DETACH PARTITION CONCURRENTLY"
        case "CreateSubscriptionStmt" if not {"create_slot", "connect"} & _switched_off(body.get("options", ())):
            return "CREATE SUBSCRIPTION"
        case "AlterDatabaseStmt" if "tablespace" in _names(body.get("options", ())):
            return "ALTER DATABASE … SET TABLESPACE"
        case "DiscardStmt" if body.get("target") == "DISCARD_ALL":
            return "DISCARD ALL"
    return _ALWAYS_ALONE.get(kind)


_ALWAYS_ALONE = {
    "AlterSystemStmt": "ALTER SYSTEM",
    "CreatedbStmt": "CREATE DATABASE",
    "DropdbStmt": "DROP DATABASE",
    "CreateTableSpaceStmt": "CREATE TABLESPACE",
    "DropTableSpaceStmt": "DROP TABLESPACE",
}


def _reindex(body: Node) -> str | None:
    what = str(body.get("kind", "")).removeprefix("REINDEX_OBJECT_")
    if what in ("SCHEMA", "DATABASE", "SYSTEM"):
        return f"REINDEX {what}"
    options = body.get("params", ())
    concurrent = "concurrently" in _names(options) - _switched_off(options)
    return "REINDEX CONCURRENTLY" if concurrent else None


def _detaches_concurrently(command: Node) -> bool:
    body = command.get("AlterTableCmd", {})
    partition = body.get("def", {}).get("PartitionCmd", {})
    return body.get("subtype") == "AT_DetachPartition" and bool(partition.get("concurrent"))


def _names(options: list[Node]) -> set[str]:
    return {str(option["DefElem"]["defname"]).lower() for option in options}


def _switched_off(options: list[Node]) -> set[str]:
    """Return the options whose value is one of PostgreSQL's words for false (defGetBoolean)."""
    return {str(option["DefElem"]["defname"]).lower() for option in options if _is_false(option["DefElem"].get("arg"))}


def _is_false(value: Node | None) -> bool:
    if value is None:
        return False
    kind, body = next(iter(value.items()))
    if kind == "Integer":
        return int(body.get("ival", 0)) == 0
    text = str(body.get("sval", body.get("boolval", ""))).lower()
    return text in ("false", "off", "0") or (kind == "Boolean" and not body.get("boolval"))
