"""What holds for the repository as a whole."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from database_bootstrap import errors
from database_bootstrap.api.outcomes import Reason

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "database_bootstrap"
MODULES = sorted(PACKAGE.rglob("*.py"))
README = (ROOT / "README.md").read_text()
LONGEST_FUNCTION = 40
LONGEST_MODULE = 300
SUMMARIES = {errors.Retryable, errors.Stalled}
"""They group errors and are never raised themselves."""


def subclasses(of: type[errors.BootstrapError]) -> Iterator[type[errors.BootstrapError]]:
    for each in of.__subclasses__():
        yield each
        yield from subclasses(each)


# Tests may define errors of their own.
ERRORS = [each for each in subclasses(errors.BootstrapError) if each.__module__ == errors.__name__]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def body_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of the body, its docstring aside."""
    statements = function.body[1:] if ast.get_docstring(function) else function.body
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def test_folder_operator_is_no_package() -> None:
    # It would shadow the standard library's `operator` for everything that is started from the repository's root.
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_standard_library_is_found_from_the_root() -> None:
    command = [sys.executable, "-c", "import operator; print(operator.add(1, 2))"]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout == "3\n"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_modules_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    functions = [it for it in ast.walk(ast.parse(text)) if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(text.splitlines()) <= LONGEST_MODULE
    assert {it.name: body_of(it) for it in functions if body_of(it) > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_says_in_one_line_what_it_is(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert said
    # A list of what is in it may follow.
    assert "\n" not in said.partition("\n\n")[0]


def test_unknown_errors_are_caught_where_a_visit_ends_and_nowhere_else() -> None:
    # The queue is the last resort behind the engine. Processes of the sandbox are no part of a visit.
    found = {relative(path) for path in MODULES if re.search(r"except Exception\b", path.read_text())}
    assert {path for path in found if "/tools/sandbox/" not in path} == {
        "operator/database_bootstrap/controller/workqueue.py",
        "operator/database_bootstrap/reconcile.py",
    }


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_a_docstring_and_a_place_in_the_tree(error: type[errors.BootstrapError]) -> None:
    assert inspect.getdoc(error) != inspect.getdoc(error.__mro__[1])
    assert f"── {error.__name__} " in (errors.__doc__ or "")


def test_every_error_is_a_reason_of_its_own() -> None:
    names = [error.__name__ for error in ERRORS if error not in SUMMARIES]
    assert len(set(names)) == len(names)
    assert set(names) <= {reason.value for reason in Reason}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_row_in_the_readme(reason: Reason) -> None:
    assert re.search(rf"^\| `{reason}` \| [^|]+ \| [^|]+ \|$", README, re.MULTILINE)


def test_readme_explains_no_reason_that_does_not_exist() -> None:
    table = README.partition("| reason |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {reason.value for reason in Reason}


def test_ci_runs_the_test_command_of_the_readme_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert len(commands) == 1
    assert f"\n{commands[0]} " in README or f"\n{commands[0]}\n" in README
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_lock_pins_by_hash_and_names_no_index(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(-?index|-?extra|-?find|i |f )", text, re.MULTILINE)
    pins = re.findall(r"^[\w.\[\]-]+==\S+(?: ; [^\\]+)? (\\?)$", text, re.MULTILINE)
    assert pins
    assert set(pins) == {"\\"}
    assert not re.findall(r"^[\w.\[\]-]+(?!==)[<>~!]=", text, re.MULTILINE)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    # Written apart, or this file would be the first to be found.
    places = re.compile("|".join((r"/ro" r"ot/", r"/ho" r"me/\w", r"/wo" r"rk/", r"/opt/whe" r"els")))
    found = [
        name
        for name in filter(None, listed.stdout.split("\0"))
        if (ROOT / name).is_file() and places.search((ROOT / name).read_text(errors="replace"))
    ]
    assert found == []


def test_image_is_made_of_the_lock_and_runs_as_nobody() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert dockerfile.count("pip") > 0
    for command in re.findall(r"pip[^\n]* install(?:[^\n]*\\\n)*[^\n]*", dockerfile):
        assert "--require-hashes" in command or "--no-index" in command, command
    assert re.search(r"^USER 65532:65532$", dockerfile, re.MULTILINE)
    assert all(base.startswith("${BASE_") for base in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))


@pytest.mark.parametrize("page", ["data-safety.md", "security.md"])
def test_pages_name_tests_that_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    there = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert named - there == set()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    rows = [row for header, _, *rows in tables if header.endswith("| test |") for row in rows]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"`test_\w+` \|$", row)] == []


_STATEMENT = re.compile(
    r"\b(?:ALTER (?:ROLE|DATABASE|SCHEMA|EXTENSION)|GRANT|REVOKE|DROP (?:DATABASE|OWNED|ROLE)|REASSIGN)"
    r"""\b[^\n]*\\?"\{[^{}]+\}\\?\""""
)
"""A statement that a person is told to run, with a name that is between quotes and may hold one."""


def test_names_in_statements_for_people_are_spelled_as_sql() -> None:
    found = {
        f"{path.name}: {line.strip()}"
        for path in MODULES
        for line in path.read_text().splitlines()
        if _STATEMENT.search(line) and "sql.SQL" not in line
    }
    assert found == set()
