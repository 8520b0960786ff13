"""ConfigMaps for a directory: plain keys where they do, a .tar.gz where they do not, several where one is too small."""

import base64
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from database_bootstrap.bundles.archive import is_archive, is_junk
from database_bootstrap.bundles.bundle import DATA, File, bundle_of, is_table
from database_bootstrap.bundles.parts import Part
from database_bootstrap.bundles.tables import parts_of
from database_bootstrap.errors import BundleRejected

ARCHIVE_KEY = "bundle.tar.gz"
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
"""What the API server takes for a key (IsConfigMapKey in k8s.io/apimachinery), leading dots aside."""
_PLAIN_LIMIT = 240 * 1024
"""Bytes of the manifest as JSON. Client-side `kubectl apply`, which Argo CD uses too, keeps a copy of it in an
annotation, and the annotations of an object end at 256 KiB (TotalAnnotationSizeLimitB of k8s.io/apimachinery)."""
_ARCHIVE_LIMIT = 960 * 1024
"""Bytes of one archive; the values of a ConfigMap end at 1 MiB together."""
_ARCHIVE_AIM = 900 * 1024
_MAPS_LIMIT = 64
"""Of `source.configMapRefs`."""


def config_maps_of(
    directory: Path, name: str, namespace: str | None, labels: Mapping[str, str], annotation: str
) -> list[dict[str, Any]]:
    """Return ConfigMap manifests that hold the files of the directory; the same files give the same manifests.

    The annotation of this name says which part of the whole each one is.
    """
    files = bundle_of(_files_in(directory), DATA).files
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {}) | {"labels": dict(labels)}
    plain = _plain(files, metadata, annotation)
    if plain is not None:
        return [plain]
    # In a directory of anything else a table may be what some code looks for under its name.
    archives = list(_archives(files, cuts=all(file.path.lower().endswith((".csv", ".sql")) for file in files)))
    if len(archives) > _MAPS_LIMIT:
        raise BundleRejected(f"The files need {len(archives)} ConfigMaps; a resource can list {_MAPS_LIMIT}")
    names = [name] if len(archives) == 1 else [f"{name}-{number}" for number in range(1, len(archives) + 1)]
    marks = _marks(name, archives)
    return [
        _manifest(
            metadata | {"name": one, "annotations": {annotation: mark}},
            binaryData={ARCHIVE_KEY: base64.b64encode(archive).decode()},
        )
        for one, mark, archive in zip(names, marks, archives, strict=True)
    ]


def is_too_large_for_client_side_apply(manifest: dict[str, Any]) -> bool:
    """Return whether `kubectl apply` without `--server-side` would be refused, for the copy that it keeps."""
    return _size_of(manifest) > _PLAIN_LIMIT


def _marks(name: str, contents: Sequence[bytes]) -> list[str]:
    """Return what each of the ConfigMaps says of its part; the digest is of what they hold, however that was cut."""
    sha = hashlib.sha256()
    for content in contents:
        sha.update(hashlib.sha256(content).digest())
    digest = f"sha256:{sha.hexdigest()}"
    return [
        str(Part(bundle=name, number=number, total=len(contents), digest=digest))
        for number in range(1, len(contents) + 1)
    ]


def _files_in(directory: Path) -> Iterator[File]:
    if not directory.is_dir():
        raise BundleRejected(f"{directory} is not a directory")
    root = directory.resolve()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(one for one in folders if not _is_ignored(one))
        kept = sorted(one for one in names if not _is_ignored(one))
        for path in (Path(folder, one) for one in folders + kept):
            if path.is_symlink():
                _check_link(path, root)
        for path in (Path(folder, one) for one in kept):
            yield File(path=path.relative_to(root).as_posix(), content=_read(path))


