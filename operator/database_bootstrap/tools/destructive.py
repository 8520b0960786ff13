"""Destructive: what a statement would destroy or hide, by PostgreSQL's own grammar.

What holds no data of its own passes: views, materialized views (their query makes them anew), indexes, sequences,
foreign tables, constraints.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from database_bootstrap.tools import opaque
from database_bootstrap.tools.alter_table import alter_table
from database_bootstrap.tools.effects import (
    Changed,
    Code,
    Effect,
    Finding,
    Joined,
    Kind,
    Made,
    Name,
    Reach,
    Renamed,
    Uses,
)
from database_bootstrap.tools.queries import (
    NOWHERE,
    TEMPORARY,
    copied,
    into,
    made_name,
    name_of,
    of_queries,
    relation_of,
)
from database_bootstrap.tools.sql_text import Piece, parts_of, pieces
from database_bootstrap.tools.statements import Node, parsed
from database_bootstrap.tools.watches import changed_by, event_trigger, rule, trigger, uses_of

_ALWAYS = frozenset({
    "drop", "alter", "truncate", "delete", "update", "merge", "with", "select", "values", "do", "call", "execute",
    "prepare", "explain", "create", "set", "rollback", "abort",
    "commit", "end",
})  # fmt: skip
"""What a statement may begin with that has an effect here; INSERT and COPY are too many to be read without a reason."""


def effects_of(text: str) -> list[Effect]:
    """Return the effects of a script's statements, in order; raise `TooIntricate`."""
    found: list[Effect] = []
    told: set[Effect] = set()
    line, counted = 1, 0
    for piece in pieces(text):
        for effect in _of_piece(piece, text):
            if isinstance(effect, Changed):
                if effect in told:
                    continue  # Thousands of INSERTs run what the first one runs.
                told.add(effect)
            elif not isinstance(effect, Finding):
                told.clear()
            line, counted = line + text.count("\n", counted, piece.start), piece.start
            found.append(replace(effect, line=line) if isinstance(effect, Finding | Changed | Uses) else effect)
    return found


def _of_piece(piece: Piece, text: str) -> Iterator[Effect]:
    first = piece.words[0] if piece.words else ""
    if first and first not in _ALWAYS and not opaque.may_hide(text, piece.start, piece.end):
        if first not in ("insert", "copy"):
            return
        if changed := changed_by(text, piece.start):
            yield changed
            return
    statement = text[piece.start : piece.end]
    if first == "do":
        yield from opaque.of_block(statement)
        return
    # Where a function's body ends only the grammar knows for sure: there may be more than one.
    nodes = parsed(statement)
    if not nodes and first == "create":
        nodes = parsed(opaque.without_bodies(statement))
    if not nodes:
        yield from opaque.of_unparsed(piece.words, statement)
    for node in nodes:
        yield from _of_node(node, statement)


def _of_node(node: Node, statement: str) -> Iterator[Effect]:
    kind, body = next(iter(node.items()))
    if kind == "CreateFunctionStmt":
        yield _function(body, statement)
    elif kind in _QUERIES:
        yield from of_queries(node)
    else:
        if kind not in _RUN_LATER:
            yield from uses_of(body)
        if found := _RULES.get(kind):
            yield from found(body)


def _function(body: Node, statement: str) -> Made:
    options = {str(each["DefElem"]["defname"]): each["DefElem"].get("arg", {}) for each in body.get("options", ())}
    language = str(options.get("language", {}).get("String", {}).get("sval", "sql")).lower()
    items = options.get("as", {}).get("List", {}).get("items", ())
    sources = [source for each in items if (source := str(each["String"]["sval"]))]
    found = list(of_queries(body["sql_body"])) if "sql_body" in body else []
    for source in sources or parts_of(statement).strings:
        found += body_of(language, source)
    names = body.get("returnType", {}).get("names", ())
    return Made(
        kind=Kind.FUNCTION,
        name=name_of(body["funcname"]),
        body=tuple(found),
        runs_by_itself=bool(body.get("replace")) and bool(names) and names[-1]["String"]["sval"] == "trigger",
    )


