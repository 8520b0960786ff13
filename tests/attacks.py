"""What hostile code would do to those around it, as data: each with the guards that stop it."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4


@dataclass(frozen=True)
class Attack:
    """Some lines that end without an exception where nobody stops them."""

    name: str
    code: str
    landlock: int | None = None
    """The version of Landlock that stops it."""
    seccomp: bool = False
    """Whether the filter of system calls does."""


READ = [
    Attack("read a token", "open(token).read()", landlock=1),
    Attack("read a token through a link", "os.symlink(token, home + '/link'); open(home + '/link').read()", landlock=1),
    Attack("take a token over", "os.link(token, home + '/linked')", landlock=1),
    Attack("list another's folder", "os.listdir(folder)", landlock=1),
    Attack("read accounts", "open('/etc/passwd').read()", landlock=1),
    Attack("read the operator's environment", "open(f'/proc/{victim}/environ').read()", landlock=1),
    Attack("read the operator's memory", "open(f'/proc/{victim}/mem', 'rb')", landlock=1),
    Attack("list the operator's descriptors", "os.listdir(f'/proc/{victim}/fd')", landlock=1),
    Attack("read the operator's command line", "open(f'/proc/{victim}/cmdline').read()", landlock=1),
]
WRITE = [
    Attack("write to another's folder", "open(folder + '/new', 'w').close()", landlock=1),
    Attack("add to another's file", "open(token, 'a').close()", landlock=1),
    Attack("cut another's file off", "os.truncate(folder + '/long', 0)", landlock=3),
    Attack("remove another's file", "os.unlink(folder + '/doomed')", landlock=1),
    Attack("move another's file", "os.rename(folder + '/moving', folder + '/moved')", landlock=1),
    Attack("change the rights of another's file", "os.chmod(token, 0o600)", seccomp=True),
    Attack("change the owner of another's file", "os.chown(token, -1, -1)", seccomp=True),
    Attack("change the time of another's file", "os.utime(token)", seccomp=True),
    Attack(
        "watch another's folder",
        "must(libc.inotify_add_watch(libc.inotify_init(), folder.encode(), 256))",
        seccomp=True,
    ),
]
NETWORK = [
    Attack("connect to another port", "socket.create_connection(('127.0.0.1', port), 2)", landlock=4),
    Attack("bind a port", "socket.socket().bind(('127.0.0.1', 0))", landlock=4),
    Attack("listen at any port", "socket.socket().listen()", seccomp=True),
    Attack("connect while sending", "socket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', port))", seccomp=True),
    Attack("use another protocol", "socket.socket(socket.AF_INET, socket.SOCK_STREAM, mptcp)", seccomp=True),
    Attack(
        "connect to an abstract socket", "socket.socket(socket.AF_UNIX).connect(abstract)", landlock=6, seccomp=True
    ),
    Attack("connect to a socket file", "socket.socket(socket.AF_UNIX).connect(file)", seccomp=True),
]
PROCESSES = [
    Attack("start a process", "pid = os.fork() or os._exit(0); os.waitpid(pid, 0)", seccomp=True),
    Attack("start a program", "subprocess.run([sys.executable, '-c', ''], check=True)", landlock=1, seccomp=True),
    Attack("signal the operator", "os.kill(victim, 0)", landlock=6, seccomp=True),
    Attack("signal everybody", "must(libc.kill(-victim_group, 0))", landlock=6, seccomp=True),
    Attack("limit the operator", "resource.prlimit(victim, resource.RLIMIT_NOFILE, (9, 9))", seccomp=True),
    Attack("slow the operator down", "os.setpriority(0, victim, os.getpriority(0, victim) + 1)", seccomp=True),
    Attack("chain the operator to a processor", "os.sched_setaffinity(victim, {0})", seccomp=True),
    Attack("have the kernel signal the operator", "fcntl.fcntl(0, fcntl.F_SETOWN, victim)", seccomp=True),
    Attack("trace the operator", "must(libc.ptrace(0x4206, victim, None, None))", landlock=1, seccomp=True),
    Attack("outlive the supervisor", "must(libc.prctl(1, 0, 0, 0, 0))", seccomp=True),
]
MEMORY = [
    Attack("keep memory in a file without a name", "os.memfd_create('x')", seccomp=True),
    Attack("keep memory beyond the end", "must(libc.shmctl(must(libc.shmget(0, 4096, 0o600)), 0, None))", seccomp=True),
]
ATTACKS = [*READ, *WRITE, *NETWORK, *PROCESSES, *MEMORY]

PRELUDE = """
import ctypes, errno, fcntl, os, resource, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
mptcp = 262

def must(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result

def attempt(code, surroundings):
    try:
        exec(code, {**globals(), **surroundings})
    except OSError as error:
        return errno.errorcode.get(error.errno, repr(error))
    except BaseException as error:
        return repr(error)
    return "done"
"""
REFUSED = {"EPERM", "EACCES", "EXDEV"}
"""EXDEV: Landlock's answer where a file would be linked to where it could be used otherwise."""

VICTIM = """
import sys, time
from database_bootstrap.tools.sandbox import confinement
confinement._drop_capabilities()
if sys.argv[1] == "hidden":
    confinement.hide()
print("ready", flush=True)
time.sleep(600)
"""


@contextmanager
def operator(*, hidden: bool) -> Iterator[int]:
    """Start a process of the same user that plays the operator; it has a secret in its environment."""
    command = [sys.executable, "-c", VICTIM, "hidden" if hidden else "plain"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "CANARY": "secret"}, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def surroundings(folder: Path, home: Path) -> Iterator[dict[str, object]]:
    """Make what is attacked, and return where it is."""
    for name in ("token", "long", "doomed", "moving"):
        (folder / name).write_text("secret")
    abstract = f"\0dbbootstrap-{os.getpid()}-{uuid4()}"
    with (
        tempfile.TemporaryDirectory() as short,
        operator(hidden=False) as victim,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as nameless,
        socket.socket(socket.AF_UNIX) as named,
    ):
        for one, place in ((nameless, abstract), (named, f"{short}/socket")):
            one.bind(place)
            one.listen()
        yield {
            "token": str(folder / "token"), "folder": str(folder), "home": str(home), "victim": victim,
            "victim_group": os.getpgid(victim), "port": listener.getsockname()[1], "abstract": abstract,
            "file": f"{short}/socket",
        }  # fmt: skip


def script(attacks: list[Attack], around: dict[str, object], tell: str) -> str:
    """Return Python that tries them all, and hands each name and answer to the function `tell`."""
    pairs = [(attack.name, attack.code) for attack in attacks]
    return (
        f"world = {{}}\nexec({PRELUDE!r}, world)\nfor name, code in {pairs!r}:\n"
        f"    {tell}(name, world['attempt'](code, {around!r}))\n"
    )
