"""Bundles: what is refused, in one table, and what the digest sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.bundles.bundle import BYTES_LIMIT, FILES_LIMIT, File, bundle_of
from database_bootstrap.errors import BundleRejected


def files(*paths: str) -> list[File]:
    return [File(path=path, content=b"x") for path in paths]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        pytest.param([], "no files", id="empty"),
        pytest.param(["a.sql", "a.sql"], "twice", id="duplicate"),
        pytest.param(["a.sql", "A.sql"], "differs in case only", id="case, which some file systems do not see"),
        pytest.param(["x/a.sql", "X/A.sql"], "differs in case only", id="case of a directory"),
        pytest.param(["a", "a/b.sql"], "both as a file and as the directory", id="file and directory"),
        pytest.param(["/etc/passwd"], "is absolute", id="absolute"),
        pytest.param(["../a.sql"], "part . or ..", id="outside"),
        pytest.param(["a/../../b.sql"], "part . or ..", id="outside, hidden"),
        pytest.param(["./a.sql"], "part . or ..", id="dot"),
        pytest.param([".."], "part . or ..", id="parent"),
        pytest.param([""], "has an empty part", id="no name"),
        pytest.param(["a//b.sql"], "has an empty part", id="empty part"),
        pytest.param(["a/"], "has an empty part", id="directory"),
        pytest.param(["a\\b.sql"], "has a backslash", id="backslash"),
        pytest.param(["a\nb.sql"], "has control characters", id="newline"),
        pytest.param(["a\x00b.sql"], "has control characters", id="NUL"),
        pytest.param(["a\u202egpj.sql"], "has control characters", id="right-to-left override"),
        pytest.param(["a\u0301.sql"], "composed form", id="decomposed accent"),
        pytest.param(["\udc80.sql"], "is not UTF-8", id="surrogate"),
        pytest.param(["ä" * 255 + ".sql"], "514 bytes", id="too long in bytes"),
        pytest.param([f"{n}.sql" for n in range(FILES_LIMIT + 1)], f"{FILES_LIMIT} are the limit", id="too many"),
    ],
)
def test_files_that_cannot_be_a_bundle_are_refused(paths: list[str], said: str) -> None:
    with pytest.raises(BundleRejected) as caught:
        bundle_of(files(*paths))
    assert said in caught.value.message
    assert caught.value.message.isprintable()


def test_bundle_of_more_bytes_than_the_limit_is_refused() -> None:
    half = bytes(BYTES_LIMIT // 2)
    bundle_of([File(path="a", content=half), File(path="b", content=half)])
    with pytest.raises(BundleRejected, match="bytes together"):
        bundle_of([File(path="a", content=half), File(path="b", content=half + b"!")])


@pytest.mark.parametrize("path", ["a.sql", "My Migrations/v1.2 Ünï/x.sql", "ä" * 254 + ".sql", "..a", "a..b/...c"])
def test_paths_of_real_projects_are_accepted(path: str) -> None:
    assert [file.path for file in bundle_of(files(path)).files] == [path]


def test_order_is_that_of_bytes() -> None:
    bundle = bundle_of(files("b", "a/z", "a-", "C", "\U00010000", "\uffee"))
    assert [file.path for file in bundle.files] == ["C", "a-", "a/z", "b", "\uffee", "\U00010000"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.binary(max_size=4)), min_size=1, unique_by=lambda f: f[0]))
def test_digest_depends_on_the_files_alone(pairs: list[tuple[str, bytes]]) -> None:
    def digest(order: list[tuple[str, bytes]]) -> str:
        return bundle_of(File(path=path, content=content) for path, content in order).digest

    assert digest(pairs) == digest(pairs[::-1])
    changed = [(pairs[0][0], pairs[0][1] + b"!"), *pairs[1:]]
    assert digest(changed) != digest(pairs)


def test_digest_knows_where_a_path_ends() -> None:
    assert bundle_of([File(path="ab", content=b"c")]).digest != bundle_of([File(path="a", content=b"bc")]).digest


def test_text_that_is_not_utf_8_is_refused_with_its_place() -> None:
    with pytest.raises(BundleRejected, match=r"a\.sql is not UTF-8 text \(byte 2\)"):
        _ = File(path="a.sql", content=b"ab\xff").text
