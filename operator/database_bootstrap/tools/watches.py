"""Watches: code that runs by itself when rows change, what changes rows, and definitions that have functions called."""

import re
from collections.abc import Iterator

from database_bootstrap.tools.effects import Changed, Code, Effect, Finding, Kind, Name, Uses, Watch
from database_bootstrap.tools.queries import every, name_of, of_queries, relation_of
from database_bootstrap.tools.statements import Node

_WORD = r'(?:"(?:[^"]|"")+"|[a-z_\u0080-\U0010ffff][\w$]*)'
_INTO = re.compile(
    rf"(?:insert\s+into|copy)\s+(?P<name>{_WORD}(?:\.{_WORD})?)(?=[\s(])(?!\s*\.)",
    re.IGNORECASE,
)


def changed_by(text: str, start: int) -> Changed | None:
    """Return what an INSERT or a COPY changes that begins here, where that is plain: there may be thousands.

    What is not, the grammar tells.
    """
    found = _INTO.match(text, start)
    if found is None:
        return None
    words = re.findall(_WORD, found["name"], re.IGNORECASE)
    parts = [word[1:-1].replace('""', '"') if word.startswith('"') else word.lower() for word in words]
    return Changed(table=Name(parts[-2] if len(parts) > 1 else None, parts[-1]), inserts=True)


def trigger(body: Node) -> Iterator[Effect]:
    """CREATE TRIGGER."""
    call = Finding(code=Code.OPAQUE, what="call", kind=Kind.FUNCTION, name=name_of(body["funcname"]))
    yield Watch(table=relation_of(body["relation"]), what=f"fire the trigger {body['trigname']}", body=(call,))


def rule(body: Node) -> Iterator[Effect]:
    """CREATE RULE."""
    actions = tuple(of_queries(body.get("actions", [])))
    yield Watch(table=relation_of(body["relation"]), what=f"fire the rule {body['rulename']}", body=actions)


def event_trigger(body: Node) -> Iterator[Effect]:
    """CREATE EVENT TRIGGER: any statement may fire it."""
    yield Uses(function=name_of(body["funcname"]))


def uses_of(body: Node) -> Iterator[Effect]:
    """Yield the functions that a definition names: in a default, a check, an index, a view, a policy, an aggregate."""
    for call in every(body, "FuncCall"):
        yield Uses(function=name_of(call["funcname"]))
    for option in every(body.get("definition", []), "DefElem"):
        if (
            names := option.get("arg", {}).get("TypeName", {}).get("names")
            if isinstance(option.get("arg"), dict)
            else None
        ):
            yield Uses(function=name_of(names))
    if isinstance(body.get("func"), dict) and "objname" in body["func"]:
        yield Uses(function=name_of(body["func"]["objname"]))
