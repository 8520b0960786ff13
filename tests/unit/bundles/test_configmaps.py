"""ConfigMaps for a directory: what is written reads back as the same files, in every shape that it can take."""

import base64
import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from database_bootstrap.bundles.bundle import DATA, SCRIPTS, Bundle, File, Limits, bundle_of
from database_bootstrap.bundles.configmaps import config_maps_of, is_too_large_for_client_side_apply
from database_bootstrap.bundles.parts import parse
from database_bootstrap.bundles.sources import ConfigMapData, bundle_of_config_maps
from database_bootstrap.bundles.tables import table_of
from database_bootstrap.errors import BundleRejected, ReferenceNotFound
from database_bootstrap.tools.prisma import Prisma

MEBIBYTE = 1024 * 1024
LABELS = {"example.com/acts": "true"}
MARK = "example.com/part"


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


def read_back(manifests: list[dict[str, Any]], limits: Limits = SCRIPTS) -> Bundle:
    assert all(size_of(one) <= MEBIBYTE for one in manifests)
    return bundle_of_config_maps(
        [
            ConfigMapData(
                name=one["metadata"]["name"],
                data=one.get("data", {}),
                binary_data={key: base64.b64decode(value) for key, value in one.get("binaryData", {}).items()},
                part=one["metadata"]["annotations"].get(MARK),
            )
            for one in manifests
        ],
        limits,
    )


def size_of(manifest: dict[str, Any]) -> int:
    """Return what the API server counts (ValidateConfigMap): the values, decoded."""
    binary = sum(len(base64.b64decode(value)) for value in manifest.get("binaryData", {}).values())
    return binary + sum(len(value.encode()) for value in manifest.get("data", {}).values())


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_small_directory_is_readable(tmp_path: Path) -> None:
    write(tmp_path, {"1_a.sql": b"SELECT 'a';\n", "2_b.sql": "SELECT 'ä';".encode()})
    (made,) = config_maps_of(tmp_path, "shop", "team", LABELS, MARK)
    part = parse("shop", made["metadata"].pop("annotations")[MARK])
    assert (part.bundle, part.number, part.total) == ("shop", 1, 1)
    assert made == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "shop", "namespace": "team", "labels": LABELS},
        "data": {"1_a.sql": "SELECT 'a';\n", "2_b.sql": "SELECT 'ä';"},
    }


def test_without_a_namespace_none_is_written(tmp_path: Path) -> None:
    (manifest,) = config_maps_of(write(tmp_path, {"1_a.sql": b""}), "shop", None, LABELS, MARK)
    assert manifest["metadata"].keys() == {"name", "labels", "annotations"}


def test_prisma_directories_become_flat_keys(tmp_path: Path) -> None:
    files = {
        "20240101000000_init/migration.sql": b"SELECT 1;",
        "20240102000000_Add.Column/migration.sql": b"SELECT 2;",
        "migration_lock.toml": b'provider = "postgresql"',
    }
    (manifest,) = config_maps_of(write(tmp_path, files), "shop", None, LABELS, MARK)
    assert sorted(manifest["data"]) == [
        "20240101000000_init.sql",
        "20240102000000_Add.Column.sql",
        "migration_lock.toml",
    ]
    source = Prisma().load(read_back([manifest]))
    assert source == Prisma().load(bundle_of(File(path=path, content=text) for path, text in files.items()))


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"2024 add Users.v2/migration.sql": b"SELECT 1"}, id="blank in a directory's name"),
        pytest.param({"ünï/migration.sql": b"SELECT 1"}, id="letters that no key has"),
        pytest.param({"a/migration.sql": b"1", "a/README.md": b"2"}, id="more than the script in a directory"),
        pytest.param({"a/migration.sql": b"1", "a.sql": b"2"}, id="two for one flat key"),
        pytest.param({"migration/migration.sql": b"1"}, id="flat key without a name"),
        pytest.param({"env.py": b"1", "versions/001_a.py": b"2"}, id="Alembic"),
        pytest.param({"a.sql": b"\xff\xfe"}, id="not UTF-8"),
        pytest.param({"x.tar.gz": b"no archive at all"}, id="a name like an archive's"),
        pytest.param({f"{n}.sql": b"-- <&>\n" * 40 for n in range(434)}, id="longer as Go writes it"),
        pytest.param({f"{n}.sql": b"SELECT 1;" * 1000 for n in range(434)}, id="3.7 MB that compress well"),
    ],
)
def test_directory_that_does_not_fit_as_text_is_compressed(tmp_path: Path, files: dict[str, bytes]) -> None:
    (manifest,) = config_maps_of(write(tmp_path, files), "shop", None, LABELS, MARK)
    assert "data" not in manifest
    assert {file.path: file.content for file in read_back([manifest]).files} == files


