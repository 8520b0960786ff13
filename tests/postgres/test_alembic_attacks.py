"""Hostile revisions on a real server: what they try is refused, what they use up is bounded; what is honest works."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from attacks import ATTACKS, REFUSED, script, surroundings
from database_bootstrap import errors
from database_bootstrap.settings import Sandbox, SandboxMode
from database_bootstrap.tools.alembic import Alembic
from database_bootstrap.tools.sandbox import Zygote
from fix_alembic import OPTIONS, PASSWORD, Shop, ShopMaker, until
from postgres import alembic_projects as projects
from sandbox_here import LEVEL, needs_filters, needs_landlock


@pytest_asyncio.fixture
async def own(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """The shop with a confining zygote of its own, which keeps its folders in `tmp_path / "scratch"`."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    shop.zygote = Zygote()
    yield shop
    await shop.zygote.stop()


def only(body: str) -> dict[str, str]:
    return projects.chain(("r001",), r001=body.strip())


TELL = """
op.execute("CREATE TABLE said (name text, answer text)")
def tell(name, answer):
    op.get_bind().execute(sa.text("INSERT INTO said VALUES (:name, :answer)"), {"name": name, "answer": answer})
"""


def trying(around: dict[str, object]) -> dict[str, str]:
    """Return a project whose revision tries every attack, and puts what came of it into a table."""
    return only(TELL.strip() + "\n" + script(ATTACKS, around, "tell"))


@needs_filters
@needs_landlock(6)
async def test_every_attack_of_a_revision_is_refused(own: Shop, tmp_path: Path) -> None:
    """That each works without its guard is in tests/unit/tools/test_sandbox_guards.py."""
    folder = tmp_path / "scratch" / "dbbootstrap-alembic-of-another"
    folder.mkdir()
    with surroundings(folder, folder) as around:
        around["home"] = "."
        assert (await own.apply(trying(around))).pending == ()
    said = dict(line.split("|") for line in own.ask("SELECT name, answer FROM said"))
    assert said.keys() == {attack.name for attack in ATTACKS}
    assert {name: answer for name, answer in said.items() if answer not in REFUSED} == {}
    assert sorted(each.name for each in folder.iterdir()) == ["doomed", "long", "moving", "token"]


WAITING = (
    TELL.strip()
    + """
import os
here = os.environ["HOME"]
tell(str(os.getpid()), here)
op.execute("COMMIT; SELECT pg_advisory_lock(7)")
assert sorted(os.listdir(here)) == ["doomed", "long", "moving", "token"]
assert {open(os.path.join(here, name)).read() for name in os.listdir(here)} == {"secret"}
"""
)


@needs_filters
@needs_landlock(6)
async def test_every_attack_on_a_revision_of_somebody_else_is_refused(own: Shop, make_shop: ShopMaker) -> None:
    """Two tenants' revisions run at the same time, in processes of the same user."""
    theirs = replace(await make_shop("theirs"), zygote=own.zygote)
    theirs.ask("SELECT 1")
    await theirs.connection.execute("SELECT pg_advisory_lock(7)")
    waiting = asyncio.create_task(theirs.apply(only(WAITING), replace(OPTIONS, timeout=60)))
    await until(lambda: "said" in theirs.tables(), waiting)
    ((pid, home),) = [line.split("|") for line in theirs.ask("SELECT name, answer FROM said")]
    with surroundings(Path(home), Path(home)) as around:
        around |= {"home": ".", "victim": int(pid), "victim_group": os.getpgid(int(pid))}
        assert (await own.apply(trying(around))).pending == ()
    said = dict(line.split("|") for line in own.ask("SELECT name, answer FROM said"))
    assert {name: answer for name, answer in said.items() if answer not in REFUSED} == {}
    await theirs.connection.execute("SELECT pg_advisory_unlock(7)")
    assert (await waiting).pending == ()


