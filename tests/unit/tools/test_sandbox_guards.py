"""Each guard of Alembic's sandbox by itself: every attack works without it, and is refused with it.

Older kernels are played by asking this one for less.
"""

import json
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import canaries
from attacks import ATTACKS, REFUSED, Attack, operator, script, surroundings
from database_bootstrap.settings import Sandbox, SandboxMode
from database_bootstrap.tools.sandbox import landlock, level
from sandbox_here import needs_filters, needs_landlock

GUARDED = """
import ctypes, json, sys
from pathlib import Path
from database_bootstrap.tools.sandbox import confinement, fence, landlock, syscalls
confinement._drop_capabilities()
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
abi, filters, scratch = int(sys.argv[1]), sys.argv[2] == "filters", Path(sys.argv[3])
if abi:
    landlock.restrict(fence._reach(scratch, ()), abi)
if filters:
    syscalls.restrict(local_sockets=False, truncate=True)
answers = {}
"""


def attempts(tmp_path: Path, *, abi: int = 0, filters: bool = False) -> dict[str, str]:
    """Return what each attack came to in a process with these guards."""
    folder, home = tmp_path / "others", tmp_path / "scratch" / "home"
    for each in (folder, home, tmp_path / "scratch" / "project"):
        each.mkdir(parents=True)
    with surroundings(folder, home) as around:
        code = GUARDED + script(ATTACKS, around, "answers.__setitem__") + "print(json.dumps(answers))"
        command = [sys.executable, "-c", code, str(abi), "filters" if filters else "none", str(home.parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


def judge(answers: dict[str, str], stopped: list[Attack]) -> None:
    """Demand that these are refused, and that all others work; what is not stopped, and not everywhere, may do both."""
    told = {attack.name: attack for attack in ATTACKS if attack.everywhere or attack in stopped}
    expected = {name: "refused" if attack in stopped else "done" for name, attack in told.items()}
    assert {name: "refused" if answers[name] in REFUSED else answers[name] for name in told} == expected


def test_every_attack_works_where_nothing_is_guarded(tmp_path: Path) -> None:
    judge(attempts(tmp_path), [])


@needs_filters
def test_the_filter_of_system_calls_refuses_what_it_is_for_and_nothing_else(tmp_path: Path) -> None:
    judge(attempts(tmp_path, filters=True), [attack for attack in ATTACKS if attack.seccomp])


@pytest.mark.parametrize("abi", [pytest.param(each, marks=needs_landlock(each)) for each in landlock.GUARDS])
def test_each_version_of_landlock_guards_what_the_table_says(tmp_path: Path, abi: int) -> None:
    judge(attempts(tmp_path, abi=abi), [attack for attack in ATTACKS if attack.landlock and attack.landlock <= abi])


@needs_filters
@needs_landlock(1)
def test_without_the_scopes_of_landlock_nobody_is_signalled_either(tmp_path: Path) -> None:
    answers = attempts(tmp_path, abi=4, filters=True)
    judge(answers, [attack for attack in ATTACKS if attack.seccomp or (attack.landlock or 9) <= 4])


KEEPER = """
import ctypes, os, sys, tempfile, threading, time
from database_bootstrap.tools.sandbox import confinement
confinement._drop_capabilities()
def keep(size):
    file = tempfile.TemporaryFile()
    os.write(file.fileno(), bytes(size))
    return file
def aside():
    libc.close_range(3, 2**31, 2)  # Descriptors of its own from here on.
    kept.append(keep(1 << 20))
    print("ready", flush=True)
    time.sleep(600)
libc, kept = ctypes.CDLL(None), [keep(1 << 20)]
if sys.argv[1] == "hides":
    libc.prctl(4, 0, 0, 0, 0)
if sys.argv[1] == "leaves":
    threading.Thread(target=aside).start()
    time.sleep(0.1)
    libc.pthread_exit(None)
print("ready", flush=True)
time.sleep(600)
"""
LOOKING = """
import sys
from pathlib import Path
from database_bootstrap.tools.sandbox import confinement, watch, wire
confinement._drop_capabilities()
print(watch.excess(int(sys.argv[1]), Path(sys.argv[2]), wire.Limits(seconds=1, scratch=1 << 19)))
"""


@pytest.mark.parametrize("keeper", ["shows", "hides", "leaves"])
def test_files_without_a_name_are_seen_whoever_keeps_them(tmp_path: Path, keeper: str) -> None:
    """By a supervisor that is not root."""
    command = [sys.executable, "-c", KEEPER, keeper]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        looking = [sys.executable, "-c", LOOKING, str(process.pid), str(tmp_path)]
        said = subprocess.run(looking, capture_output=True, text=True, check=True).stdout
        process.kill()
    assert said == (
        "it does not let itself be looked at\n" if keeper == "hides" else "its files took more than 0 MiB\n"
    )


OTHER_MACHINE = """
import ctypes, mmap, sys
from database_bootstrap.tools.sandbox import syscalls
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("53b814000000cd805bc3"))  # getpid() as an Intel 386 asks for it
getpid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
if sys.argv[1] == "filters":
    syscalls.restrict(local_sockets=False, truncate=True)
print(getpid() > 0, flush=True)
"""


@needs_filters
@pytest.mark.skipif(platform.machine() != "x86_64", reason="Only there has the kernel calls of two machines")
@pytest.mark.parametrize("filters", ["filters", "none"])
def test_calls_by_the_numbers_of_another_machine_end_the_process(filters: str) -> None:
    """The filter knows its own machine's numbers: with another's it would let everything through."""
    command = [sys.executable, "-c", OTHER_MACHINE, filters]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if filters == "filters":
        assert (done.returncode, done.stdout) == (-signal.SIGSYS, "")
    else:
        assert done.stdout == "True\n" or done.returncode == -signal.SIGSEGV, "a kernel without them ends it as well"


def test_a_hidden_process_keeps_its_secrets_from_others_of_the_user() -> None:
    """What guards the operator where revisions run unconfined."""
    with operator(hidden=False) as victim:
        assert canaries.readable(victim) == set(canaries.READABLE)
    with operator(hidden=True) as victim:
        assert canaries.readable(victim) == set()


IMPORT = "import os\nfrom database_bootstrap.tools.sandbox import confinement, wire\n"
CORES = {
    "nothing": "",
    "undumpable": f"{IMPORT}confinement._NO_CORE = 1 << 40; confinement.hide()",
    "limited": f"{IMPORT}confinement._prctl = lambda *_: None; confinement.hide()",
    "operator": f"{IMPORT}confinement.hide()",
    "revision": f"{IMPORT}confinement.confine(wire.Limits(seconds=30), os.getppid(), [])",
}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux asks")
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGQUIT, signal.SIGSEGV])
@pytest.mark.parametrize("who", CORES)
def test_no_core_is_left(tmp_path: Path, who: str, number: signal.Signals) -> None:
    """Asked of the kernel itself, wherever it would put the core: into a file, or into a program that collects them."""
    dumped = canaries.dumps_core(tmp_path, number, CORES[who])
    if who == "nothing" and not dumped:
        pytest.skip("This machine keeps no cores: THIS GUARD IS NOT TESTED HERE")
    assert dumped == (who == "nothing")
    assert bool(list(tmp_path.iterdir())) <= dumped


