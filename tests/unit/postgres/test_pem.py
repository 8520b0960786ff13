"""Certificates and keys as files: nobody else reads them, and nobody else has put them there."""

import stat
import sys
from pathlib import Path

import pytest

from database_bootstrap.postgres import pem


def test_file_is_readable_by_its_user_alone() -> None:
    path = Path(pem.file_of("a key"))
    assert path.read_text() == "a key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_each_text_has_one_file() -> None:
    assert pem.file_of("one") == pem.file_of("one")
    assert pem.file_of("one") != pem.file_of("another")


def test_certificates_that_are_not_used_any_more_are_removed() -> None:
    used = Path(pem.file_of("in use"))
    for number in range(3 * pem.LIMIT):
        pem.file_of(f"certificate {number}")
        assert pem.file_of("in use") == str(used)
    assert used.read_text() == "in use"
    assert len(list(used.parent.iterdir())) == pem.LIMIT


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has files without a name")
def test_key_is_in_no_folder() -> None:
    path = Path(pem.secret_file_of("a key"))
    assert path.parent == Path("/proc/self/fd")
    assert path.read_text() == path.read_text() == "a key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert pem.secret_file_of("a key") == str(path) != pem.secret_file_of("another")
