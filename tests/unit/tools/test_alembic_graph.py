"""The static graph says what Alembic itself would say, and refuses what cannot be read without running it."""

import textwrap

import pytest
from alembic.script.revision import Revision as TheirRevision
from alembic.script.revision import RevisionMap
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.bundles.bundle import File
from database_bootstrap.errors import BundleRejected
from database_bootstrap.tools.alembic_graph import (
    ALL_WORDS_LIMIT,
    WORDS_LIMIT,
    Graph,
    Revision,
    check_size,
    read_revision,
)


def file(text: str, path: str = "versions/a1b2_x.py") -> File:
    return File(path=path, content=textwrap.dedent(text).encode())


def node(name: str, *down: str, depends_on: tuple[str, ...] = (), labels: tuple[str, ...] = ()) -> Revision:
    return Revision(name=name, down=down, depends_on=depends_on, labels=labels, path=f"versions/{name}.py")


@st.composite
def histories(draw: st.DrawFn) -> list[Revision]:
    names = draw(st.permutations([f"r{number:02}" for number in range(draw(st.integers(1, 12)))]))
    nodes = []
    for index, name in enumerate(names):
        earlier = st.sampled_from(names[:index]) if index else st.nothing()
        down = draw(st.lists(earlier, max_size=3 if index else 0, unique=True))
        # Alembic orders several dependencies of one revision by the hash of their names, which is different each time.
        needs = draw(st.lists(earlier, max_size=1 if index else 0))
        nodes.append(node(name, *down, depends_on=tuple(each for each in needs if each not in down)))
    return draw(st.permutations(nodes))


def theirs(nodes: list[Revision]) -> RevisionMap:
    return RevisionMap(lambda: [TheirRevision(each.name, each.down, each.depends_on or None) for each in nodes])


@given(histories(), st.data())
def test_heads_and_pending_are_those_of_alembic(nodes: list[Revision], data: st.DataObject) -> None:
    ours, alembics = Graph(nodes), theirs(nodes)
    assert ours.heads == alembics._real_heads

    present = ours.closure(data.draw(st.lists(st.sampled_from([each.name for each in nodes]), unique=True)))
    rows = tuple(
        name for name in present if not any(name in ours.closure([other]) for other in present if other != name)
    )
    expected = [each.revision for each in alembics.iterate_revisions("heads", rows, implicit_base=True)]
    assert list(ours.pending(rows)) == expected[::-1]


@given(histories())
def test_rows_are_always_what_no_other_applied_revision_contains(nodes: list[Revision]) -> None:
    graph = Graph(nodes)
    rows: tuple[str, ...] = ()
    for count, name in enumerate(graph.pending(()), start=1):
        rows = graph.stamped(rows, name)
        assert len(graph.closure(rows)) == count
        assert graph.overlapping(rows) is None
        assert graph.stamped(rows, name) == rows
    assert sorted(rows) == sorted(graph.heads)


@given(histories())
def test_every_pending_revision_comes_after_what_it_needs(nodes: list[Revision]) -> None:
    done: set[str] = set()
    for name in Graph(nodes).pending(()):
        one = next(each for each in nodes if each.name == name)
        assert {*one.down, *one.depends_on} <= done
        done.add(name)
    assert len(done) == len(nodes)


@pytest.mark.parametrize(
    ("text", "down"),
    [
        pytest.param('revision = "a1b2"\ndown_revision = None', (), id="first"),
        pytest.param('revision = "a1b2"\ndown_revision = "0f"', ("0f",), id="one"),
        pytest.param('revision: str = "a1b2"\ndown_revision: str | None = "0f"', ("0f",), id="annotated"),
        pytest.param('revision = "a1b2"\ndown_revision = ("0f", "1f")', ("0f", "1f"), id="merge"),
        pytest.param('revision = "a1b2"\ndown_revision = ["0f", "1f"]', ("0f", "1f"), id="list"),
        pytest.param('revision = "a1" "b2"\ndown_revision = ("0f")', ("0f",), id="concatenated"),
        pytest.param('revision = down_revision = "a1b2"\ndown_revision = "0f"', ("0f",), id="last-one-counts"),
    ],
)
def test_declarations_are_read_without_running_them(text: str, down: tuple[str, ...]) -> None:
    revision = read_revision(file(text + "\nraise SystemExit\n"))
    assert (revision.name, revision.down) == ("a1b2", down)


