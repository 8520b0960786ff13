"""`apply` and `plan` without a cluster, on real servers."""

import base64
import contextlib
import gzip
import json
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from database_bootstrap import cli
from database_bootstrap.api.outcomes import StageName
from database_bootstrap.reconcile import Engine
from database_bootstrap.standalone import run
from database_bootstrap.standalone.console import TextConsole
from localservers import Credentials, PostgresServer
from localservers.processes import free_port

pytestmark = pytest.mark.usefixtures("own_logging")

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"
MIGRATIONS = {
    "1_users.sql": "CREATE TABLE users (email text PRIMARY KEY);",
    "2_orders.sql": "CREATE TABLE orders (id int PRIMARY KEY);",
}
SEED = {"users.sql": "INSERT INTO users VALUES ('anna@example.com') ON CONFLICT DO NOTHING;"}


@dataclass
class Shop:
    """A folder with the file of one resource, and what its runs say."""

    folder: Path
    server: PostgresServer
    admin: Credentials
    spec: dict[str, Any]
    more: list[dict[str, Any]] = field(default_factory=list)
    capture: pytest.CaptureFixture[str] | None = None
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> Path:
        return self.folder / ".dbbootstrap"

    @property
    def file(self) -> Path:
        return self.folder / "shop.yaml"

    def write(self) -> list[str]:
        resource = manifest("DatabaseBootstrap", "shop", apiVersion="dbbootstrap.io/v1alpha1", spec=self.spec)
        resource["metadata"]["annotations"] = dict(self.annotations)
        self.file.write_text(yaml.safe_dump_all([resource, admin_secret(self.server, self.admin), *self.more]))
        return ["-f", str(self.file)]

    def run(self, command: str, *options: str) -> tuple[int, str]:
        """Return the exit code and all that was said."""
        assert self.capture
        code = cli.main([command, *self.write(), *options])
        told = self.capture.readouterr()
        return code, told.out + told.err

    def secret(self, name: str) -> dict[str, str]:

        data = yaml.safe_load((self.kept / f"default.{name}.secret.yaml").read_text())["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def query(self, query: str) -> list[Any]:
        """Ask as the application does."""
        with psycopg.connect(self.secret("shop-db")["uri"]) as connection:
            return connection.execute(query.encode()).fetchall()

    def files(self) -> dict[str, tuple[int, int]]:
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in self.kept.iterdir()}


def manifest(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}} | content


def admin_secret(server: PostgresServer, admin: Credentials, name: str = "postgres-admin") -> dict[str, Any]:
    access = {"host": server.host, "port": str(server.port), "username": admin.user, "password": admin.password}
    return manifest("Secret", name, stringData=access)


