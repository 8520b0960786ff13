"""Files → documents → what apply works with."""

from pathlib import Path

import pytest

from database_bootstrap.api import names
from database_bootstrap.api.status import Status
from database_bootstrap.standalone import documents
from database_bootstrap.standalone.collection import Collection, collect
from database_bootstrap.standalone.documents import InputError

SHOP = """\
apiVersion: dbbootstrap.io/v1alpha1
kind: DatabaseBootstrap
metadata:
  name: shop
spec:
  server: {adminSecretRef: {name: admin}}
  role: {name: shop}
  database: {name: shop}
"""


def read(text: str | bytes) -> Collection:
    content = text if isinstance(text, bytes) else text.encode()
    return collect(documents.parse(content, "shop.yaml", Path()))


def refusal(text: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        read(text)
    return str(caught.value)


def test_resource_secret_and_config_map_are_found_by_namespace_and_name() -> None:
    found = read(
        SHOP
        + "---\n{apiVersion: v1, kind: Secret, metadata: {name: admin, namespace: shop}, data: {a: YQ==, b: Yg==},"
        + " stringData: {b: plain}}\n"
        + "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: files}, data: {x.sql: SELECT 1},"
        + " binaryData: {y.tar.gz: AAEC}}\n"
    )
    assert list(found.resources) == [("default", "shop")]
    assert found.secrets["shop", "admin"].data == {"a": b"a", "b": b"plain"}
    assert found.config_maps["default", "files"].data == {"x.sql": "SELECT 1"}
    assert found.config_maps["default", "files"].binary_data == {"y.tar.gz": b"\0\1\2"}
    assert found.notes == []


def test_owner_is_the_same_on_every_run_and_another_one_in_another_namespace() -> None:
    first, again = (read(SHOP).resources["default", "shop"].owner for _ in range(2))
    elsewhere = read(SHOP.replace("name: shop\nspec", "name: shop\n  namespace: other\nspec")).resources[
        "other", "shop"
    ]
    assert first == again
    assert first.cluster == "standalone"
    assert first.uid != elsewhere.owner.uid


def test_uid_that_is_written_down_is_the_owners() -> None:
    text = SHOP.replace("  name: shop\nspec", "  name: shop\n  uid: 6f9b\nspec")
    assert read(text).resources["default", "shop"].owner.uid == "6f9b"


def test_uid_that_no_resource_has_is_refused() -> None:
    assert "metadata.uid" in refusal(SHOP.replace("  name: shop\n", "  name: shop\n  uid: '1; then run'\n", 1))


def test_annotations_of_our_group_are_a_persons_word() -> None:
    annotations = "  annotations: {dbbootstrap.io/acknowledge-data-loss: i-1, example.com/size: 3}\n"
    resource = read(SHOP.replace("spec:\n", f"{annotations}spec:\n")).resources["default", "shop"]
    assert resource.subject(Status()).annotations == {names.ANNOTATION_ACKNOWLEDGE_DATA_LOSS: "i-1"}


def test_items_of_a_list_are_documents() -> None:
    indented = "".join(f"  {line}\n" for line in SHOP.splitlines())
    found = read("apiVersion: v1\nkind: List\nitems:\n- " + indented.lstrip())
    assert list(found.resources) == [("default", "shop")]


def test_other_kinds_are_ignored_with_a_note() -> None:
    found = read(SHOP + "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: shop}}\n")
    assert found.notes == [
        "shop.yaml, document 2 (line 10): ignored, a Deployment of apps/v1 is nothing for this program"
    ]


def test_empty_documents_are_nothing() -> None:
    assert list(read(f"---\n---\n{SHOP}---\n# only a comment\n").resources) == [("default", "shop")]


def test_dates_and_byte_order_marks_are_as_in_kubernetes() -> None:
    found = read(b"\xef\xbb\xbf{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {day: 2024-01-01}}")
    assert found.secrets["default", "s"].data == {"day": b"2024-01-01"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(SHOP + "---\na: [1\n", "document 2, line 11", id="broken YAML names document and line"),
        pytest.param(SHOP + "  role: {name: other}\n", "line 9: the key 'role' is there twice", id="duplicate key"),
        pytest.param("- a\n", "document 1 (line 1): not a manifest", id="no mapping"),
        pytest.param("kind: Secret\n", "apiVersion is missing", id="no version"),
        pytest.param(
            SHOP.replace("kind: DatabaseBootstrap", "kind: DatabaseStation"),
            "DatabaseStation of dbbootstrap.io/v1alpha1 is not known; DatabaseBootstrap and DatabaseServer of",
            id="other kind of the group",
        ),
        pytest.param(
            SHOP.replace("name: shop\nspec", f"name: {'x' * 249}\nspec"), "at most 248 characters", id="long name"
        ),
        pytest.param(
            SHOP + "  connectionSecret: {name: shop-role}\n",
            "`connectionSecret.name` must not be `<metadata.name>-role`",
            id="one Secret for two things",
        ),
        pytest.param(
            SHOP.replace("  name: shop\nspec", "  name: shop\n  annotations: {dbbootstrap.io/take-over: 1}\nspec"),
            "metadata.annotations.dbbootstrap.io/take-over must be text",
            id="annotation that is no text",
        ),
        pytest.param(
            SHOP.replace("v1alpha1", "v2"), "DatabaseBootstrap of dbbootstrap.io/v2 is not known", id="other version"
        ),
        pytest.param(
            SHOP.replace("name: shop\nspec", "name: ../shop\nspec"), "metadata.name must be", id="path as name"
        ),
        pytest.param(
            SHOP.replace("name: shop\nspec", "name: shop\n  namespace: a/b\nspec"),
            "metadata.namespace must be",
            id="path as namespace",
        ),
        pytest.param(
            SHOP + "---\n" + SHOP, "document 2 (line 10): DatabaseBootstrap default/shop is there twice", id="twice"
        ),
        pytest.param(SHOP + "  unknown: 1\n", "spec.unknown: is not a field of the resource", id="unknown field"),
        pytest.param(SHOP + "extra: 1\n", "extra is not a field", id="unknown field beside the spec"),
        pytest.param(SHOP.replace("  role: {name: shop}\n", ""), "spec.role: is required", id="missing field"),
        pytest.param(b"\xff\xfe", "not UTF-8 text (byte 0)", id="not UTF-8"),
        pytest.param("a: \x07", "a character that YAML does not allow", id="control character"),
        pytest.param("a: !!python/object/apply:os.system [id]\n", "not a plain value", id="Python tag"),
        pytest.param("a: !!bool canary\n", "document 1: a value that is not", id="wrong tag"),
        pytest.param("a: !!timestamp canary\n", "document 1: a value that is not", id="no date"),
        pytest.param(f"a: {'9' * 5000}\n", "too long a number", id="endless number"),
        pytest.param("a: &a [*a]\n", "", id="endless document"),
        pytest.param("[" * 5000, "shop.yaml, document", id="deep document"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(text: str | bytes, expected: str) -> None:
    said = refusal(text)
    assert expected in said
    assert said.startswith("shop.yaml")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("data: {password: canary}", id="not base64"),
        pytest.param("stringData: {password: 4711canary: x}", id="broken YAML"),
        pytest.param("stringData: {password: [canary]}", id="a list"),
        pytest.param("stringData: {password: !canary}", id="read as a tag"),
        pytest.param("stringData: {password: *canary}", id="read as an alias"),
        pytest.param("stringData: {password: canary, password: canary}", id="a key twice"),
        pytest.param('stringData: {password: "canary\\q"}', id="a wrong escape"),
    ],
)
def test_refusals_never_quote_a_value(content: str) -> None:
    assert "canary" not in refusal(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: admin}}\n{content}\n")


def test_directory_gives_its_yaml_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: second}}")
    (tmp_path / "a.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: first}}")
    (tmp_path / "notes.txt").write_text("not read")
    (tmp_path / ".hidden.yaml").write_text("not: read")
    assert [one.manifest["metadata"]["name"] for one in documents.read([str(tmp_path)])] == ["first", "second"]


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_missing_file_and_empty_directory_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        documents.read([str(tmp_path / name)])


def test_uid_of_a_secret_is_its_annotation() -> None:
    made = "metadata: {name: s, annotations: {" + names.ANNOTATION_UID + ": u-1}}"
    assert read("{apiVersion: v1, kind: Secret, " + made + "}").secrets["default", "s"].uid == "u-1"
