"""Where the parts of an Alembic project lie in a bundle; nothing of it is run."""

import configparser
import posixpath
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from database_bootstrap.bundles.bundle import Bundle, File
from database_bootstrap.errors import BundleRejected
from database_bootstrap.tools.alembic_graph import check_size, declares_revision
from database_bootstrap.tools.sandbox.wire import Project

_HERE = "/\0bundle"
"""Stands for the folder in which the files will lie, where `%(here)s` is written out; no path of a bundle has a NUL."""
_REVISION_FILE = re.compile(r"(?!\.\#|__init__).*\.py$")
"""What Alembic takes for a revision by its name (alembic/script/base.py, _only_source_rev_file)."""
_CONFIGURATION_LIMIT = 64 * 1024
"""Bytes; what it names is looked for among all files, and what reads it makes much of little."""
_SEPARATORS = {"space": " ", "newline": "\n", "os": ":", ":": ":", ";": ";"}
"""alembic/config.py, _get_file_separator_char."""

Files = Mapping[str, File]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A project, as it will lie in a folder, and which of its files are revisions."""

    project: Project
    files: tuple[File, ...]
    revisions: tuple[File, ...]
    """In the order in which Alembic lists them."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Where a file lies in the folder → where it came from, for those that had to move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Configuration:
    root: str
    config: str | None
    toml: str | None
    script_location: str | None
    version_locations: tuple[str, ...]
    recursive: bool
    search: tuple[str, ...]
    """prepend_sys_path."""


def find(bundle: Bundle) -> Layout:
    """Return the layout: as a configuration says, else by `versions` directories, else plain revision files."""
    files = {file.path: file for file in bundle.files}
    configuration = _configuration(files)
    if configuration is not None and (layout := _as_configured(files, configuration)):
        return layout
    return _by_convention(files, configuration) or _flat(files, configuration)


def _configuration(files: Files) -> _Configuration | None:
    """Return the topmost configuration; an alembic.ini and a pyproject.toml in one folder belong together."""
    inis = {posixpath.dirname(path): path for path in files if _is(path, "alembic.ini")}
    found = {posixpath.dirname(path): _toml(file) for path, file in files.items() if _is(path, "pyproject.toml")}
    tomls = {folder: values for folder, values in found.items() if values is not None}
    folders = sorted(sorted(inis.keys() | tomls.keys()), key=_depth)
    if not folders:
        return None
    root = folders[0]
    if len(folders) > 1 and _depth(folders[1]) == _depth(root):
        raise BundleRejected(f"The source has two Alembic configurations, in {folders[0]} and in {folders[1]}")
    options = _Options(_ini(files[inis[root]], root) if root in inis else None, tomls.get(root) or {}, root)
    return _Configuration(
        root=root,
        config=inis.get(root),
        toml=posixpath.join(root, "pyproject.toml") if root in tomls else None,
        script_location=options.text("script_location"),
        version_locations=options.many("version_locations", r", *|(?: +)", "path_separator", "version_path_separator"),
        recursive=options.flag("recursive_version_locations"),
        search=options.many("prepend_sys_path", r", *|(?: +)|\:", "path_separator") or (".",),
    )


def _is(path: str, name: str) -> bool:
    return posixpath.basename(path) == name


def _depth(folder: str) -> int:
    return folder.count("/") + 1 if folder else 0


def _toml(file: File) -> Mapping[str, Any] | None:
    """Return [tool.alembic], or None where there is none."""
    _check_size(file)
    try:
        values = tomllib.loads(file.text).get("tool", {}).get("alembic")
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        raise BundleRejected(f"{file.path} is not valid TOML: {error}") from None
    except RecursionError:
        raise BundleRejected(f"{file.path} is nested too deeply") from None
    return values if isinstance(values, dict) else None


def _check_size(file: File) -> None:
    if file.size > _CONFIGURATION_LIMIT:
        raise BundleRejected(f"{file.path} has {file.size} bytes; {_CONFIGURATION_LIMIT} are the limit of such a file")


def _ini(file: File, root: str) -> configparser.ConfigParser:
    _check_size(file)
    parser = configparser.ConfigParser({"here": posixpath.join(_HERE, root).rstrip("/")})
    try:
        parser.read_string(file.text, source=file.path)
    except configparser.Error as error:
        raise BundleRejected(f"{file.path} cannot be read: {' '.join(str(error).split())}") from None
    if not parser.has_section("alembic"):
        raise BundleRejected(f"{file.path} has no section [alembic]")
    return parser


class _Options:
    """Options as alembic.config.Config finds them: first in the ini file, then in pyproject.toml."""

    def __init__(self, ini: configparser.ConfigParser | None, toml: Mapping[str, Any], root: str) -> None:
        self._ini = ini
        self._toml = toml
        self._here = {"here": posixpath.join(_HERE, root).rstrip("/")}

    def text(self, name: str) -> str | None:
        value = self._from_ini(name)
        if value is not None:
            return value
        value = self._toml.get(name)
        return self._filled(name, value) if isinstance(value, str) else None

    def many(self, name: str, legacy: str, *separators: str) -> tuple[str, ...]:
        value = self._from_ini(name)
        if value:
            wanted = next((found for each in separators if (found := self._from_ini(each)) is not None), None)
            if wanted is None:
                return tuple(re.split(legacy, value))
            if wanted not in _SEPARATORS:
                raise BundleRejected(f"alembic.ini: {wanted!r} is no path_separator that Alembic knows")
            return tuple(part.strip() for part in value.split(_SEPARATORS[wanted]) if part.strip())
        listed = self._toml.get(name)
        return tuple(self._filled(name, str(each)) for each in (listed if isinstance(listed, list) else ()))

    def flag(self, name: str) -> bool:
        value = self._from_ini(name)
        return value == "true" if value is not None else self._toml.get(name) is True

    def _from_ini(self, name: str) -> str | None:
        if self._ini is None:
            return None
        try:
            return self._ini.get("alembic", name, fallback=None)
        except configparser.InterpolationError as error:
            raise BundleRejected(f"alembic.ini: {name}: {error.message}") from None

    def _filled(self, name: str, value: str) -> str:
        try:
            return value % self._here
        except (ValueError, KeyError, TypeError):
            raise BundleRejected(f"pyproject.toml: tool.alembic.{name} uses % for more than %(here)s") from None