HONEST = """
import asyncio, ctypes.util, datetime, locale, os, socket, ssl, tempfile, threading, uuid, zoneinfo
assert datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset().seconds == 7200
ssl.create_default_context()
uuid.uuid1(), ctypes.util.find_library("c"), os.cpu_count(), os.urandom(8)
assert socket.getaddrinfo("localhost", 5432)
with tempfile.NamedTemporaryFile("w+") as file, tempfile.TemporaryDirectory() as folder:
    file.write("x" * 100_000)
    assert folder.startswith(os.environ["HOME"])
    open(os.path.join(folder, "a"), "w").close()
    os.rename(os.path.join(folder, "a"), os.path.join(os.environ["HOME"], "a"))
threads = [threading.Thread(target=len, args=("",)) for _ in range(20)]
[each.start() for each in threads], [each.join() for each in threads]
assert asyncio.run(asyncio.sleep(0, 7)) == 7
from sqlalchemy.dialects import mysql, sqlite
import decimal, csv, xml.etree.ElementTree, sqlite3, multiprocessing
"""


async def test_honest_code_works(own: Shop) -> None:
    assert (await own.apply(only(HONEST))).pending == ()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(
            "import os\nfor n in range(200): open(f\"{os.environ['HOME']}/{n}\", 'wb').write(b'x' * (1 << 20))\n"
            "import time; time.sleep(60)",
            "its files took more than 64 MiB",
            id="files",
        ),
        pytest.param(
            "import tempfile, time\nkept = [tempfile.TemporaryFile() for _ in range(80)]\n"
            "for each in kept: each.write(b'x' * (1 << 20)); each.flush()\ntime.sleep(60)",
            "its files took more than 64 MiB",
            id="files-without-a-name",
        ),
        pytest.param(
            "import os, time\nfor n in range(5000): os.mkdir(f\"{os.environ['HOME']}/{n}\")\ntime.sleep(60)",
            "it kept more than 4096 files",
            id="number-of-files",
        ),
        pytest.param(
            "import threading, time\nthreading.stack_size(65536)\n"
            "for _ in range(100): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\ntime.sleep(60)",
            "it had more than 64 threads",
            id="threads",
        ),
        pytest.param(
            "import mmap\nkept = [mmap.mmap(-1, 1 << 28) for _ in range(9)]", "OSError: [Errno 12]", id="shared-memory"
        ),
        pytest.param("kept = bytearray(3 << 30)", "MemoryError", id="memory"),
    ],
)
async def test_what_is_used_up_is_bounded(own: Shop, tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(errors.MigrationFailed) as failure:
        await own.apply(only(body), replace(OPTIONS, timeout=30))
    assert words in failure.value.message
    await until(lambda: not list((tmp_path / "scratch").iterdir()))


DEEP = """
import os
os.chdir(os.environ["HOME"])
for _ in range(3000):
    os.mkdir("d" * 50)
    os.chdir("d" * 50)
os.mkdir("shut", 0)
"""


async def test_a_folder_deeper_than_any_path_is_removed(own: Shop, tmp_path: Path) -> None:
    assert (await own.apply(only(DEEP))).pending == ()
    assert list((tmp_path / "scratch").iterdir()) == []


@needs_landlock(1)
async def test_a_revision_that_does_not_listen_to_sigterm_is_ended(own: Shop, tmp_path: Path) -> None:
    body = (
        "import signal\nfor number in range(1, 32):\n"
        "    if number not in (9, 19): signal.signal(number, signal.SIG_IGN)\nwhile True: pass"
    )
    with pytest.raises(errors.MigrationTimedOut, match="while revision r001 ran"):
        await own.apply(only(body), replace(OPTIONS, timeout=1))
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("sandbox", "words"),
    [
        (Sandbox(mode=SandboxMode.REFUSED), "has switched Alembic off"),
        (
            Sandbox(min_abi=99),
            f"version 99 (--alembic-sandbox-min-abi), and it has {(LEVEL.abi and 'version') or 'none'}",
        ),
    ],
    ids=["refused", "kernel"],
)
async def test_where_it_cannot_be_confined_no_revision_runs(shop: Shop, sandbox: Sandbox, words: str) -> None:
    tool = Alembic(shop.zygote, sandbox)
    source = tool.load(projects.bundle(projects.chain(projects.FIVE)))
    with pytest.raises(errors.SandboxUnavailable) as refusal:
        tool.compare(source, await tool.read(shop.connection, OPTIONS), OPTIONS)
    assert refusal.value.message.startswith("5 of 5 revisions are pending. ")
    assert words in refusal.value.message
    # What is there already needs nobody's code to run.
    await shop.apply(projects.chain(projects.FIVE))
    assert tool.compare(source, await tool.read(shop.connection, OPTIONS), OPTIONS).pending == ()
    assert PASSWORD not in refusal.value.message
