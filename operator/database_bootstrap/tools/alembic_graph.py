"""The revisions of an Alembic project as a graph, read from their source without running it."""

import ast
import posixpath
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from database_bootstrap.bundles.bundle import File
from database_bootstrap.errors import BundleRejected

WORDS_LIMIT = 200_000
"""Of a file: Python's parser takes a kilobyte for each of the shortest, and all else waits for it meanwhile."""
ALL_WORDS_LIMIT = 4_000_000
_TRIES = 3
_WORD = re.compile(r"\w+|[^\w \t]")
"""A name, a number, a sign, an end of a line; no token is shorter."""
_NAMES = ("revision", "down_revision", "branch_labels", "depends_on")
_LEGACY_NAME = re.compile(r"([a-f0-9]+)\.py$")
"""A revision file of before Alembic 0.2, named by its identifier (alembic/script/base.py, _legacy_rev)."""
_RESERVED = frozenset({"base", "head", "heads"})
"""Words of Alembic's own; a revision of this name is written, and then never found again."""
_ILLEGAL = frozenset("@-+:")
"""As in alembic/script/revision.py, _revision_illegal_chars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One revision, as its file declares it."""

    name: str
    down: tuple[str, ...]
    depends_on: tuple[str, ...]
    labels: tuple[str, ...]
    path: str


def check_size(files: Iterable[File]) -> None:
    """Raise `BundleRejected` where there is more Python than can be parsed while others wait."""
    left = ALL_WORDS_LIMIT
    for file in files:
        count = sum(1 for _ in islice(_WORD.finditer(file.text), WORDS_LIMIT + 1))
        if count > WORDS_LIMIT:
            raise BundleRejected(
                f"{file.path} has more than {WORDS_LIMIT} words and signs; put what is data into a file beside it, "
                "and read that"
            )
        left -= count
        if left < 0:
            raise BundleRejected(f"The Python files have more than {ALL_WORDS_LIMIT} words and signs together")


def declares_revision(file: File) -> bool:
    """Whether a Python file says that it is a revision."""
    return "revision" in _assignments(file) or bool(_LEGACY_NAME.match(posixpath.basename(file.path)))


def read_revision(file: File) -> Revision:
    """Return what a revision's file declares; raise `BundleRejected` where that is not written out plainly."""
    declared = _assignments(file)
    legacy = _LEGACY_NAME.match(posixpath.basename(file.path))
    if "revision" not in declared and not legacy:
        raise BundleRejected(
            f"{file.path} lies among the revisions and assigns no `revision`; Alembic itself would refuse it"
        )
    if "down_revision" not in declared:
        raise BundleRejected(f"{file.path} assigns no `down_revision`")
    values = {name: _literal(file, name, node) for name, node in declared.items()}
    name = values.get("revision", legacy and legacy.group(1))
    if not isinstance(name, str) or not name:
        raise BundleRejected(f"{file.path}: `revision` must be a non-empty string")
    if bad := _ILLEGAL & set(name):
        raise BundleRejected(f"{file.path}: revision {name!r} has {sorted(bad)[0]!r} in it; Alembic forbids that")
    if name in _RESERVED:
        raise BundleRejected(f"{file.path}: a revision cannot be named {name}, which is a word of Alembic's own")
    strings = {each: _strings(file, each, values.get(each)) for each in _NAMES[1:]}
    return Revision(
        name=name,
        down=strings["down_revision"],
        depends_on=strings["depends_on"],
        labels=strings["branch_labels"],
        path=file.path,
    )


