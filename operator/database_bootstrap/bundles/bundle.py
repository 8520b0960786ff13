"""A bundle: the files of one source, in path order, with a digest."""

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from database_bootstrap.errors import BundleRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file: its path within the bundle, with forward slashes, and its bytes as they came."""

    path: str
    content: bytes

    @property
    def text(self) -> str:
        """The content as UTF-8; raise `BundleRejected` when it is not."""
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise BundleRejected(f"{self.path} is not UTF-8 text (byte {error.start})") from None


@dataclass(frozen=True)
class Bundle:
    """The files of one source."""

    files: tuple[File, ...]

    @cached_property
    def digest(self) -> str:
        """`sha256:` and the hexadecimal SHA-256 over paths and contents."""
        sha = hashlib.sha256()
        for file in self.files:
            sha.update(f"{len(file.path.encode())}:{file.path}:{len(file.content)}:".encode())
            sha.update(file.content)
        return f"sha256:{sha.hexdigest()}"


FILES_LIMIT = 10_000
BYTES_LIMIT = 64 * 1024 * 1024
PATH_LIMIT = 512
"""Bytes of UTF-8."""


def bundle_of(files: Iterable[File]) -> Bundle:
    """Return the bundle of these files in byte order of their paths; raise `BundleRejected` for one that cannot be."""
    ordered = tuple(sorted(files, key=lambda file: file.path.encode(errors="surrogatepass")))
    if not ordered:
        raise BundleRejected("The source has no files")
    if len(ordered) > FILES_LIMIT:
        raise BundleRejected(f"The source has {len(ordered)} files; {FILES_LIMIT} are the limit")
    size = sum(len(file.content) for file in ordered)
    if size > BYTES_LIMIT:
        raise BundleRejected(f"The files of the source have {size} bytes together; {BYTES_LIMIT} are the limit")
    for file in ordered:
        check_path(file.path)
    _check_collisions(ordered)
    return Bundle(ordered)


def check_path(path: str) -> None:
    """Raise `BundleRejected` when a file of this path would be ambiguous, or lie outside the bundle."""
    fault = _fault_of(path)
    if fault:
        shown = path if len(path) <= 80 else f"{path[:77]}..."
        raise BundleRejected(f"The path {shown!a} {fault}")


def _fault_of(path: str) -> str | None:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if size > PATH_LIMIT:
        return f"has {size} bytes; {PATH_LIMIT} are the limit"
    # Category C: control and format characters (a right-to-left override hides what a name is), unassigned ones.
    if any(unicodedata.category(character).startswith("C") for character in path):
        return "has control characters"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in Unicode's composed form (NFC), so that another file could have the same name on the screen"
    if "\\" in path:
        return "has a backslash; directories are separated by /"
    return _fault_of_parts(path)


def _fault_of_parts(path: str) -> str | None:
    parts = path.split("/")
    if parts[0] == "" and len(parts) > 1:
        return "is absolute"
    if "" in parts:
        return "has an empty part"
    if "." in parts or ".." in parts:
        return "has a part . or .."
    return None


def _check_collisions(ordered: Iterable[File]) -> None:
    seen: dict[str, str] = {}
    directories: dict[str, str] = {}
    for file in ordered:
        folded = file.path.casefold()
        if folded in seen:
            both = "twice" if seen[folded] == file.path else f"besides {seen[folded]}, which differs in case only"
            raise BundleRejected(f"The source has {file.path} {both}")
        seen[folded] = file.path
        parts = file.path.split("/")
        for depth in range(1, len(parts)):
            directories["/".join(parts[:depth]).casefold()] = file.path
    for folded, inside in directories.items():
        if folded in seen:
            raise BundleRejected(f"The source has {seen[folded]} both as a file and as the directory of {inside}")
