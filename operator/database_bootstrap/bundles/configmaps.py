"""ConfigMaps for a directory: plain keys where they do, a .tar.gz where they do not, several where one is too small."""

import base64
import gzip
import io
import json
import os
import re
import tarfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from database_bootstrap.bundles.archive import is_archive, is_junk
from database_bootstrap.bundles.bundle import File, bundle_of
from database_bootstrap.errors import BundleRejected

ARCHIVE_KEY = "bundle.tar.gz"
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
"""What the API server takes for a key (IsConfigMapKey in k8s.io/apimachinery), leading dots aside."""
_PLAIN_LIMIT = 240 * 1024
"""Bytes of the manifest as JSON. Client-side `kubectl apply`, which Argo CD uses too, keeps a copy of it in an
annotation, and the annotations of an object end at 256 KiB (TotalAnnotationSizeLimitB of k8s.io/apimachinery)."""
_ARCHIVE_LIMIT = 960 * 1024
"""Bytes of one archive; the values of a ConfigMap end at 1 MiB together."""


def config_maps_of(
    directory: Path, name: str, namespace: str | None, labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return ConfigMap manifests that hold the files of the directory; the same files give the same manifests."""
    files = bundle_of(_files_in(directory)).files
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {}) | {"labels": dict(labels)}
    plain = _plain(files, metadata)
    if plain is not None:
        return [plain]
    archives = list(_archives(files))
    names = [name] if len(archives) == 1 else [f"{name}-{number}" for number in range(1, len(archives) + 1)]
    return [
        _manifest(metadata | {"name": one}, binaryData={ARCHIVE_KEY: base64.b64encode(archive).decode()})
        for one, archive in zip(names, archives, strict=True)
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


def _plain(files: Sequence[File], metadata: Mapping[str, Any]) -> dict[str, Any] | None:
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
    manifest = _manifest(metadata, data=data)
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


def _archives(files: Sequence[File]) -> Iterator[bytes]:
    """Return as few archives as simple halving gives, each small enough for one ConfigMap."""
    archive = _archive(files)
    if len(archive) <= _ARCHIVE_LIMIT:
        yield archive
        return
    if len(files) == 1:
        raise BundleRejected(f"{files[0].path} alone does not fit into a ConfigMap, even compressed")
    for part in _halves(files):
        yield from _archives(part)


def _halves(files: Sequence[File]) -> tuple[Sequence[File], Sequence[File]]:
    sizes = list(accumulate(len(file.content) for file in files))
    cut = min(bisect_left(sizes, sizes[-1] / 2) + 1, len(files) - 1)
    return files[:cut], files[cut:]


def _archive(files: Sequence[File]) -> bytes:
    packed = io.BytesIO()
    # GNU format and fixed owner, mode and time: the same files always give the same bytes.
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for file in files:
            member = tarfile.TarInfo(file.path)
            member.size = len(file.content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(file.content))
    return gzip.compress(packed.getvalue(), compresslevel=9, mtime=0)


def _manifest(metadata: Mapping[str, Any], **content: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(metadata), **content}
