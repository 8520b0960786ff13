"""The command line, as far as it needs no server."""

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from database_bootstrap import cli
from database_bootstrap.api import schema
from database_bootstrap.api.outcomes import Outcome, Reason, StageName, Verdict
from database_bootstrap.api.status import Status
from database_bootstrap.bundles.sources import bundle_of_config_maps
from database_bootstrap.errors import BundleRejected
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.stages.subject import Facts, Report
from database_bootstrap.standalone import documents
from database_bootstrap.standalone.collection import collect
from database_bootstrap.standalone.console import JsonConsole, TextConsole

pytestmark = pytest.mark.usefixtures("own_logging")

RESOURCE = """\
apiVersion: dbbootstrap.io/v1alpha1
kind: DatabaseBootstrap
metadata: {name: shop}
spec:
  server: {adminSecretRef: {name: admin}}
  role: {name: shop}
  database: {name: shop}
"""


@pytest.mark.parametrize("command", [[], ["run"], ["apply"], ["plan"], ["bundle"], ["crd"]], ids=" ".join)
def test_help_is_there_for_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: database-bootstrap" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing"),
        pytest.param(["restore"], id="unknown command"),
        pytest.param(["apply"], id="no file"),
        pytest.param(["apply", "-f", "x.yaml", "--output", "xml"], id="unknown format"),
        pytest.param(["apply", "-f", "x.yaml", "--wait", "long"], id="no number"),
        pytest.param(["apply", "-f", "x.yaml", "--wait", "nan"], id="not a number"),
        pytest.param(["apply", "-f", "x.yaml", "--wait", "inf"], id="without end"),
        pytest.param(["apply", "-f", "x.yaml", "--wait=-5"], id="less than none"),
        pytest.param(["plan", "-f", "x.yaml", "--wait", "1"], id="flag of another command"),
        pytest.param(["bundle", ".", "--name", "Bad Name"], id="name that no ConfigMap has"),
        pytest.param(["bundle", ".", "--name", ""], id="no name"),
        pytest.param(["bundle", ".", "--name", "x" * 249], id="name that no number can be added to"),
        pytest.param(["bundle", ".", "--namespace", "shop\nkind: Secret"], id="line break in a namespace"),
        pytest.param(["bundle", ".", "--namespace", "shop\n"], id="line break at its end"),
        pytest.param(["bundle", ".", "--namespace", "a.b"], id="namespace with a dot"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_crd_is_what_the_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["crd"]) == 0
    assert capsys.readouterr().out == schema.render()


