"""Archives: .tar.gz → files, with every trick refused."""

import hashlib
import tarfile
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath

from database_bootstrap.bundles import tar
from database_bootstrap.bundles.bundle import (
    FILES_LIMIT,
    HEAD_BYTES,
    SCRIPTS,
    Allowance,
    File,
    Packed,
    check_path,
    stays_packed,
)
from database_bootstrap.bundles.inflating import Inflating
from database_bootstrap.errors import BundleRejected

SUFFIXES = (".tar.gz", ".tgz")
_MEMBER_LIMIT = 2 * FILES_LIMIT
"""Files and directories, what is skipped, and headers that say more of the next one."""
_JUNK_NAMES = frozenset({".DS_Store", "Thumbs.db", "pax_global_header", "__MACOSX"})


def files_of_archive(name: str, content: bytes, allowance: Allowance | None = None) -> tuple[File | Packed, ...]:
    """Return the regular files of a .tar.gz; raise `BundleRejected` when it holds anything else, or too much.

    It is unpacked once, a piece at a time: what the allowance lets stay packed is checked, and not kept.
    """
    room = allowance or Allowance(SCRIPTS)
    # The contents, and a header with padding for each.
    source = Inflating(name, content, room.limits.total + 1024 * _MEMBER_LIMIT)
    try:
        return tuple(_files(name, source, room))
    except ValueError as error:  # UnicodeError too: a header field whose number or text cannot be read.
        raise tar.unreadable(name, str(error)) from None


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked."""
    return name.endswith(SUFFIXES)


def _files(name: str, source: Inflating, room: Allowance) -> Iterator[File | Packed]:
    for member in tar.members(name, source, _MEMBER_LIMIT):
        path = _path_of(name, member)
        if path is None:
            # It is unpacked all the same, on the way to the next one.
            if not room.skips(member.size):
                raise BundleRejected(_too_much(name, room))
            continue
        packed = stays_packed(path, member.size, room.limits)
        if not room.grants(member.size, packed=packed):
            raise BundleRejected(_too_much(name, room))
        if packed:
            yield _packed(path, source, member.size)
        else:
            yield File(path=path, content=b"".join(source.take(member.size)))


def _packed(path: str, source: Inflating, size: int) -> Packed:
    """Read a file for its digest, and return it as the place where it is."""
    sha, place, offset = hashlib.sha256(), source.place, source.position
    pieces = source.take(size)
    first = next(pieces)
    while len(first) < HEAD_BYTES and (more := next(pieces, None)):
        first += more
    for piece in chain((first,), pieces):
        sha.update(piece)
    return Packed(path=path, size=size, sha256=sha.digest(), head=first[:HEAD_BYTES], place=place, offset=offset)


def _too_much(name: str, room: Allowance) -> str:
    limits = room.limits
    tables = f", tables and all; of other files, and small tables, {limits.held}" if limits.packs else ""
    return f"{name} unpacks to more than is allowed: a source has {limits.total} bytes{tables}; and {FILES_LIMIT} files"


def _path_of(name: str, member: tarfile.TarInfo) -> str | None:
    """Return the member's path, or None for what is skipped; raise for what a migration never needs."""
    path = member.name.removeprefix("./")
    if not (member.isreg() or member.isdir()) or member.type == tarfile.GNUTYPE_SPARSE:
        raise BundleRejected(f"{name} has {path!a}, which is {_kind_of(member)}: only files and directories may be")
    if member.isdir():
        if path not in ("", "."):
            check_path(path)
        return None
    check_path(path)
    # An archive within the archive stays a file, and no tool takes it for a migration.
    return None if is_junk(path) else path


def is_junk(path: str) -> bool:
    """Whether a file is something that a desktop or an archiver leaves behind."""
    return any(part in _JUNK_NAMES or part.startswith("._") for part in PurePosixPath(path).parts)


def _kind_of(member: tarfile.TarInfo) -> str:
    kinds = {
        tarfile.SYMTYPE: "a symbolic link",
        tarfile.LNKTYPE: "a hard link",
        tarfile.CHRTYPE: "a device",
        tarfile.BLKTYPE: "a device",
        tarfile.FIFOTYPE: "a pipe",
        tarfile.GNUTYPE_SPARSE: "a sparse file",
    }
    return kinds.get(member.type, "of an unknown kind")
