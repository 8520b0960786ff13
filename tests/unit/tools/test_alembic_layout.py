"""Where an Alembic project's parts lie, for every way in which one arrives."""

import pytest

from database_bootstrap.bundles.bundle import Bundle, File, bundle_of
from database_bootstrap.errors import BundleRejected
from database_bootstrap.tools.alembic_layout import Layout, find

REVISION = 'revision = "{}"\ndown_revision = None\n'


def bundle(**files: str) -> Bundle:
    return bundle_of(File(path=path, content=text.encode()) for path, text in files.items())


def layout(files: dict[str, str]) -> Layout:
    return find(bundle(**files))


def revisions(of: Layout) -> list[str]:
    return [file.path for file in of.revisions]


def ini(*lines: str) -> str:
    return "\n".join(("[alembic]", *lines))


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        pytest.param(["script_location = db"], "db", id="relative"),
        pytest.param(["script_location = %(here)s/db"], "db", id="here"),
        pytest.param(["script_location = %(base)s/db", "base = backend/./x/.."], "backend/db", id="interpolated"),
        pytest.param(["script_location = shop.models:db"], "shop/models/db", id="package"),
        pytest.param(
            ["script_location = shop:db", "prepend_sys_path = .:src", "path_separator = os"], "src/shop/db", id="src"
        ),
    ],
)
def test_configuration_says_where_the_scripts_are(lines: list[str], where: str) -> None:
    found = layout({"alembic.ini": ini(*lines), f"{where}/env.py": "", f"{where}/versions/a.py": REVISION})
    assert revisions(found) == [f"{where}/versions/a.py"]
    assert found.project.environment == f"{where}/env.py"
    assert (found.project.config, found.project.script_location) == ("alembic.ini", None)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(["version_locations = one two"], ["one/b.py", "two/a.py"], id="legacy-blank"),
        pytest.param(["version_locations = one, two"], ["one/b.py", "two/a.py"], id="legacy-comma"),
        pytest.param(["version_locations = two:one", "path_separator = os"], ["two/a.py", "one/b.py"], id="os"),
        pytest.param(["version_locations = one;two", "version_path_separator = ;"], ["one/b.py", "two/a.py"], id="old"),
        pytest.param(
            ["version_locations =", "  %(here)s/one", "  two", "path_separator = newline"],
            ["one/b.py", "two/a.py"],
            id="newline",
        ),
        pytest.param(
            ["version_locations = one", "recursive_version_locations = true"],
            ["one/b.py", "one/old/c.py"],
            id="recursive",
        ),
    ],
)
def test_version_locations_are_split_as_alembic_splits_them(lines: list[str], expected: list[str]) -> None:
    files = {"one/b.py": REVISION, "one/old/c.py": REVISION, "two/a.py": REVISION, "db/env.py": ""}
    assert revisions(layout({"alembic.ini": ini("script_location = db", *lines), **files})) == expected


def test_pyproject_is_a_configuration_too() -> None:
    toml = '[tool.alembic]\nscript_location = "%(here)s/db"\nversion_locations = ["%(here)s/v"]\n'
    found = layout({"back/pyproject.toml": toml, "back/db/env.py": "", "back/v/a.py": REVISION})
    assert revisions(found) == ["back/v/a.py"]
    assert (found.project.root, found.project.toml, found.project.config) == ("back", "back/pyproject.toml", None)


def test_what_is_no_revision_by_its_name_is_left_out() -> None:
    files = {f"m/versions/{name}": REVISION for name in ("__init__.py", ".#a.py", "README", "b.pyc", "a.py")}
    assert revisions(layout({"m/env.py": "", **files})) == ["m/versions/a.py"]


def test_a_script_directory_needs_no_configuration() -> None:
    found = layout({"env.py": "", "script.py.mako": "", "versions/a.py": REVISION})
    assert revisions(found) == ["versions/a.py"]
    assert (found.project.script_location, found.project.environment) == ("", "env.py")


def test_flat_keys_of_a_config_map_are_moved_to_where_alembic_looks() -> None:
    keys = {
        "0f_first.py": REVISION,
        "1f_second.py": REVISION,
        "env.py": "",
        "common.py": "",
        "alembic.ini": ini("script_location = db"),
    }
    found = layout(keys)
    assert revisions(found) == ["0f_first.py", "1f_second.py"]
    assert {file.path for file in found.files} == {
        *("versions/0f_first.py", "versions/1f_second.py", "env.py", "common.py", "alembic.ini"),
    }
    assert found.moved["versions/0f_first.py"] == "0f_first.py"
    assert (found.project.script_location, found.project.environment) == ("", "env.py")


def test_bare_revisions_run_without_environment() -> None:
    assert layout({"a.py": REVISION}).project.environment is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param({"alembic.ini": "[alembic"}, "alembic.ini cannot be read", id="ini"),
        pytest.param({"alembic.ini": "[other]\n"}, "no section [alembic]", id="section"),
        pytest.param({"alembic.ini": ini("script_location = %(nope)s")}, "script_location", id="interpolation"),
        pytest.param({"pyproject.toml": "[tool"}, "not valid TOML", id="toml"),
        pytest.param({"pyproject.toml": '[tool.alembic]\nscript_location = "%(x)s"'}, "uses % for more", id="percent"),
        pytest.param({"alembic.ini": ini("script_location = ../db")}, "outside of the source", id="outside"),
        pytest.param({"alembic.ini": ini("script_location = /db")}, "outside of the source", id="absolute"),
        pytest.param(
            {"alembic.ini": ini("script_location = db", "version_locations = a", "path_separator = !")},
            "no path_separator",
            id="separator",
        ),
        pytest.param(
            {"a/alembic.ini": ini(), "b/alembic.ini": ini()}, "two Alembic configurations, in a and in b", id="two"
        ),
        pytest.param({"a/versions/x.py": "", "b/versions/y.py": ""}, "several Alembic projects", id="projects"),
        pytest.param({"a/x.py": REVISION, "b/y.py": REVISION}, "Revisions lie in a and in b", id="scattered"),
    ],
)
def test_what_is_not_clear_is_refused(files: dict[str, str], words: str) -> None:
    with pytest.raises(BundleRejected) as refusal:
        layout(files)
    assert words in refusal.value.message


@pytest.mark.parametrize("name", ["alembic.ini", "pyproject.toml"])
def test_configuration_that_takes_long_to_read_is_refused(name: str) -> None:
    with pytest.raises(BundleRejected, match="65536 are the limit"):
        layout({name: "a=1\n" * (1 << 15), "versions/a.py": REVISION})


def test_configuration_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(BundleRejected, match="nested too deeply"):
        layout({"pyproject.toml": "a = " + "[" * 5000, "versions/a.py": REVISION})
