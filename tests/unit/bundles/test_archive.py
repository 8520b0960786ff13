"""Archives: files come out as they went in; every trick is refused, and none costs memory."""

import gzip
import io
import random
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.bundles.archive import files_of_archive
from database_bootstrap.bundles.bundle import DATA, PACKED_FROM, SCRIPTS, Allowance, File, Limits, Packed, bundle_of
from database_bootstrap.errors import BundleRejected

MEBIBYTE = 1024 * 1024


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return packed.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def refused(content: bytes, limits: Limits = SCRIPTS) -> str:
    with pytest.raises(BundleRejected) as caught:
        files_of_archive("m.tar.gz", content, Allowance(limits))
    assert caught.value.message.startswith("m.tar.gz ") or caught.value.message.startswith("The path ")
    return caught.value.message


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_come_out_as_they_went_in(form: int) -> None:
    directory = special("migrations", tarfile.DIRTYPE)
    long = "migrations/" + "x" * 90 + "/y.sql"
    content = gzip.compress(tar(directory, ("./a.sql", b"1"), (long, b"\0\xff"), ("empty", b""), form=form))
    assert files_of_archive("m.tar.gz", content) == (
        File(path="a.sql", content=b"1"),
        File(path=long, content=b"\0\xff"),
        File(path="empty", content=b""),
    )