def _check_link(path: Path, root: Path) -> None:
    """Refuse links: one to a directory could go in circles, and one out of it would publish somebody's file."""
    target = path.resolve()
    if not target.is_relative_to(root):
        raise BundleRejected(f"{path.relative_to(root)} is a link out of the directory")
    if target.is_dir():
        raise BundleRejected(f"{path.relative_to(root)} is a link to a directory")


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise BundleRejected(f"{path.name} is not a regular file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleRejected(f"{path.name} cannot be read: {error.strerror}") from None


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__" or name.endswith(".pyc") or is_junk(name)


def _plain(files: Sequence[File], metadata: Mapping[str, Any], annotation: str) -> dict[str, Any] | None:
    """Return a manifest that people can read and diff, or None where the files do not go into one."""
    keys = _keys_of(files)
    if keys is None or sum(len(file.content) for file in files) > _PLAIN_LIMIT:
        return None
    data = {}
    for key, file in zip(keys, files, strict=True):
        try:
            data[key] = file.content.decode()
        except UnicodeDecodeError:
            return None
    (mark,) = _marks(metadata["name"], [json.dumps(data).encode()])
    manifest = _manifest({**metadata, "annotations": {annotation: mark}}, data=data)
    return manifest if _size_of(manifest) <= _PLAIN_LIMIT else None


def _size_of(manifest: dict[str, Any]) -> int:
    """Return the bytes of the manifest as Go writes it: `<`, `>` and `&` take six bytes each."""
    text = json.dumps(manifest, ensure_ascii=False)
    return len(text.encode()) + 5 * sum(text.count(character) for character in "<>&")


def _keys_of(files: Sequence[File]) -> list[str] | None:
    """Return the files' names as keys; for Prisma's directories, `<name>.sql` stands for `<name>/migration.sql`."""
    paths = [file.path for file in files]
    if any(path.endswith("/migration.sql") for path in paths):
        if not all(path.endswith("/migration.sql") or path == "migration_lock.toml" for path in paths):
            return None
        paths = [path.removesuffix("/migration.sql") + ".sql" if "/" in path else path for path in paths]
    # A data key that is called like an archive would be read back as a plain file only by luck.
    # `migration.sql` would stand for nothing.
    fits = all(_KEY.fullmatch(path) and not is_archive(path) and path != "migration.sql" for path in paths)
    return paths if fits and len({path.casefold() for path in paths}) == len(paths) else None


def _archives(files: Sequence[File], *, cuts: bool) -> Iterator[bytes]:
    """Yield few archives, each small enough for one ConfigMap."""
    archive = _archive(files)
    if len(archive) <= _ARCHIVE_LIMIT:
        yield archive
        return
    shares = _shares(files, ceil(len(archive) / _ARCHIVE_AIM), cuts=cuts)
    if len(shares) == 1:
        raise BundleRejected(
            f"{files[0].path} alone does not fit into a ConfigMap, even compressed: cut it into several"
        )
    for share in shares:
        yield from _archives(share, cuts=cuts)


def _shares(files: Sequence[File], count: int, *, cuts: bool) -> list[list[File]]:
    """Return the files in about so many shares of about the same size; tables that are larger are cut between rows."""
    size = ceil(sum(file.size for file in files) / max(count, 2))
    pieces = [piece for file in files for piece in (parts_of(file, size) if cuts and is_table(file.path) else [file])]
    shares, room = [[pieces[0]]], size - pieces[0].size
    for piece in pieces[1:]:
        # The next one begins where more than half of the file would be too much.
        if room < piece.size / 2:
            shares.append([])
            room = size
        shares[-1].append(piece)
        room -= piece.size
    return shares


def _archive(files: Sequence[File]) -> bytes:
    # GNU format and fixed owner, mode and time: the same files always give the same bytes.
    packer = zlib.compressobj(9, wbits=31)
    packed = io.BytesIO()
    for file in files:
        member = tarfile.TarInfo(file.path)
        member.size, member.mode = file.size, 0o644
        packed.write(packer.compress(member.tobuf(tarfile.GNU_FORMAT)))
        packed.write(packer.compress(file.content))
        packed.write(packer.compress(bytes(-file.size % tarfile.BLOCKSIZE)))
    packed.write(packer.compress(bytes(2 * tarfile.BLOCKSIZE)))
    packed.write(packer.flush())
    return packed.getvalue()


def _manifest(metadata: Mapping[str, Any], **content: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(metadata), **content}
