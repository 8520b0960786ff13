"""What the child may do: the one place where its surroundings are taken away."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from database_bootstrap.tools.sandbox.wire import Limits

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True)


def confine(limits: Limits, parent: int, keep: Iterable[int]) -> None:
    """Take from this process what the project's code must not have; it cannot be given back.

    What the kernel can do beyond this (Landlock, seccomp) belongs here too.
    """
    os.setsid()
    die_with_parent(signal.SIGKILL, parent)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _close_all_but(keep)
    _limit(limits)
    os.umask(0o077)
    # When the container's memory runs out, the kernel shall take this process and not the operator.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


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


def _limit(limits: Limits) -> None:
    # No RLIMIT_NPROC: the kernel counts the user's processes in all containers of the node that share the uid.
    wanted: dict[int, int] = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: limits.memory,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_NOFILE: limits.open_files,
    }
    for what, value in wanted.items():
        _bound(what, value, value)
    if limits.seconds:
        # Between the two comes SIGXCPU, which tells why, and then SIGKILL.
        _bound(resource.RLIMIT_CPU, limits.seconds, limits.seconds + 5)


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