def test_readable_one_goes_through_client_side_apply(tmp_path: Path) -> None:
    files = {f"{n}.sql": b"SELECT \"x\" <> '';\n" * 50 for n in range(150)}
    (manifest,) = config_maps_of(write(tmp_path, files), "shop", None, LABELS, MARK)
    assert "data" in manifest
    # What kubectl keeps as last-applied-configuration, with the characters that Go escapes.
    assert len(json.dumps(manifest).replace("<", "<".ljust(6)).replace(">", ">".ljust(6))) < 256 * 1024


def test_directory_that_is_too_large_compressed_is_split(tmp_path: Path) -> None:
    files = {f"d {n}/x.sql": noise(300_000 + n) for n in range(12)}
    manifests = config_maps_of(write(tmp_path, files), "shop", None, LABELS, MARK)
    assert [one["metadata"]["name"] for one in manifests] == [f"shop-{n + 1}" for n in range(len(manifests))]
    assert len(manifests) in (4, 5, 6)
    assert all(one["metadata"]["labels"] == LABELS for one in manifests)
    assert {file.path: file.content for file in read_back(manifests).files} == files
    with pytest.raises(BundleRejected, match=f"has {len(manifests)} ConfigMaps, and configMapRefs lacks shop-2; "):
        read_back([one for one in manifests if one["metadata"]["name"] != "shop-2"])


def test_config_maps_of_two_runs_are_no_whole_until_all_are_written(tmp_path: Path) -> None:
    files = {f"{n}.sql": noise(600_000 + n) for n in range(3)}
    old = config_maps_of(write(tmp_path, files), "shop", None, LABELS, MARK)
    new = config_maps_of(write(tmp_path, {"2.sql": b"corrected"}), "shop", None, LABELS, MARK)
    extra = config_maps_of(write(tmp_path / "more", {"3.sql": b"SELECT 3"}), "extra", None, LABELS, MARK)
    with pytest.raises(ReferenceNotFound, match=r"different runs of `bundle`: shop-1 \(1/3\), shop-2 \(2/3\)"):
        read_back([*new[:1], *old[1:], *extra])
    assert len(read_back([*new, *extra]).files) == 4
    by_hand = dict(new[1], metadata={"name": "shop-2", "annotations": {}})
    with pytest.raises(BundleRejected, match="lacks shop-2"):
        read_back([new[0], by_hand, *new[2:]])
    with pytest.raises(BundleRejected, match=r"ConfigMap extra says .* is not what `bundle` writes"):
        read_back([dict(extra[0], metadata={"name": "extra", "annotations": {MARK: "extra;0/1"}})])


def test_table_that_is_too_large_is_cut_between_rows(tmp_path: Path) -> None:
    header = b'id,"a\nb"\r\n'
    words = noise(6000 * 400).hex()
    rows = [b'%d,"%s ""\n""\r\n"\r\n' % (n, words[n * 800 : n * 800 + 800].encode()) for n in range(6000)]
    write(tmp_path, {"1.sql": b"SELECT 1", "big.CSV": b"\xef\xbb\xbf" + header + b"".join(rows), "c.csv": b"id\n1\n"})
    manifests = config_maps_of(tmp_path, "shop", None, LABELS, MARK)
    assert 3 <= len(manifests) <= 6
    assert all(is_too_large_for_client_side_apply(one) for one in manifests[:-1])
    (first, *parts, last) = read_back(manifests, DATA).in_order
    assert (first.path, last.path) == ("1.sql", "c.csv")
    contents = [b"".join(part.blocks()) for part in parts]
    assert len(parts) > 1 and {table_of(part.path, "app") for part in parts} == {("app", "big")}
    assert all(content.startswith(header) for content in contents)
    cells = [list(csv.reader(io.StringIO(content.decode(), newline=""))) for content in contents]
    assert {len(row) for table in cells for row in table} == {2}
    assert b"".join(content.removeprefix(header) for content in contents) == b"".join(rows)


