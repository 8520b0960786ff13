"""`make demo`: the story on real servers, each of its claims checked; KEEP=1 leaves them running."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import telling
from servers import Scene, scene
from story import Story
from telling import NotSo, say

LOG_LINES = 15


def main() -> int:
    """Return 0 where every claim holds."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    keep = os.environ.get("KEEP", "") not in ("", "0")
    return _in_background(_tell) if keep else _tell(lambda _: None)


def _tell(afterwards: Callable[[Scene], None]) -> int:
    """Tell the story and return the exit code; what comes afterwards happens while everything still runs."""
    folder = Path(tempfile.mkdtemp(prefix="database-bootstrap-demo-"))
    say("Starting a Kubernetes API server and PostgreSQL on this machine.")
    try:
        with scene(folder) as running:
            try:
                Story(running).tell()
            except Exception as error:  # noqa: BLE001 whatever it is, the story is not true
                _explain(running, error)
                return 1
            seconds = time.monotonic() - telling.STARTED
            say(f"\nAll {len(telling.CHECKED)} checks hold. Nothing was lost. ({seconds:.0f} s)")
            afterwards(running)
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _explain(running: Scene, error: Exception) -> None:
    say(f"\n    ✗ {error}")
    if not isinstance(error, NotSo):
        say(f"      ({type(error).__name__})")
    if running.operator.log.exists():
        say("\nThe operator's last words:")
        for line in running.operator.log.read_text(errors="replace").splitlines()[-LOG_LINES:]:
            say(f"  {line}")


def _in_background(tell: Callable[[Callable[[Scene], None]], int]) -> int:
    """Let another process own the servers, one that stays; return as soon as the story is told."""
    reader, writer = os.pipe()
    owner = os.fork()
    if owner:
        os.close(writer)
        return _wait_for_the_end(owner, reader)
    os.close(reader)
    # Ctrl-C in the terminal is for whoever uses it later; this process is stopped by its id.
    os.setsid()

    def stay(running: Scene) -> None:
        say("\nEverything keeps running. To look around:\n")
        say(f"  export KUBECONFIG={running.plane.kubeconfig}")
        say(f"  {running.plane.programs.kubectl} get dbb --namespace shop")
        say(f"\nThe operator's log is {running.operator.log}")
        say(f"To stop it all, which removes the data:\n\n  kill {os.getpid()}\n")
        os.write(writer, b"\0")
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silence, descriptor)
        os.close(writer)
        signal.pause()

    code = 1
    try:
        code = tell(stay)
    finally:
        os._exit(code)


def _wait_for_the_end(owner: int, reader: int) -> int:
    """Return 0 once the story is told; where it is not, the owner's exit code."""
    try:
        if os.read(reader, 1):
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(owner, 0)[1])
    except (KeyboardInterrupt, SystemExit):
        os.kill(owner, signal.SIGTERM)
        os.waitpid(owner, 0)
        raise


if __name__ == "__main__":
    sys.exit(main())
