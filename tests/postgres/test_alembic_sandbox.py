"""The sandbox on a real server: what the project's code is given, how it ends, and that nothing of it stays."""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

import canaries
from database_bootstrap import errors
from database_bootstrap.postgres import locks, session
from database_bootstrap.settings import SandboxMode
from database_bootstrap.tools.sandbox import Zygote, wire
from fix_alembic import OPTIONS, PASSWORD, Shop, until
from postgres import alembic_projects as projects
from sandbox_here import SANDBOX


@asynccontextmanager
async def with_zygote(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, confined: bool
) -> AsyncIterator[Shop]:
    """Give the shop a zygote of its own, which keeps its folders in `tmp_path / "scratch"`."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("CANARY", "a secret of the operator's")
    shop.zygote = Zygote(confined=confined)
    await shop.zygote.start()
    yield shop
    await shop.zygote.stop()


@pytest_asyncio.fixture
async def own(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """The shop with a zygote of its own."""
    async with with_zygote(shop, tmp_path, monkeypatch, SANDBOX.mode is SandboxMode.SANDBOXED) as one:
        yield one


@pytest_asyncio.fixture
async def loose(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """The same, unconfined: there a project can start processes, of which none may stay either."""
    async with with_zygote(shop, tmp_path, monkeypatch, confined=False) as one:
        yield one


def processes(mark: str) -> list[int]:
    """Return the processes whose command line has this in it, ours and the dead left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if mark in command:
                found.append(int(entry.name))
    return found


def sessions(shop: Shop) -> list[str]:
    """Return the states of the sessions of the role, but for the operator's own."""
    ours = 0 if shop.connection.closed else shop.connection.info.backend_pid
    query = f"SELECT state FROM pg_stat_activity WHERE usename = current_user AND pid NOT IN ({ours}, pg_backend_pid())"
    return shop.ask(query)


def empty(folder: Path) -> bool:
    return not list(folder.iterdir())


# A grandchild that has left the process group, in a child that does not listen to SIGTERM.
HANGING = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for detached in (True, False):
    subprocess.Popen(
        [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)", {mark!r}],
        start_new_session=detached,
    )