def test_table_beside_code_is_not_cut(tmp_path: Path) -> None:
    write(tmp_path, {"env.py": b"", "big.csv": b"id\n" + b"%d\n" * 3 + noise(MEBIBYTE).hex().encode() + b"\n2\n"})
    with pytest.raises(BundleRejected, match=r"big\.csv alone does not fit"):
        config_maps_of(tmp_path, "shop", None, LABELS, MARK)


def test_row_that_no_config_map_can_hold_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"big.csv": b"id\n1\n" + noise(2 * MEBIBYTE).hex().encode()})
    with pytest.raises(BundleRejected, match=r"big\.csv alone does not fit"):
        config_maps_of(tmp_path, "shop", None, LABELS, MARK)


def test_file_that_no_config_map_can_hold_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"big.sql": noise(2 * MEBIBYTE), "small.sql": b""})
    with pytest.raises(BundleRejected, match=r"big\.sql alone does not fit"):
        config_maps_of(tmp_path, "shop", None, LABELS, MARK)


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    files = {"a b/x.sql": b"1", "c/y.sql": b"2"}
    first = config_maps_of(write(tmp_path / "one", files), "shop", None, LABELS, MARK)
    (tmp_path / "two").mkdir()
    second = config_maps_of(write(tmp_path / "two", dict(reversed(files.items()))), "shop", None, LABELS, MARK)
    assert first == second
    # No time of day in the header of the gzip (RFC 1952).
    assert base64.b64decode(first[0]["binaryData"]["bundle.tar.gz"])[4:8] == bytes(4)


def test_what_is_no_source_is_passed_over(tmp_path: Path) -> None:
    junk = [".git/config", ".env", "__pycache__/a.pyc", "x/__pycache__/b.pyc", "c.pyc", "._d.sql", ".DS_Store"]
    write(tmp_path, dict.fromkeys(junk, b"secret") | {"x/1_a.sql": b"1"})
    (tmp_path / ".hidden").symlink_to("/etc/passwd")
    (manifest,) = config_maps_of(tmp_path, "shop", None, LABELS, MARK)
    assert [file.path for file in read_back([manifest]).files] == ["x/1_a.sql"]


def test_link_within_the_directory_is_followed(tmp_path: Path) -> None:
    write(tmp_path, {"1_a.sql": b"1"})
    (tmp_path / "2_b.sql").symlink_to("1_a.sql")
    (manifest,) = config_maps_of(tmp_path, "shop", None, LABELS, MARK)
    assert manifest["data"] == {"1_a.sql": "1", "2_b.sql": "1"}


@pytest.mark.parametrize(
    ("target", "said"),
    [
        pytest.param("/etc/passwd", "link out of the directory", id="file outside"),
        pytest.param("../outside", "link out of the directory", id="directory outside"),
        pytest.param(".", "link to a directory", id="in a circle"),
        pytest.param("nowhere.sql", "not a regular file", id="to nothing"),
    ],
)
def test_link_that_leads_astray_is_refused(tmp_path: Path, target: str, said: str) -> None:
    write(tmp_path, {"outside/secret": b"1", "inside/1_a.sql": b"1"})
    (tmp_path / "inside" / "link.sql").symlink_to(target)
    with pytest.raises(BundleRejected) as caught:
        config_maps_of(tmp_path / "inside", "shop", None, LABELS, MARK)
    assert said in caught.value.message


@pytest.mark.parametrize("name", ["empty", "missing", "file"])
def test_what_is_no_directory_of_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleRejected):
        config_maps_of(tmp_path / name, "shop", None, LABELS, MARK)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.lists(st.text("aB._- ä1", min_size=1, max_size=8), min_size=1, max_size=3).map("/".join),
        st.binary(max_size=200) | st.text(max_size=100).map(str.encode),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_written_reads_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    try:
        wanted = bundle_of(File(path=path, content=content) for path, content in files.items())
    except BundleRejected:
        return
    if any(part.startswith(".") for path in files for part in path.split("/")):
        return
    directory = write(tmp_path_factory.mktemp("files"), files)
    assert read_back(config_maps_of(directory, "shop", None, LABELS, MARK)) == wanted
