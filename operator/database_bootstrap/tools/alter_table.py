"""ALTER TABLE: what its commands destroy, make, and let go together."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from database_bootstrap.tools.column_types import Change, Type, type_of_node
from database_bootstrap.tools.effects import Code, Effect, Finding, Joined, Kind, Made, Name, Reach
from database_bootstrap.tools.queries import relation_of
from database_bootstrap.tools.statements import Node


def alter_table(body: Node) -> Iterator[Effect]:
    """Return the effects of its commands, in order."""
    name = relation_of(body["relation"])
    for each in body.get("cmds", ()):
        command = each["AlterTableCmd"]
        if body.get("objtype") == "OBJECT_TYPE":
            if command.get("subtype") == "AT_DropColumn":
                words = f'drop attribute "{command["name"]}" of type'
                reach = Reach.DEPENDENTS
                yield Finding(code=Code.DROP_COLUMN, what=words, kind=Kind.TYPE, name=name, reach=reach)
        elif rule := _COMMANDS.get(str(command.get("subtype"))):
            yield from rule(name, command)


def _drop_column(name: Name, command: Node) -> Iterator[Effect]:
    column = str(command["name"])
    yield Finding(
        code=Code.DROP_COLUMN, what=f'drop column "{column}" of', kind=Kind.TABLE, name=name, columns=(column,)
    )


def _add_column(name: Name, command: Node) -> Iterator[Effect]:
    if not command.get("missing_ok"):
        yield Made(kind=Kind.COLUMN, name=name, column=str(command["def"]["ColumnDef"]["colname"]))


def _change_type(name: Name, command: Node) -> Iterator[Effect]:
    column, definition = str(command["name"]), command["def"]["ColumnDef"]
    change = Change(new=type_of_node(definition["typeName"]), steps=_steps(definition.get("raw_default"), column))
    yield Finding(
        code=Code.CHANGE_TYPE,
        what=f'change to {change.new.name} the type of column "{column}" of',
        kind=Kind.TABLE,
        name=name,
        columns=(column,),
        change=change,
    )


def _steps(expression: Node | None, column: str) -> tuple[Type, ...] | None:
    """Return what a USING casts the column to, the first cast first; None where it computes something."""
    steps: list[Type] = []
    while expression is not None:
        if "TypeCast" in expression:
            steps.insert(0, type_of_node(expression["TypeCast"]["typeName"]))
            expression = expression["TypeCast"]["arg"]
        else:
            fields = expression.get("ColumnRef", {}).get("fields", ())
            is_itself = bool(fields) and fields[-1].get("String", {}).get("sval") == column
            return tuple(steps) if is_itself else None
    return ()


def _set_unlogged(name: Name, _command: Node) -> Iterator[Effect]:
    words = "set unlogged, which the next crash of the server empties,"
    yield Finding(code=Code.UNLOG, what=words, kind=Kind.TABLE, name=name)


def _attach(name: Name, command: Node, *, leaves: bool = False) -> Iterator[Effect]:
    yield Joined(parent=name, child=relation_of(command["def"]["PartitionCmd"]["name"]), leaves=leaves)


def _inherit(name: Name, command: Node, *, leaves: bool = False) -> Iterator[Effect]:
    yield Joined(parent=relation_of(command["def"]["RangeVar"]), child=name, leaves=leaves)


_COMMANDS: Mapping[str, Callable[[Name, Node], Iterator[Effect]]] = {
    "AT_SetUnLogged": _set_unlogged,
    "AT_AttachPartition": _attach,
    "AT_DetachPartition": partial(_attach, leaves=True),
    "AT_AddInherit": _inherit,
    "AT_DropInherit": partial(_inherit, leaves=True),
    "AT_DropColumn": _drop_column,
    "AT_AddColumn": _add_column,
    "AT_AlterColumnType": _change_type,
}