def test_a_file_of_alembic_0_1_is_named_by_its_revision() -> None:
    assert read_revision(file("down_revision = None", path="versions/4c7d.py")).name == "4c7d"


def test_labels_and_dependencies_are_resolved() -> None:
    graph = Graph([node("one", labels=("shop",)), node("two"), node("three", "two", depends_on=("shop",))])
    assert graph.heads == ("three",)
    assert graph.closure(["three"]) == {"one", "two", "three"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("revision = make()\ndown_revision = None", "line 2: `revision` is computed", id="call"),
        pytest.param('revision = "a"\ndown_revision = previous', "line 3: `down_revision` is computed", id="name"),
        pytest.param('revision = f"a{1}"\ndown_revision = None', "`revision` is computed", id="f-string"),
        pytest.param('revision = "a"', "assigns no `down_revision`", id="no-down"),
        pytest.param("x = 1", "assigns no `revision`", id="no-revision"),
        pytest.param('if True:\n    revision = "a"', "assigns no `revision`", id="not-at-top-level"),
        pytest.param("revision = 17\ndown_revision = None", "must be a non-empty string", id="number"),
        pytest.param('revision = ""\ndown_revision = None', "must be a non-empty string", id="empty"),
        pytest.param('revision = "base"\ndown_revision = None', "a word of Alembic's own", id="reserved"),
        pytest.param('revision = "a-b"\ndown_revision = None', "has '-' in it", id="illegal-character"),
        pytest.param('revision = "a"\ndown_revision = 3', "must be a string, a tuple", id="wrong-down"),
        pytest.param("revision = ", "not valid Python: line 2:", id="syntax"),
        pytest.param("x = " + "(" * 5000, "Python", id="deep"),
        pytest.param('revision = "a\0"', "Python", id="nul"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_reason(text: str, words: str) -> None:
    with pytest.raises(BundleRejected, match=r"^versions/a1b2_x\.py") as refusal:
        read_revision(file("\n" + text))
    assert words in refusal.value.message


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        pytest.param([], "no Alembic revision", id="empty"),
        pytest.param([node("a"), node("a")], "both declare revision a", id="double"),
        pytest.param([node("a"), node("b", "gone")], "names gone, which is not in the source", id="gap"),
        pytest.param([node("a", depends_on=("gone",))], "`depends_on` of revision a names gone", id="dependency"),
        pytest.param([node("a", "b"), node("b", "a")], "in a circle: a, b", id="circle"),
        pytest.param([node("a", "a")], "in a circle: a", id="itself"),
        pytest.param(
            [node("a"), node("b", "a"), node("c", depends_on=("d",)), node("d", "c")], "circle: c, d", id="dep"
        ),
        pytest.param(
            [node("a", labels=("x",)), node("b", labels=("x",))], "branch label x is already used", id="label"
        ),
    ],
)
def test_what_is_no_history_is_refused(nodes: list[Revision], words: str) -> None:
    with pytest.raises(BundleRejected) as refusal:
        Graph(nodes)
    assert words in refusal.value.message


def test_rows_that_contain_each_other_are_found() -> None:
    graph = Graph([node("a"), node("b", "a"), node("c", "b")])
    assert graph.overlapping(["c", "a"]) == ("c", "a")
    assert graph.overlapping(["c"]) is None


def test_more_python_than_can_be_parsed_beside_all_else_is_refused() -> None:
    """The parser takes hundreds of times what a file of the shortest words has."""
    most = "a;" * (WORDS_LIMIT // 2)
    many = ALL_WORDS_LIMIT // WORDS_LIMIT
    check_size([file(most)] * many)
    check_size([file("x = '" + "word" * WORDS_LIMIT + "'")])
    for shortest in (most + "a", "a\n" * (WORDS_LIMIT // 2) + "a", "()" * WORDS_LIMIT):
        with pytest.raises(BundleRejected, match=f"more than {WORDS_LIMIT} words"):
            check_size([file(shortest)])
    with pytest.raises(BundleRejected, match=f"{ALL_WORDS_LIMIT} words and signs together"):
        check_size([*[file(most)] * many, file("a")])
