"""Landlock: which files, ports and processes this process may still reach; system calls and nothing else."""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The same on every architecture."""
_ASK_VERSION = 1
_BENEATH, _PORT = 1, 2
_LIBC = ctypes.CDLL(None, use_errno=True)


class File(IntFlag):
    """What can be done to files; beyond the first thirteen each came with a later version of the interface."""

    EXECUTE = 1 << 0
    WRITE = 1 << 1
    READ = 1 << 2
    LIST = 1 << 3
    REMOVE_DIRECTORY = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHARACTER_DEVICE = 1 << 6
    MAKE_DIRECTORY = 1 << 7
    MAKE_FILE = 1 << 8
    MAKE_SOCKET = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK_DEVICE = 1 << 11
    MAKE_LINK = 1 << 12
    MOVE = 1 << 13
    TRUNCATE = 1 << 14
    DEVICE_CONTROL = 1 << 15


_OF_FILES = File.EXECUTE | File.WRITE | File.READ | File.TRUNCATE | File.DEVICE_CONTROL
"""What a rule for something other than a directory may name."""
_READ = File.READ | File.LIST
_USE = File.READ | File.WRITE
_KEEP = (
    _READ
    | (File.WRITE | File.TRUNCATE | File.MOVE | File.REMOVE_FILE | File.REMOVE_DIRECTORY)
    | (File.MAKE_FILE | File.MAKE_DIRECTORY | File.MAKE_LINK | File.MAKE_FIFO)
)
_BIND, _CONNECT = 1, 2
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
TRUNCATES_SINCE = 3
_FILES_SINCE = {1: File(0x1FFF), 2: File.MOVE, TRUNCATES_SINCE: File.TRUNCATE, 5: File.DEVICE_CONTROL}
_PORTS_SINCE = 4
_SCOPES_SINCE = 6

GUARDS = {
    1: "files",
    2: "moving files",
    3: "truncating files",
    4: "TCP ports",
    5: "device control",
    6: "signals and abstract sockets",
}
"""Version of the interface → what the kernel can guard since then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """All that is left; what does not exist is left out."""

    read: tuple[str, ...]
    """Files, and directories with all that is below them."""
    use: tuple[str, ...] = ()
    """Devices to read and write."""
    keep: tuple[str, ...] = ()
    """Directories in which files can be made, changed and removed."""
    ports: tuple[int, ...] = ()
    """TCP ports to connect to; none can be bound."""


def version() -> int:
    """Return the version of the kernel's interface (ABI); 0 where there is none, or it is switched off."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)))


def guarded(abi: int) -> str:
    """Return in words what a kernel with this version guards."""
    return ", ".join(words for since, words in GUARDS.items() if since <= abi) or "nothing"


def restrict(reach: Reach, abi: int) -> None:
    """Restrict this thread, and all that it starts, for good; raise `OSError` where it cannot be done.

    `no_new_privs` must be set. What an older kernel does not know stays unguarded.
    """
    handled = File(0)
    for since, rights in _FILES_SINCE.items():
        handled |= rights if since <= abi else File(0)
    ports = _BIND | _CONNECT if abi >= _PORTS_SINCE else 0
    scopes = _ABSTRACT_SOCKETS | _SIGNALS if abi >= _SCOPES_SINCE else 0
    attributes = struct.pack("=QQQ", handled, ports, scopes)[: 8 * (1 + (abi >= _PORTS_SINCE) + (abi >= _SCOPES_SINCE))]
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for paths, rights in ((reach.read, _READ), (reach.use, _USE), (reach.keep, _KEEP)):
            _allow_paths(ruleset, paths, rights & handled)
        for port in reach.ports if ports else ():
            _call(_ADD_RULE, ruleset, _PORT, struct.pack("=QQ", _CONNECT, port), 0)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_paths(ruleset: int, paths: Iterable[str], rights: File) -> None:
    for path in dict.fromkeys(paths):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            _allow_path(ruleset, path, rights)


def _allow_path(ruleset: int, path: str, rights: File) -> None:
    there = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = rights if Path(path).is_dir() else rights & _OF_FILES
        _call(_ADD_RULE, ruleset, _BENEATH, struct.pack("=Qi", allowed, there), 0)
    finally:
        os.close(there)


def _call(number: int, *arguments: object) -> int:
    result: int = _LIBC.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return result
