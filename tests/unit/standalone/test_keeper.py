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
    assert keeper.add_password(OWNER, "smart-role", HOSTILE, None)
    found = keeper.secret("shop", "smart-role")
    assert found
    assert found.uid == "u-1"
    assert {key: value.decode() for key, value in found.data.items()} == HOSTILE


def test_secret_that_is_there_is_not_added_again(keeper: Keeper) -> None:
    assert keeper.add_password(OWNER, "smart-role", {"password": "first"}, None)
    assert not keeper.add_password(OWNER, "smart-role", {"password": "second"}, None)
    found = keeper.secret("shop", "smart-role")
    assert found
    assert found.data == {"password": b"first"}


def test_password_is_replaced_with_the_word_for_it(keeper: Keeper) -> None:
    assert keeper.add_password(OWNER, "smart-role", {"password": "first"}, None)
    keeper.put_password(OWNER, "smart-role", HOSTILE, 'a "word": ü')
    found = keeper.secret("shop", "smart-role")
    assert found
    assert (found.uid, found.rotation) == ("u-1", 'a "word": ü')
    assert {key: value.decode() for key, value in found.data.items()} == HOSTILE


def test_folder_and_files_are_private_and_out_of_git(keeper: Keeper) -> None:
    previous = os.umask(0)
    try:
        keeper.add_password(OWNER, "smart-role", HOSTILE, None)
        keeper.put_connection(OWNER, "smart-db", HOSTILE, "i")
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


def test_folder_is_tried_before_anything_is_to_be_kept(tmp_path: Path, keeper: Keeper) -> None:
    keeper.check_writable()
    assert [path.name for path in keeper.folder.iterdir()] == [".gitignore"]
    assert keeper.is_new
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"nothing can be kept there"):
        Keeper(tmp_path / "file" / "kept").check_writable()


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        pytest.param("", 0o777, "others can write to it.*`chmod go-w ", id="folder for all"),
        pytest.param("", 0o770, "others can write to it", id="folder for a group"),
        pytest.param("shop.smart-role.secret.yaml", 0o644, "others can read it.*`chmod go= ", id="password for all"),
        pytest.param("shop.smart-role.secret.yaml", 0o640, "others can read it", id="password for a group"),
        pytest.param("shop.smart.status.yaml", 0o666, "others can write to it", id="status for all"),
    ],
)
def test_what_others_could_have_changed_or_read_is_refused(keeper: Keeper, name: str, mode: int, expected: str) -> None:
    keeper.put_connection(OWNER, "smart-role", HOSTILE, None)
    keeper.put_resource(OWNER, {"metadata": {"name": "smart", "namespace": "shop"}})
    path = keeper.folder / name
    path.chmod(mode)
    with pytest.raises(InputError, match=f"^{path}: {expected}"):
        Keeper(keeper.folder).check_private()
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_what_others_can_only_look_at_is_taken(keeper: Keeper) -> None:
    keeper.put_connection(OWNER, "smart-role", HOSTILE, None)
    keeper.put_resource(OWNER, {"metadata": {"name": "smart", "namespace": "shop"}})
    keeper.folder.chmod(0o755)
    (keeper.folder / "shop.smart.status.yaml").chmod(0o644)
    Keeper(keeper.folder).check_private()
