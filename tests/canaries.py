"""Secrets that tests plant, each in every form in which it could be written down, and where to look for them."""

import base64
import contextlib
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BIRD = "kanari-"
READABLE = ("environ", "mem", "maps")


def canary() -> str:
    """Return a new one."""
    return f"{BIRD}{secrets.token_hex(8)}"


def forms(secret: str) -> set[str]:
    """Return what a secret may look like in a text."""
    quoted = {secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret), urllib.parse.quote_plus(secret)}
    return {
        *quoted,
        *(form.replace("%", "%%") for form in quoted),
        repr(secret)[1:-1],
        secret.encode().hex(),
        *_aligned(secret),
    }


def _aligned(secret: str) -> Iterator[str]:
    """Yield what is in base64 of any text with this in it; the first and last letters depend on what is beside it."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + secret.encode()).decode()
        yield encoded[(0, 2, 3)[offset] : (offset + len(secret.encode())) // 3 * 4]


_PLAIN = BIRD + "[0-9a-f]{16}"
PATTERNS = (_PLAIN, BIRD.encode().hex() + "[0-9a-f]{32}", *(f"{form}[A-Za-z0-9+/]{{16,40}}" for form in _aligned(BIRD)))
"""What finds canaries that are not known, in each of their forms; no pattern finds itself or another."""


def seen(text: str | bytes, planted: Mapping[str, str]) -> set[str]:
    """Return the names of those secrets that are in it."""
    content = text.encode() if isinstance(text, str) else text
    # Of a process's memory each look costs; canaries are found all at once.
    found = b" ".join(one for pattern in PATTERNS for one in re.findall(pattern.encode(), content))
    return {
        name
        for name, secret in planted.items()
        if any(form.encode() in (found if re.fullmatch(_PLAIN, secret) else content) for form in forms(secret))
    }


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all files below a folder; one that goes away meanwhile holds nothing any more."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            if path.is_file():
                yield str(path), path.read_bytes()


def memory(process: int) -> Iterator[bytes]:
    """Yield each region of the memory that a process has written to, for its user or root."""
    regions = [line.split() for line in Path(f"/proc/{process}/maps").read_text().splitlines()]
    descriptor = os.open(f"/proc/{process}/mem", os.O_RDONLY)
    try:
        for where, rights, *_ in regions:
            if rights.startswith("rw"):  # All else is as it is in the files of programs and libraries.
                start, end = (int(each, 16) for each in where.split("-"))
                with contextlib.suppress(OSError):  # A file that is mapped beyond its end.
                    yield os.pread(descriptor, end - start, start)
    finally:
        os.close(descriptor)


LOOK = """
import sys
from database_bootstrap.tools.sandbox import confinement
confinement._drop_capabilities()
for name in sys.argv[2:]:
    try:
        open(f"/proc/{sys.argv[1]}/{name}", "rb").close()
    except OSError:
        continue
    print(name)
"""


def readable(process: int) -> set[str]:
    """Return what another process of this user, and without its powers where it is root, may read of a process."""
    command = [sys.executable, "-c", LOOK, str(process), *READABLE]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@contextmanager
def core_dumps_asked_for() -> Iterator[None]:
    """Let what is started in here dump core as much as anybody may: `ulimit -c unlimited`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def dumps_core(folder: Path, number: signal.Signals, prepare: str = "") -> bool:
    """Return whether the kernel dumps the core of a Python process that this signal ends, wherever to."""
    code = f"{prepare}\nimport os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(60)"
    with core_dumps_asked_for():
        process = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", 'cd "$1" && exec "$2" -c "$3"', "sh", str(folder), sys.executable, code],
            os.environ,
            setsigdef=[number],  # A shell's background jobs ignore SIGQUIT, and so does all that they start.
        )
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == -number
    return os.WCOREDUMP(status)


class ProcessList:
    """Everything that `ps` showed while somebody looked at it all the time."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(stop,), daemon=True)
        thread.start()
        yield
        stop.set()
        thread.join(10)

    def _look(self, stop: threading.Event) -> None:
        while not stop.wait(0.05):
            shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False, timeout=10)
            self.seen.update(shown.stdout.splitlines())
