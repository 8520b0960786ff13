"""The folder that keeps Secrets and statuses between runs: private, and written so that no crash tears a file."""

import base64
import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from database_bootstrap.api import names
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.standalone import documents, manifests
from database_bootstrap.standalone.collection import SecretData, key_of, secret_data
from database_bootstrap.standalone.documents import Document, InputError

DEFAULT_FOLDER = ".dbbootstrap"
_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ANY = stat.S_IRWXG | stat.S_IRWXO


class Keeper:
    """Reads and writes one such folder; it is made when something is first kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_new = not folder.exists()

    def check_private(self) -> None:
        """Raise `InputError` where others can write to the folder, or read a password in it.

        What they may have put or read there is not made good by taking the right away, so nothing is repaired.
        """
        if self.is_new:
            return
        try:
            _refuse(self.folder, _WRITE, "others can write to it", "chmod go-w")
            for path in sorted(self.folder.glob(_secret_file("*", "*"))):
                _refuse(path, _ANY, "others can read it or write to it", "chmod go=")
            for path in sorted(self.folder.glob("*.status.yaml")):
                _refuse(path, _WRITE, "others can write to it", "chmod go-w")
        except OSError as error:
            raise InputError(f"{self.folder}: {error.strerror}") from None

    def check_writable(self) -> None:
        """Make the folder; raise `InputError` where nothing can be kept there."""
        with self._complete({}):
            pass

    def secret(self, namespace: str, name: str) -> SecretData | None:
        """Return a Secret that is kept, or None; raise `InputError` for a file that is none."""
        document = self._document(_secret_file(namespace, name))
        return secret_data(document) if document else None

    def add_password(self, owner: Owner, name: str, data: Mapping[str, str], rotation: str | None) -> bool:
        """Keep a new Secret of a password; return False where one of that name is kept already."""
        with self._complete(_password(owner, name, data, rotation)) as complete:
            try:
                os.link(complete, self.folder / _secret_file(owner.namespace, name))
            except FileExistsError:
                return False
        return True

    def put_password(self, owner: Owner, name: str, data: Mapping[str, str], rotation: str) -> None:
        """Keep the Secret of a password in place of one of that name."""
        self._put(_secret_file(owner.namespace, name), _password(owner, name, data, rotation))

    def put_connection(self, owner: Owner, name: str, data: Mapping[str, str], incarnation: str | None) -> None:
        """Keep the Secret for applications with the pin on it, in place of one of that name."""
        manifest = _secret(owner, name, names.CONNECTION_SECRET_TYPE, data)
        manifest["metadata"]["annotations"] |= {names.ANNOTATION_INCARNATION: incarnation} if incarnation else {}
        self._put(_secret_file(owner.namespace, name), manifest)

    def resource(self, owner: Owner) -> Mapping[str, Any] | None:
        """Return the resource as it was last applied, with its status, or None."""
        document = self._document(_status_file(owner))
        return document.manifest if document else None

    def put_resource(self, owner: Owner, manifest: Mapping[str, Any]) -> None:
        """Keep a resource with its status."""
        self._put(_status_file(owner), manifest)

    def _document(self, name: str) -> Document | None:
        path = self.folder / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        found = list(documents.parse(content, str(path), self.folder))
        if len(found) != 1:
            raise InputError(f"{path}: must hold one document")
        key_of(found[0])
        return found[0]

    def _put(self, name: str, manifest: Mapping[str, Any]) -> None:
        with self._complete(manifest) as complete:
            complete.replace(self.folder / name)

    @contextlib.contextmanager
    def _complete(self, manifest: Mapping[str, Any]) -> Iterator[Path]:
        """Give a complete file of mode 0600 that is on the disk; under which name it stays is up to the caller."""
        try:
            self._make_folder()
            descriptor, name = tempfile.mkstemp(prefix=".", suffix=".new", dir=self.folder)
            try:
                with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 an open descriptor
                    manifests.write([manifest], file)
                    file.flush()
                    os.fsync(file.fileno())
                yield Path(name)
                self._sync_folder()
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: nothing can be kept there: {error.strerror}") from None

    def _make_folder(self) -> None:
        if self.folder.exists():
            return
        self.folder.mkdir(mode=0o700, parents=True)
        # What is in here must not get into a repository, and nobody should have to think of that.
        (self.folder / ".gitignore").write_text("*\n")

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refuse(path: Path, rights: int, why: str, cure: str) -> None:
    if path.stat().st_mode & rights:
        raise InputError(f"{path}: {why}; look at who did, and then `{cure} {path}`")


def _secret_file(namespace: str, name: str) -> str:
    return f"{namespace}.{name}.secret.yaml"


def _status_file(owner: Owner) -> str:
    return f"{owner.namespace}.{owner.name}.status.yaml"


def _password(owner: Owner, name: str, data: Mapping[str, str], rotation: str | None) -> dict[str, Any]:
    manifest = _secret(owner, name, names.PASSWORD_SECRET_TYPE, data)
    manifest["metadata"]["annotations"] |= {names.ANNOTATION_ROTATED: rotation} if rotation else {}
    return manifest


def _secret(owner: Owner, name: str, kind: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": {names.LABEL_MANAGED_BY: names.OPERATOR},
            "annotations": {names.ANNOTATION_UID: owner.uid},
        },
        "type": kind,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
