"""Scripts: a migration's SQL text, its statements, and how it must be sent."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from database_bootstrap.errors import BundleRejected
from database_bootstrap.tools import statements
from database_bootstrap.tools.sql_text import STEPS_LIMIT, Piece, TooIntricate, first_outside, outside, pieces
from database_bootstrap.tools.statements import Control, Statement

BYTES_LIMIT = 2 * 1024 * 1024
"""For one script: it is judged while everybody else waits, and sent as one message."""
_STEPS_OF_GRAMMAR = 20
"""What asking the grammar about one statement takes, in steps of `sql_text`."""


class Mode(StrEnum):
    """How a script is sent; the ledger keeps the word."""

    TRANSACTION = "transaction"
    """In one transaction with the rows that record it."""
    STATEMENT = "statement"
    """Each statement by itself, since one of them refuses to run within a transaction."""
    SCRIPT = "script"
    """Whole, outside any transaction of ours: it has its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a script must be sent; it keeps nothing of the text, since there may be hundreds of them."""

    mode: Mode
    count: int
    """How many statements it has."""
    steps: int
    """What it took to judge it."""
    wrapping: tuple[tuple[int, int], ...] = ()
    """Where BEGIN and COMMIT around the whole script begin and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The SQL of one migration."""

    path: str
    """The file, as messages name it."""
    text: str
    """What is sent. Places in it are places in the file; only a byte order mark is gone."""
    mode: Mode
    count: int
    """How many statements it has."""
    wrapped: bool = False
    """It had BEGIN and COMMIT around it."""

    def pieces(self) -> Iterator[Piece]:
        """Return its statements."""
        return pieces(self.text)

    def needs_one_transaction(self) -> bool:
        """Whether it says something that has no meaning, or another one, when each statement runs by itself."""
        return self.wrapped or any(_needs_transaction(piece, self.text) for piece in self.pieces())


_BYTE_ORDER_MARK = "\ufeff"
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_DIRECTIVE = re.compile(r"--[ \t]*dbbootstrap:[ \t]*(.*?)[ \t]*(?:\r?\n|$)", re.IGNORECASE)
_TRANSACTION_OFF = re.compile(r"transaction[ \t]*=[ \t]*off", re.IGNORECASE)
_FOREIGN_COMMENTS = {
    r"--[ \t]*migrate:(?:up|down)\b": "dbmate",
    r"--[ \t]*\+goose\b": "goose",
    r"--[ \t]*\+(?:migrate|micrate)\b": "sql-migrate",
    r"--[ \t]*(?:up|down) migration\b": "node-pg-migrate",
    r"--[ \t]*liquibase formatted sql\b": "Liquibase",
}
"""These files hold how to apply *and* how to undo: run whole, they create their tables and drop them again."""


_FOREIGN = re.compile("|".join((*_FOREIGN_COMMENTS, r"\\")), re.IGNORECASE)
_FOREIGN_OUTSIDE = outside(f"(?:{_FOREIGN.pattern})")
_BINDING_WORDS = {("set", "local"), ("set", "transaction"), ("set", "constraints")}
_BINDING = re.compile(r"\bon\s+commit\b|_advisory_xact_lock|\bset_config\s*\([^()]*,\s*true\s*\)", re.IGNORECASE)
"""What ends with the transaction."""


def script_of(path: str, text: str, *, own_transactions: bool) -> Script:
    """Return the script of a file; raise `BundleRejected` for what only another program can run.

    With `own_transactions` a script may begin and commit as it likes.
    """
    return script_as(path, text, judge(path, text, own_transactions=own_transactions))


def script_as(path: str, text: str, verdict: Verdict) -> Script:
    """Return the script of a file that was judged before."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    for start, end in verdict.wrapping:
        # Our transaction does the same, and commits the record with it. Blanks keep every place where it is.
        text = text[:start] + re.sub(r"[^\r\n]", " ", text[start:end]) + text[end:]
    return Script(path=path, text=text, mode=verdict.mode, count=verdict.count, wrapped=bool(verdict.wrapping))


def judge(path: str, text: str, *, own_transactions: bool) -> Verdict:
    """Return how the script of a file must be sent; raise `BundleRejected` as `script_of` does."""
    check_size(path, len(text.encode()))
    try:
        return _judge(path, text.removeprefix(_BYTE_ORDER_MARK), own_transactions)
    except TooIntricate:
        raise BundleRejected(
            f"{path} has too many statements, or parentheses and comments within each other; split the file, and load "
            "rows from a .csv file"
        ) from None


def check_size(path: str, size: int) -> None:
    """Raise `BundleRejected` for more bytes than a script may have."""
    if size > BYTES_LIMIT:
        raise BundleRejected(
            f"{path} has {size} bytes; {BYTES_LIMIT} are the limit for SQL. Split the file, and load rows from a "
            ".csv file"
        )


