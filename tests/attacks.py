"""What hostile code would do to those around it, as data: each with the guards that stop it."""

import ctypes
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
    everywhere: bool = True
    """Whether it works on every kernel that guards nothing; some are built without, or let root alone do it."""


READ = [
    Attack("read a token", "open(token).read()", landlock=1),
    Attack("read a token through a link", "os.symlink(token, home + '/link'); open(home + '/link').read()", landlock=1),
    Attack("take a token over", "os.link(token, home + '/linked')", landlock=1),
    Attack("list another's folder", "os.listdir(folder)", landlock=1),
    Attack("read accounts", "open('/etc/passwd').read()", landlock=1),
    Attack("read the operator's environment", "open(f'/proc/{victim}/environ').read()", landlock=1),
    Attack("read the operator's memory", "open(f'/proc/{victim}/mem', 'rb')", landlock=1),
    Attack("read what is in the device of memory", "os.listdir('/dev/shm')", landlock=1),
    Attack("list the operator's descriptors", "os.listdir(f'/proc/{victim}/fd')", landlock=1),
    Attack("read the operator's command line", "open(f'/proc/{victim}/cmdline').read()", landlock=1),
]
WRITE = [
    Attack("write to another's folder", "open(folder + '/new', 'w').close()", landlock=1),
    Attack("add to another's file", "open(token, 'a').close()", landlock=1),
    Attack("leave a file in memory", "open(shm, 'w').close(); os.unlink(shm)", landlock=1),
    Attack("change what the next one imports", "open(os.__file__, 'r+').close()", landlock=1),
    Attack("add to what the next one imports", "open(module, 'x').close(); os.unlink(module)", landlock=1),
    Attack("cut another's file off", "os.truncate(folder + '/long', 0)", landlock=3),
    Attack("remove another's file", "os.unlink(folder + '/doomed')", landlock=1),
    Attack("move another's file", "os.rename(folder + '/moving', folder + '/moved')", landlock=1),
    Attack("change the rights of another's file", "os.chmod(token, 0o600)", seccomp=True),
    Attack("change the owner of another's file", "os.chown(token, -1, -1)", seccomp=True),
    Attack("change the time of another's file", "os.utime(token)", seccomp=True),
    Attack(
        "change the rights of what it can read",
        "file = os.open(os.__file__, 0); os.fchmod(file, os.fstat(file).st_mode)",
        seccomp=True,
        everywhere=False,
    ),
    Attack(
        "mark what it can read",
        "file = os.open(token, 0); os.setxattr(file, b'user.y', b'x')",
        landlock=1,
        seccomp=True,
        everywhere=False,
    ),
    Attack("mark another's file", "os.setxattr(token, b'user.x', b'x')", seccomp=True, everywhere=False),
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
        "reach the hypervisor", "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)", seccomp=True, everywhere=False
    ),
    Attack("use the kernel's ciphers", "socket.socket(socket.AF_ALG, 5)", seccomp=True, everywhere=False),
    Attack(
        "change the network", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)", seccomp=True, everywhere=False
    ),
    Attack(
        "connect to an abstract socket", "socket.socket(socket.AF_UNIX).connect(abstract)", landlock=6, seccomp=True
    ),
    Attack("connect to a socket file", "socket.socket(socket.AF_UNIX).connect(file)", seccomp=True),
]
PROCESSES = [
    Attack("start a process", "pid = os.fork() or os._exit(0); os.waitpid(pid, 0)", seccomp=True),
    Attack("start a program", "subprocess.run([sys.executable, '-c', ''], check=True)", landlock=1, seccomp=True),
    Attack("start a process by the newest call", "call((435, 435), newest, len(newest)) or os._exit(0)", seccomp=True),
    Attack(
        "start a process by the numbers of x32",
        "call((0x40000000 + 57,) * 2) or os._exit(0)",
        seccomp=True,
        everywhere=False,
    ),
    Attack("leave the group of processes", "os.setpgid(0, 0)", seccomp=True),
    Attack("hold the operator's process", "call((434, 434), victim, 0)", seccomp=True),
    Attack("signal the operator", "os.kill(victim, 0)", landlock=6, seccomp=True),
    Attack("signal everybody", "must(libc.kill(-victim_group, 0))", landlock=6, seccomp=True),
    Attack("limit the operator", "resource.prlimit(victim, resource.RLIMIT_NOFILE, (9, 9))", seccomp=True),
    Attack("slow the operator down", "os.setpriority(0, victim, os.getpriority(0, victim) + 1)", seccomp=True),
    Attack("chain the operator to a processor", "os.sched_setaffinity(victim, {0})", seccomp=True),
    Attack("have the kernel signal the operator", "fcntl.fcntl(0, fcntl.F_SETOWN, victim)", seccomp=True),
    Attack("trace the operator", "must(libc.ptrace(0x4206, victim, None, None))", landlock=1, seccomp=True),
    Attack("hide from the supervisor", "must(libc.prctl(4, 0, 0, 0, 0)); libc.prctl(4, 1, 0, 0, 0)", seccomp=True),
    Attack("outlive the supervisor", "must(libc.prctl(1, 0, 0, 0, 0))", seccomp=True),
]
MEMORY = [
    Attack("keep memory in a file without a name", "os.memfd_create('x')", seccomp=True),
    Attack("read memory of others", "must(libc.shmat(segment, None, 0o10000))", seccomp=True),
    Attack("remove a queue of others", "must(libc.mq_unlink(others))", seccomp=True, everywhere=False),
    Attack("keep a message beyond the end", "must(libc.msgctl(must(libc.msgget(0, 0o600)), 0, None))", seccomp=True),
    Attack("keep a semaphore", "must(libc.semctl(must(libc.semget(0, 1, 0o600)), 0, 0))", seccomp=True),
    Attack(
        "open a queue",
        "must(libc.mq_open(queue, 0x42, 0o600, None)); libc.mq_unlink(queue)",
        seccomp=True,
        everywhere=False,
    ),
    Attack("keep memory beyond the end", "must(libc.shmctl(must(libc.shmget(0, 4096, 0o600)), 0, None))", seccomp=True),
]
KERNEL = [
    Attack("compare with the operator", "call((312, 272), victim, victim, 1, 0, 0)", seccomp=True, everywhere=False),
    Attack("use io_uring", "call((425, 425), 1, bytes(120))", seccomp=True, everywhere=False),
    Attack("load a program into the kernel", "call((321, 280), 0, bpf_map, 72)", seccomp=True, everywhere=False),
    Attack("measure the kernel", "call((298, 241), counter, 0, -1, -1, 0)", seccomp=True, everywhere=False),
    Attack("handle the faults of memory", "call((323, 282), 1)", seccomp=True, everywhere=False),
    Attack("keep a key in the kernel", "call((248, 217), b'user', b'x', b'x', 1, -2)", seccomp=True, everywhere=False),
    Attack("watch the file system", "call((300, 262), 0x200, 0)", seccomp=True, everywhere=False),
    # The last, as what comes after it would be tried as another user.
    Attack("become root of a namespace of its own", "must(libc.unshare(0x10000000))", seccomp=True, everywhere=False),
    Attack(
        "mount",
        "must(libc.unshare(0x20000)); must(libc.mount(b'x', home.encode(), b'tmpfs', 0, None))",
        seccomp=True,
        everywhere=False,
    ),
]
ATTACKS = [*READ, *WRITE, *NETWORK, *PROCESSES, *MEMORY, *KERNEL]

