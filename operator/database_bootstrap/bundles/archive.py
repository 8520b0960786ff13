"""Archives: .tar.gz → files, with every trick refused."""

import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from database_bootstrap.bundles.bundle import BYTES_LIMIT, FILES_LIMIT, File, check_path
from database_bootstrap.errors import BundleRejected

SUFFIXES = (".tar.gz", ".tgz")
_CHUNK = 256 * 1024
_TAR_LIMIT = BYTES_LIMIT + 1024 * FILES_LIMIT
"""Bytes of the unpacked tar: the contents, and a header with padding for each file."""
_MEMBER_LIMIT = 2 * FILES_LIMIT
"""Files and directories and what is skipped."""
_JUNK_NAMES = frozenset({".DS_Store", "Thumbs.db", "pax_global_header", "__MACOSX"})


def files_of_archive(name: str, content: bytes) -> tuple[File, ...]:
    """Return the regular files of a .tar.gz; raise `BundleRejected` when it holds anything else."""
    try:
        with _unpacked(name, content) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
            files = tuple(_files(name, archive))
            # tarfile takes a header that it cannot read for the end.
            unpacked.seek(archive.offset)
            if unpacked.read().strip(b"\0"):
                raise BundleRejected(f"{name} has something behind its last file that is no file")
            return files
    # ValueError: a header field whose number or text cannot be read.
    except (tarfile.TarError, UnicodeError, ValueError, EOFError) as error:
        raise BundleRejected(f"{name} is not a readable tar archive: {ascii(str(error))[1:-1][:200]}") from None


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked."""
    return name.endswith(SUFFIXES)


def _unpacked(name: str, content: bytes) -> io.BytesIO:
    """Return the gzip's content, a piece at a time, so that no bomb ever unfolds in memory."""
    unpacked = io.BytesIO()
    rest = content
    while rest:
        stream = zlib.decompressobj(wbits=31)  # 31: a gzip header and trailer, nothing else
        try:
            while not stream.eof:
                if unpacked.tell() > _TAR_LIMIT:
                    raise BundleRejected(f"{name} unpacks to more than {BYTES_LIMIT} bytes")
                piece = stream.decompress(rest, _CHUNK)
                rest = stream.unconsumed_tail
                if not piece and not rest and not stream.eof:
                    raise BundleRejected(f"{name} is cut off")
                unpacked.write(piece)
        except zlib.error as error:
            raise BundleRejected(f"{name} is not a gzip file: {error}") from None
        # A gzip file may be several, one after another (RFC 1952 section 2.2); zeros may follow as padding.
        rest = stream.unused_data.lstrip(b"\0")
    unpacked.seek(0)
    return unpacked


def _files(name: str, archive: tarfile.TarFile) -> Iterator[File]:
    for number, member in enumerate(archive, start=1):
        if number > _MEMBER_LIMIT:
            raise BundleRejected(f"{name} has more than {_MEMBER_LIMIT} members")
        path = _path_of(name, member)
        if path is None:
            continue
        stream = archive.extractfile(member)
        yield File(path=path, content=stream.read() if stream else b"")


def _path_of(name: str, member: tarfile.TarInfo) -> str | None:
    """Return the member's path, or None for what is skipped; raise for what a migration never needs."""
    path = member.name.removeprefix("./")
    if not (member.isreg() or member.isdir()) or member.issparse():
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
    }
    return "a sparse file" if member.issparse() else kinds.get(member.type, "of an unknown kind")