op.execute("CREATE TABLE hanging (id integer)")
open({file!r}, "w").close()
{wait}
"""
IN_PYTHON = "time.sleep(600)"
OUTSIDE = """with op.get_context().autocommit_block():
    op.execute('SELECT pg_sleep(600)')"""
IN_THE_SERVER = "op.execute('SELECT pg_sleep(600)')"


def hanging(tmp_path: Path, wait: str = IN_PYTHON) -> dict[str, str]:
    body = HANGING.format(mark=mark_of(tmp_path), file=str(tmp_path / "hangs"), wait=wait)
    return projects.chain(projects.FIVE, r003=body.strip())


def mark_of(tmp_path: Path) -> str:
    return f"mark-{tmp_path.name}-{os.getpid()}"


@pytest.mark.parametrize("wait", [IN_PYTHON, IN_THE_SERVER], ids=["python", "server"])
async def test_a_run_that_hangs_is_ended_with_all_that_it_has_started(loose: Shop, tmp_path: Path, wait: str) -> None:
    with pytest.raises(
        errors.MigrationTimedOut, match=r"after 1 s .* while revision r003 ran\. Of this run r001, r002"
    ):
        await loose.apply(hanging(tmp_path, wait), replace(OPTIONS, timeout=1))
    assert (tmp_path / "hangs").exists()
    assert processes(mark_of(tmp_path)) == []
    assert sessions(loose) == []
    assert empty(tmp_path / "scratch")
    assert loose.tables() == {"alembic_version", "customer"}


@pytest.mark.parametrize("wait", [IN_PYTHON, IN_THE_SERVER], ids=["python", "server"])
async def test_a_cancelled_visit_leaves_nothing_running(loose: Shop, tmp_path: Path, wait: str) -> None:
    run = asyncio.create_task(loose.apply(hanging(tmp_path, wait)))
    await until((tmp_path / "hangs").exists, run)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert processes(mark_of(tmp_path)) == []
    assert sessions(loose) == []
    assert empty(tmp_path / "scratch")
    # The same zygote serves the next one, which goes on where that one stopped.
    assert (await loose.apply(projects.chain(projects.FIVE))).pending == ()


async def test_a_run_whose_zygote_is_killed_is_interrupted(loose: Shop, tmp_path: Path) -> None:
    run = asyncio.create_task(loose.apply(hanging(tmp_path, IN_THE_SERVER)))
    await until((tmp_path / "hangs").exists, run)
    zygote = loose.zygote.pid
    assert zygote
    os.kill(zygote, signal.SIGKILL)
    with pytest.raises(errors.MigrationInterrupted, match="was killed while revision r003 ran"):
        await run
    await until(lambda: not processes(mark_of(tmp_path)) and empty(tmp_path / "scratch"))
    assert sessions(loose) == []
    # The next run starts another one.
    assert (await loose.apply(projects.chain(projects.FIVE))).pending == ()


async def test_a_run_whose_supervisor_is_killed_is_cleared_away(loose: Shop, tmp_path: Path) -> None:
    run = asyncio.create_task(loose.apply(hanging(tmp_path)))
    await until((tmp_path / "hangs").exists, run)
    zygote = loose.zygote.pid
    assert zygote
    (supervisor,) = zygotes_of(zygote)
    os.kill(supervisor, signal.SIGKILL)
    with pytest.raises(errors.MigrationInterrupted, match="was killed while revision r003 ran"):
        await run
    await until(lambda: not processes(mark_of(tmp_path)) and empty(tmp_path / "scratch"))
    assert zygote in zygotes_of(os.getpid())
    assert (await loose.apply(projects.chain(projects.FIVE))).pending == ()


async def test_a_run_that_is_ended_outside_of_transactions_is_half_applied(loose: Shop, tmp_path: Path) -> None:
    with pytest.raises(errors.MigrationHalfApplied, match=r"Revision r003 stopped .*: its process was ended"):
        await loose.apply(hanging(tmp_path, OUTSIDE), replace(OPTIONS, timeout=1))
    assert "hanging" in loose.tables()
    with pytest.raises(errors.MigrationHalfApplied, match="is not run again by itself"):
        await loose.look(hanging(tmp_path, OUTSIDE))


async def test_a_zygote_that_died_between_two_runs_is_replaced(own: Shop, tmp_path: Path) -> None:
    await own.apply(projects.chain(projects.FIVE[:2]))
    assert own.zygote.pid
    os.kill(own.zygote.pid, signal.SIGKILL)
    assert (await own.apply(projects.chain(projects.FIVE))).pending == ()


def job_without_server(folder: Path, environment: str) -> wire.Job:
    """Return a job with this env.py; where a server should be, there is none."""
    project = wire.Project(
        root="", config=None, toml=None, script_location="", version_locations=("versions",), recursive=False,
        environment="env.py",
    )  # fmt: skip
    target = wire.Target(
        host=str(folder), port=1, user="u", database="d", application_name="a", sslmode="disable", require_auth="none",
        ca=None, schema="public", lock_timeout=1, statement_timeout=0, owner_pid=1,
    )  # fmt: skip
    files = (("env.py", environment.encode()),)
    limits = wire.Limits(seconds=30)
    return wire.Job(
        project=project, target=target, limits=limits, actor="", checksums={}, files=files, password=PASSWORD
    )


CONNECT = "import os, sqlalchemy\nsqlalchemy.create_engine(os.environ['DATABASE_URL']).connect()"


async def test_a_zygote_that_dies_before_a_run_begins_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped when the order reaches it, and killed before it reads it."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    zygote = Zygote(confined=SANDBOX.mode is SandboxMode.SANDBOXED)
    await zygote.start()
    first = zygote.pid
    assert first
    os.kill(first, signal.SIGSTOP)

    async def run() -> list[wire.Event]:
        return [event async for event in zygote.run(job_without_server(tmp_path, CONNECT))]

    running = asyncio.create_task(run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)
    failed, ended = await running
    await zygote.stop()
    assert isinstance(failed, wire.Failed)
    assert failed.broken
    assert ended == wire.Ended(status=1, late=False, output="")


async def test_a_run_that_is_late_is_asked_to_end_before_it_is_killed(tmp_path: Path, zygote: Zygote) -> None:
    job = job_without_server(tmp_path, "import time; time.sleep(600)")
    job = replace(job, limits=replace(job.limits, seconds=1))
    assert [event async for event in zygote.run(job)] == [wire.Ended(status=-signal.SIGTERM, late=True, output="")]


async def test_only_the_end_of_the_output_is_kept_and_the_password_is_not_in_it(tmp_path: Path, zygote: Zygote) -> None:
    text = "import os\nfor _ in range(10000): print('x' * 100, os.environ['DATABASE_URL'])\nprint('the end')"
    events = [event async for event in zygote.run(job_without_server(tmp_path, text))]
    ended = events[-1]
    assert isinstance(ended, wire.Ended)
    assert ended.output.startswith("xxxx")
    assert ended.output.endswith("the end\n")
    assert 50_000 < len(ended.output) <= 65536
    assert "***" in ended.output
    assert "p%25w" not in ended.output


def zygotes_of(owner: int) -> list[int]:
    """Return the owner's zygotes, or a zygote's supervisors, or a supervisor's child."""
    return [
        process
        for process in processes("database_bootstrap.tools.sandbox.zygote")
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1] == str(owner)
    ]