def _as_configured(files: Files, configuration: _Configuration) -> Layout | None:
    """Return the layout, or None when the configuration's folder did not come with the source (flat ConfigMap keys)."""
    if configuration.script_location is None:
        return None
    location = _place(files, configuration, configuration.script_location)
    named = tuple(_place(files, configuration, each) for each in configuration.version_locations)
    folders = named or (posixpath.join(location, "versions"),)
    if not any(_below(files, folder) for folder in (location, *folders)):
        return None
    environment = posixpath.join(location, "env.py")
    return Layout(
        project=Project(
            root=configuration.root,
            config=configuration.config,
            toml=configuration.toml,
            script_location=None,
            version_locations=folders,
            recursive=configuration.recursive,
            environment=environment if environment in files else None,
        ),
        files=tuple(files.values()),
        revisions=tuple(_revision_files(files, folders, configuration.recursive)),
    )


def _place(files: Files, configuration: _Configuration, location: str) -> str:
    """Return the folder that a configuration means by a path, or by `package:path` (alembic/util/pyfiles.py)."""
    if not posixpath.isabs(location) and ":" in location:
        package, *parts = location.split(":")
        below = posixpath.join(package.replace(".", "/"), *parts)
        places = [_inside(posixpath.join(configuration.root, each, below), location) for each in configuration.search]
        return next((each for each in places if _below(files, each)), places[0])
    return _inside(posixpath.join(configuration.root, location), location)


def _inside(path: str, said: str) -> str:
    path = posixpath.normpath(path.removeprefix(f"{_HERE}/") if path != _HERE else ".")
    if path.startswith(("/", "../")) or path == "..":
        raise BundleRejected(f"Alembic's configuration names {said}, which lies outside of the source")
    return "" if path == "." else path


def _below(files: Files, folder: str) -> bool:
    return not folder or any(path.startswith(f"{folder}/") for path in files)


def _revision_files(files: Files, folders: Iterable[str], recursive: bool) -> Iterator[File]:
    """Yield in Alembic's order: the files of a folder by name, then those below (ScriptDirectory._load_revisions)."""
    seen: set[str] = set()
    for folder in folders:
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in files if path.startswith(prefix) and path not in seen]
        if not recursive:
            inside = [path for path in inside if "/" not in path.removeprefix(prefix)]
        for path in sorted(inside, key=lambda each: (posixpath.dirname(each).split("/"), posixpath.basename(each))):
            seen.add(path)
            if _REVISION_FILE.match(posixpath.basename(path)):
                yield files[path]


def _by_convention(files: Files, configuration: _Configuration | None) -> Layout | None:
    """Return the layout of a script directory that came without its configuration: `versions`, and perhaps env.py."""
    folders = {posixpath.dirname(path) for path in files if path.endswith(".py")}
    homes = [posixpath.dirname(each) for each in folders if posixpath.basename(each) == "versions"]
    with_environment = [each for each in homes if posixpath.join(each, "env.py") in files]
    homes = sorted(with_environment or homes)
    if not homes:
        return None
    if len(homes) > 1:
        raise BundleRejected(
            f"The source has several Alembic projects ({', '.join(map(repr, homes))}) and no alembic.ini"
        )
    versions = posixpath.join(homes[0], "versions")
    environment = posixpath.join(homes[0], "env.py")
    return Layout(
        project=Project(
            root=configuration.root if configuration else "",
            config=configuration.config if configuration else None,
            toml=configuration.toml if configuration else None,
            script_location=homes[0],
            version_locations=(versions,),
            recursive=False,
            environment=environment if environment in files else None,
        ),
        files=tuple(files.values()),
        revisions=tuple(_revision_files(files, (versions,), recursive=False)),
    )


def _flat(files: Files, configuration: _Configuration | None) -> Layout:
    """Return the layout of revisions that lie beside each other, as the keys of a ConfigMap must.

    Alembic takes every file of a `versions` directory for a revision, so they are moved into one.
    """
    python = [file for path, file in files.items() if _REVISION_FILE.match(posixpath.basename(path))]
    check_size(python)
    found = {file.path for file in python if posixpath.basename(file.path) != "env.py" and declares_revision(file)}
    folders = sorted({posixpath.dirname(path) for path in found})
    if len(folders) > 1:
        raise BundleRejected(
            f"Revisions lie in {folders[0] or 'the top folder'} and in {folders[1]}, and no alembic.ini says where"
        )
    home = folders[0] if folders else ""
    moved = {path: posixpath.join(home, "versions", posixpath.basename(path)) for path in found}
    environment = posixpath.join(home, "env.py")
    placed = {moved.get(path, path): file for path, file in files.items()}
    return Layout(
        project=Project(
            root=configuration.root if configuration else home,
            config=configuration.config if configuration else None,
            toml=configuration.toml if configuration else None,
            script_location=home,
            version_locations=(posixpath.join(home, "versions"),),
            recursive=False,
            environment=environment if environment in files else None,
        ),
        files=tuple(File(path=path, content=file.content) for path, file in placed.items()),
        revisions=tuple(files[path] for path in sorted(found)),
        moved={there: path for path, there in moved.items()},
    )
