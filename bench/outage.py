"""How soon all goes on after an outage: 20 resources are being created when a server goes away for a minute."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench import NAMESPACE, Bench
from database_bootstrap.api import names
from fix_operator import BOOTSTRAPS, ready
from localservers import ControlPlane, PostgresServer, discover
from outage_measures import SessionCount, seconds_until_ready, with_rows

WANTED_SECONDS = 5.0
BUDGET = 10
WAYS: dict[str, tuple[Callable[[Bench], None], Callable[[Bench], None]]] = {
    "stopped": (lambda bench: bench.server.stop(), lambda bench: bench.server.start_again()),
    "killed": (lambda bench: bench.server.kill(), lambda bench: bench.server.start_again()),
    "frozen": (lambda bench: bench.server.freeze(), lambda bench: bench.server.thaw()),
    "api": (lambda bench: bench.plane.stop_apiserver(), lambda bench: bench.plane.start_apiserver()),
    "api-frozen": (lambda bench: bench.plane.pause_apiserver(), lambda bench: bench.plane.resume_apiserver()),
}
"""How PostgreSQL, or the API server, goes and comes back."""


def create(bench: Bench, prefix: str, count: int) -> list[str]:
    """Apply so many resources with two migrations and a seed each, and return their names."""
    made = [f"{prefix}{number}" for number in range(count)]
    for name in made:
        spec = {"server": {"adminSecretRef": {"name": "admin"}}, "role": {"name": name}, "database": {"name": name}}
        body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}}
        bench.plane.request("POST", BOOTSTRAPS.format(NAMESPACE), body | {"spec": spec | with_rows()})
    return made


def outage(bench: Bench, way: str, count: int, away: float) -> bool:
    """Print how soon all are Ready after one kind of outage, and return whether that was soon enough."""
    go, come = WAYS[way]
    with SessionCount(bench.server) as sessions:
        made = create(bench, way, count)
        first = f"{BOOTSTRAPS.format(NAMESPACE)}/{made[0]}"
        while not ready(bench.plane.request("GET", first)):
            time.sleep(0.02)
        go(bench)
        time.sleep(away)
        come(bench)
        _, took = seconds_until_ready(bench.plane, NAMESPACE, made, 120)
    time.sleep(1)
    print(f"{way} for {away:.0f} s: {count} Ready after {took:6.2f} s    (wanted: at most {WANTED_SECONDS:.0f})")
    print(f"  connections at most, idle now {sessions.most:3d}, {sessions.now()}    (wanted: at most {BUDGET}, none)")
    return took <= WANTED_SECONDS and sessions.most <= BUDGET and sessions.now() == 0


def main() -> int:
    """Run it all, and say with the exit code whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--major", type=int, help="PostgreSQL major; by default the oldest found")
    parser.add_argument("--count", type=int, default=20, help="resources")
    parser.add_argument("--away", type=float, default=60, help="seconds")
    parser.add_argument("--way", choices=WAYS, action="append", help="by default all, one after the other")
    arguments = parser.parse_args()
    installations = {installation.major: installation for installation in discover()}
    installation = installations[arguments.major or min(installations)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plane = stack.enter_context(ControlPlane.start(folder / "plane", may_build=True))
        server = stack.enter_context(PostgresServer.start(folder / "pg", installation, settings={"autovacuum": "off"}))
        bench = Bench(plane, server, folder)
        stack.callback(bench.operator.stop)
        began = time.monotonic()
        seconds_until_ready(plane, NAMESPACE, create(bench, "plain", arguments.count), 120)
        print(f"without an outage: {arguments.count} Ready after {time.monotonic() - began:6.2f} s")
        ends = [outage(bench, way, arguments.count, arguments.away) for way in arguments.way or WAYS]
    return 0 if all(ends) else 1


if __name__ == "__main__":
    raise SystemExit(main())
