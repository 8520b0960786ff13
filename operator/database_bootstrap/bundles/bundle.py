"""A bundle: the files of one source, in path order, with a digest."""

import hashlib
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


def bundle_of(files: Iterable[File]) -> Bundle:
    """Return the bundle of these files in byte order of their paths; raise `BundleRejected` for one that cannot be."""
    raise NotImplementedError
