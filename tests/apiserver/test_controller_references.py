"""Secrets and ConfigMaps of a resource on a real API server: what is read, what is kept, and what is left alone."""

import asyncio
import base64
import gzip
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from database_bootstrap import metrics
from database_bootstrap.api import names
from database_bootstrap.api.binding import Connection
from database_bootstrap.bundles.bundle import DATA, Limits
from database_bootstrap.bundles.parts import Part
from database_bootstrap.errors import BundleRejected, ClusterUnavailable, NotOwned, ReferenceNotFound
from database_bootstrap.kube import access
from database_bootstrap.kube.client import SECRETS, Kube
from database_bootstrap.kube.library import Library
from database_bootstrap.kube.references import References
from database_bootstrap.kube.resource import resource_of
from database_bootstrap.postgres.ownership import Owner
from localservers import ControlPlane

CONNECTION = Connection(host="db", port=5432, database="shop", user="shop", password="hÄrd :/@ one", sslmode="require")
OURS, OTHERS = "uid-1", "uid-2"
MARKS = {"dbbootstrap.io/uid": OURS, "dbbootstrap.io/resource": "shop"}
PIN = "dbbootstrap.io/incarnation"


@pytest.fixture
def library(kube: Kube) -> Library:
    return Library(kube)


@pytest.fixture
def references(kube: Kube, library: Library, namespace: str) -> References:
    raw = {"metadata": {"namespace": namespace, "name": "shop", "uid": OURS, "resourceVersion": "1", "generation": 1}}
    resource = resource_of(raw)
    return References(kube, library, resource, in_cluster=True)


@pytest.fixture
def put(control_plane: ControlPlane, namespace: str) -> Callable[..., None]:
    """Return what a person does with kubectl: make an object, or change the one that is there."""

    def put(kind: str, name: str, **fields: Any) -> None:
        path = f"/api/v1/namespaces/{namespace}/{kind}"
        there = {item["metadata"]["name"] for item in control_plane.request("GET", path)["items"]}
        if name in there:
            control_plane.request("PATCH", f"{path}/{name}", fields)
        else:
            control_plane.request("POST", path, {"metadata": {"name": name, **fields.pop("metadata", {})}, **fields})

    return put


