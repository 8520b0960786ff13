"""SQL text as psql sees it: where one statement ends, also where no grammar can parse it.

A regular expression takes all that cannot end a statement in one go: with a token at a time in Python, a file of a
megabyte would keep everybody waiting for seconds. What takes a step of its own is counted, and there is an end to it.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

# After scan.l of PostgreSQL, with standard_conforming_strings on.
_LETTER = r"A-Za-z_\u0080-\U0010ffff"
_SPACE = r"[ \t\n\r\f\v]++"
_COMMENT = r"--[^\r\n]*+|/\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/"
"""Block comments too, unless there is another within."""
_WORD = rf"[{_LETTER}][0-9${_LETTER}]*+"
_DOLLAR = rf"\$(?:[{_LETTER}][0-9{_LETTER}]*+)?\$"
_STRING = r"[eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'|'[^']*+(?:''[^']*+)*+'"
_QUOTED = r'"[^"]*+(?:""[^"]*+)*+"'
_NUMBER = r"[0-9][A-Za-z0-9_.]*+"
_SIGN = rf"[^;()'\"$/\-0-9 \t\n\r\f\v{_LETTER}]|-(?!-)|/(?!\*)|(?!{_DOLLAR})\$"
_BLANK = rf"(?:{_SPACE}|{_COMMENT})*+"
_OPEN = rf"(?P<block>/\*)|(?P<dollar>{_DOLLAR})|(?P<open_end>[\"'])"
"""What the regular expression cannot take to its end; `open_end` is a quote that nothing closes."""


def _solid(word: str) -> str:
    """Return what is one token, or parentheses that are closed soon, with a narrower idea of a word."""
    plain = f"{_STRING}|{_QUOTED}|{word}|{_NUMBER}|{_SIGN}"
    inner = rf"\((?:{_SPACE}|{_COMMENT}|{plain})*+\)"
    return rf"(?:{plain}|{inner}|\((?:{_SPACE}|{_COMMENT}|{plain}|{inner})*+\))"


def _body(word: str) -> str:
    # The blanks before a stop are scanned twice, and are no part of the statement.
    return rf"(?:{_BLANK}{_solid(word)})*+(?P<end>){_BLANK}(?:(?P<semicolon>;)|(?P<up>\(++)|(?P<down>\)++)|{_OPEN}"


_EDGE = rf"(?:begin(?={_BLANK}(?:atomic(?![0-9${_LETTER}])|/\*))|case|end)(?![0-9${_LETTER}])"
"""BEGIN is no reserved word, and may be the name of a parameter too; a nested comment behind it may hide ATOMIC."""
_HEAD = rf"(?P<start>)(?:({_WORD})(?!')" + rf"(?:{_BLANK}({_WORD})(?!')" * 3 + ")?" * 4
_STATEMENT = re.compile(rf"(?:{_SPACE}|{_COMMENT}|;)*+{_HEAD}{_body(_WORD)}|\Z)", re.DOTALL)
_CONTINUED = re.compile(rf"{_BLANK}{_HEAD}{_body(_WORD)}|\Z)", re.DOTALL)
"""The same behind a comment."""
_MORE = re.compile(rf"{_body(_WORD)}|\Z)", re.DOTALL)
_MORE_OF_ROUTINE = re.compile(rf"{_body(rf'(?!{_EDGE}){_WORD}')}|(?P<edge>{_EDGE})|\Z)", re.DOTALL | re.IGNORECASE)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
STEPS_LIMIT = 200_000
"""For one text; a step takes about a microsecond."""
CONCURRENT_INDEX = re.compile(
    rf"{_BLANK}(?:create{_BLANK}(?:unique{_BLANK})?index|drop{_BLANK}index"
    rf"|reindex{_BLANK}(?:\([^()]*+\){_BLANK})?(?:index|table|schema|database)){_BLANK}concurrently\b",
    re.IGNORECASE,
)
"""A statement that waits for older transactions, and keeps nobody else waiting."""
_ROUTINES = frozenset({"function", "procedure"})


class Piece(NamedTuple):
    """One statement without its semicolon, from its first token on."""

    start: int
    end: int
    words: tuple[str, ...]
    """The words that it begins with, four at most, in lower case."""
    steps: int
    """What it took to find its end: one, and one for each nested parenthesis, dollar quote and nested comment."""


class TooIntricate(ValueError):
    """Finding the ends of its statements would take too long."""


def pieces(text: str) -> Iterator[Piece]:
    """Return the statements of a script; empty ones are left out; raise `TooIntricate`."""
    position = steps = 0
    while position < len(text):
        piece, position = _piece_at(text, position)
        steps += piece.steps
        if steps > STEPS_LIMIT:
            raise TooIntricate
        if piece.end > piece.start:
            yield piece


def _piece_at(text: str, position: int) -> tuple[Piece, int]:
    """Return the statement that begins here, and where the next one does."""
    match = _match(_STATEMENT, text, position)
    start, end, words, steps = match.start("start"), match.start("end"), _words_of(match), 1
    while match["block"] and match.start("end") == _end_of_words(match) and steps < STEPS_LIMIT:
        # A comment stands before the first words, or between them.
        match, steps = _match(_CONTINUED, text, _end_of_block(text, match.end())), steps + 1
        start = start if words else match.start("start")
        end = match.start("end") if match.start("end") > match.start("start") or not words else end
        words = (*words, *_words_of(match))[:4]
    if match["semicolon"] and not _is_routine(words):
        return Piece(start, end, words, steps), match.end()
    pattern = _MORE
    if _is_routine(words):
        pattern, match = _MORE_OF_ROUTINE, _match(_MORE_OF_ROUTINE, text, _end_of_words(match))
    end, position, more = _rest(pattern, text, match, end)
    return Piece(start, end, words, steps + more), position


def _is_routine(words: tuple[str, ...]) -> bool:
    return bool(words) and words[0] == "create" and not _ROUTINES.isdisjoint(words)


def _rest(pattern: re.Pattern[str], text: str, match: re.Match[str], end: int) -> tuple[int, int, int]:
    """Return where a statement ends, where the next begins, and the steps that it took.

    Semicolons in parentheses and in bodies do not end it. The rule is nearly psql's (psqlscan.l): BEGIN ATOMIC and CASE
    count only in a CREATE FUNCTION or CREATE PROCEDURE.
    """
    depth = atomic = 0
    for steps in range(STEPS_LIMIT):
        kind, position = match.lastgroup, match.end()
        end = match.start("end") if match.re is pattern and match.start("end") > match.start() else end
        if kind == "end" or (kind == "semicolon" and depth == atomic == 0):
            return end, position, steps
        if kind == "up":
            depth += position - match.start("up")
        elif kind == "down":
            depth = max(0, depth - position + match.start("down"))
        elif kind == "edge":
            atomic = _atomic_after(match["edge"].lower(), atomic)
        elif kind != "semicolon":
            position = _end_of_open(text, match)
        end = position if kind != "block" else end
        match = _match(pattern, text, position)
    raise TooIntricate


def _atomic_after(word: str, depth: int) -> int:
    """Return how many bodies are open behind a BEGIN, CASE or END."""
    if word == "end":
        return max(0, depth - 1)
    return depth + 1 if word == "begin" or depth else 0


def outside(wanted: str) -> re.Pattern[str]:
    """Return what `first_outside` looks for, from a regular expression without groups; case does not count."""
    token = f"{_SPACE}|{_COMMENT}|{_STRING}|{_QUOTED}|{_WORD}|{_NUMBER}|{_SIGN}|[;()]"
    return re.compile(rf"(?:(?!{wanted})(?:{token}))*+(?:(?P<found>{wanted})|{_OPEN}|\Z)", re.DOTALL | re.IGNORECASE)


def first_outside(text: str, wanted: re.Pattern[str]) -> int | None:
    """Return where the first of them stands outside strings, names and comments; raise `TooIntricate`."""
    match = _match(wanted, text, 0)
    for _ in range(STEPS_LIMIT):
        if match.lastgroup is None or match.lastgroup == "found":
            return match.start("found") if match["found"] else None
        match = _match(wanted, text, _end_of_open(text, match))
    raise TooIntricate


_BARE = re.compile(
    rf"(?P<kept>(?:{_SPACE}|(?![eE]'){_WORD}|{_NUMBER}|{_SIGN}|[;()])++)|(?P<name>{_QUOTED})"
    rf"|(?P<string>{_STRING})|{_COMMENT}|{_OPEN}|[eE]",
    re.DOTALL,
)


class Parts(NamedTuple):
    """A text in two parts."""

    own: str
    """Its own words in lower case, without comments; of a quoted name something is left that is no word of SQL."""
    strings: list[str]
    """What is in its strings and dollar quotes."""


def parts_of(text: str) -> Parts:
    """Return a text's own words, and apart from them its strings."""
    own: list[str] = []
    strings: list[str] = []
    position = 0
    while position < len(text):
        match = _match(_BARE, text, position)
        own.append(match["kept"] or (' "" ' if match["name"] else " "))
        position = match.end() if match.lastgroup in ("kept", "name", "string", None) else _end_of_open(text, match)
        if match["string"]:
            strings.append(match["string"].lstrip("eE")[1:-1].replace("''", "'"))
        elif match["dollar"]:
            strings.append(text[match.end() : position].removesuffix(match["dollar"]))
    return Parts("".join(own).lower(), strings)


def _match(pattern: re.Pattern[str], text: str, position: int) -> re.Match[str]:
    match = pattern.match(text, position)
    assert match, "each character begins one of the alternatives"
    return match


def _words_of(match: re.Match[str]) -> tuple[str, ...]:
    return tuple([word.lower() for word in match.group(2, 3, 4, 5) if word])


def _end_of_words(match: re.Match[str]) -> int:
    return max(match.end(number) for number in (1, 2, 3, 4, 5))


def _end_of_open(text: str, match: re.Match[str]) -> int:
    """Return where the comment, or the string, ends that a match stopped at."""
    if match["block"]:
        return _end_of_block(text, match.end())
    closing = text.find(match["dollar"], match.end()) if match["dollar"] else -1
    return len(text) if closing < 0 else closing + len(match["dollar"])


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
