"""Sources: what a resource refers to → one bundle."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from database_bootstrap.bundles.archive import files_of_archive, is_archive
from database_bootstrap.bundles.bundle import BYTES_LIMIT, FILES_LIMIT, Bundle, File, bundle_of
from database_bootstrap.errors import BundleRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMapData:
    """What one ConfigMap holds; the values of `binary_data` are decoded."""

    name: str
    data: Mapping[str, str] = field(default_factory=dict)
    binary_data: Mapping[str, bytes] = field(default_factory=dict)


def bundle_of_inline(files: Iterable[tuple[str, str]]) -> Bundle:
    """Return the bundle of (path, content) pairs from the resource itself."""
    return bundle_of(File(path=path, content=_encoded(path, content)) for path, content in files)


def bundle_of_config_maps(maps: Sequence[ConfigMapData]) -> Bundle:
    """Return the files of all ConfigMaps together.

    A path that two of them have is refused, same bytes or not: whichever is dropped, or edited alone, would change
    what the other one seems to say.
    """
    merged: dict[str, tuple[str, File]] = {}
    size = 0
    for one in maps:
        for file in _files_of(one):
            size += len(file.content)
            if size > BYTES_LIMIT or len(merged) >= FILES_LIMIT:
                raise BundleRejected(
                    f"The ConfigMaps hold more than {BYTES_LIMIT} bytes or {FILES_LIMIT} files together"
                )
            if file.path in merged:
                raise BundleRejected(_conflict(file, merged[file.path], one.name))
            merged[file.path] = (one.name, file)
    if not merged:
        names = ", ".join(one.name for one in maps)
        raise BundleRejected(
            f"The source has no files: ConfigMap {names} is empty" if maps else "The source has no files"
        )
    return bundle_of(file for _, file in merged.values())


def _files_of(one: ConfigMapData) -> Iterable[File]:
    for key in sorted({**one.data, **one.binary_data}):
        if key in one.data:
            yield File(path=key, content=_encoded(key, one.data[key]))
        elif is_archive(key):
            yield from files_of_archive(f"{key} of ConfigMap {one.name}", one.binary_data[key])
        else:
            yield File(path=key, content=one.binary_data[key])


def _encoded(path: str, content: str) -> bytes:
    try:
        return content.encode()
    except UnicodeEncodeError:
        raise BundleRejected(f"{path} is not UTF-8 text") from None


def _conflict(file: File, first: tuple[str, File], second: str) -> str:
    where = f"twice in ConfigMap {second}" if first[0] == second else f"in the ConfigMaps {first[0]} and {second}"
    difference = "" if first[1].content == file.content else ", with different contents"
    return f"{file.path} is {where}{difference}"