OWNER = """
import asyncio, sys
sys.path[:0] = {path!r}
from database_bootstrap.tools.alembic import Alembic
from database_bootstrap.tools.sandbox import Zygote, wire
from database_bootstrap.postgres.login import Endpoint, Login
from database_bootstrap.postgres import locks, session
from fix_alembic import OPTIONS, Shop
import json

async def main():
    files, login = json.loads(sys.stdin.read())
    login = Login(endpoint=Endpoint(**login.pop("endpoint")), **login)
    connection = await session.connect(login, session.OWNER)
    await locks.acquire(connection)
    await Shop(server=None, login=login, connection=connection, zygote=Zygote(confined=False)).apply(files)

asyncio.run(main())
"""


def start(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


async def test_a_killed_operator_leaves_nothing_running(loose: Shop, tmp_path: Path) -> None:
    await loose.connection.close()
    code = OWNER.format(path=[path for path in sys.path if path])
    with start(code) as owner:
        assert owner.stdin is not None
        owner.stdin.write(json.dumps([hanging(tmp_path, IN_THE_SERVER), dataclasses.asdict(loose.login)]).encode())
        owner.stdin.close()
        await until(lambda: (tmp_path / "hangs").exists() or owner.poll() is not None)
        owner.kill()
    await until(lambda: not processes(mark_of(tmp_path)) and empty(tmp_path / "scratch"))
    # The server notices by itself that the client is gone, in the middle of a statement.
    await until(lambda: sessions(loose) == [])
    assert zygotes_of(owner.pid) == []
    assert loose.tables() == {"alembic_version", "customer"}


LOOKING = """
import os, resource, sys
descriptors = [f"/proc/self/fd/{one}" for one in os.listdir("/proc/self/fd")]
limit = resource.getrlimit
rows = {
    "environment": sorted(os.environ),
    "initial": sorted(open("/proc/self/environ").read().split(chr(0))),
    "descriptors": sorted(os.readlink(one) for one in descriptors if os.path.lexists(one)),
    "stdin": [repr(sys.stdin.read() if sys.stdin else ""), repr(os.read(0, 1))],
    "limits": [limit(resource.RLIMIT_CORE), limit(resource.RLIMIT_AS)[0] < 1 << 40, limit(resource.RLIMIT_NOFILE)],
    "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "folder": [os.getcwd(), oct(os.stat("..").st_mode & 0o777), os.environ["HOME"], os.environ["TMPDIR"]],
    "argv": sys.argv,
    "privileges": [line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")],
    "command": open("/proc/self/cmdline").read().split(chr(0)),
}
op.execute("CREATE TABLE seen (what text, value text)")
for what, values in rows.items():
    for value in values:
        op.get_bind().execute(sa.text("INSERT INTO seen VALUES (:what, :value)"), {"what": what, "value": str(value)})
"""


async def test_the_projects_code_gets_what_it_needs_and_nothing_else(own: Shop, tmp_path: Path) -> None:
    await own.apply(projects.chain(("r001",), r001=LOOKING.strip()))

    def seen(what: str) -> list[str]:
        return own.ask(f"SELECT value FROM seen WHERE what = '{what}'")

    names = set(seen("environment"))
    assert {"DATABASE_URL", "PGHOST", "PGPASSWORD", "PGOPTIONS", "PATH", "HOME"} <= names
    assert names <= {
        *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "TMPDIR", "DATABASE_URL"),
        *("SQLALCHEMY_DATABASE_URI", "SQLALCHEMY_DATABASE_URL", "DB_DATABASE", "DB_NAME", "POSTGRES_DB"),
        *(name for name in names if name.startswith("PG")),
        *(f"{prefix}_{part}" for prefix in ("DB", "POSTGRES") for part in ("HOST", "PORT", "USER", "PASSWORD")),
    }
    assert not [value for value in seen("initial") if PASSWORD in value or "CANARY" in value]
    assert not [value for value in seen("command") if PASSWORD in value]
    pipes = [value for value in seen("descriptors") if value.startswith("pipe:")]
    sockets = [value for value in seen("descriptors") if value.startswith("socket:")]
    # stdout and stderr, the events; the migrating session.
    assert (len(pipes), len(sockets)) == (3, 1)
    assert seen("stdin") == ["''", "b''"]
    assert seen("limits") == ["(1, 1)", "True", "(256, 256)"]
    assert seen("session") == ["True", "True"]
    folder, mode, *homes = seen("folder")
    assert Path(folder).is_relative_to(tmp_path / "scratch")
    assert mode == "0o700"
    assert all(Path(each).parent == Path(folder).parent for each in homes)
    assert seen("argv") == ["alembic", "upgrade", "heads"]
    assert seen("privileges") == ["NoNewPrivs:\t1"]
    assert empty(tmp_path / "scratch")


