"""Scripts: a migration's SQL text, its statements, and how it must be sent."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from database_bootstrap.errors import BundleRejected
from database_bootstrap.tools import statements
from database_bootstrap.tools.sql_text import Piece, pieces, tokens
from database_bootstrap.tools.statements import Control, Statement


class Mode(StrEnum):
    """How a script is sent; the ledger keeps the word."""

    TRANSACTION = "transaction"
    """In one transaction with the rows that record it."""
    STATEMENT = "statement"
    """Each statement by itself, since one of them refuses to run within a transaction."""
    SCRIPT = "script"
    """Whole, outside any transaction of ours: it has its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The SQL of one migration."""

    path: str
    """The file, as messages name it."""
    text: str
    """What is sent. Places in it are places in the file; only a byte order mark is gone."""
    statements: tuple[Statement, ...]
    mode: Mode


_BYTE_ORDER_MARK = "\ufeff"
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_DIRECTIVE = re.compile(r"--[ \t]*dbbootstrap:[ \t]*(.*?)[ \t]*(?:\r?\n|$)", re.IGNORECASE)
_TRANSACTION_OFF = re.compile(r"transaction[ \t]*=[ \t]*off", re.IGNORECASE)
_FOREIGN_COMMENTS = (
    (re.compile(r"--[ \t]*migrate:(up|down)\b", re.IGNORECASE), "dbmate"),
    (re.compile(r"--[ \t]*\+goose\b", re.IGNORECASE), "goose"),
    (re.compile(r"--[ \t]*\+(migrate|micrate)\b", re.IGNORECASE), "sql-migrate"),
    (re.compile(r"--[ \t]*(up|down) migration\b", re.IGNORECASE), "node-pg-migrate"),
    (re.compile(r"--[ \t]*liquibase formatted sql\b", re.IGNORECASE), "Liquibase"),
)
"""These files hold how to apply *and* how to undo: run whole, they create their tables and drop them again."""


def script_of(path: str, text: str, *, own_transactions: bool) -> Script:
    """Return the script of a file; raise `BundleRejected` for what only another program can run.

    With `own_transactions` a script may begin and commit as it likes.
    """
    text = text.removeprefix(_BYTE_ORDER_MARK)
    forced = _is_transaction_off(path, text)
    _check_characters(path, text)
    found = tuple(_statements_of(text))
    for statement in found:
        if statement.copies:
            raise BundleRejected(
                f"{_place(path, statement)}: COPY from or to the client works in psql only; use INSERT"
            )
    _check_programs(path, text)
    alone = next((one.alone for one in found if one.alone), None)
    _check_own_transactions(path, found)
    if forced or alone:
        return Script(path=path, text=text, statements=found, mode=Mode.STATEMENT)
    controls = [one for one in found if one.control is not Control.NONE]
    if _is_wrapped(found, controls):
        # Ours does the same, and commits the record with it. Blanks keep every place where it is.
        for statement in controls:
            blank = re.sub(r"[^\r\n]", " ", statement.text)
            text = text[: statement.start] + blank + text[statement.start + len(blank) :]
        return Script(path=path, text=text, statements=found[1:-1], mode=Mode.TRANSACTION)
    if controls and not own_transactions:
        raise BundleRejected(
            f"{_place(path, controls[0])}: the file begins or ends a transaction itself, so what it does could not be "
            "recorded in the same one; remove that, or begin the file with `-- dbbootstrap: transaction=off`"
        )
    return Script(path=path, text=text, statements=found, mode=Mode.SCRIPT if controls else Mode.TRANSACTION)


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
    if "\\" not in text and not any(pattern.search(text) for pattern, _ in _FOREIGN_COMMENTS):
        return
    for token in tokens(text):
        if token.kind == "comment":
            _check_comment(path, text, token.start, text[token.start : token.end])
        elif token.kind == "sign" and text[token.start] == "\\":
            where = f"line {line_of(text, token.start)}"
            raise BundleRejected(f"{path} {where}: a backslash command works in psql only; nothing was run")


def _check_comment(path: str, text: str, start: int, comment: str) -> None:
    for pattern, program in _FOREIGN_COMMENTS:
        if pattern.match(comment):
            raise BundleRejected(
                f"{path} line {line_of(text, start)}: this is a file for {program}, which also holds how to undo it; "
                "keep only what is to be applied, without the marks"
            )


def _statements_of(text: str) -> Iterator[Statement]:
    found = pieces(text)
    places = list(_places_of(text, found))
    entries = statements.parse(text, max((piece.depth for piece in found), default=0))
    if entries is not None and len(entries) == len(found):
        for entry, piece, line in zip(entries, found, places, strict=True):
            yield statements.statement_of(entry["stmt"], text[piece.start : piece.end], piece.start, line)
        return
    # Something in it is beyond the parser's grammar; the statements around it need not be.
    for piece, line in zip(found, places, strict=True):
        part = text[piece.start : piece.end]
        one = statements.parse(part, piece.depth)
        if one is not None and len(one) == 1:
            yield statements.statement_of(one[0]["stmt"], part, piece.start, line)
        else:
            yield statements.statement_of_words(piece.words, part, piece.start, line)


def _places_of(text: str, found: Sequence[Piece]) -> Iterator[int]:
    line, before = 1, 0
    for piece in found:
        line += text.count("\n", before, piece.start)
        before = piece.start
        yield line


def _check_own_transactions(path: str, found: Sequence[Statement]) -> None:
    """Refuse what PostgreSQL would refuse half-way, and what would be lost at the end."""
    opened: Statement | None = None
    for statement in found:
        if statement.control is not Control.NONE:
            opened = (opened or statement) if statement.opens else None
        elif opened and statement.alone:
            raise BundleRejected(
                f"{_place(path, statement)}: {statement.alone} cannot run within the transaction that line "
                f"{opened.line} begins"
            )
    if opened:
        raise BundleRejected(f"{_place(path, opened)}: the transaction that begins here never ends; add COMMIT")


def _is_wrapped(found: Sequence[Statement], controls: Sequence[Statement]) -> bool:
    """Whether the whole script is one plain BEGIN … COMMIT."""
    return (
        len(controls) == 2
        and controls[0] is found[0]
        and controls[1] is found[-1]
        and controls[0].control is Control.BEGIN
        and controls[1].control is Control.COMMIT
    )


def _place(path: str, statement: Statement) -> str:
    return f"{path} line {statement.line}"
