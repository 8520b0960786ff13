"""The control plane's programs: from the environment, else from this user's cache, else built once with Go."""

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from localservers import build, cache

KUBERNETES = "v1.36.3"
ETCD = "v3.6.8"
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")

# No step downloads the published envtest archive: its checksum for this version could not be verified when this was
# written, and an archive that is not pinned is not run. KUBEBUILDER_ASSETS takes one that you trust.


class BinariesNotFound(RuntimeError):
    """Programs are missing, and nobody allowed (or managed) to build them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """Where the programs are."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path


def find(*, may_build: bool = False) -> Binaries:
    """Return the four programs; build what is missing, which takes minutes, only if that is allowed.

    Raises BinariesNotFound with the command that builds them.
    """
    found = _look()
    if missing := _missing(found):
        if not may_build:
            raise BinariesNotFound(
                f"no {', '.join(missing)}; `python -m localservers build` in tests/ builds them once"
            )
        build.build(cached_folder(), kubernetes=KUBERNETES)
        found = _look()
    if missing := _missing(found):
        raise BinariesNotFound(f"the build brought no {', '.join(missing)}")
    return Binaries(**{name.replace("-", "_"): path for name, path in found.items()})


def cached_folder() -> Path:
    """Return the folder that holds the programs of this version for this machine."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return cache.folder() / "controlplane" / f"{KUBERNETES}-{sys.platform}-{machine}"


def _look() -> dict[str, Path]:
    candidates = {name: [*_from_environment(name, os.environ), cached_folder() / name] for name in NAMES}
    return {name: path for name, paths in candidates.items() if (path := _first_program(paths))}


def _missing(found: Mapping[str, Path]) -> list[str]:
    return [name for name in NAMES if name not in found]


def _from_environment(name: str, environment: Mapping[str, str]) -> Iterable[Path]:
    # The variables of Go's envtest, so that one setting serves both.
    if single := environment.get(f"TEST_ASSET_{name.upper().replace('-', '_')}"):
        yield Path(single)
    if folder := environment.get("KUBEBUILDER_ASSETS"):
        yield Path(folder) / name


def _first_program(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if os.access(path, os.X_OK) and path.is_file()), None)
