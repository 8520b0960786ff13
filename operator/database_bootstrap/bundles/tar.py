"""Tar: the members of an archive in order, without reading any of them into memory."""

import tarfile
from collections.abc import Iterator

from database_bootstrap.bundles.inflating import Inflating
from database_bootstrap.errors import BundleRejected

_BLOCK = tarfile.BLOCKSIZE
_EXTENSION_LIMIT = 64 * 1024
"""Bytes of a header that says more of the next one: a path that is too long for it."""
_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
_GLOBAL_NONSENSE = {"path", "size", "linkpath"}


def members(name: str, source: Inflating, limit: int) -> Iterator[tarfile.TarInfo]:
    """Yield each member as soon as its content is what `source` reads next; what is left unread is passed over.

    tarfile itself would read a header of any length into memory, and takes one that it cannot read for the end.
    """
    said: dict[str, str] = {}
    for number, header in enumerate(_headers(name, source), start=1):
        if number > limit:
            raise BundleRejected(f"{name} has more than {limit} members")
        if header.type in _EXTENSIONS:
            said |= _extension(name, header, source)
            continue
        member = _extended(header, said)
        said = {}
        end = source.position + (member.size if member.isreg() else 0)
        yield member
        for _ in source.take(end - source.position + -end % _BLOCK):
            pass


def _headers(name: str, source: Inflating) -> Iterator[tarfile.TarInfo]:
    while True:
        start = source.position
        block = source.read(_BLOCK)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # typeshed has only the errors that users see
            if any(piece.strip(b"\0") for piece in source.rest()):
                raise _behind(name) from None
            return
        except tarfile.HeaderError as error:
            if start and len(block) == _BLOCK:
                raise _behind(name) from None
            raise unreadable(name, "it ends without an end" if start else str(error)) from None
        if header.size < 0:
            raise unreadable(name, "a file has a negative size")
        yield header


def _extension(name: str, header: tarfile.TarInfo, source: Inflating) -> dict[str, str]:
    """Return what an extension says of the member after it, by the names that the POSIX format has."""
    if header.size > _EXTENSION_LIMIT:
        raise BundleRejected(f"{name} has a path or an attribute of more than {_EXTENSION_LIMIT} bytes")
    content = b"".join(source.take(header.size))
    source.read(-header.size % _BLOCK)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(content.partition(b"\0")[0])}
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return {}
    records = dict(_records(name, content))
    if header.type != tarfile.XGLTYPE:
        return records
    if _GLOBAL_NONSENSE & records.keys():
        raise unreadable(name, "it gives all files one path or size")
    return {}


def _records(name: str, content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the records of a POSIX extension: `length keyword=value\\n`, the length being that of the whole record."""
    while content.strip(b"\0"):
        digits = content.partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        keyword, is_there, value = content[len(digits) + 1 : length - 1].partition(b"=")
        if not is_there or content[length - 1 : length] != b"\n":
            raise unreadable(name, "an attribute is not written as the format says")
        yield _text(keyword), _text(value)
        content = content[length:]


def _extended(header: tarfile.TarInfo, said: dict[str, str]) -> tarfile.TarInfo:
    if any(keyword.startswith("GNU.sparse.") for keyword in said):
        header.type = tarfile.GNUTYPE_SPARSE
    header.name = said.get("path", header.name)
    if header.isdir():
        header.name = header.name.rstrip("/")
    if "size" in said:
        header.size = int(said["size"])
        if header.size < 0:
            raise ValueError("a file has a negative size")
    return header


def _behind(name: str) -> BundleRejected:
    return BundleRejected(f"{name} has something behind its last file that is no file")


def unreadable(name: str, why: str) -> BundleRejected:
    """Return the error for what is no tar archive."""
    return BundleRejected(f"{name} is not a readable tar archive: {ascii(why)[1:-1][:200]}")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
