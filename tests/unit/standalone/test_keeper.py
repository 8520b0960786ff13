"""The folder that keeps Secrets and statuses: private, complete, never overwritten by accident."""

import os
import stat
from pathlib import Path

import pytest

from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.standalone.documents import InputError
from database_bootstrap.standalone.keeper import Keeper

OWNER = Owner(cluster="standalone", namespace="shop", name="smart", uid="u-1")
HOSTILE = {"password": "a\nb\r\n'\"{x}: \u20ac #", "username": "smart"}


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path / "kept")


def test_secret_comes_back_as_it_was(keeper: Keeper) -> None:
    assert keeper.add_secret(OWNER, "smart-role", "Opaque", HOSTILE)
    found = keeper.secret("shop", "smart-role")
    assert found
    assert found.uid == "u-1"
    assert {key: value.decode() for key, value in found.data.items()} == HOSTILE


def test_secret_that_is_there_is_not_added_again(keeper: Keeper) -> None:
    assert keeper.add_secret(OWNER, "smart-role", "Opaque", {"password": "first"})
    assert not keeper.add_secret(OWNER, "smart-role", "Opaque", {"password": "second"})
    found = keeper.secret("shop", "smart-role")
    assert found
    assert found.data == {"password": b"first"}


def test_folder_and_files_are_private_and_out_of_git(keeper: Keeper) -> None:
    previous = os.umask(0)
    try:
        keeper.add_secret(OWNER, "smart-role", "Opaque", HOSTILE)
        keeper.put_secret(OWNER, "smart-db", "Opaque", HOSTILE)
        keeper.put_resource(OWNER, {"metadata": {"name": "smart", "namespace": "shop"}})
    finally:
        os.umask(previous)
    assert stat.S_IMODE(keeper.folder.stat().st_mode) == 0o700
    files = sorted(path for path in keeper.folder.iterdir() if path.name != ".gitignore")
    assert [path.name for path in files] == [
        "shop.smart-db.secret.yaml",
        "shop.smart-role.secret.yaml",
        "shop.smart.status.yaml",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert (keeper.folder / ".gitignore").read_text() == "*\n"


def test_nothing_is_made_before_something_is_kept(keeper: Keeper) -> None:
    assert keeper.is_new
    assert keeper.secret("shop", "smart-role") is None
    assert keeper.resource(OWNER) is None
    assert not keeper.folder.exists()


def test_file_that_is_no_manifest_is_named(keeper: Keeper) -> None:
    keeper.folder.mkdir()
    (keeper.folder / "shop.smart.status.yaml").write_text("half a fi: [")
    with pytest.raises(InputError, match=r"shop\.smart\.status\.yaml"):
        keeper.resource(OWNER)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"nothing can be kept there"):
        Keeper(tmp_path / "file" / "kept").put_resource(OWNER, {})