def _assignments(file: File) -> dict[str, ast.expr]:
    """Return the last expression that each of the names is given at the top level of the file."""
    try:
        tree = _parsed(file)
    except SyntaxError as error:
        raise BundleRejected(f"{file.path} is not valid Python: line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError):
        raise BundleRejected(f"{file.path} cannot be parsed as Python") from None
    found: dict[str, ast.expr] = {}
    for statement in tree.body:
        for name, value in _targets(statement):
            if name in _NAMES:
                found[name] = value
    return found


def _parsed(file: File) -> ast.Module:
    """Return the tree; where two threads parse at once CPython may miscount, and raise SystemError (gh-106905)."""
    for _ in range(_TRIES):
        with suppress(SystemError):
            return ast.parse(file.text, filename=file.path)
    return ast.parse(file.text, filename=file.path)


def _targets(statement: ast.stmt) -> Iterable[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        return [(target.id, statement.value) for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        return [(statement.target.id, statement.value)]
    return []


def _literal(file: File, name: str, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise BundleRejected(
            f"{file.path}: line {node.lineno}: `{name}` is computed; it must be written out as a string, a tuple or "
            "None, because the history is read without running the project's code"
        ) from None


def _strings(file: File, name: str, value: Any) -> tuple[str, ...]:
    """Return one or many names as a tuple, the way alembic/util/langhelpers.py to_tuple() does."""
    if value is None:
        return ()
    many = (value,) if isinstance(value, str) else value
    if not isinstance(many, tuple | list | set) or not all(isinstance(each, str) and each for each in many):
        raise BundleRejected(f"{file.path}: `{name}` must be a string, a tuple of strings or None")
    return tuple(dict.fromkeys(many))


class Graph:
    """The revisions, and what follows what."""

    def __init__(self, revisions: Iterable[Revision]) -> None:
        """Raise `BundleRejected` for what is no history: nothing in it, doubles, gaps, circles."""
        self.revisions: Mapping[str, Revision] = _unique(revisions)
        self._names = _with_labels(self.revisions)
        self._down = {each.name: self._resolve(each, each.down, "down_revision") for each in self.revisions.values()}
        self._needs = {
            each.name: self._resolve(each, each.depends_on, "depends_on") for each in self.revisions.values()
        }
        _refuse_circles(self.revisions, {name: self._down[name] + self._needs[name] for name in self.revisions})

    def _resolve(self, revision: Revision, names: tuple[str, ...], where: str) -> tuple[str, ...]:
        for name in names:
            if name not in self._names:
                raise BundleRejected(
                    f"{revision.path}: `{where}` of revision {revision.name} names {name}, which is not in the source"
                )
        return tuple(dict.fromkeys(self._names[name] for name in names))

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """The revisions that no other one follows or depends on: the rows of alembic_version after all have run.

        This is `ScriptDirectory.get_heads(consider_depends_on=True)`.
        """
        followed = {name for each in (*self._down.values(), *self._needs.values()) for name in each}
        return tuple(name for name in self.revisions if name not in followed)

    def closure(self, rows: Iterable[str]) -> frozenset[str]:
        """Return these revisions and all that must have run before them."""
        found: set[str] = set()
        waiting = list(rows)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self._down[name] + self._needs[name])
        return frozenset(found)

    def stamped(self, rows: Iterable[str], name: str) -> tuple[str, ...]:
        """Return what the version table holds once this revision, which follows on these rows, is applied."""
        present, below = tuple(rows), self.closure([name])
        if name in self.closure(present):
            return present
        return (*(row for row in present if row not in below), name)

    def overlapping(self, rows: Iterable[str]) -> tuple[str, str] | None:
        """Return two rows of which the first already contains the second: Alembic refuses to go on from there."""
        present = list(rows)
        for row in present:
            below = self.closure(self._down[row] + self._needs[row])
            for other in present:
                if other in below:
                    return row, other
        return None

    def pending(self, rows: Iterable[str]) -> tuple[str, ...]:
        """Return what is missing from a database with these rows, each after all that it needs."""
        todo = self.revisions.keys() - self.closure(rows)
        return tuple(reversed(self._from_the_top(todo)))

    def _from_the_top(self, todo: set[str]) -> list[str]:
        """Return these revisions, newest first, in the order of alembic's RevisionMap._topological_sort().

        It walks down one branch until another one needs what comes next, and only then changes to that other one.
        """
        tips = [name for name in self.heads if name in todo]
        below = [set(self.closure([tip])) for tip in tips]
        order: list[str] = []
        index = 0
        while tips:
            name = tips[index]
            needed_by = next((i for i, names in enumerate(below) if i != index and name in names), None)
            if needed_by is not None:
                index = needed_by
                continue
            order.append(name)
            todo.discard(name)
            parents = [each for each in self._parents(name) if each in todo and each not in tips]
            if not parents:
                del tips[index], below[index]
                index = max(index - 1, 0)
                continue
            tips[index] = parents[0]
            tips.extend(parents[1:])
            below[index] = set(self.closure(parents[:1]))
            below.extend(set(self.closure([each])) for each in parents[1:])
        return order

    def _parents(self, name: str) -> tuple[str, ...]:
        """Return the direct predecessors, without dependencies that an ancestor has already."""
        if not self._needs[name]:
            return self._down[name]
        ancestors = self._line(self._down[name])
        already = {need for each in ancestors for need in self._needs[each]}
        return tuple(dict.fromkeys((*self._down[name], *(each for each in self._needs[name] if each not in already))))

    def _line(self, names: Iterable[str]) -> set[str]:
        """Return these and all below them by `down_revision` alone."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            each = waiting.pop()
            if each not in found:
                found.add(each)
                waiting.extend(self._down[each])
        return found


def _unique(revisions: Iterable[Revision]) -> dict[str, Revision]:
    found: dict[str, Revision] = {}
    for each in revisions:
        if each.name in found:
            raise BundleRejected(f"{found[each.name].path} and {each.path} both declare revision {each.name}")
        found[each.name] = each
    if not found:
        raise BundleRejected("The source holds no Alembic revision: no Python file that assigns `revision`")
    return found


def _with_labels(revisions: Mapping[str, Revision]) -> dict[str, str]:
    """Return every name by which a revision can be referred to."""
    names = {name: name for name in revisions}
    for each in revisions.values():
        for label in each.labels:
            if label in names:
                raise BundleRejected(f"{each.path}: branch label {label} is already used by revision {names[label]}")
            names[label] = each.name
    return names


def _refuse_circles(revisions: Mapping[str, Revision], below: Mapping[str, tuple[str, ...]]) -> None:
    """Raise `BundleRejected` when what remains after taking away all that rests on nothing is not empty."""
    above: dict[str, list[str]] = {name: [] for name in revisions}
    for name, parents in below.items():
        for parent in parents:
            above[parent].append(name)
    open_parents = {name: len(parents) for name, parents in below.items()}
    ready = [name for name, count in open_parents.items() if not count]
    while ready:
        name = ready.pop()
        del open_parents[name]
        for child in above[name]:
            open_parents[child] -= 1
            if not open_parents[child]:
                ready.append(child)
    if open_parents:
        raise BundleRejected(f"The revisions follow each other in a circle: {', '.join(sorted(open_parents)[:5])}")
