"""Opaque: statements that no grammar here can read, and code that tells by running only; judged by their words.

A body of PL/pgSQL is not parsed: libpg_query's parser for it trusts what it is given. Words outside of strings and
comments will do to see that nothing in it can destroy rows; anything else counts as opaque.
"""

import re
from collections.abc import Iterator

from database_bootstrap.tools.effects import Changed, Code, Effect, Finding, Kind, Made, Name, Watch
from database_bootstrap.tools.sql_text import parts_of

_ANYTHING = Name(None, "")
_HIDDEN = re.compile(r"\b(delete|update|merge|select|table)\b", re.IGNORECASE)
_DELETES = re.compile(r"\bdelete\s+from\b|\bmerge\s+into\b")
_UPDATES = re.compile(r"\bupdate\b[^;]*\bset\b")
_ROW_LOCK = re.compile(r"\b(?:for\s+(?:no\s+key\s+)?|do\s+|on\s+)(?:update|delete)\b")
"""UPDATE that is none: of FOR UPDATE, DO UPDATE, ON UPDATE and ON DELETE."""
_NO_LOSS = re.compile(
    r"(^|;|\b(?:begin|then|else|loop)\b)\s*drop\s+(?:index|trigger|policy|rule|function|procedure|routine|aggregate|view"
    r"|materialized|foreign|sequence|statistics|role|user|group|publication|subscription|server|cast|operator|conversion"
    r"|text|event|language|transform|tablespace)\b"
    r"|\balter\s+(?:column\s+)?(?!table\b)\S+\s+drop\s+(?:expression|identity)\b"
)
"""As statements; behind ALTER TABLE most of these words may be a column."""
_DROPS = re.compile(r"\bdrop\s+(?!constraint\b|default\b|not\s+null\b)")
_HIDES = re.compile(r"\brename\b|\bset\s+schema\b|\bsearch_path\b|\battach\s+partition\b|\binherit\b")
"""What gives a name to something else, or lets one thing go with another."""
_RETYPES = re.compile(r"\balter\s+(?:column\s+)?(?!table\b|type\b|column\b)\S+\s+(?:set\s+data\s+)?type\b")
_OF_TRIGGER = re.compile(r"\bexecute\s+(?:function|procedure)\s+(?P<name>[^(;]*?)\s*\(")
_MAKES_CODE = re.compile(r"\bcreate\s+(?:or\s+replace\s+)?(?:function|procedure|rule|event)\b")
_QUOTED_NO_CALL = re.compile(r'\b(?:into|table|references|on|exists|with)\s+(?:only\s+)?(?:(?:""|[\w$]+)\s*\.\s*)?""')
_QUOTED_CALL = re.compile(r'""\s*\(')
_INTO = re.compile(r"\binsert\s+into\s+(?P<name>[\w$.]+)?")
_CHANGES_ROWS = re.compile(r"\binsert\s+into\b|\bupdate\b|\bdelete\s+from\b|\bmerge\s+into\b|\bcopy\b|\btruncate\b")
_RUNS = re.compile(r'\bexecute\b|\bcall\b|\bperform\s+""')
_CALLED = re.compile(r"((?:[a-z_\u0080-\U0010ffff][\w$]*\s*\.\s*)?[a-z_\u0080-\U0010ffff][\w$]*)\s*\(")
_NO_CALL = frozenset(
    {
        "if", "elsif", "when", "while", "and", "or", "not", "in", "any", "all", "some", "exists", "values", "as", "on",
        "using", "from", "select", "where", "returning", "into", "key", "unique", "check", "references", "over",
        "filter", "array", "row", "cast", "varchar", "char", "character", "numeric", "decimal", "timestamp", "time",
        "bit", "interval", "coalesce", "nullif", "greatest", "least", "return", "table", "return_query", "to", "enum",
        "then", "else", "raise", "do", "set", "include", "within", "group", "by", "with", "materialized",
    }
)  # fmt: skip
_PLAIN = re.compile(r"[\w$]+(?:\.[\w$]+)?")
_ROUTINE = re.compile(r"\s*create\s+(?:or\s+replace\s+)?(?:function|procedure)\s+(?P<name>[^(]*)")
_WATCH = re.compile(r"\s*create\s+(?:or\s+replace\s+)?(?:constraint\s+|event\s+)?(?:trigger|rule)\b")
_CHANGES = re.compile(r"\b(?:truncate|delete|merge|update)\b")
_BODY = re.compile(r"\$(?P<tag>[^\W\d]\w*)?\$.*?\$(?(tag)(?P=tag))\$", re.DOTALL)
_STRING = re.compile(r"'[^'\\]*(?:''[^'\\]*)*'")
_LANGUAGE = re.compile(r"\blanguage\s+(\S+)")
_CONDITION = re.compile(r"\bwhere\b")
_PARENTHESES = re.compile(r"\([^()]*\)")


