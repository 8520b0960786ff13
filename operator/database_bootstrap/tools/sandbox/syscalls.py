"""What Landlock does not guard: a filter (seccomp) for the system calls that nobody needs who migrates a database."""

import ctypes
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ASK_ACTION = 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _MASK, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
"""Numbers from here on are those of another calling convention."""

_CLONE_THREAD = 0x00010000
_FAST_OPEN = 0x20000000
"""Connects while it sends, past Landlock's look at connect()."""
_SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE = 1, 4
"""Without the first it outlives its supervisor, and without the second that does not see what it keeps open."""
_FCNTLS = (8, 15, 1024, 1026)
"""F_SETOWN, F_SETOWN_EX (signals for others), F_SETLEASE, F_NOTIFY."""
_IOCTLS = (0x8901, 0x8902, 0x5412)
"""FIOSETOWN, SIOCSPGRP (signals for others), TIOCSTI (input for a terminal)."""


class _Machine(NamedTuple):
    audit: int
    ask: int
    """Number of seccomp()."""
    column: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 317, 0), "aarch64": _Machine(0xC00000B7, 277, 1)}

# Numbers on x86_64 and aarch64; -1 where there is none.
_REFUSED = {
    # Other programs and processes; each would be out of this process' limits.
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97),
    "setns": (308, 268), "setpgid": (109, 154),
    # Other processes of the same user, the operator among them.
    "tkill": (200, 130), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272), "ioprio_set": (251, 30),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # Memory that no limit counts, or that stays when the process ends.
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190),
    "msgget": (68, 186), "mq_open": (240, 180), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # The same, of others of the user.
    "shmat": (30, 196), "shmctl": (31, 195), "semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_unlink": (241, 181),
    # Files of the same user that Landlock lets be changed or watched without opening them, or once they can be read.
    "chmod": (90, -1), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1), "lchown": (94, -1),
    "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "setxattrat": (463, 463),
    "fchmod": (91, 52), "fchown": (93, 55), "fsetxattr": (190, 7), "fremovexattr": (199, 16),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "removexattrat": (466, 466), "file_setattr": (469, 469),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
    "inotify_add_watch": (254, 27), "fanotify_init": (300, 262), "open_by_handle_at": (304, 265),
    # To be reached from outside; listening without bind() takes any port, past Landlock.
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    # Parts of the kernel with a history of holes.
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "mount": (165, 40), "umount2": (166, 39),
    "open_tree": (428, 428), "open_tree_attr": (467, 467), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "mount_setattr": (442, 442), "pivot_root": (155, 41),
    "chroot": (161, 51), "syslog": (103, 116), "quotactl": (179, 60), "acct": (163, 89),
}  # fmt: skip
_TRUNCATE = (76, 45)
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_OF_PROCESSES = {
    "kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}  # fmt: skip
"""The first argument is a process: this one, or 0, which means it."""
_SETPRIORITY = (141, 140)
_FORBIDDEN_VALUES = {
    "prctl": ((157, 167), 0, (_SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE)),
    "fcntl": ((72, 25), 1, _FCNTLS),
    "ioctl": ((16, 29), 1, _IOCTLS),
}
_SENDING = {"sendto": ((44, 206), 3), "sendmsg": ((46, 211), 2), "sendmmsg": ((307, 269), 3)}
_TYPES = 0xF
_TCP, _UDP = (socket.SOCK_STREAM, (0, socket.IPPROTO_TCP)), (socket.SOCK_DGRAM, (0, socket.IPPROTO_UDP))
_AF_NETLINK = 16
"""getaddrinfo() asks the kernel for its addresses."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction; a jump goes to a label further down, or on to the next one."""

    code: int
    value: int
    then: str = ""
    otherwise: str = ""
    label: str = ""


def is_available() -> bool:
    """Whether this kernel has filters, and its system calls are known here."""
    machine = _MACHINES.get(platform.machine())
    if machine is None or sys.platform != "linux" or sys.maxsize < 1 << 32:
        return False
    action = ctypes.c_uint32(_ERRNO)
    return bool(_LIBC.syscall(machine.ask, _ASK_ACTION, 0, ctypes.byref(action)) == 0)


def restrict(*, local_sockets: bool, truncate: bool) -> None:
    """Filter this thread's system calls for good; raise `OSError` where it cannot be done.

    `no_new_privs` must be set. `local_sockets` lets it connect to a server's socket file, `truncate` leaves files that
    are too long to Landlock.
    """
    program = _assemble([*_filter(_MACHINES[platform.machine()], os.getpid(), local_sockets, truncate)])
    instructions = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    if _LIBC.prctl(_PR_SET_SECCOMP, _MODE_FILTER, head, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")


def _filter(machine: _Machine, ours: int, local_sockets: bool, truncate: bool) -> Iterator[_Step]:
    """Look at the number first; a call that is fine but for some arguments has a part of its own further down."""
    yield _Step(_LOAD, _MACHINE)
    yield _Step(_EQUAL, machine.audit, otherwise="end process")
    yield _Step(_LOAD, _NUMBER)
    yield _Step(_AT_LEAST, _X32, then="refuse")
    parts = {**_argument_checks(ours), "socket": (_SOCKET, [*_sockets(local_sockets)])}
    refused = [*_REFUSED.values(), *([] if truncate else [_TRUNCATE])]
    for name, (numbers, _) in parts.items():
        yield _Step(_EQUAL, numbers[machine.column], then=name)
    yield _Step(_EQUAL, _CLONE3[machine.column], then="unknown")
    for numbers in refused:
        if numbers[machine.column] >= 0:
            yield _Step(_EQUAL, numbers[machine.column], then="refuse")
    yield _Step(_RETURN, _ALLOW)
    for name, (_, steps) in parts.items():
        yield _Step(_LOAD, _NUMBER, label=name)
        yield from steps
    yield _Step(_RETURN, _ERRNO | _EPERM, label="refuse")
    # The C library takes the older call then, whose arguments can be looked at.
    yield _Step(_RETURN, _ERRNO | _ENOSYS, label="unknown")
    yield _Step(_RETURN, _KILL, label="end process")
    yield _Step(_RETURN, _ALLOW, label="allow")


Numbers = tuple[int, int]


def _argument_checks(ours: int) -> dict[str, tuple[Numbers, list[_Step]]]:
    checks: dict[str, tuple[Numbers, list[_Step]]] = {
        "clone": (_CLONE, [_argument(0), _Step(_ANY_BIT, _CLONE_THREAD, "allow", "refuse")]),
        "setpriority": (_SETPRIORITY, [_argument(0), _Step(_EQUAL, 0, otherwise="refuse"), *_is_ours(1, ours)]),
    }
    for name, numbers in _OF_PROCESSES.items():
        checks[name] = (numbers, _is_ours(0, ours))
    for name, (numbers, place, values) in _FORBIDDEN_VALUES.items():
        steps = [_Step(_EQUAL, value, then="refuse") for value in values]
        checks[name] = (numbers, [_argument(place), *steps, _Step(_RETURN, _ALLOW)])
    for name, (numbers, place) in _SENDING.items():
        checks[name] = (numbers, [_argument(place), _Step(_ANY_BIT, _FAST_OPEN, "refuse", "allow")])
    return checks


def _argument(place: int) -> _Step:
    """Load the lower half of an argument: those that are looked at have 32 bits."""
    return _Step(_LOAD, _ARGUMENTS + 8 * place)


def _is_ours(place: int, ours: int) -> list[_Step]:
    return [_argument(place), _Step(_EQUAL, 0, then="allow"), _Step(_EQUAL, ours, "allow", "refuse")]


def _sockets(local_sockets: bool) -> Iterator[_Step]:
    """Let plain TCP and UDP through; MPTCP and others are out of Landlock's sight."""
    yield _argument(0)
    yield _Step(_EQUAL, socket.AF_INET, then="internet")
    yield _Step(_EQUAL, socket.AF_INET6, then="internet")
    if local_sockets:
        yield _Step(_EQUAL, socket.AF_UNIX, then="allow")
    yield _Step(_EQUAL, _AF_NETLINK, otherwise="refuse")
    yield _argument(2)
    yield _Step(_EQUAL, 0, "allow", "refuse")
    yield _Step(_LOAD, _ARGUMENTS + 8, label="internet")
    yield _Step(_MASK, _TYPES)
    yield _Step(_EQUAL, _TCP[0], then="tcp")
    yield _Step(_EQUAL, _UDP[0], otherwise="refuse")
    for label, protocols in (("", _UDP[1]), ("tcp", _TCP[1])):
        yield _Step(_LOAD, _ARGUMENTS + 16, label=label)
        yield _Step(_EQUAL, protocols[0], then="allow")
        yield _Step(_EQUAL, protocols[1], "allow", "refuse")


def _assemble(steps: list[_Step]) -> bytes:
    labels = {step.label: place for place, step in enumerate(steps) if step.label}
    assert len(labels) == sum(bool(step.label) for step in steps)
    program = bytearray()
    for place, step in enumerate(steps):
        jumps = [labels[name] - place - 1 if name else 0 for name in (step.then, step.otherwise)]
        program += struct.pack("=HBBI", step.code, *jumps, step.value)
    return bytes(program)