PRELUDE = """
import ctypes, errno, fcntl, os, platform, resource, socket, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = libc.shmat.restype = ctypes.c_long
mptcp = 262
module = f"{os.path.dirname(os.__file__)}/dbbootstrap_{os.getpid()}.py"
shm = f"/dev/shm/dbbootstrap-{os.getpid()}"
queue = f"/dbbootstrap-{os.getpid()}".encode()
newest = struct.pack("8Q", 0, 0, 0, 0, 17, 0, 0, 0)
bpf_map = struct.pack("4I", 2, 4, 4, 1).ljust(72, bytes(1))
counter = struct.pack("2I2Q", 1, 64, 0, 0).ljust(64, bytes(1))

def call(numbers, *arguments):
    result = libc.syscall(numbers[platform.machine() == "aarch64"], *arguments)
    if result < 0 and numbers == (435, 435) and ctypes.get_errno() == errno.ENOSYS:
        raise OSError(errno.EPERM, "refused")  # What makes the C library take the call before it.
    return must(result)

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
        kept_in_the_kernel() as kept,
    ):
        for one, place in ((nameless, abstract), (named, f"{short}/socket")):
            one.bind(place)
            one.listen()
        yield kept | {
            "token": str(folder / "token"), "folder": str(folder), "home": str(home), "victim": victim,
            "victim_group": os.getpgid(victim), "port": listener.getsockname()[1], "abstract": abstract,
            "file": f"{short}/socket",
        }  # fmt: skip


@contextmanager
def kept_in_the_kernel() -> Iterator[dict[str, object]]:
    """Make memory and a queue that belong to no file."""
    libc = ctypes.CDLL(None)
    segment, queue = libc.shmget(0, 4096, 0o600), f"/dbbootstrap-{uuid4()}".encode()
    descriptor = libc.mq_open(queue, os.O_CREAT | os.O_RDWR, 0o600, None)
    try:
        yield {"segment": segment, "others": queue}
    finally:
        libc.shmctl(segment, 0, None)
        if descriptor >= 0:
            os.close(descriptor)
            libc.mq_unlink(queue)


def script(attacks: list[Attack], around: dict[str, object], tell: str) -> str:
    """Return Python that tries them all, and hands each name and answer to the function `tell`."""
    pairs = [(attack.name, attack.code) for attack in attacks]
    return (
        f"world = {{}}\nexec({PRELUDE!r}, world)\nfor name, code in {pairs!r}:\n"
        f"    {tell}(name, world['attempt'](code, {around!r}))\n"
    )