def may_hide(text: str, start: int, end: int) -> bool:
    """Whether a statement that puts rows in could do something else as well, or takes them from another table."""
    return bool(_HIDDEN.search(text, start, end))


def of_unparsed(words: tuple[str, ...], statement: str) -> Iterator[Effect]:
    """Yield what a statement may destroy that the grammar could not read: newer syntax, or too long for it."""
    own = _ROW_LOCK.sub(" ", parts_of(statement).own)
    if words[:1] == ("create",):
        yield from _unparsed_code(own)
    elif _CHANGES_ROWS.search(own):
        yield Changed(table=None)
    if _is_suspicious(words[0] if words else "", own):
        start = " ".join(words[:3]) or "statement"
        yield _finding(Code.UNPARSED, f"run `{start} …`, which cannot be read")
    if words[:1] != ("create",) and _HIDES.search(own):
        yield Made(kind=Kind.HIDDEN, name=_ANYTHING)


def _is_suspicious(first: str, own: str) -> bool:
    match first:
        case "drop":
            return _drops(own)
        case "alter":
            return _drops(own) or bool(_RETYPES.search(own))
        case "truncate" | "merge" | "call" | "execute" | "do":
            return True
        case "delete" | "update":
            return not _CONDITION.search(_outermost(own))
        case "create":
            # What they hold runs later, if at all.
            is_stored = re.match(r"\s*create\s+(?:or\s+replace\s+)?(?:function|procedure|trigger|rule|policy)\b", own)
            return not is_stored and bool(_DELETES.search(own))
    return bool(_DELETES.search(own) or _UPDATES.search(own))


def _drops(own: str) -> bool:
    return bool(_DROPS.search(_NO_LOSS.sub(r"\1 ", own)))


def _outermost(own: str) -> str:
    """Return what stands outside of all parentheses."""
    while True:
        shorter = _PARENTHESES.sub(" ", own)
        if shorter == own:
            return own
        own = shorter


def of_block(statement: str) -> Iterator[Effect]:
    """Yield what a DO does, as far as it matters."""
    own, bodies = parts_of(statement)
    language = _LANGUAGE.search(own)
    if not bodies or (language and language[1] != "plpgsql") or "\\" in statement:
        yield _finding(Code.OPAQUE, "run a DO block")
        return
    for body in bodies:
        yield from of_body(body)


_NAMED = r'(?:[\w$]+|"")'
_UPDATE = re.compile(
    rf"\bupdate\s+(?:only\s+)?(?P<table>{_NAMED}(?:\s*\.\s*{_NAMED})?)(?:\s+(?:as\s+)?(?!set\b){_NAMED})?\s+set\b"
    r"(?P<set>.*?)\bwhere\b(?P<where>.*?)(?:\breturning\b.*)?\Z",
    re.DOTALL,
)
_OF_A_ROW = re.compile(
    rf"\s*(?:(?P<of>{_NAMED})\s*\.\s*)?(?P<column>{_NAMED})\s*=\s*(?P<record>[\w$]+)\s*\.\s*{_NAMED}\s*", re.DOTALL
)
_UNSURE = re.compile(r"\b(?:or|not|update|delete|merge|where|select|union)\b")
_RECORD = re.compile(r"\bfor\s+([\w$]+)\s+in\b|\b([\w$]+)\s+record\b")
_DECLARED = re.compile(r"\bdeclare\b(.*?)\bbegin\b", re.DOTALL)


