"""Queries: what a statement does to rows, in its CTEs and subqueries too, by PostgreSQL's own grammar."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from database_bootstrap.tools.effects import Changed, Code, Copied, Effect, Finding, Kind, Made, Name, Reach
from database_bootstrap.tools.statements import Node

NOWHERE = Name(None, "")
TEMPORARY = "pg_temp"
"""The schema of temporary tables, as anyone may write it."""


def name_of(parts: Sequence[Node]) -> Name:
    """Return a name of one, two or three parts, of which the first is the database."""
    words = [str(part["String"]["sval"]) for part in parts]
    return Name(words[-2] if len(words) > 1 else None, words[-1])


def relation_of(node: Node) -> Name:
    """Return the name of a table or view in a statement."""
    return Name(node.get("schemaname"), str(node["relname"]))


def of_queries(node: Any) -> Iterator[Effect]:
    """Return the effects of everything that a statement does to rows, in CTEs and subqueries too."""
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, list):
            stack.extend(one)
        elif isinstance(one, dict):
            for key, value in one.items():
                if rule := _IN_QUERIES.get(key):
                    yield from rule(value)
                stack.append(value)


def _delete(body: Node) -> Iterator[Effect]:
    yield Changed(table=relation_of(body["relation"]))
    if not _depends_on_rows(body.get("whereClause")):
        name = relation_of(body["relation"])
        yield Finding(code=Code.DELETE, what="delete all rows of", kind=Kind.TABLE, name=name, reach=Reach.DELETED)


def _update(body: Node) -> Iterator[Effect]:
    yield Changed(table=relation_of(body["relation"]))
    if not _depends_on_rows(body.get("whereClause")):
        columns = tuple(dict.fromkeys(str(each["ResTarget"]["name"]) for each in body.get("targetList", ())))
        words = f"overwrite {', '.join(columns)} in all rows of"
        name = relation_of(body["relation"])
        yield Finding(code=Code.DELETE, what=words, kind=Kind.TABLE, name=name, columns=columns)


def _merge(body: Node) -> Iterator[Effect]:
    yield Changed(table=relation_of(body["relation"]))
    yield from copied(relation_of(body["relation"]), [body.get("sourceRelation"), body.get("withClause")])
    clauses = [each["MergeWhenClause"].get("commandType") for each in body.get("mergeWhenClauses", ())]
    if "CMD_DELETE" in clauses:
        name = relation_of(body["relation"])
        yield Finding(code=Code.DELETE, what="delete by MERGE from", kind=Kind.TABLE, name=name, reach=Reach.DELETED)


def _depends_on_rows(condition: Node | None) -> bool:
    """Whether a WHERE can tell one row from another; `WHERE true` cannot."""
    stack: list[Any] = [condition]
    while stack:
        one = stack.pop()
        if isinstance(one, list):
            stack.extend(one)
        elif isinstance(one, dict):
            if not {"ColumnRef", "SubLink", "CurrentOfExpr"}.isdisjoint(one):
                return True
            stack.extend(one.values())
    return False


def _call(body: Node) -> Iterator[Effect]:
    name = name_of(body["funcname"])
    if name.name == "set_config" and "search_path" in str(body.get("args")):
        yield Made(kind=Kind.PATH, name=NOWHERE)
    if name.schema != "pg_catalog":
        yield Finding(code=Code.OPAQUE, what="call", kind=Kind.FUNCTION, name=name)


def _insert(body: Node) -> Iterator[Effect]:
    updates = body.get("onConflictClause", {}).get("action") == "ONCONFLICT_UPDATE"
    yield Changed(table=relation_of(body["relation"]), inserts=not updates)
    yield from copied(relation_of(body["relation"]), [body.get("selectStmt"), body.get("withClause")])


def _copy(body: Node) -> Iterator[Effect]:
    if body.get("is_from"):
        yield Changed(table=relation_of(body["relation"]), inserts=True)


def _select(body: Node) -> Iterator[Effect]:
    if "intoClause" in body:
        yield from into(body["intoClause"])
        name = made_name(body["intoClause"]["rel"])
        yield from copied(name, [value for key, value in body.items() if key != "intoClause"])


def into(body: Node) -> Iterator[Effect]:
    """SELECT INTO and CREATE TABLE AS."""
    until_commit = body.get("onCommit") == "ONCOMMIT_DROP"
    yield Made(kind=Kind.TABLE, name=made_name(body["rel"]), until_commit=until_commit)


def copied(name: Name, query: Any) -> Iterator[Effect]:
    """Say whose rows a query puts into a table."""
    queries = {Name(None, str(each["ctename"])) for each in every(query, "CommonTableExpr")}
    moved = dict.fromkeys(relation_of(each["relation"]) for each in every(query, "DeleteStmt"))
    sources = dict.fromkeys(relation_of(each) for each in every(query, "RangeVar"))
    found = (*moved, *(one for one in sources if one not in queries and one not in moved))
    if found:
        yield Copied(into=name, sources=found, moved=tuple(moved))


def every(node: Any, kind: str) -> Iterator[Node]:
    """Yield all nodes of a kind."""
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, list):
            stack.extend(one)
        elif isinstance(one, dict):
            if kind in one:
                yield one[kind]
            stack.extend(one.values())


_IN_QUERIES: Mapping[str, Callable[[Node], Iterator[Effect]]] = {
    "DeleteStmt": _delete,
    "UpdateStmt": _update,
    "MergeStmt": _merge,
    "FuncCall": _call,
    "funccall": _call,
    "SelectStmt": _select,
    "InsertStmt": _insert,
    "CopyStmt": _copy,
}


def made_name(relation: Node) -> Name:
    """Return the name of a table that is made; a temporary one has a schema of its own."""
    name = relation_of(relation)
    return Name(TEMPORARY, name.name) if relation.get("relpersistence") == "t" else name
