"""What every child is denied, on every kernel: descriptors, privileges, resources without end."""

import contextlib
import ctypes
import functools
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from database_bootstrap.tools.sandbox.wire import Limits

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_LINUX = sys.platform == "linux"
_CAPABILITIES_VERSION = 0x20080522
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LEAST_MEMORY = 128 << 20
_NO_CORE = 1
"""With 0 the kernel still hands a core to a program that collects them; with 1 it does neither (core(5))."""
_CONTAINER_MEMORY = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_libc = ctypes.CDLL(None, use_errno=True)


def confine(limits: Limits, parent: int, keep: Iterable[int]) -> None:
    """Take from this process what the project's code must not have; it cannot be given back."""
    os.setsid()
    die_with_parent(signal.SIGKILL, parent)
    # The supervisor looks into it; what this process keeps from others, it keeps by other means.
    _prctl(_PR_SET_DUMPABLE, 1)
    _close_all_but(keep)
    # When the container's memory runs out, the kernel shall take this process and not the operator.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _limit(limits)
    os.umask(0o077)
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def hide() -> None:
    """Let no other process of the user read this one's memory, environment or descriptors, nor the kernel dump it."""
    _prctl(_PR_SET_DUMPABLE, 0)
    # Besides: what this process executes can be dumped again, until it hides itself.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE if most else 0, most))


def die_with_parent(number: int, parent: int) -> None:
    """Let the kernel send this signal when the parent ends, however it ends; leave at once when it has ended."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends: one that calls setsid() does not get away."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        _libc.prctl(option, value, 0, 0, 0)


@functools.cache
def container_memory() -> int:
    """Return how much memory the container may use; infinitely much where nothing says it."""
    for file in _CONTAINER_MEMORY:
        with contextlib.suppress(OSError, ValueError):
            return int(Path(file).read_text())
    return sys.maxsize


def _drop_capabilities() -> None:
    """Drop what an operator has that runs as root; `no_new_privs` keeps it from coming back."""
    if _LINUX:
        capability = 0
        while _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
            capability += 1
        none = struct.pack("=6I", 0, 0, 0, 0, 0, 0)
        _libc.capset(struct.pack("=Ii", _CAPABILITIES_VERSION, 0), none)


def _limit(limits: Limits) -> None:
    # No RLIMIT_NPROC: the kernel counts the user's processes in all containers of the node that share the uid.
    wanted: dict[int, int] = {
        resource.RLIMIT_CORE: _NO_CORE,
        resource.RLIMIT_AS: _size() + max(_LEAST_MEMORY, min(limits.memory, container_memory() // 2)),
        resource.RLIMIT_FSIZE: limits.scratch,
        resource.RLIMIT_NOFILE: limits.open_files,
    }
    for what, value in wanted.items():
        _bound(what, value, value)
    if limits.seconds:
        # Between the two comes SIGXCPU, which tells why, and then SIGKILL.
        _bound(resource.RLIMIT_CPU, limits.seconds, limits.seconds + 5)


def _size() -> int:
    """Return the bytes of address space that this process has."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    except OSError:
        return 0


def _bound(what: int, soft: int, hard: int) -> None:
    _, ceiling = resource.getrlimit(what)
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(what, (soft, hard))


def _close_all_but(keep: Iterable[int]) -> None:
    low = 3
    for descriptor in sorted(number for number in keep if number >= low):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX") if not _LINUX else 1 << 20)