def _take_out_updates(own: str) -> tuple[str, list[Effect]]:
    """Return the text without each UPDATE of the rows that go with one at hand, and the changes that these make.

    `WHERE id = NEW.parent`, or that of a record that a loop is at, names some rows and no others, as in a statement of
    its own. Whatever is not plainly of this form stays, and so does each DELETE.
    """
    records = {"new", "old", *(word for found in _RECORD.findall(own) for word in found if word)}
    declared = set(re.findall(r"[\w$]+", " ".join(_DECLARED.findall(own))))
    kept: list[str] = []
    changes: list[Effect] = []
    for statement in own.split(";"):
        found = _UPDATE.search(_outermost(statement))
        is_one = found is not None and len(re.findall(r"\bupdate\b", statement)) == 1
        if found and is_one and _names_rows(found["where"], records, declared):
            changes.append(Changed(table=_table(re.sub(r"\s", "", found["table"]))))
            kept.append(re.sub(r"\bupdate\b", " ", statement))
        else:
            kept.append(statement)
    return ";".join(kept), changes


def _names_rows(condition: str, records: set[str], declared: set[str]) -> bool:
    if _UNSURE.search(condition):
        return False
    parts = [_OF_A_ROW.fullmatch(part) for part in re.split(r"\band\b", condition)]
    return any(
        part and part["record"] in records and part["of"] not in records and part["column"] not in records | declared
        for part in parts
    )


def of_body(source: str) -> list[Effect]:
    """Return what code in PL/pgSQL may destroy: all in one, where it cannot be told; and what it calls and hides."""
    text = _ROW_LOCK.sub(" ", parts_of(source).own)
    own, updates = _take_out_updates(_OF_TRIGGER.sub(" (", text))
    hidden: list[Effect] = [Made(kind=Kind.HIDDEN, name=_ANYTHING)] if _HIDES.search(own) else []
    if _drops(own) or any(pattern.search(own) for pattern in (_RETYPES, _RUNS, _CHANGES, _MAKES_CODE)):
        return [unknown(), *hidden]
    if _QUOTED_CALL.search(_QUOTED_NO_CALL.sub(" x ", own)):
        return [unknown(), *hidden]
    names = dict.fromkeys(re.sub(r"\s", "", name) for name in _CALLED.findall(own))
    calls = [
        Finding(code=Code.OPAQUE, what="call", kind=Kind.FUNCTION, name=_name_of(name))
        for name in names
        if name not in _NO_CALL and not name.startswith("pg_catalog.")
    ]
    watches = [
        Watch(table=None, what="fire a trigger", body=_run_by(found["name"])) for found in _OF_TRIGGER.finditer(text)
    ]
    changes = [Changed(table=_table(found["name"]), inserts=True) for found in _INTO.finditer(own)]
    return [*calls, *watches, *changes, *updates, *hidden]


def _run_by(name: str) -> tuple[Effect, ...]:
    """Return what a trigger does that calls this, as it stands between EXECUTE FUNCTION and the parenthesis."""
    if not _PLAIN.fullmatch(name):
        return (unknown(),)
    return (Finding(code=Code.OPAQUE, what="call", kind=Kind.FUNCTION, name=_name_of(name)),)


def _table(name: str | None) -> Name | None:
    return _name_of(name) if name and _PLAIN.fullmatch(name) else None


def _unparsed_code(own: str) -> Iterator[Effect]:
    """Yield what a CREATE makes that runs later, and that nobody can read."""
    opaque = (unknown(),)
    if found := _ROUTINE.match(own):
        name = found["name"].replace(" ", "")
        by_itself = bool(re.search(r"\breturns\s+trigger\b", own))
        if _PLAIN.fullmatch(name):
            yield Made(kind=Kind.FUNCTION, name=_name_of(name), body=opaque, runs_by_itself=by_itself)
        else:
            yield _finding(Code.UNPARSED, "run `create function …`, which cannot be read")
    elif _WATCH.match(own):
        yield Watch(table=None, what="fire a trigger or rule", body=opaque)


def _name_of(name: str) -> Name:
    schema, _, last = name.rpartition(".")
    return Name(schema or None, last)


def without_bodies(statement: str) -> str:
    """Return a CREATE FUNCTION without the code in it, which may be too long for the grammar."""
    return _STRING.sub("''", _BODY.sub("''", statement))


def unknown() -> Finding:
    """Return the finding for code in a language that is not read."""
    return _finding(Code.OPAQUE, "run a block of code")


def _finding(code: Code, what: str) -> Finding:
    return Finding(code=code, what=what, kind=Kind.ANYTHING, name=_ANYTHING)