@pytest.mark.parametrize(
    ("member", "said"),
    [
        pytest.param(special("a", tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link", id="symbolic link"),
        pytest.param(special("a", tarfile.SYMTYPE, "b"), "a symbolic link", id="symbolic link within"),
        pytest.param(special("a", tarfile.LNKTYPE, "b"), "a hard link", id="hard link"),
        pytest.param(special("a", tarfile.CHRTYPE), "a device", id="character device"),
        pytest.param(special("a", tarfile.BLKTYPE), "a device", id="block device"),
        pytest.param(special("a", tarfile.FIFOTYPE), "a pipe", id="pipe"),
        pytest.param(special("a", b"Z"), "of an unknown kind", id="unknown kind"),
        pytest.param(special("a", tarfile.GNUTYPE_SPARSE), "a sparse file", id="sparse file"),
        pytest.param(("/etc/passwd", b""), "is absolute", id="absolute"),
        pytest.param(("../a.sql", b""), "part . or ..", id="outside"),
        pytest.param(("a/../../b", b""), "part . or ..", id="outside, hidden"),
        pytest.param(special("../a", tarfile.DIRTYPE), "part . or ..", id="directory outside"),
        pytest.param(("a\nb", b""), "control characters", id="newline"),
        pytest.param(("a\\b", b""), "backslash", id="backslash"),
    ],
)
def test_member_that_no_migration_needs_is_refused(member: tuple[str, bytes] | tarfile.TarInfo, said: str) -> None:
    assert said in refused(gzip.compress(tar(("ok.sql", b""), member)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda _: b"", "not a readable tar", id="nothing"),
        pytest.param(lambda _: b"not gzip", "not a gzip file", id="no gzip"),
        pytest.param(lambda _: gzip.compress(b"not tar" * 100), "not a readable tar", id="no tar"),
        pytest.param(lambda whole: whole[:-20], "cut off", id="gzip cut off"),
        pytest.param(lambda whole: whole[:30] + b"\xff\xff\xff" + whole[33:], "not a gzip file", id="gzip damaged"),
        pytest.param(lambda whole: gzip.compress(gzip.decompress(whole)[:700]), "", id="tar cut off"),
        pytest.param(
            lambda whole: gzip.compress(gzip.decompress(whole) + b"x" * 512), "behind", id="more behind the end"
        ),
        pytest.param(lambda whole: whole + b"trailing", "not a gzip file", id="more behind the gzip"),
        pytest.param(
            lambda _: gzip.compress(tar(("a", b"1")).rstrip(b"\0") + bytes(511) + b"broken header" * 100),
            "behind",
            id="damaged header, which tarfile takes for the end",
        ),
    ],
)
def test_damaged_archive_is_refused(spoil: Callable[[bytes], bytes], said: str) -> None:
    assert said in refused(spoil(gzip.compress(tar(("a.sql", bytes(600)), ("b.sql", b"2")))))


def test_several_gzip_members_are_one_archive() -> None:
    whole = tar(("a.sql", b"1"))
    content = gzip.compress(whole[:100]) + gzip.compress(whole[100:]) + bytes(7)
    assert files_of_archive("m.tar.gz", content) == (File(path="a.sql", content=b"1"),)


def test_what_desktops_leave_behind_is_passed_over() -> None:
    junk = ["._a.sql", "x/._b.sql", ".DS_Store", "__MACOSX/x", "pax_global_header"]
    content = gzip.compress(tar(("a.sql", b"1"), *((path, b"junk") for path in junk)))
    assert [file.path for file in files_of_archive("m.tgz", content)] == ["a.sql"]


def bomb(size: int, name: str) -> bytes:
    """Return a .tar.gz of one file of zeros, made a piece at a time."""
    info = tarfile.TarInfo(name)
    info.size = size
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(info.tobuf(tarfile.GNU_FORMAT))
    piece = bytes(1024 * 1024)
    packed += b"".join(packer.compress(piece) for _ in range(size // len(piece)))
    return packed + packer.flush()


@pytest.mark.parametrize("held", [1, 4 * MEBIBYTE], ids=["data", "scripts"])
def test_what_is_skipped_takes_room_all_the_same(held: int) -> None:
    # Below the ratio at which one archive is refused by itself; a source has up to 64.
    junk = gzip.compress(tar(("._a", random.Random(1).randbytes(MEBIBYTE // 64) * 64)))
    room = Allowance(Limits(held=held, total=4 * MEBIBYTE))
    for _ in range(4):
        assert files_of_archive("m.tar.gz", junk, room) == ()
    with pytest.raises(BundleRejected, match=r"^m\.tar\.gz unpacks to more than is allowed"):
        files_of_archive("m.tar.gz", junk, room)


@pytest.mark.parametrize("name", ["zeros.sql", "zeros.csv", "._junk"])
def test_bomb_is_refused_without_unfolding(name: str) -> None:
    content = bomb(128 * MEBIBYTE, name)
    assert len(content) < 300_000
    tracemalloc.start()
    try:
        assert "unpacks to more than" in refused(content, DATA)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_limit_is_that_of_all_archives_together() -> None:
    room = Allowance(Limits(held=2000, total=2000))
    assert files_of_archive("a.tar.gz", gzip.compress(tar(("a.csv", bytes(1500)))), room)
    with pytest.raises(BundleRejected, match=r"^b\.tar\.gz unpacks to more than is allowed"):
        files_of_archive("b.tar.gz", gzip.compress(tar(("b.csv", bytes(501)))), room)


def test_extension_of_any_length_is_not_read() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 100 * MEBIBYTE
    assert "more than 65536 bytes" in refused(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(MEBIBYTE)))


def test_size_below_nothing_makes_no_room() -> None:
    info = tarfile.TarInfo("a.sql")
    info.size = -(1 << 40)
    assert "negative size" in refused(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))


def test_one_path_for_all_files_is_refused() -> None:
    header = tarfile.TarInfo.create_pax_global_header({"path": "b.sql"})
    assert "gives all files one path" in refused(gzip.compress(header + tar(("a.sql", b"1"))))


def test_sparse_file_of_the_newer_form_is_refused() -> None:
    info = tarfile.TarInfo("a.sql")
    info.pax_headers = {"GNU.sparse.realsize": str(1 << 40)}
    assert "a sparse file" in refused(gzip.compress(tar(info)))


def test_what_stays_packed_is_limited_too() -> None:
    room = Allowance(Limits(held=10, total=PACKED_FROM + 10))
    content = gzip.compress(tar(("a.csv", rows(PACKED_FROM, 1))))
    assert files_of_archive("a.tar.gz", content, room)
    with pytest.raises(BundleRejected, match=r"^b\.tar\.gz unpacks to more than is allowed"):
        files_of_archive("b.tar.gz", content, room)


def test_archive_without_an_end_is_refused() -> None:
    whole = tar(("a.sql", b"1"), ("b.sql", b"2"))
    # All of it but what says that there is no third file.
    assert "ends without an end" in refused(gzip.compress(whole[: 4 * 512]))


def rows(size: int, seed: int) -> bytes:
    """Return what compresses about as well as a table does."""
    chance = random.Random(seed)
    words = [chance.randbytes(5).hex() for _ in range(500)]
    lines: list[str] = []
    while len(lines) * 44 < size:
        lines += [",".join(chance.choices(words, k=4)) for _ in range(1000)]
    return "\n".join(lines).encode()[:size]


def test_large_tables_stay_packed_and_read_back_from_anywhere() -> None:
    tables = {f"{n}.csv": rows(size, n) for n, size in enumerate((PACKED_FROM, 5 * MEBIBYTE, PACKED_FROM + 1, 100))}
    whole = tar(("a.sql", b"SELECT 1"), *tables.items(), ("z.csv", b"id"))
    content = gzip.compress(whole[:3_000_000], 1) + gzip.compress(whole[3_000_000:], 1)
    files = files_of_archive("m.tar.gz", content, Allowance(DATA))
    packed = {file.path: file for file in files if isinstance(file, Packed)}
    assert sorted(packed) == ["0.csv", "1.csv", "2.csv"]
    for path in ("2.csv", "0.csv", "1.csv", "0.csv"):
        file = packed[path]
        assert b"".join(file.blocks()) == tables[path]
        assert file.head == tables[path][: len(file.head)] and len(file.head) >= 1000
    held = files_of_archive("m.tar.gz", content)
    assert bundle_of(files, DATA).digest == bundle_of(held).digest
    assert bundle_of(files, DATA).memory < len(content) + 300_000 < bundle_of(held).memory / 2


def test_reading_a_packed_table_takes_no_memory_to_speak_of() -> None:
    (file,) = files_of_archive("m.tar.gz", gzip.compress(tar(("t.csv", rows(8 * MEBIBYTE, 1))), 1), Allowance(DATA))
    tracemalloc.start()
    try:
        assert sum(map(len, file.blocks())) == 8 * MEBIBYTE
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_header_that_claims_more_than_there_is_is_refused() -> None:
    info = tarfile.TarInfo("a.sql")
    info.size = 10**12
    assert refused(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(512)))


def test_too_many_members_are_refused() -> None:
    content = gzip.compress(tar(*(special(f"d{n}", tarfile.DIRTYPE) for n in range(20_001))))
    assert "members" in refused(content)


def test_archive_within_an_archive_stays_a_file() -> None:
    inner = gzip.compress(tar(("../evil.sql", b"")))
    assert files_of_archive("m.tgz", gzip.compress(tar(("inner.tar.gz", inner)))) == (
        File(path="inner.tar.gz", content=inner),
    )


@given(st.binary(max_size=2000), st.integers(0, 1500), st.binary(min_size=1, max_size=8))
def test_no_bytes_do_more_than_be_refused(content: bytes, place: int, damage: bytes) -> None:
    damaged = bytearray(tar(("a.sql", content), ("b", b"2")))
    damaged[place : place + len(damage)] = damage
    for form in (content, gzip.compress(content), gzip.compress(bytes(damaged))):
        with suppress(BundleRejected):
            files_of_archive("m.tar.gz", form)


PATHS = st.lists(st.text("aä b", min_size=1, max_size=70), min_size=1, max_size=3).map("/".join)


@given(
    st.lists(st.tuples(PATHS, st.binary(max_size=1100)), max_size=4),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_tarfile_writes_is_read_as_tarfile_reads_it(members: list[tuple[str, bytes]], form: int) -> None:
    try:
        whole = tar(*members, form=form)
    except ValueError:
        return  # A name that the old format cannot hold.
    assert files_of_archive("m.tgz", gzip.compress(whole)) == tuple(
        File(path=path, content=content) for path, content in members
    )