def body_of(language: str, source: str) -> list[Effect]:
    """Return what a function does when it is called, by its source."""
    if language == "plpgsql":
        return opaque.of_body(source)
    return effects_of(source) if language == "sql" else [opaque.unknown()]


def _cascades(body: Node) -> bool:
    return body.get("behavior") == "DROP_CASCADE"


def _drop(body: Node) -> Iterator[Effect]:
    what = str(body.get("removeType", "")).removeprefix("OBJECT_")
    reach = Reach.DEPENDENTS if _cascades(body) else Reach.ITSELF
    for each in body.get("objects", ()):
        if what == "TABLE":
            name = name_of(each["List"]["items"])
            yield Finding(code=Code.DROP_TABLE, what="drop table", kind=Kind.TABLE, name=name, reach=reach)
        elif what in _WITH_DEPENDENTS and reach is Reach.DEPENDENTS:
            code, kind = _WITH_DEPENDENTS[what]
            words = f"drop {what.lower()} … cascade"
            yield Finding(code=code, what=words, kind=kind, name=_name_of_object(each), reach=reach)


def _name_of_object(node: Node) -> Name:
    if "ObjectWithArgs" in node:
        return name_of(node["ObjectWithArgs"]["objname"])
    if "TypeName" in node:
        return name_of(node["TypeName"]["names"])
    return name_of(node["List"]["items"]) if "List" in node else Name(None, str(node["String"]["sval"]))


_WITH_DEPENDENTS: Mapping[str, tuple[Code, Kind]] = {
    "SCHEMA": (Code.DROP_SCHEMA, Kind.SCHEMA),
    "TYPE": (Code.DROP_COLUMN, Kind.TYPE),
    "DOMAIN": (Code.DROP_COLUMN, Kind.TYPE),
    "EXTENSION": (Code.DROP_COLUMN, Kind.EXTENSION),
    "COLLATION": (Code.OPAQUE, Kind.ANYTHING),
    "ACCESS_METHOD": (Code.OPAQUE, Kind.ANYTHING),
}
"""What tables and columns may depend on; without CASCADE the server refuses to drop it as long as one does."""


def _drop_owned(body: Node) -> Iterator[Effect]:
    for role in body.get("roles", ()):
        spec = role["RoleSpec"]
        current = spec.get("roletype") != "ROLESPEC_CSTRING"
        name = Name(None, "" if current else str(spec["rolename"]))
        yield Finding(code=Code.DROP_OWNED, what="drop owned by", kind=Kind.ROLE, name=name)


def _drop_database(body: Node) -> Iterator[Effect]:
    name = Name(None, str(body["dbname"]))
    yield Finding(code=Code.DROP_OWNED, what="drop database", kind=Kind.DATABASE, name=name)


def _truncate(body: Node) -> Iterator[Effect]:
    reach = Reach.TRUNCATED if _cascades(body) else Reach.ITSELF
    for each in body.get("relations", ()):
        name = relation_of(each["RangeVar"])
        yield Changed(table=name)
        yield Finding(code=Code.TRUNCATE, what="truncate", kind=Kind.TABLE, name=name, reach=reach)


def _create_table(body: Node) -> Iterator[Effect]:
    name = made_name(body["relation"])
    if not body.get("if_not_exists") or name.schema == TEMPORARY:
        yield Made(kind=Kind.TABLE, name=name, until_commit=body.get("oncommit") == "ONCOMMIT_DROP")
    for each in body.get("inhRelations", ()):
        yield Joined(parent=relation_of(each["RangeVar"]), child=name, is_new=True)


def _create_table_as(body: Node) -> Iterator[Effect]:
    yield from of_queries(body.get("query"))
    if not body.get("if_not_exists"):
        yield from into(body["into"])
    yield from copied(made_name(body["into"]["rel"]), body.get("query"))


def _create_schema(body: Node) -> Iterator[Effect]:
    if not body.get("if_not_exists") and "schemaname" in body:
        yield Made(kind=Kind.SCHEMA, name=Name(None, str(body["schemaname"])))


