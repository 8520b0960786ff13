"""The store: what is news, what is an echo, and who refers to what."""

from dataclasses import replace
from typing import Any

import pytest

from database_bootstrap.api import names
from database_bootstrap.controller.store import News, Reference, Store
from database_bootstrap.kube.resource import Key, Resource, resource_of

KEY = Key("shop", "db")


def resource(version: int = 1, **changes: Any) -> Resource:
    whole = Resource(
        key=KEY, uid="u1", version=str(version), generation=1, annotations={}, deleting=False, spec={}, status={}
    )
    return replace(whole, **changes)


@pytest.fixture
def store() -> Store:
    return Store()


def test_first_version_is_news(store: Store) -> None:
    assert store.see(resource()) is News.FIRST_SIGHT


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"generation": 2}, id="the spec changed"),
        pytest.param({"annotations": {"dbbootstrap.io/reconcile-requested-at": "now"}}, id="a visit was asked for"),
        pytest.param({"generation": 2, "status": {"theirs": 1}}, id="both"),
    ],
)
def test_change_that_concerns_us_is_work(store: Store, changes: dict[str, Any]) -> None:
    store.see(resource())
    assert store.see(resource(2, **changes)) is News.WORK
    assert not store.is_foreign(KEY)


def test_status_that_somebody_else_wrote_is_foreign_until_it_is_overwritten(store: Store) -> None:
    store.see(resource())
    assert store.see(resource(2, status={"theirs": 1})) is News.FOREIGN_STATUS
    assert store.is_foreign(KEY)
    store.begin_write(KEY)
    store.end_write(KEY, resource(3, status={"ours": 1}))
    assert not store.is_foreign(KEY)
    assert store.settle(KEY)
    assert not store.settle(KEY)


def test_status_that_says_what_we_would_write_is_not_foreign(store: Store) -> None:
    store.see(resource())
    store.see(resource(2, status={"theirs": 1}))
    store.accept(KEY)
    assert not store.is_foreign(KEY)


def test_status_that_is_overwritten_during_a_write_is_foreign(store: Store) -> None:
    store.see(resource())
    store.begin_write(KEY)
    store.see(resource(3, status={"theirs": 1}))
    assert store.end_write(KEY, resource(2, status={"ours": 1})) is News.FOREIGN_STATUS
    assert store.is_foreign(KEY)


def test_wish_that_comes_with_a_foreign_status_is_work(store: Store) -> None:
    store.see(resource())
    store.begin_write(KEY)
    store.see(resource(3, generation=2, status={"theirs": 1}))
    assert store.end_write(KEY, resource(2, generation=2, status={"ours": 1})) is News.WORK
    assert store.is_foreign(KEY)


def test_nothing_of_a_resource_that_is_gone_is_foreign(store: Store) -> None:
    store.see(resource())
    store.see(resource(2, status={"theirs": 1}))
    store.remove(KEY, "u1")
    assert not store.is_foreign(KEY)
    assert not store.settle(KEY)


def test_change_that_does_not_concern_us_is_nothing(store: Store) -> None:
    store.see(resource())
    assert store.see(resource(2)) is News.NOTHING
    newest = store.get(KEY)
    assert newest is not None
    assert newest.version == "2"


@pytest.mark.parametrize("version", [3, 4, 5], ids=["older by a digit", "older", "the same"])
def test_version_that_is_not_newer_is_nothing(store: Store, version: int) -> None:
    store.see(resource(5))
    assert store.see(resource(version, generation=2)) is News.NOTHING


def test_versions_are_compared_as_numbers(store: Store) -> None:
    store.see(resource(9))
    assert store.see(resource(10, generation=2)) is News.WORK


def test_same_name_with_another_uid_is_another_resource(store: Store) -> None:
    store.see(resource(5))
    assert store.see(resource(6, uid="u2")) is News.FIRST_SIGHT


def test_late_news_of_a_deletion_does_not_hurt_the_next_of_the_name(store: Store) -> None:
    store.see(resource(5))
    store.see(resource(6, uid="u2"))
    assert not store.remove(KEY, "u1")
    assert store.get(KEY) is not None


HELD = (names.FINALIZER,)


def test_resource_in_deletion_that_nothing_of_ours_keeps_is_gone(store: Store) -> None:
    store.see(resource())
    assert store.see(resource(2, deleting=True, finalizers=("example.org/theirs",))) is News.GONE
    # Until it is gone indeed it is known, so that an older version which comes late does not make it a new one.
    assert store.see(resource(1, generation=2)) is News.NOTHING
    assert store.remove(KEY, "u1")
    assert store.get(KEY) is None


def test_resource_in_deletion_that_we_keep_is_work(store: Store) -> None:
    store.see(resource(finalizers=HELD))
    assert store.see(resource(2, deleting=True, finalizers=HELD)) is News.WORK
    assert store.see(resource(3, deleting=True, finalizers=HELD)) is News.NOTHING
    assert store.see(resource(4, deleting=True)) is News.GONE


def test_resource_in_deletion_that_we_keep_is_seen_after_a_restart(store: Store) -> None:
    assert store.see(resource(2, deleting=True, finalizers=HELD)) is News.FIRST_SIGHT