@pytest.mark.parametrize(
    ("sandbox", "abi", "refused", "told"),
    [
        (Sandbox(), 7, None, "run sandboxed: Landlock 7 (files, moving files, truncating files, TCP ports, device"),
        (Sandbox(), 1, None, "run sandboxed: Landlock 1 (files), calls filtered"),
        (Sandbox(), 0, "version 1 (--alembic-sandbox-min-abi), and it has none", "are not run"),
        (Sandbox(min_abi=4), 3, "version 4 (--alembic-sandbox-min-abi), and it has version 3", "are not run"),
        (Sandbox(min_abi=4), 4, None, "TCP ports), calls filtered"),
        (Sandbox(mode=SandboxMode.UNCONFINED, min_abi=9), 0, None, "run unconfined"),
        (Sandbox(mode=SandboxMode.REFUSED), 7, "has switched Alembic off", "are not run"),
    ],
)
def test_policy_meets_kernel(sandbox: Sandbox, abi: int, refused: str | None, told: str) -> None:
    here = level.Level(abi=abi, filters=True)
    refusal = level.refusal(sandbox, here)
    assert refusal is None if refused is None else refused in (refusal or "")
    assert told in level.describe(sandbox, here)


HIDING = {
    "plan": "from database_bootstrap import cli; assert cli.main(['plan', '-f', '/nowhere']) == 2",
    "apply": "from database_bootstrap import cli; assert cli.main(['apply', '-f', '/nowhere']) == 2",
    "run": "from database_bootstrap import cli\n"
    "assert cli.main(['run', '--kubeconfig', '/nowhere', '--health-address', '127.0.0.1:0']) == 2",
    "zygote": "import os, socket; from database_bootstrap.tools.sandbox import zygote\n"
    "ours, theirs = socket.socketpair(); ours.close()\n"
    "sys.argv[1:] = [str(theirs.detach()), str(os.getppid()), 'confined']; zygote.main()",
}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux asks")
@pytest.mark.parametrize("who", HIDING)
def test_whoever_has_secrets_hides(who: str) -> None:
    code = (
        f"import ctypes, resource, sys\n{HIDING[who]}\n"
        "core, _ = resource.getrlimit(resource.RLIMIT_CORE)\n"
        "print('dumpable', ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), 'core', core in (0, 1))"
    )
    with canaries.core_dumps_asked_for():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("dumpable 0 core True\n"), done.stderr