def _create_enum(body: Node) -> Iterator[Effect]:
    yield Made(kind=Kind.TYPE, name=name_of(body["typeName"]))


def _explain(body: Node) -> Iterator[Effect]:
    if "analyze" in {str(each["DefElem"]["defname"]).lower() for each in body.get("options", ())}:
        yield from of_queries(body.get("query"))


def _prepare(body: Node) -> Iterator[Effect]:
    yield Made(kind=Kind.PREPARED, name=Name(None, str(body["name"])))
    yield from of_queries(body.get("query"))


def _execute(body: Node) -> Iterator[Effect]:
    name = Name(None, str(body["name"]))
    yield Finding(code=Code.OPAQUE, what="execute the prepared statement", kind=Kind.PREPARED, name=name)


def _set(body: Node) -> Iterator[Effect]:
    if body.get("name") == "search_path":
        yield Made(kind=Kind.PATH, name=NOWHERE)


def _transaction(body: Node) -> Iterator[Effect]:
    if "ROLLBACK" in str(body.get("kind")):
        yield Made(kind=Kind.ROLLBACK, name=NOWHERE)
    elif "COMMIT" in str(body.get("kind")):
        yield Made(kind=Kind.COMMIT, name=NOWHERE)


_RENAMED = {
    "OBJECT_TABLE": Kind.TABLE,
    "OBJECT_SCHEMA": Kind.SCHEMA,
    "OBJECT_TYPE": Kind.TYPE,
    "OBJECT_FUNCTION": Kind.FUNCTION,
    "OBJECT_PROCEDURE": Kind.FUNCTION,
    "OBJECT_ROUTINE": Kind.FUNCTION,
}


def _rename(body: Node) -> Iterator[Effect]:
    what, new = str(body.get("renameType")), str(body["newname"])
    if what == "OBJECT_COLUMN" and "relation" in body:
        table = relation_of(body["relation"])
        yield Renamed(kind=Kind.COLUMN, old=table, new=table, columns=(str(body["subname"]), new))
    elif kind := _RENAMED.get(what):
        old = _renamed(body)
        yield Renamed(kind=kind, old=old, new=Name(old.schema, new))


def _renamed(body: Node) -> Name:
    if "relation" in body:
        return relation_of(body["relation"])
    return _name_of_object(body["object"]) if "object" in body else Name(None, str(body["subname"]))


def _move(body: Node) -> Iterator[Effect]:
    if kind := _RENAMED.get(str(body.get("objectType"))):
        old = _renamed(body)
        yield Renamed(kind=kind, old=old, new=Name(str(body["newschema"]), old.name))


_QUERIES = frozenset(
    {"SelectStmt", "InsertStmt", "DeleteStmt", "UpdateStmt", "MergeStmt", "CopyStmt", "DeclareCursorStmt", "CallStmt"}
)
_RUN_LATER = frozenset({"ExplainStmt", "PrepareStmt", "CreateTableAsStmt", "RuleStmt", "CreateTrigStmt"})
"""Whose functions are called at another time, or are told of already."""
_RULES: Mapping[str, Callable[[Node], Iterator[Effect]]] = {
    "DropStmt": _drop,
    "DropOwnedStmt": _drop_owned,
    "DropdbStmt": _drop_database,
    "AlterTableStmt": alter_table,
    "TruncateStmt": _truncate,
    "CreateStmt": _create_table,
    "CreateTableAsStmt": _create_table_as,
    "CreateSchemaStmt": _create_schema,
    "CreateEnumStmt": _create_enum,
    "ExplainStmt": _explain,
    "PrepareStmt": _prepare,
    "ExecuteStmt": _execute,
    "VariableSetStmt": _set,
    "TransactionStmt": _transaction,
    "RenameStmt": _rename,
    "AlterObjectSchemaStmt": _move,
    "CreateTrigStmt": trigger,
    "CreateEventTrigStmt": event_trigger,
    "RuleStmt": rule,
}
