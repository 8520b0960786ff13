"""YAML files → documents: read safely, each knowing where it came from, with a sentence for what cannot be read."""

import sys
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as _Base
except ImportError:  # built without libyaml: the same, only slower
    from yaml import SafeLoader as _Base  # type: ignore[assignment]

STDIN = "-"
SUFFIXES = {".yaml", ".yml", ".json"}


class InputError(Exception):
    """What was given cannot be used; the text names the file and, where there is one, document and line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One manifest of a file."""

    manifest: dict[str, Any]
    folder: Path
    """Where the file is; for standard input, where we are."""
    origin: str
    """For people: `shop.yaml, document 2 (line 31)`."""


class _Twice(yaml.MarkedYAMLError):
    """A mapping has one key twice."""


class _Loader(_Base):
    """Plain values only; a key that is there twice is refused, as one of the two would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _Twice(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return made


# Kubernetes knows no dates: `2024-01-01` is text there, and so it is here.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}


def read(sources: Iterable[str]) -> list[Document]:
    """Return the documents of all files, directories and standard input, in order; raise `InputError`."""
    return [document for source in sources for document in _read(source)]


def _read(source: str) -> Iterator[Document]:
    if source == STDIN:
        yield from parse(sys.stdin.buffer.read(), "standard input", Path.cwd())
        return
    path = Path(source)
    for file in _files_of(path):
        yield from parse(_content(file), str(file), file.resolve().parent)


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    if not files:
        raise InputError(f"{path}: the directory has no file that ends in .yaml, .yml or .json")
    return files


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None


def parse(content: bytes, name: str, folder: Path) -> Iterator[Document]:
    """Return the documents of one file; the items of a List are documents of their own."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 text (byte {error.start})") from None
    number = 0
    try:
        loader = _Loader(text)
        while loader.check_node():
            number += 1
            node = loader.get_node()
            assert node, "check_node has seen one"
            origin = f"{name}, document {number} (line {node.start_mark.line + 1})"
            yield from _documents(loader.construct_document(node), folder, origin)
    except yaml.YAMLError as error:
        raise InputError(_words(error, name, number)) from None
    except (AttributeError, KeyError, ValueError):
        # What PyYAML lets out for `!!bool maybe`, `!!timestamp x`, or a number of a thousand digits.
        raise InputError(
            f"{name}, document {number}: a value that is not what its tag says, or too long a number"
        ) from None
    except RecursionError:
        raise InputError(f"{name}, document {number}: nested too deeply") from None


def _documents(value: object, folder: Path, origin: str) -> Iterator[Document]:
    if value is None:
        return
    if not isinstance(value, dict):
        raise InputError(f"{origin}: not a manifest, which has apiVersion, kind and metadata")
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            yield from _documents(item, folder, f"{origin}, items[{index}]")
        return
    yield Document(manifest=value, folder=folder, origin=origin)


def _words(error: yaml.YAMLError, name: str, number: int) -> str:
    # Never the error's own text, which quotes lines of the file: they may hold a password.
    where = f"{name}, document {max(number, 1)}"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return f"{where}{f', line {mark.line + 1}' if mark else ''}: {_problem(error)}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{where}: a character that YAML does not allow (position {error.position})"
    return f"{where}: not YAML"


def _problem(error: yaml.MarkedYAMLError) -> str:
    match error:
        # These two name the tag or the alias, and `password: !x` or `password: *x` was perhaps meant as text.
        case yaml.composer.ComposerError():
            return "an alias without its anchor; text that begins with * must be in quotes"
        case yaml.constructor.ConstructorError():
            return "not a plain value; text that begins with ! must be in quotes"
        case _:
            return error.problem or "not YAML"
