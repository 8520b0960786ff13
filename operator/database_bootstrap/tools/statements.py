"""Statements: what PostgreSQL's own grammar says one is, and what follows for the transaction that it runs in."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pgparse

from database_bootstrap.tools.sql_text import Piece

Node = Mapping[str, Any]
"""A node of libpg_query's JSON tree, with the attributes of parsenodes.h."""

_LENGTH_LIMIT = 3000
"""Characters: libpg_query writes its tree recursively and without a check of the stack, and an expression of 200,000
`+1` ends the process (tried with pgparse 1.0.3), one of 20,000 does not. No tree is deeper than its text is long."""
_ALWAYS_TELLING = frozenset(
    {
        "begin", "start", "commit", "end", "abort", "rollback", "prepare", "copy", "vacuum", "cluster", "discard",
        "reindex",
    }
)  # fmt: skip
TELLING = _ALWAYS_TELLING | {"create", "alter", "drop"}
"""What a statement may begin with that matters for how its script is sent."""
_TELLING_PARTS = re.compile(r"\b(concurrently|database|tablespace|subscription|system)\b", re.IGNORECASE)
"""What CREATE, ALTER and DROP say when they run outside a transaction only."""
_COPY_OF_CLIENT = re.compile(r"\b(from\s+stdin|to\s+stdout)\b", re.IGNORECASE)


class Control(StrEnum):
    """What a statement does to the transaction that is open."""

    NONE = "none"
    BEGIN = "begin"
    COMMIT = "commit"
    OTHER = "other"
    """BEGIN with options, ROLLBACK, PREPARE TRANSACTION, and what no grammar knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of a script."""

    start: int
    """Where its first token stands, in characters of the script."""
    end: int
    alone: str | None
    """What it is, when PostgreSQL refuses to run it within a transaction."""
    control: Control = Control.NONE
    opens: bool = False
    """Whether a transaction is open behind it; counts only where `control` is not NONE."""
    copies: bool = False
    """COPY from or to the client, which only psql can do."""


def is_telling(piece: Piece, text: str) -> bool:
    """Whether a statement of a script that begins with such a word could matter; most that CREATE need no grammar."""
    return piece.words[0] in _ALWAYS_TELLING or bool(_TELLING_PARTS.search(text, piece.start, piece.end))


def statement_of(piece: Piece, text: str) -> Statement:
    """Return what PostgreSQL's grammar says of a statement; where it does not know it, what its words say.

    The grammar is one version's, and newer servers know more: they decide.
    """
    nodes = parsed(text)
    return _statement_of_node(piece, nodes[0]) if len(nodes) == 1 else _statement_of_words(piece, text)


def parsed(text: str) -> list[Node]:
    """Return the trees of a text's statements; none for what the grammar does not know, or is too long for it."""
    if len(text) > _LENGTH_LIMIT:
        return []
    try:
        found: list[dict[str, Node]] = pgparse.parse(text)
    # RecursionError: json reads about 300 nested expressions.
    except (pgparse.PGQueryError, RecursionError):
        return []
    return [each["stmt"] for each in found]


def _statement_of_node(piece: Piece, node: Node) -> Statement:
    kind, body = next(iter(node.items()))
    control, opens = _control_of(body) if kind == "TransactionStmt" else (Control.NONE, False)
    return Statement(
        start=piece.start,
        end=piece.end,
        alone=alone_of(kind, body),
        control=control,
        opens=opens,
        copies=kind == "CopyStmt" and not body.get("filename"),
    )


def _statement_of_words(piece: Piece, text: str) -> Statement:
    words = piece.words
    first = words[0] if words else ""
    opens = first in ("begin", "start")
    closes = first in ("commit", "end", "abort") or words[:2] == ("prepare", "transaction")
    rolls_back = first == "rollback" and "to" not in words
    return Statement(
        start=piece.start,
        end=piece.end,
        alone=None,
        control=Control.OTHER if opens or closes or rolls_back else Control.NONE,
        opens=opens,
        copies=first == "copy" and bool(_COPY_OF_CLIENT.search(text)),
    )


def _control_of(body: Node) -> tuple[Control, bool]:
    kind = str(body["kind"]).removeprefix("TRANS_STMT_")
    if kind in ("SAVEPOINT", "RELEASE", "ROLLBACK_TO"):
        return Control.NONE, False
    if kind in ("BEGIN", "START"):
        return (Control.OTHER if body.get("options") else Control.BEGIN), True
    return (Control.COMMIT if kind == "COMMIT" else Control.OTHER), bool(body.get("chain"))


def alone_of(kind: str, body: Node) -> str | None:
    """Return what the statement is called, when it cannot run within a transaction (PreventInTransactionBlock).

    What depends on the catalogue, as CLUSTER of a partitioned table, only the server knows.
    """
    rule = _ALONE.get(kind)
    return rule(body) if rule else None


def _index(body: Node) -> str | None:
    return "CREATE INDEX CONCURRENTLY" if body.get("concurrent") else None


def _drop(body: Node) -> str | None:
    return "DROP INDEX CONCURRENTLY" if body.get("concurrent") else None


def _vacuum(body: Node) -> str | None:
    return "VACUUM" if body.get("is_vacuumcmd") else None  # else ANALYZE


def _cluster(body: Node) -> str | None:
    return None if "relation" in body else "CLUSTER without a table"


def _alter_table(body: Node) -> str | None:
    detaches = any(_detaches_concurrently(command) for command in body.get("cmds", ()))
    return "DETACH PARTITION CONCURRENTLY" if detaches else None


def _alter_database(body: Node) -> str | None:
    return "ALTER DATABASE … SET TABLESPACE" if "tablespace" in _names(body.get("options", ())) else None


def _subscription(body: Node) -> str | None:
    without_slot = {"create_slot", "connect"} & _switched_off(body.get("options", ()))
    return None if without_slot else "CREATE SUBSCRIPTION"


def _discard(body: Node) -> str | None:
    return "DISCARD ALL" if body.get("target") == "DISCARD_ALL" else None


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


def _names(options: Iterable[Node]) -> set[str]:
    return {str(option["DefElem"]["defname"]).lower() for option in options}


def _switched_off(options: Iterable[Node]) -> set[str]:
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


_ALONE: Mapping[str, Callable[[Node], str | None]] = {
    "IndexStmt": _index,
    "DropStmt": _drop,
    "ReindexStmt": _reindex,
    "VacuumStmt": _vacuum,
    "ClusterStmt": _cluster,
    "AlterTableStmt": _alter_table,
    "AlterDatabaseStmt": _alter_database,
    "CreateSubscriptionStmt": _subscription,
    "DiscardStmt": _discard,
    "AlterSystemStmt": lambda _: "ALTER SYSTEM",
    "CreatedbStmt": lambda _: "CREATE DATABASE",
    "DropdbStmt": lambda _: "DROP DATABASE",
    "CreateTableSpaceStmt": lambda _: "CREATE TABLESPACE",
    "DropTableSpaceStmt": lambda _: "DROP TABLESPACE",
}