def _judge(path: str, text: str, own_transactions: bool) -> Verdict:
    forced = _is_transaction_off(path, text)
    _check_characters(path, text)
    found = _found_in(text)
    for statement in found.telling:
        if statement.copies:
            where = _place(path, text, statement)
            raise BundleRejected(f"{where}: COPY from or to the client works in psql only; use INSERT")
    _check_programs(path, text)
    _check_own_transactions(path, text, found.telling)
    if forced or any(one.alone for one in found.telling):
        return Verdict(mode=Mode.STATEMENT, count=found.count, steps=found.steps)
    controls = [one for one in found.telling if one.control is not Control.NONE]
    if _is_wrapped(found, controls):
        wrapping = tuple((one.start, one.end) for one in controls)
        return Verdict(mode=Mode.TRANSACTION, count=found.count - 2, steps=found.steps, wrapping=wrapping)
    if controls and not own_transactions:
        raise BundleRejected(
            f"{_place(path, text, controls[0])}: the file begins or ends a transaction itself, so what it does could "
            "not be recorded in the same one; remove that, or begin the file, if it is a migration, with "
            "`-- dbbootstrap: transaction=off`"
        )
    return Verdict(mode=Mode.SCRIPT if controls else Mode.TRANSACTION, count=found.count, steps=found.steps)


def line_of(text: str, position: int) -> int:
    """Return the line, counted from 1, of a character, counted from 0."""
    return text.count("\n", 0, position) + 1


def column_of(text: str, position: int) -> int:
    """Return the column, counted from 1, of a character, counted from 0."""
    return position - text.rfind("\n", 0, position)


def _is_transaction_off(path: str, text: str) -> bool:
    directive = _DIRECTIVE.match(text)
    if directive is None:
        return False
    if not _TRANSACTION_OFF.fullmatch(directive.group(1)):
        raise BundleRejected(f"{path} line 1: the only directive is `-- dbbootstrap: transaction=off`")
    return True


def _check_characters(path: str, text: str) -> None:
    control = _CONTROL_CHARACTER.search(text)
    if control:
        where = f"line {line_of(text, control.start())}"
        raise BundleRejected(f"{path} {where}: control character U+{ord(control.group()):04X} in SQL text")


def _check_programs(path: str, text: str) -> None:
    """Refuse what only psql understands, and what another migration tool would run in parts."""
    start = first_outside(text, _FOREIGN_OUTSIDE) if _FOREIGN.search(text) else None
    if start is None:
        return
    where = f"{path} line {line_of(text, start)}"
    if text[start] == "\\":
        raise BundleRejected(f"{where}: a backslash command works in psql only; nothing was run")
    for pattern, program in _FOREIGN_COMMENTS.items():
        if re.compile(pattern, re.IGNORECASE).match(text, start):
            raise BundleRejected(
                f"{where}: this is a file for {program}, which also holds how to undo it; keep only what is to be "
                "applied, without the marks"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a script's statements say."""

    count: int
    steps: int
    ends: tuple[int, int]
    """Where the first one and the last one begin."""
    telling: tuple[Statement, ...]
    """Those that matter for how it is sent."""


def _found_in(text: str) -> _Found:
    telling = []
    first, last, count, steps = -1, -1, 0, 0
    for piece in pieces(text):
        first, last = (piece.start if first < 0 else first), piece.start
        count, steps = count + 1, steps + piece.steps
        if piece.words and piece.words[0] in statements.TELLING and statements.is_telling(piece, text):
            telling.append(statements.statement_of(piece, text[piece.start : piece.end]))
            steps += _STEPS_OF_GRAMMAR
        if steps > STEPS_LIMIT:
            raise TooIntricate
    return _Found(count=count, steps=steps, ends=(first, last), telling=tuple(telling))


def _needs_transaction(piece: Piece, text: str) -> bool:
    words = piece.words
    if words[:1] in (("lock",), ("savepoint",)) or words[:2] in _BINDING_WORDS:
        return True
    return bool(_BINDING.search(text, piece.start, piece.end))


def _check_own_transactions(path: str, text: str, telling: tuple[Statement, ...]) -> None:
    """Refuse what PostgreSQL would refuse half-way, and what would be lost at the end."""
    opened: Statement | None = None
    for statement in telling:
        if statement.control is not Control.NONE:
            opened = (opened or statement) if statement.opens else None
        elif opened and statement.alone:
            raise BundleRejected(
                f"{_place(path, text, statement)}: {statement.alone} cannot run within the transaction that line "
                f"{line_of(text, opened.start)} begins"
            )
    if opened:
        raise BundleRejected(f"{_place(path, text, opened)}: the transaction that begins here never ends; add COMMIT")


def _is_wrapped(found: _Found, controls: list[Statement]) -> bool:
    """Whether the whole script is one plain BEGIN … COMMIT."""
    return (
        tuple(one.start for one in controls) == found.ends
        and controls[0].control is Control.BEGIN
        and controls[1].control is Control.COMMIT
    )


def _place(path: str, text: str, statement: Statement) -> str:
    return f"{path} line {line_of(text, statement.start)}"
