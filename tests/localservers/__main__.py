"""`python -m localservers build`: find the servers' programs, or build them once."""

import argparse
import sys

from localservers import binaries, postgres
from localservers.build import BuildFailed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m localservers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="find kube-apiserver, etcd, kube-controller-manager and kubectl, or build them")
    commands.add_parser("show", help="say which servers the tests would use; build nothing")
    chosen = parser.parse_args(arguments)
    try:
        _show(binaries.find(may_build=chosen.command == "build"))
    except (binaries.BinariesNotFound, BuildFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _show(found: binaries.Binaries) -> None:
    for path in (found.etcd, found.kube_apiserver, found.kube_controller_manager, found.kubectl):
        print(f"{path.name:24} {path}")
    for installation in postgres.discover():
        print(f"PostgreSQL {installation.version:13} {installation.bindir}")


if __name__ == "__main__":
    sys.exit(main())