def test_resource_that_was_let_go_is_gone_with_the_reply(store: Store) -> None:
    store.see(resource(deleting=True, finalizers=HELD))
    store.begin_write(KEY)
    store.see(resource(2, deleting=True, finalizers=HELD, status={"ours": 1}))
    assert store.end_write(KEY, resource(3, deleting=True)) is News.GONE


def test_deletion_that_only_the_reply_to_a_write_tells_of_is_work(store: Store) -> None:
    store.see(resource(finalizers=HELD))
    store.begin_write(KEY)
    assert store.end_write(KEY, resource(2, deleting=True, finalizers=HELD)) is News.WORK


def test_finalizer_that_somebody_else_took_off_is_work(store: Store) -> None:
    store.see(resource(finalizers=HELD, spec={"deletionPolicy": "Delete"}))
    assert store.see(resource(2, spec={"deletionPolicy": "Delete"})) is News.WORK


def test_finalizer_that_we_put_on_is_nothing(store: Store) -> None:
    store.see(resource())
    store.begin_write(KEY)
    assert store.end_write(KEY, resource(2, finalizers=HELD)) is News.NOTHING


def test_echo_after_the_reply_is_nothing(store: Store) -> None:
    store.see(resource())
    store.begin_write(KEY)
    assert store.end_write(KEY, resource(2, status={"ours": 1})) is News.NOTHING
    assert store.see(resource(2, status={"ours": 1})) is News.NOTHING


def test_echo_before_the_reply_is_nothing(store: Store) -> None:
    store.see(resource())
    store.begin_write(KEY)
    assert store.see(resource(2, status={"ours": 1})) is News.NOTHING
    assert store.end_write(KEY, resource(2, status={"ours": 1})) is News.NOTHING


def test_change_by_a_person_during_a_write_is_work_afterwards(store: Store) -> None:
    store.see(resource())
    store.begin_write(KEY)
    assert store.see(resource(3, generation=2, status={"ours": 1})) is News.NOTHING
    assert store.end_write(KEY, resource(2, status={"ours": 1})) is News.WORK


@pytest.mark.parametrize(
    "changes", [{"generation": 2}, {"annotations": {"dbbootstrap.io/resolve": "a=applied"}}], ids=str
)
def test_change_that_only_the_reply_tells_of_is_work(store: Store, changes: dict[str, Any]) -> None:
    # After a conflict the resource is read again, and the watch shows the change later, as old news.
    store.see(resource())
    store.begin_write(KEY)
    assert store.end_write(KEY, resource(3, status={"ours": 1}, **changes)) is News.WORK
    assert store.see(resource(2, **changes)) is News.NOTHING


def test_deletion_during_a_write_is_seen_afterwards(store: Store) -> None:
    store.see(resource())
    store.begin_write(KEY)
    store.see(resource(3, deleting=True))
    assert store.end_write(KEY, None) is News.GONE


def test_reply_does_not_bring_back_what_is_gone(store: Store) -> None:
    store.see(resource())
    store.begin_write(KEY)
    store.remove(KEY, "u1")
    store.end_write(KEY, resource(2))
    assert store.get(KEY) is None


SPEC = {
    "server": {"adminSecretRef": {"name": "admin"}},
    "role": {"name": "r", "passwordSecretRef": {"name": "password"}},
    "migrations": {"source": {"configMapRefs": [{"name": "one"}, {"name": "two"}]}},
    "seed": {"source": {"inline": []}},
}


@pytest.mark.parametrize(
    ("plural", "name"),
    [
        ("secrets", "admin"),
        ("secrets", "password"),
        ("secrets", "db-role"),
        ("configmaps", "one"),
        ("configmaps", "two"),
    ],
)
def test_reference_is_found(store: Store, plural: str, name: str) -> None:
    store.see(resource(spec=SPEC))
    assert store.referring(Reference(plural, "shop", name)) == {KEY}
    assert not store.referring(Reference(plural, "other", name))


def test_reference_that_is_not_there_any_more_is_not_found(store: Store) -> None:
    store.see(resource(spec=SPEC))
    store.see(resource(2, generation=2, spec={"server": {"adminSecretRef": {"name": "other"}}}))
    assert not store.referring(Reference("configmaps", "shop", "one"))
    assert store.referring(Reference("secrets", "shop", "other")) == {KEY}
    store.remove(KEY, "u1")
    assert not store.referring(Reference("secrets", "shop", "other"))


@pytest.mark.parametrize("spec", [{"server": None}, {"server": "x"}, {"migrations": {"source": {}}}, {"role": []}])
def test_spec_that_nobody_has_validated_does_no_harm(store: Store, spec: dict[str, Any]) -> None:
    assert store.see(resource(spec=spec)) is News.FIRST_SIGHT


def test_only_our_annotations_are_kept() -> None:
    annotations = {"dbbootstrap.io/resolve": "a=applied", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    metadata = {"name": "db", "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": 1}
    assert resource_of({"metadata": metadata | {"annotations": annotations}}).annotations == {
        "dbbootstrap.io/resolve": "a=applied"
    }
