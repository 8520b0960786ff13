"""A bundle: the files of one source, in path order, with a digest."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from database_bootstrap.bundles.inflating import CHUNK, Inflating, Place
from database_bootstrap.errors import BundleRejected

HEAD_BYTES = 64 * 1024
"""Of a packed file, what can be looked at without unpacking it again."""
PLACE_BYTES = 50 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file: its path within the bundle, with forward slashes, and its bytes as they came."""

    path: str
    content: bytes

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.content)

    @property
    def sha256(self) -> bytes:
        """The content's."""
        return hashlib.sha256(self.content).digest()

    @property
    def head(self) -> bytes:
        """The first bytes."""
        return self.content[:HEAD_BYTES]

    @property
    def text(self) -> str:
        """The content as UTF-8; raise `BundleRejected` when it is not."""
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise BundleRejected(f"{self.path} is not UTF-8 text (byte {error.start})") from None

    def blocks(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        for start in range(0, len(self.content), CHUNK):
            yield self.content[start : start + CHUNK]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A large file that stays in its archive: it was unpacked once to be checked, and is never held as a whole."""

    path: str
    size: int
    sha256: bytes
    head: bytes = field(repr=False)
    """The first bytes."""
    place: Place = field(compare=False, repr=False)
    """In the archive, at the file's first byte or before it."""
    offset: int = field(compare=False)
    """Of the first byte in what the archive unpacks to."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the content in pieces; each takes the time to unpack it."""
        source = Inflating.at(self.place)
        for _ in source.take(self.offset - self.place.position):
            pass
        yield from source.take(self.size)


@dataclass(frozen=True)
class Bundle:
    """The files of one source."""

    files: tuple[File, ...]
    packed: tuple[Packed, ...] = ()
    """Those that are too large to be held; only data may have such."""

    @cached_property
    def in_order(self) -> tuple[File | Packed, ...]:
        """All files, in byte order of their paths."""
        return _ordered((*self.files, *self.packed))

    @cached_property
    def digest(self) -> str:
        """`sha256:` and the hexadecimal SHA-256 over paths and contents."""
        sha = hashlib.sha256()
        for file in self.in_order:
            sha.update(f"{len(file.path.encode())}:{file.path}:{file.size}:".encode())
            sha.update(file.sha256)
        return f"sha256:{sha.hexdigest()}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.in_order)

    @property
    def memory(self) -> int:
        """Bytes that it takes to keep it, about."""
        archives = {id(file.place.packed): len(file.place.packed) for file in self.packed}
        places = {id(file.place) for file in self.packed}
        heads = sum(len(file.head) for file in self.packed)
        return sum(file.size for file in self.files) + sum(archives.values()) + PLACE_BYTES * len(places) + heads


FILES_LIMIT = 10_000
BYTES_LIMIT = 64 * 1024 * 1024
PATH_LIMIT = 512
"""Bytes of UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a source may have."""

    held: int
    """Bytes in files that are held in memory."""
    total: int
    """Bytes together with those that stay packed."""

    @property
    def packs(self) -> bool:
        """Whether large files may stay packed."""
        return self.total > self.held


SCRIPTS = Limits(held=BYTES_LIMIT, total=BYTES_LIMIT)
"""What is parsed, or run as code: it is read as a whole."""
DATA = Limits(held=BYTES_LIMIT, total=1024 * 1024 * 1024)
"""Rows: the most that 64 ConfigMaps hold of tables that compress well, and what COPY takes in minutes."""
PACKED_FROM = 1024 * 1024
"""Bytes from which a .csv file in an archive stays there."""


class Allowance:
    """What is left of the limits while the files of a source are read."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._held = 0
        self._total = 0
        self._files = 0

    def grants(self, size: int, *, packed: bool = False) -> bool:
        """Count one more file, and return whether there is room for it."""
        self._files += 1
        self._total += size
        self._held += 0 if packed else size
        return self._files <= FILES_LIMIT and self._held <= self.limits.held and self._total <= self.limits.total

    def skips(self, size: int) -> bool:
        """Count what is unpacked and thrown away, and return whether there is room for it."""
        self._total += size
        return self._total <= self.limits.total


def stays_packed(path: str, size: int, limits: Limits) -> bool:
    """Return whether a file in an archive is too large to be held, and may stay there."""
    return limits.packs and size >= PACKED_FROM and is_table(path)


def is_table(path: str) -> bool:
    """Whether a file of this name has rows."""
    return path.lower().endswith(".csv")


def bundle_of(files: Iterable[File | Packed], limits: Limits = SCRIPTS) -> Bundle:
    """Return the bundle of these files in byte order of their paths; raise `BundleRejected` for one that cannot be."""
    ordered = _ordered(files)
    if not ordered:
        raise BundleRejected("The source has no files")
    if len(ordered) > FILES_LIMIT:
        raise BundleRejected(f"The source has {len(ordered)} files; {FILES_LIMIT} are the limit")
    for file in ordered:
        check_path(file.path)
    _check_collisions(ordered)
    _check_size((file for file in ordered if not stays_packed(file.path, file.size, limits)), limits.held)
    _check_size(ordered, limits.total)
    return Bundle(
        files=tuple(file for file in ordered if isinstance(file, File)),
        packed=tuple(file for file in ordered if isinstance(file, Packed)),
    )


def _check_size(files: Iterable[File | Packed], limit: int) -> None:
    size = sum(file.size for file in files)
    if size > limit:
        raise BundleRejected(f"The files of the source have {size} bytes together; {limit} are the limit")


def _ordered(files: Iterable[File | Packed]) -> tuple[File | Packed, ...]:
    return tuple(sorted(files, key=lambda file: file.path.encode(errors="surrogatepass")))


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


def _check_collisions(ordered: Iterable[File | Packed]) -> None:
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
