"""Sources: what a resource refers to → one bundle."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from database_bootstrap.bundles import parts
from database_bootstrap.bundles.archive import files_of_archive, is_archive
from database_bootstrap.bundles.bundle import (
    FILES_LIMIT,
    SCRIPTS,
    Allowance,
    Bundle,
    File,
    Limits,
    Packed,
    bundle_of,
)
from database_bootstrap.errors import BundleRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMapData:
    """What one ConfigMap holds; the values of `binary_data` are decoded."""

    name: str
    data: Mapping[str, str] = field(default_factory=dict)
    binary_data: Mapping[str, bytes] = field(default_factory=dict)
    part: str | None = None
    """What `bundle` says of it; None: written by hand."""


def bundle_of_inline(files: Iterable[tuple[str, str]]) -> Bundle:
    """Return the bundle of (path, content) pairs from the resource itself."""
    return bundle_of(File(path=path, content=_encoded(path, content)) for path, content in files)


def bundle_of_config_maps(maps: Sequence[ConfigMapData], limits: Limits = SCRIPTS) -> Bundle:
    """Return the files of all ConfigMaps together; this unpacks, and takes its time.

    A path that two of them have is refused, same bytes or not: whichever is dropped, or edited alone, would change
    what the other one seems to say. So are ConfigMaps that are not all of what `bundle` has written at a time.
    """
    parts.check((one.name, parts.parse(one.name, one.part)) for one in maps if one.part is not None)
    merged: dict[str, tuple[str, File | Packed]] = {}
    room = Allowance(limits)
    for one in maps:
        for file in _files_of(one, room):
            if file.path in merged:
                raise BundleRejected(_conflict(file, merged[file.path], one.name))
            merged[file.path] = (one.name, file)
    if not merged:
        names = ", ".join(one.name for one in maps)
        raise BundleRejected(
            f"The source has no files: ConfigMap {names} is empty" if maps else "The source has no files"
        )
    return bundle_of((file for _, file in merged.values()), limits)


def _files_of(one: ConfigMapData, room: Allowance) -> Iterable[File | Packed]:
    for key in sorted({**one.data, **one.binary_data}):
        if key not in one.data and is_archive(key):
            yield from files_of_archive(f"{key} of ConfigMap {one.name}", one.binary_data[key], room)
            continue
        file = File(path=key, content=_encoded(key, one.data[key]) if key in one.data else one.binary_data[key])
        if not room.grants(file.size):
            raise BundleRejected(f"The ConfigMaps hold more than {room.limits.held} bytes or {FILES_LIMIT} files")
        yield file


def _encoded(path: str, content: str) -> bytes:
    try:
        return content.encode()
    except UnicodeEncodeError:
        raise BundleRejected(f"{path} is not UTF-8 text") from None


def _conflict(file: File | Packed, first: tuple[str, File | Packed], second: str) -> str:
    where = f"twice in ConfigMap {second}" if first[0] == second else f"in the ConfigMaps {first[0]} and {second}"
    difference = "" if first[1].sha256 == file.sha256 else ", with different contents"
    return f"{file.path} is {where}{difference}"