def secret_in(plane: ControlPlane, namespace: str, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the decoded data of a Secret, and the Secret."""
    raw = plane.request("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
    return {key: base64.b64decode(value).decode() for key, value in (raw.get("data") or {}).items()}, raw


def reads() -> float:
    """Return how many reads of ConfigMaps there were."""
    value = metrics.REGISTRY.get_sample_value(
        "dbbootstrap_kube_requests_total", {"verb": "get", "resource": "configmaps", "code": "200"}
    )
    return value or 0.0


async def test_secret_is_read_as_it_is(references: References, put: Callable[..., None]) -> None:
    put("secrets", "admin", data={"password": base64.b64encode(b"\x00\xffx").decode()})
    kept = await references.secret("admin")
    assert kept is not None
    assert kept.data == {"password": b"\x00\xffx"}
    assert not kept.ours


async def test_secret_that_is_not_there_is_none(references: References) -> None:
    assert await references.secret("admin") is None


async def test_empty_secret_is_empty(references: References, put: Callable[..., None]) -> None:
    put("secrets", "admin")
    kept = await references.secret("admin")
    assert kept is not None
    assert kept.data == {}


async def test_password_is_kept_once_and_never_replaced(
    references: References, control_plane: ControlPlane, namespace: str
) -> None:
    assert await references.keep_password("shop-role", "shop", "first")
    assert not await references.keep_password("shop-role", "shop", "second")
    data, raw = secret_in(control_plane, namespace, "shop-role")
    assert data == {"username": "shop", "password": "first"}
    assert raw["type"] == "kubernetes.io/basic-auth"
    assert raw["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "database-bootstrap-operator"}
    assert raw["metadata"]["annotations"] == MARKS
    assert "ownerReferences" not in raw["metadata"]
    kept = await references.secret("shop-role")
    assert kept is not None
    assert kept.ours


async def test_password_is_replaced_with_the_word_for_it(
    references: References, put: Callable[..., None], control_plane: ControlPlane, namespace: str
) -> None:
    assert await references.keep_password("shop-role", "shop", "first")
    put("secrets", "shop-role", metadata={"labels": {"team": "a"}}, data={"mine": "eA=="})
    await references.replace_password("shop-role", "shop", "second", "a word: ü")
    data, raw = secret_in(control_plane, namespace, "shop-role")
    assert data == {"username": "shop", "password": "second", "mine": "x"}
    assert raw["metadata"]["annotations"] == MARKS | {"dbbootstrap.io/rotated": "a word: ü"}
    assert raw["metadata"]["labels"]["team"] == "a"
    kept = await references.secret("shop-role")
    assert kept is not None
    assert (kept.rotation, kept.ours) == ("a word: ü", True)
    put("secrets", "foreign", data={"password": "eA=="})
    with pytest.raises(NotOwned):
        await references.replace_password("foreign", "shop", "s3cret-canary", "x")
    with pytest.raises(ClusterUnavailable) as caught:
        await references.replace_password("gone", "shop", "s3cret-canary", "x")
    assert "s3cret-canary" not in str(caught.value)


async def test_connection_is_published_and_renewed(
    references: References, control_plane: ControlPlane, namespace: str
) -> None:
    await references.publish("shop-db", CONNECTION, "i-1")
    data, raw = secret_in(control_plane, namespace, "shop-db")
    assert raw["type"] == "servicebinding.io/postgresql"
    assert (data["password"], data["sslmode"]) == (CONNECTION.password, "require")
    await references.publish("shop-db", Connection(host="db2", port=1, database="d", user="u", password="p"), "i-2")
    data, renewed = secret_in(control_plane, namespace, "shop-db")
    assert (data["host"], data["password"]) == ("db2", "p")
    assert "sslmode" not in data
    assert renewed["metadata"]["uid"] == raw["metadata"]["uid"]
    assert raw["metadata"]["annotations"] == MARKS | {PIN: "i-1"}
    assert renewed["metadata"]["annotations"] == MARKS | {PIN: "i-2"}
    kept = await references.secret("shop-db")
    assert kept is not None
    assert (kept.ours, kept.incarnation) == (True, "i-2")


async def test_secret_of_the_one_that_had_the_name_before_is_taken_over(
    references: References, control_plane: ControlPlane, put: Callable[..., None], namespace: str
) -> None:
    put("secrets", "shop-db", metadata={"annotations": MARKS | {"dbbootstrap.io/uid": OTHERS}}, data={"old": "eA=="})
    await references.publish("shop-db", CONNECTION, "i-1")
    data, raw = secret_in(control_plane, namespace, "shop-db")
    assert (data["host"], raw["metadata"]["annotations"]) == ("db", MARKS | {PIN: "i-1"})
    assert "old" not in data


@pytest.mark.parametrize(
    "annotations",
    [
        pytest.param({}, id="a person's"),
        pytest.param({"dbbootstrap.io/uid": OTHERS}, id="of another uid"),
        pytest.param({"dbbootstrap.io/uid": OTHERS, "dbbootstrap.io/resource": "other"}, id="another resource's"),
    ],
)
async def test_secret_of_somebody_else_is_never_overwritten(
    references: References, control_plane: ControlPlane, put: Callable[..., None], annotations: dict[str, str]
) -> None:
    put("secrets", "shop-db", metadata={"annotations": annotations}, data={"mine": "eA=="})
    with pytest.raises(NotOwned, match=r'Secret "shop-db" exists'):
        await references.publish("shop-db", CONNECTION, "i-1")
    kept = await references.secret("shop-db")
    assert kept is not None
    assert kept.data == {"mine": b"x"}


async def test_label_that_a_person_put_on_our_secret_stays(
    references: References, put: Callable[..., None], control_plane: ControlPlane, namespace: str
) -> None:
    await references.publish("shop-db", CONNECTION, "i-1")
    put("secrets", "shop-db", metadata={"labels": {"team": "a"}})
    await references.publish("shop-db", CONNECTION, "i-1")
    _, raw = secret_in(control_plane, namespace, "shop-db")
    assert raw["metadata"]["labels"]["team"] == "a"


async def test_config_maps_are_merged(references: References, put: Callable[..., None]) -> None:
    put("configmaps", "one", data={"V1__a.sql": "SELECT 1"})
    put("configmaps", "two", binaryData={"V2__b.sql": base64.b64encode(b"SELECT 2").decode()})
    bundle = await references.bundle(("one", "two"))
    assert [(file.path, file.content) for file in bundle.files] == [
        ("V1__a.sql", b"SELECT 1"),
        ("V2__b.sql", b"SELECT 2"),
    ]


async def test_config_map_that_is_not_there_is_named(references: References, put: Callable[..., None]) -> None:
    put("configmaps", "one", data={"V1__a.sql": "SELECT 1"})
    with pytest.raises(ReferenceNotFound, match='"two" is not there'):
        await references.bundle(("one", "two"))


async def test_config_map_that_holds_nothing_is_refused(references: References, put: Callable[..., None]) -> None:
    put("configmaps", "one")
    with pytest.raises(BundleRejected):
        await references.bundle(("one",))


async def test_unchanged_config_map_is_not_read_in_full_again(references: References, put: Callable[..., None]) -> None:
    put("configmaps", "one", data={"V1__a.sql": "SELECT 1"})
    first = await references.bundle(("one",))
    assert await references.bundle(("one",)) is first
    put("configmaps", "one", data={"V2__b.sql": "SELECT 2"})
    assert len((await references.bundle(("one",))).files) == 2


async def test_watched_config_map_costs_no_call_until_it_changes(
    references: References, library: Library, put: Callable[..., None], control_plane: ControlPlane, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/one"
    put("configmaps", "one", data={"V1__a.sql": "SELECT 1"})
    library.note(namespace, "one", control_plane.request("GET", path)["metadata"]["resourceVersion"])
    first = await references.bundle(("one",))
    before = reads()
    assert await references.bundle(("one",)) is first
    assert reads() == before
    put("configmaps", "one", data={"V2__b.sql": "SELECT 2"})
    library.note(namespace, "one", control_plane.request("GET", path)["metadata"]["resourceVersion"])
    assert len((await references.bundle(("one",))).files) == 2
    library.note(namespace, "one", None)
    before = reads()
    await references.bundle(("one",))
    assert reads() == before + 1


async def test_large_seed_is_unpacked_beside_all_else(
    library: Library, namespace: str, put: Callable[..., None]
) -> None:
    piece = gzip.compress(b"id\n" + b"".join(b"%d%b\n" % (number, b"x" * 500) for number in range(20_000)))
    info = tarfile.TarInfo("t.csv")
    info.size = len(gzip.decompress(piece)) * 6
    packed = gzip.compress(info.tobuf()) + piece * 6 + gzip.compress(bytes(-info.size % 512 + 1024))
    put("configmaps", "large", binaryData={"seed.tar.gz": base64.b64encode(packed).decode()})
    reading = asyncio.create_task(library.bundle(namespace, ("large",), DATA))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.001)
        turns += 1
    bundle = await reading
    assert (bundle.files, bundle.size) == ((), info.size)
    assert bundle.memory < 2 * len(packed) + 500_000
    # A few are those that the answer of the API server takes.
    assert turns > 40
    with pytest.raises(BundleRejected, match="is allowed"):
        await library.bundle(namespace, ("large",), Limits(held=1000, total=info.size - 1))


async def test_config_maps_of_two_runs_of_bundle_are_not_merged(
    kube: Kube, library: Library, namespace: str, put: Callable[..., None]
) -> None:
    def write(number: int, run: str) -> None:
        part = Part(bundle="seed", number=number, total=2, digest=f"sha256:{run * 64}")
        annotations = {names.ANNOTATION_BUNDLE: str(part)}
        put("configmaps", f"seed-{number}", data={f"{number}.sql": run}, metadata={"annotations": annotations})

    write(1, "a")
    write(2, "a")
    assert len((await library.bundle(namespace, ("seed-1", "seed-2"))).files) == 2
    write(1, "b")
    with pytest.raises(ReferenceNotFound, match="come from different runs of `bundle`"):
        await library.bundle(namespace, ("seed-1", "seed-2"))
    write(2, "b")
    assert len((await library.bundle(namespace, ("seed-1", "seed-2"))).files) == 2


async def test_bundles_that_do_not_fit_into_memory_are_read_again(
    kube: Kube, namespace: str, put: Callable[..., None]
) -> None:
    small = Library(kube, limit=5)
    put("configmaps", "one", data={"V1__a.sql": "SELECT 1"})
    put("configmaps", "two", data={"V1__a.sql": "SELECT 2"})
    first = await small.bundle(namespace, ("one",))
    await small.bundle(namespace, ("two",))
    again = await small.bundle(namespace, ("one",))
    assert again is not first
    assert again.digest == first.digest
    assert await small.bundle(namespace, ("one",)) is again


@pytest.mark.parametrize(
    ("host", "resolved"),
    [
        ("db", "db.{}.svc"),
        ("db.other", "db.other"),
        ("::1", "::1"),
        ("localhost", "localhost"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_bare_host_is_looked_for_where_the_resource_is(
    references: References, namespace: str, host: str, resolved: str
) -> None:
    assert references.qualify(host) == resolved.format(namespace)


async def test_right_that_is_missing_is_named(
    control_plane: ControlPlane, namespace: str, references: References
) -> None:
    control_plane.kubectl("create", "serviceaccount", "nobody", "--namespace", namespace)
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "nobody")
    nobody = access.connect(await access.configure(str(kubeconfig), None))
    try:
        with pytest.raises(
            ClusterUnavailable, match=f'does not let the operator get secrets "admin" in namespace {namespace}'
        ):
            await nobody.get(SECRETS, namespace, "admin")
        raw = {"metadata": {"namespace": "x", "name": "shop", "uid": OURS, "resourceVersion": "1", "generation": 1}}
        seen = References(nobody, Library(nobody), resource_of(raw), in_cluster=True)
        other = Owner(cluster="tests", namespace=namespace, name="gone", uid=OTHERS)
        assert await seen.lives(other) is None, "whoever may not look does not know"
        assert await references.lives(other) is False
    finally:
        await nobody.close()


async def test_api_server_that_does_not_answer_is_a_passing_trouble(
    kube: Kube, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.stop_apiserver()
    try:
        with pytest.raises(
            ClusterUnavailable,
            match=f'The Kubernetes API did not answer .* get secrets "admin" in namespace {namespace}',
        ):
            await kube.get(SECRETS, namespace, "admin")
    finally:
        control_plane.start_apiserver()


async def test_refusal_of_a_secret_does_not_repeat_what_is_in_it(references: References) -> None:
    with pytest.raises(Exception, match="Invalid") as caught:
        await references.keep_password("Not A Name", "shop", "s3cret-canary")
    assert "s3cret-canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        pytest.param({"dbbootstrap.io/uid": OURS, "dbbootstrap.io/resource": "shop"}, True, id="ours"),
        pytest.param({"dbbootstrap.io/uid": OTHERS, "dbbootstrap.io/resource": "shop"}, False, id="of an earlier one"),
        pytest.param({"dbbootstrap.io/uid": OTHERS, "dbbootstrap.io/resource": "x"}, False, id="of another one"),
        pytest.param({}, False, id="foreign"),
    ],
)
async def test_secret_is_deleted_where_this_very_resource_has_made_it(
    references: References,
    put: Callable[..., None],
    control_plane: ControlPlane,
    namespace: str,
    marks: dict[str, str],
    expected: bool,
) -> None:
    put("secrets", "shop-db", metadata={"annotations": marks})
    assert await references.delete_secret("shop-db") is expected
    left = control_plane.request("GET", f"/api/v1/namespaces/{namespace}/secrets")["items"]
    assert [item["metadata"]["name"] for item in left] == ([] if expected else ["shop-db"])


async def test_secret_that_is_not_there_is_none_to_delete(references: References) -> None:
    assert await references.delete_secret("shop-db") is None