@pytest.fixture
def shop(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres_server: PostgresServer,
    unique_name: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> Shop:
    # The stages have tests of their own with both kinds of administrator; here a few do.
    both = "admin" in request.fixturenames
    admin = request.getfixturevalue("admin") if both else postgres_server.admin_role("createrole")
    spec = {
        "server": {"adminSecretRef": {"name": "postgres-admin"}},
        "role": {"name": unique_name("shop")},
        "database": {"name": unique_name("shop")},
        "migrations": {"tool": "SQL", "source": {"configMapRefs": [{"name": "migrations"}]}},
        "seed": {"source": {"configMapRefs": [{"name": "seed"}]}},
    }
    more = [manifest("ConfigMap", "migrations", data=dict(MIGRATIONS)), manifest("ConfigMap", "seed", data=dict(SEED))]
    return Shop(tmp_path, postgres_server, admin, spec, more, capsys)


def transactions(server: PostgresServer) -> str:
    return server.psql("SELECT pg_snapshot_xmax(pg_current_snapshot())")


def test_apply_makes_it_and_the_second_one_changes_nothing(shop: Shop, admin: Credentials) -> None:
    code, said = shop.run("apply")
    assert code == 0, said
    assert "+ apply migration" in said
    assert "changes made." in said
    assert shop.query("SELECT email FROM users") == [("anna@example.com",)]
    files, position = shop.files(), transactions(shop.server)
    code, said = shop.run("apply")
    assert code == 0
    assert "  Nothing changed.\n" in said
    assert "+" not in said
    assert shop.files() == files
    assert transactions(shop.server) == position


def test_summary_is_what_kubectl_would_show(shop: Shop) -> None:
    _, said = shop.run("apply")
    header, row = (
        said.rstrip().splitlines()[-3:-1]
        if "kept in" in said.rstrip().splitlines()[-1]
        else (said.rstrip().splitlines()[-2:])
    )
    assert header.split() == ["NAMESPACE", "NAME", "READY", "REASON", "DATABASE", "MIGRATION"]
    assert row.split()[:5] == ["default", "shop", "True", "Succeeded", shop.spec["database"]["name"]]


def test_where_things_are_kept_is_said_once(shop: Shop) -> None:
    assert str(shop.kept) in shop.run("apply")[1]
    assert str(shop.kept) not in shop.run("apply")[1]


def test_a_new_migration_is_the_only_change(shop: Shop) -> None:
    shop.run("apply")
    shop.more[0]["data"]["3_stock.sql"] = "CREATE TABLE stock (id int);"
    code, said = shop.run("apply")
    assert code == 0, said
    assert "  1 change made.\n" in said
    assert shop.query("SELECT count(*) FROM users") == [(1,)]
    status = yaml.safe_load((shop.kept / "default.shop.status.yaml").read_text())
    assert status["status"]["lastChange"]["changes"] == 1


def test_generation_counts_changes_of_the_spec(shop: Shop) -> None:
    def generation() -> int:
        return int(yaml.safe_load((shop.kept / "default.shop.status.yaml").read_text())["metadata"]["generation"])

    shop.run("apply")
    shop.run("apply")
    assert generation() == 1
    shop.spec["role"]["connectionLimit"] = 7
    shop.run("apply")
    assert generation() == 2


def test_plan_tells_and_changes_nothing(shop: Shop) -> None:
    position = transactions(shop.server)
    code, said = shop.run("plan")
    assert code == 0, said
    assert f'+ create role "{shop.spec["role"]["name"]}"' in said
    assert "changes to make; nothing was changed." in said
    assert shop.run("plan", "--detailed-exitcode")[0] == 2
    assert not shop.kept.exists()
    assert transactions(shop.server) == position
    shop.run("apply")
    code, said = shop.run("plan", "--detailed-exitcode")
    assert (code, "Nothing to change." in said) == (0, True)


def test_lines_for_machines(shop: Shop) -> None:
    code, said = shop.run("apply", "--output", "json", "--secret-dir", str(shop.folder / "elsewhere"))
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert code == 0
    assert [line["event"] for line in lines] == ["stage"] * len(StageName) + ["end"]
    assert lines[-1]["status"]["conditions"][0]["type"] == "Ready"
    assert lines[-1]["changes"] == sum(len(line["changes"]) for line in lines[:-1])
    assert not shop.kept.exists()


def test_no_password_is_ever_printed(shop: Shop) -> None:
    said = "".join(shop.run(command, "--output", form)[1] for command in ("plan", "apply") for form in ("text", "json"))
    generated = shop.secret("shop-role")["password"]
    assert shop.admin.password not in said
    assert generated not in said
    assert shop.secret("shop-db")["password"] == generated
    assert generated not in (shop.kept / "default.shop.status.yaml").read_text()


def test_password_of_ones_own_needs_no_folder(shop: Shop) -> None:
    shop.spec["role"]["passwordSecretRef"] = {"name": "own", "key": "word"}
    shop.spec["deletionPolicy"] = "Delete"
    shop.more.append(manifest("Secret", "own", stringData={"word": "canary / 'x' \u20ac"}))
    code, said = shop.run("apply", "--no-secret-dir")
    assert code == 0, said
    assert "Nothing is kept between runs" in said
    assert "deletionPolicy has no effect without a cluster" in said
    assert "canary" not in said
    assert not shop.kept.exists()
    assert "Nothing changed." in shop.run("apply", "--no-secret-dir")[1]


def test_second_project_of_the_same_name_sets_no_password(shop: Shop) -> None:
    """Whatever folder it is in: no uid tells the two apart, as both are made of the name."""
    shop.spec["role"]["passwordSecretRef"] = {"name": "own", "key": "password"}
    own = manifest("Secret", "own", stringData={"password": "of the first"})
    shop.more.append(own)
    assert shop.run("apply")[0] == 0
    uri = shop.secret("shop-db")["uri"]
    shop.kept.rename(shop.folder / "of the first")
    own["stringData"] = {"password": "of the second"}
    shop.spec["role"]["connectionLimit"] = 3
    code, said = shop.run("apply")
    assert code == 1
    assert "NotOwned" in said
    assert f'ALTER ROLE "{shop.spec["role"]["name"]}" PASSWORD' in said
    with psycopg.connect(uri) as connection:
        found = connection.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user").fetchall()
        assert found == [(-1,)]
        ((uid,),) = connection.execute("SELECT uid FROM dbbootstrap.identity").fetchall()
    own["stringData"] = {"password": "of the first"}
    assert shop.run("apply")[0] == 0
    own["stringData"] = {"password": "renewed"}
    assert shop.run("apply")[0] == 1
    shop.annotations["dbbootstrap.io/take-over"] = uid
    assert shop.run("apply")[0] == 0
    assert shop.query("SELECT count(*) FROM users") == [(1,)]


def test_password_is_another_one_on_a_persons_word(shop: Shop) -> None:
    shop.run("apply")
    before = shop.secret("shop-db")
    shop.annotations["dbbootstrap.io/rotate-password"] = "2024-05-01"
    code, said = shop.run("apply")
    assert (code, "generate another password" in said) == (0, True)
    after = shop.secret("shop-db")
    assert after["password"] == shop.secret("shop-role")["password"] != before["password"]
    assert shop.query("SELECT count(*) FROM users") == [(1,)]
    assert "Nothing changed." in shop.run("apply")[1]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(before["uri"]).close()


def test_lost_folder_stops_and_resets_nothing(shop: Shop) -> None:
    shop.run("apply")
    uri = shop.secret("shop-db")["uri"]
    shop.kept.rename(shop.folder / "lost")
    code, said = shop.run("apply")
    assert code == 1
    assert "PasswordLost" in said
    with psycopg.connect(uri) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchall() == [(1,)]
    # What the message says is all that it takes.
    shop.annotations |= dict(re.findall(r"(dbbootstrap\.io/[a-z-]+)=([0-9a-f-]{36}|<any new value>)", said))
    assert len(shop.annotations) == 2
    assert shop.run("apply")[0] == 0
    assert shop.query("SELECT count(*) FROM users") == [(1,)]


def test_lost_data_is_noticed_and_made_anew_when_a_person_says_so(shop: Shop) -> None:
    shop.run("apply")
    name = shop.spec["database"]["name"]
    lost = yaml.safe_load((shop.kept / "default.shop.status.yaml").read_text())["status"]["database"]["incarnation"]
    shop.server.psql(f'DROP DATABASE "{name}" WITH (FORCE)')
    for command in ("apply", "plan"):
        code, said = shop.run(command)
        assert (code, f"dbbootstrap.io/acknowledge-data-loss={lost}" in said) == (1, True)
        assert "DataLossDetected" in said
    assert "  Stopped at database.\n" in said
    assert shop.server.psql(f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == "0"
    shop.annotations["dbbootstrap.io/acknowledge-data-loss"] = "another"
    assert shop.run("apply")[0] == 1
    shop.annotations["dbbootstrap.io/acknowledge-data-loss"] = lost
    code, said = shop.run("apply")
    assert code == 0, said
    assert shop.query("SELECT email FROM users") == [("anna@example.com",)]
    assert "Nothing changed." in shop.run("apply")[1]
    # The word of a person holds for that one loss, and not for the next.
    shop.server.psql(f'DROP DATABASE "{name}" WITH (FORCE)')
    assert shop.run("apply")[0] == 1


async def test_status_that_cannot_be_kept_is_for_a_person_and_the_others_go_on(
    shop: Shop, unique_name: Callable[[str], str]
) -> None:
    spec = {**shop.spec, "role": {"name": unique_name("other")}, "database": {"name": unique_name("other")}}
    shop.more.append(manifest("DatabaseBootstrap", "other", apiVersion="dbbootstrap.io/v1alpha1", spec=spec))
    options = run.Options(sources=shop.write()[1:])
    work = run.prepare(options)
    (shop.kept / "default.shop.status.yaml").mkdir()
    assert await run.apply(Engine(), work, options, TextConsole()) is run.Exit.STALLED
    assert shop.capture
    said = shop.capture.readouterr().out
    assert "ReferenceRejected: The status could not be kept: " in said
    assert "default     shop    False   ReferenceRejected" in said
    assert "default     other   True    Succeeded" in said
    assert shop.query("SELECT email FROM users") == [("anna@example.com",)]


def test_foreign_secret_is_never_overwritten(shop: Shop) -> None:
    shop.more.append(manifest("Secret", "shop-db", stringData={"uri": "somebody else's"}))
    code, said = shop.run("apply")
    assert code == 1
    assert "connection  NotOwned: Secret shop-db" in said
    assert not (shop.kept / "default.shop-db.secret.yaml").exists()


def test_what_needs_a_person_ends_with_1_and_keeps_what_is_done(shop: Shop) -> None:
    shop.spec["extensions"] = [{"name": "no_such_extension"}]
    code, said = shop.run("apply")
    assert code == 1
    assert "database    DatabaseInPlace" in said
    assert "extensions  ExtensionUnavailable" in said
    assert "no_such_extension" in said
    assert "migrations" not in said
    assert "False   ExtensionUnavailable" in said


def test_two_resources_are_both_tried(shop: Shop, unique_name: Callable[[str], str]) -> None:
    spec = dict(shop.spec, role={"name": unique_name("other")}, database={"name": unique_name("other")})
    del spec["migrations"], spec["seed"]
    shop.more.append(manifest("DatabaseBootstrap", "other", apiVersion="dbbootstrap.io/v1alpha1", spec=spec))
    shop.spec["extensions"] = [{"name": "no_such_extension"}]
    code, said = shop.run("apply")
    assert code == 1
    assert said.index("default/shop") < said.index("default/other")
    assert "default     other   True    Succeeded" in said


def test_suspended_resource_is_left_alone(shop: Shop) -> None:
    shop.spec["suspend"] = True
    code, said = shop.run("apply")
    assert (code, said) == (0, "default/shop: left alone, spec.suspend is true\n")


def test_missing_config_map_is_named_and_may_come_later(shop: Shop) -> None:
    del shop.more[1]
    code, said = shop.run("apply")
    assert code == 75
    assert "ConfigMap seed is not among the documents" in said


def test_server_that_is_down_is_for_later(shop: Shop) -> None:
    shop.write()
    documents = list(yaml.safe_load_all(shop.file.read_text()))
    documents[1]["stringData"]["port"] = str(free_port())
    shop.file.write_text(yaml.safe_dump_all(documents))
    assert cli.main(["apply", "-f", str(shop.file)]) == 75
    assert shop.capture
    assert "ServerUnreachable" in shop.capture.readouterr().out


def test_server_that_comes_back_is_waited_for(shop: Shop) -> None:
    shop.write()
    shop.server.stop()
    with apply_process(shop, "--wait", "60") as process:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        assert next(line for line in lines if "next try in" in line)
        shop.server.start_again()
        rest = "".join(lines)
    assert process.returncode == 0, rest
    assert "True    Succeeded" in rest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_rolls_back_what_has_begun(shop: Shop, number: signal.Signals, code: int) -> None:
    shop.more[0]["data"]["2_orders.sql"] = "CREATE TABLE orders (id int); SELECT pg_sleep(600);"
    shop.write()
    name = shop.spec["database"]["name"]
    asleep = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'PgSleep'"
    with apply_process(shop) as process:
        wait_until(lambda: shop.server.psql(asleep) == "1")
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode == code
    wait_until(lambda: shop.server.psql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'") == "0")
    tables = (
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )
    assert "orders" not in shop.server.psql(f"{tables} AND relkind = 'r'", dbname=name).split()


@pytest.mark.parametrize("sample", ["minimal", "alembic", "sql"])
def test_samples_are_applied_as_they_are(shop: Shop, admin: Credentials, sample: str) -> None:
    documents = list(yaml.safe_load_all((SAMPLES / sample / "database.yaml").read_text()))
    documents[0] = admin_secret(shop.server, shop.admin)
    shop.file.write_text(yaml.safe_dump_all(documents))
    for expected in (" made.", "Nothing changed."):
        assert cli.main(["apply", "-f", str(shop.file)]) == 0
        assert shop.capture
        assert expected in shop.capture.readouterr().out


@contextlib.contextmanager
def apply_process(shop: Shop, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "database_bootstrap", "apply", "-f", str(shop.file), *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_heed_interrupts,  # noqa: PLW1509 it takes no lock
    ) as process:
        try:
            yield process
            process.wait(timeout=60)
        finally:
            process.kill()


@pytest.mark.parametrize("output", ["text", "json"])
def test_large_seed_says_how_far_it_is(shop: Shop, output: str) -> None:
    content = b"number,note\n" + b"".join(b"%d,%b\n" % (number % 1000, b"x" * 500) for number in range(34_000))
    info = tarfile.TarInfo("visits.csv")
    info.size = len(content)
    packed = gzip.compress(info.tobuf() + content + bytes(-len(content) % 512 + 1024))
    shop.more[0]["data"]["3_visits.sql"] = "CREATE TABLE visits (number int, note text);"
    shop.more[1] |= {"data": {}, "binaryData": {"seed.tar.gz": base64.b64encode(packed).decode()}}
    code, said = shop.run("apply", "--output", output)
    assert code == 0, said
    assert "Loading visits.csv: 0 of 17 MB" in said
    assert shop.query("SELECT count(*) FROM visits") == [(34_000,)]


def _heed_interrupts() -> None:
    # A shell that starts the tests in the background lets all of their processes ignore SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_server_of_a_platform_team_comes_in_the_same_files(shop: Shop) -> None:
    spec = {
        "adminSecretRef": {"namespace": "platform", "name": "postgres"},
        "allowedNamespaces": {"matchLabels": {"team": "shop"}},
        "allowedNames": {"roles": ["shop_*"], "databases": ["shop_*"]},
    }
    access = admin_secret(shop.server, shop.admin, "postgres")
    access["metadata"]["namespace"] = "platform"
    shop.spec["server"] = {"ref": {"name": "main"}}
    code, said = shop.run("plan")
    assert (code, "DatabaseServer main is not among the documents (server.ref)" in said) == (75, True), said
    server = manifest("DatabaseServer", "main", apiVersion="dbbootstrap.io/v1alpha1", spec=spec)
    shop.more += [server, access]
    code, said = shop.run("plan")
    assert code == 0, said
    assert "allowedNamespaces is taken as kept" in said
    shop.spec["extensions"] = [{"name": "dblink"}]
    for command in ("plan", "apply"):
        code, said = shop.run(command)
        assert (code, "extensions dblink are not among its allowedExtensions (none)" in said) == (1, True), said
    del shop.spec["extensions"]
    code, said = shop.run("apply")
    assert code == 0, said
    assert "postgres" not in {path.name.split(".")[1] for path in shop.kept.iterdir() if "secret" in path.name}
    assert shop.query("SELECT count(*) FROM users") == [(1,)]
    code, said = shop.run("apply")
    assert "Nothing changed" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"allowedDatabases": ["*"]}, "spec.allowedDatabases: is not a field", id="unknown field"),
        pytest.param({"allowedNames": {"roles": ["{namespace}*"]}}, "`allowedNames` must put", id="open pattern"),
    ],
)
def test_server_that_cannot_be_is_bad_input(shop: Shop, change: dict[str, Any], expected: str) -> None:
    spec = {"adminSecretRef": {"namespace": "platform", "name": "postgres"}} | change
    shop.more.append(manifest("DatabaseServer", "main", apiVersion="dbbootstrap.io/v1alpha1", spec=spec))
    code, said = shop.run("plan")
    assert (code, expected in said) == (2, True), said