CRASHES = {
    "abort": "os.abort()",
    "segfault": "ctypes.string_at(0)",
    "quit": "signal.signal(3, signal.SIG_DFL); os.kill(os.getpid(), 3)",
}


@pytest.mark.parametrize("crash", CRASHES)
async def test_a_revision_that_crashes_leaves_no_core(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    """Unconfined, where a project may write: a core in its own folder would go with the folder."""
    with canaries.core_dumps_asked_for():
        async with with_zygote(shop, tmp_path, monkeypatch, confined=False) as loose:
            (tmp_path / "here").mkdir()
            body = f"import ctypes, os, signal\nos.chdir({str(tmp_path / 'here')!r})\n{CRASHES[crash]}"
            with pytest.raises(errors.MigrationFailed, match=r"ended itself with SIG\w+ while revision r001 ran"):
                await loose.apply(projects.chain(("r001",), r001=body))
    assert empty(tmp_path / "here")
    assert empty(tmp_path / "scratch")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("b'x' * (3 << 30)", "MemoryError", id="memory"),
        pytest.param(
            "import os; open(os.environ['HOME'] + '/big', 'wb').truncate(1 << 40)",
            "OSError: [Errno 27] File too large",
            id="file-size",
        ),
        pytest.param("[open('/dev/null') for _ in range(300)]", "OSError: [Errno 24] Too many open files", id="files"),
    ],
)
async def test_limits_hold(shop: Shop, line: str, words: str) -> None:
    with pytest.raises(errors.MigrationFailed) as failure:
        await shop.apply(projects.chain(("r001",), r001=line))
    assert words in failure.value.message


async def test_a_flood_of_output_does_no_harm(shop: Shop) -> None:
    flood = "import os, sys\nfor _ in range(400): os.write(1, b'x' * 65536)\nprint('y' * 10_000_000, file=sys.stderr)"
    assert (await shop.apply(projects.chain(projects.FIVE, r005=flood))).pending == ()


async def test_forged_events_change_nothing(shop: Shop) -> None:
    """The project's code finds the pipe of events and tells lies in it."""
    lies = [
        *('{"event": "applied", "revision": "r004"}', '{"event": "committed"}', "{", '{"event": "ended", "status": 0}'),
        '{"event": "ended", "status": 0, "late": false, "output": ""}',
    ]
    body = (
        "import os, stat\n"
        "for one in range(3, 50):\n"
        "    if os.path.exists(f'/proc/self/fd/{one}') and stat.S_ISFIFO(os.fstat(one).st_mode):\n"
        f"        os.write(one, {chr(10).join(lies)!r}.encode() + b'\\n')\n"
        "raise ValueError"
    )
    with pytest.raises(errors.MigrationFailed, match="Revision r003"):
        await shop.apply(projects.chain(projects.FIVE, r003=body))
    assert shop.ask("SELECT version_num FROM alembic_version") == ["r002"]
    assert shop.applied == ["r001", "r002"]


async def test_the_event_loop_is_never_blocked(own: Shop) -> None:
    """A clock in the loop goes on while the zygote loads and a run is under way."""
    longest, last, stop = 0.0, _time_of_this_thread(), False

    async def clock() -> None:
        nonlocal longest, last
        while not stop:
            await asyncio.sleep(0)
            now = _time_of_this_thread()
            longest, last = max(longest, now - last), now

    ticking = asyncio.create_task(clock())
    await own.apply(projects.project(projects.chain(projects.FIVE)))
    stop = True
    await ticking
    assert longest < 0.5


def _time_of_this_thread() -> float:
    """Return the time without that in which the thread wanted a processor and others had it (proc(5), schedstat)."""
    _, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
    return time.monotonic() - int(waited) / 1e9


def test_it_works_under_uvloop(shop: Shop) -> None:
    """The fixtures live in asyncio's own loop; session, zygote and run in uvloop's."""

    async def run() -> None:
        async with await session.connect(shop.login, session.OWNER) as connection:
            await connection.execute("SELECT pg_terminate_backend(%s, 5000)", (shop.connection.info.backend_pid,))
            await locks.acquire(connection)
            there = dataclasses.replace(shop, connection=connection, zygote=Zygote())
            assert (await there.apply(projects.chain(projects.FIVE))).pending == ()
            await there.zygote.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