@pytest.mark.parametrize("command", ["apply", "plan"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("a: [", "shop.yaml, document 1, line", id="broken YAML"),
        pytest.param("", "There is no DatabaseBootstrap", id="nothing in it"),
        pytest.param(
            RESOURCE.replace("database: {name: shop}", "database: {name: postgres}"), "document 1", id="reserved"
        ),
        pytest.param(RESOURCE.replace("{name: shop}\nspec", "{name: Shop}\nspec"), "metadata.name", id="name"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(
    command: str, content: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(content)
    assert cli.main([command, "-f", str(file)]) == 2
    told = capsys.readouterr()
    assert expected in told.err
    assert told.err.startswith("database-bootstrap: ")
    assert told.out == ""
    assert not (tmp_path / ".dbbootstrap").exists()


def test_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["apply", "-f", str(tmp_path / "shop.yaml")]) == 2
    assert "shop.yaml: No such file or directory" in capsys.readouterr().err


def test_with_detailed_exit_codes_bad_input_is_no_change(tmp_path: Path) -> None:
    assert cli.main(["plan", "--detailed-exitcode", "-f", str(tmp_path / "missing.yaml")]) == 1


def test_where_nothing_is_kept_no_password_is_generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(RESOURCE)
    assert cli.main(["apply", "--no-secret-dir", "-f", str(file)]) == 2
    assert "role.passwordSecretRef must name a Secret" in capsys.readouterr().err


def test_what_must_stay_is_compared_with_what_was_applied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / ".dbbootstrap"
    kept.mkdir(mode=0o700)
    (kept / "default.shop.status.yaml").write_text(RESOURCE)
    (kept / "default.shop.status.yaml").chmod(0o600)
    file = tmp_path / "shop.yaml"
    file.write_text(RESOURCE.replace("role: {name: shop}", "role: {name: other}"))
    assert cli.main(["apply", "-f", str(file)]) == 2
    assert "`role.name` must stay as it was" in capsys.readouterr().err


def test_bundle_prints_config_maps_in_which_scripts_are_readable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = "-- Über\nCREATE TABLE a (b text);\n"
    migration = tmp_path / "Prisma" / "migrations" / "20240101000000_init" / "migration.sql"
    migration.parent.mkdir(parents=True)
    migration.write_text(script)
    assert cli.main(["bundle", str(tmp_path / "Prisma" / "migrations"), "--namespace", "shop"]) == 0
    text = capsys.readouterr().out
    (made,) = yaml.safe_load_all(text)
    labels = {"dbbootstrap.io/watch": "true"}
    assert made["metadata"].pop("annotations")["dbbootstrap.io/bundle"].startswith("prisma-migrations;1/1;sha256:")
    assert made["metadata"] == {"name": "prisma-migrations", "namespace": "shop", "labels": labels}
    assert made["data"] == {"20240101000000_init.sql": script}
    assert "    CREATE TABLE a (b text);\n" in text


def test_bundle_of_several_config_maps_says_which_names_to_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        (tmp_path / f"{number}.sql").write_bytes(random.Random(number).randbytes(600_000))
    assert cli.main(["bundle", str(tmp_path), "--name", "shop"]) == 0
    told = capsys.readouterr()
    made = [one["metadata"] for one in yaml.safe_load_all(told.out)]
    assert [one["name"] for one in made] == ["shop-1", "shop-2"]
    assert all(one["labels"] == {"dbbootstrap.io/watch": "true"} for one in made)
    assert "configMapRefs: [{name: shop-1}, {name: shop-2}]" in told.err
    found = collect(documents.parse(told.out.encode(), "stdin", tmp_path)).config_maps.values()
    assert len(bundle_of_config_maps(list(found)).files) == 2
    with pytest.raises(BundleRejected, match="configMapRefs lacks shop-2"):
        bundle_of_config_maps([one for one in found if one.name == "shop-1"])


def test_folder_that_cannot_be_made_ends_with_2_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(RESOURCE)
    kept = tmp_path / "kept"
    kept.symlink_to("nowhere")
    assert cli.main(["apply", "-f", str(file), "--secret-dir", str(kept)]) == 2
    told = capsys.readouterr()
    assert "nothing can be kept there" in told.err
    assert told.out == ""


@pytest.mark.parametrize("command", ["apply", "plan"])
def test_folder_that_others_write_to_ends_with_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, kept = tmp_path / "shop.yaml", tmp_path / ".dbbootstrap"
    file.write_text(RESOURCE)
    kept.mkdir()
    kept.chmod(0o777)
    assert cli.main([command, "-f", str(file)]) == 2
    assert f"{kept}: others can write to it" in capsys.readouterr().err


def test_bundle_of_what_is_no_directory_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", str(tmp_path / "missing")]) == 2
    assert "is not a directory" in capsys.readouterr().err


def test_command_is_there_as_a_module_too() -> None:
    command = [sys.executable, "-m", "database_bootstrap", "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip()


def test_server_that_is_away_is_told_once_and_nobody_is_said_to_ask_on(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: admin}\nstringData: {uri: 'postgresql://a:b@127.0.0.1:1/'}\n"
    )
    file.write_text(f"{secret}---\n{RESOURCE}")
    command = [sys.executable, "-m", "database_bootstrap", "plan", "-f", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout.count("127.0.0.1:1") == 1


def test_reader_who_leaves_early_is_no_mistake() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "database_bootstrap", "crd"]
    done = subprocess.run(command, check=False, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""


OWNER = Owner(cluster="standalone", namespace="shop", name="smart", uid="u-1")
OUTCOME = Outcome(
    stage=StageName.ROLE,
    verdict=Verdict.STALLED,
    reason=Reason.NOT_OWNED,
    message='Role "\x1b[2Jsmart" exists',
    changes=('create role "smart"',),
    warnings=("Something else.",),
)


def test_text_for_people_never_steers_their_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    TextConsole().outcome(OWNER, OUTCOME)
    assert capsys.readouterr().out.splitlines() == [
        '  role        NotOwned: Role "\ufffd[2Jsmart" exists',
        '              + create role "smart"',
        "              ! Something else.",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (0, "  Nothing changed."),
        (1, "  1 change made."),
    ],
)
def test_sum_at_the_end(changes: int, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    TextConsole().end(OWNER, changes, Status())
    assert capsys.readouterr().out.rstrip("\n") == expected


@pytest.mark.parametrize(
    ("verdict", "changes", "expected"),
    [
        (Verdict.DONE, (), ["  Nothing to change."]),
        (Verdict.DONE, ("a", "b"), ["  2 changes to make; nothing was changed."]),
        (Verdict.STALLED, (), ["  Stopped at role."]),
        (Verdict.RETRY, ("a",), ["  1 change to make; nothing was changed.", "  Stopped at role."]),
    ],
)
def test_sum_at_the_end_of_a_plan(
    verdict: Verdict, changes: tuple[str, ...], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(outcomes=(replace(OUTCOME, verdict=verdict, changes=changes),), facts=Facts())
    TextConsole().planned(OWNER, report)
    assert capsys.readouterr().out.splitlines() == expected
    JsonConsole().planned(OWNER, report)
    line = yaml.safe_load(capsys.readouterr().out)
    assert (line["changes"], line.get("stopped")) == (len(changes), None if verdict is Verdict.DONE else "role")


def test_lines_for_machines_name_their_resource(capsys: pytest.CaptureFixture[str]) -> None:
    JsonConsole().outcome(OWNER, OUTCOME)
    JsonConsole().end(OWNER, 1, Status())
    stage, end = (yaml.safe_load(line) for line in capsys.readouterr().out.splitlines())
    assert (stage["namespace"], stage["name"], stage["event"]) == ("shop", "smart", "stage")
    assert (stage["reason"], stage["changes"]) == ("NotOwned", ['create role "smart"'])
    assert (end["event"], end["changes"], end["status"]["observedGeneration"]) == ("end", 1, -1)
