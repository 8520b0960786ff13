"""Sources: several ConfigMaps, or the resource itself, become one bundle, and nothing wins by luck."""

import gzip
import io
import tarfile

import pytest

from database_bootstrap.bundles.bundle import FILES_LIMIT, File
from database_bootstrap.bundles.sources import ConfigMapData, bundle_of_config_maps, bundle_of_inline
from database_bootstrap.errors import BundleRejected


def tgz(*files: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in files:
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(packed.getvalue())


def test_plain_keys_and_archives_of_several_maps_are_merged() -> None:
    bundle = bundle_of_config_maps(
        [
            ConfigMapData(name="one", data={"b.sql": "ä"}, binary_data={"m.tar.gz": tgz(("d/c.sql", b"3"))}),
            ConfigMapData(name="two", binary_data={"m.tar.gz": tgz(("d/a.sql", b"1")), "raw.bin": b"\xff"}),
        ]
    )
    assert bundle.files == (
        File(path="b.sql", content="ä".encode()),
        File(path="d/a.sql", content=b"1"),
        File(path="d/c.sql", content=b"3"),
        File(path="raw.bin", content=b"\xff"),
    )


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        pytest.param(
            [ConfigMapData(name="one", data={"a": "1"}), ConfigMapData(name="two", data={"a": "2"})],
            "a is in the ConfigMaps one and two, with different contents",
            id="different bytes",
        ),
        pytest.param(
            [ConfigMapData(name="one", data={"a": "1"}), ConfigMapData(name="two", binary_data={"a": b"1"})],
            "a is in the ConfigMaps one and two",
            id="same bytes: editing one of them would not do what it says",
        ),
        pytest.param(
            [ConfigMapData(name="one", data={"a": "1"}, binary_data={"m.tgz": tgz(("a", b"1"))})],
            "a is twice in ConfigMap one",
            id="twice in one map",
        ),
        pytest.param(
            [ConfigMapData(name="one", binary_data={"m.tgz": tgz(("a", b"1"), ("a", b"2"))})],
            "a is twice in ConfigMap one, with different contents",
            id="twice in one archive",
        ),
        pytest.param(
            [ConfigMapData(name="one", binary_data={"m.tgz": b"no gzip"})],
            "m.tgz of ConfigMap one is not a gzip file",
            id="archive that is none",
        ),
        pytest.param([ConfigMapData(name="one")], "ConfigMap one is empty", id="empty map"),
        pytest.param([], "no files", id="no map"),
        pytest.param([ConfigMapData(name="one", data={"a": "\udc80"})], "not UTF-8", id="surrogate"),
    ],
)
def test_maps_that_do_not_make_a_bundle_are_refused(maps: list[ConfigMapData], said: str) -> None:
    with pytest.raises(BundleRejected) as caught:
        bundle_of_config_maps(maps)
    assert said in caught.value.message


def test_many_files_are_refused_while_they_are_unpacked() -> None:
    many = ConfigMapData(name="many", data={f"{number}": "" for number in range(FILES_LIMIT + 1)})
    with pytest.raises(BundleRejected, match="hold more than"):
        bundle_of_config_maps([many])


def test_inline_files_become_a_bundle() -> None:
    assert bundle_of_inline([("b/x.sql", "ä"), ("a.sql", "")]).files == (
        File(path="a.sql", content=b""),
        File(path="b/x.sql", content="ä".encode()),
    )
