"""SQL text as psql sees it: tokens, and where one statement ends, also where no grammar can parse it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\n\r\f\v]+)
    | (?P<comment>--[^\r\n]*+)
    | (?P<block>/\*)
    | (?P<string>[eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'|'[^']*+(?:''[^']*+)*+')
    | (?P<quoted>"[^"]*+(?:""[^"]*+)*+")
    | (?P<dollar>\$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*+)?\$)
    | (?P<word>[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*+)
    | (?P<number>[0-9][A-Za-z0-9_.]*+)
    | (?P<open_end>["'])
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
"""After scan.l of PostgreSQL, with standard_conforming_strings on; `open_end` is a quote that nothing closes."""
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_SET_OPERATIONS = frozenset({"union", "intersect", "except"})
_ROUTINES = frozenset({"function", "procedure"})
_WORDS_KEPT = 4


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text: `kind` is a group of the pattern above."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One statement without its semicolon, from its first token on."""

    start: int
    end: int
    words: tuple[str, ...]
    """Its first words in lower case."""
    depth: int
    """No parse tree of it has more than twice as many nodes within each other."""


def tokens(text: str) -> Iterator[Token]:
    """Return all tokens, comments and blanks too, without a gap."""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match, "the last alternative takes any character"
        kind, end = match.lastgroup or "sign", match.end()
        if kind == "block":
            kind, end = "comment", _end_of_block(text, end)
        elif kind == "dollar":
            closing = text.find(match.group(), end)
            kind, end = "string", closing + len(match.group()) if closing >= 0 else len(text)
        elif kind == "open_end":
            kind, end = "string", len(text)
        yield Token(kind, position, end)
        position = end


def _end_of_block(text: str, position: int) -> int:
    """Return where a block comment ends; they nest."""
    depth = 1
    while depth:
        edge = _BLOCK_EDGE.search(text, position)
        if edge is None:
            return len(text)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position


def pieces(text: str) -> tuple[Piece, ...]:
    """Return the statements of a script; empty ones are left out."""
    found = []
    piece = _Open()
    for token in tokens(text):
        if token.kind in ("space", "comment"):
            continue
        if token.kind == "sign" and text[token.start] == ";" and piece.may_end:
            if piece.start is not None:
                found.append(piece.closed())
            piece = _Open()
        else:
            piece.add(token, text)
    if piece.start is not None:
        found.append(piece.closed())
    return tuple(found)


class _Open:
    """A statement whose end is not reached; semicolons in parentheses and in BEGIN ATOMIC bodies do not end it.

    The rule is psql's (psqlscan.l): BEGIN and CASE count only in a CREATE FUNCTION or CREATE PROCEDURE.
    """

    def __init__(self) -> None:
        self.start: int | None = None
        self._end = 0
        self._words: list[str] = []
        self._atomic = 0
        self._chains = [0]
        """Per open parenthesis the tokens since the last comma: what can chain into one deep expression."""
        self._chained = 0
        self._kept = 0
        self._deepest = 0

    @property
    def may_end(self) -> bool:
        return len(self._chains) == 1 and self._atomic == 0

    def closed(self) -> Piece:
        return Piece(self.start or 0, self._end, tuple(self._words[:_WORDS_KEPT]), self._deepest)

    def add(self, token: Token, text: str) -> None:
        self.start = token.start if self.start is None else self.start
        self._end = token.end
        if token.kind == "word":
            self._add_word(text[token.start : token.end].lower())
        self._count(text[token.start] if token.kind == "sign" else "")
        self._deepest = max(self._deepest, self._chained + self._kept)

    def _add_word(self, word: str) -> None:
        if len(self._words) < _WORDS_KEPT:
            self._words.append(word)
        if word in _SET_OPERATIONS:
            self._kept += 1
        elif word in ("begin", "case", "end") and self._is_routine():
            if word == "end":
                self._atomic = max(0, self._atomic - 1)
            elif word == "begin" or self._atomic:
                self._atomic += 1

    def _is_routine(self) -> bool:
        return self._words[0] == "create" and not _ROUTINES.isdisjoint(self._words)

    def _count(self, sign: str) -> None:
        if sign and sign in "([":
            self._chains.append(0)
        elif sign and sign in ")]" and len(self._chains) > 1:
            self._chained -= self._chains.pop()
        elif sign == ",":
            self._chained -= self._chains[-1]
            self._chains[-1] = 0
            return
        self._chains[-1] += 1
        self._chained += 1
