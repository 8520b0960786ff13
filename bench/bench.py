"""What the operator costs: each figure a ratio against psql scripts that run the same statements in the same run."""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parent))

from fix_operator import BOOTSTRAPS, SERVICE_ACCOUNT, SYSTEM_NAMESPACE, Operator, writes
from localservers import ControlPlane, Credentials, PostgresServer, discover
from outage_measures import SessionCount
from scripts import Script, resource
from watching import Client, Readiness, cpu_by_program

ROOT = Path(__file__).parents[1]
NAMESPACE = "bench"
WORKERS = 4


class Bench:
    """Servers, the operator, and what both sides are measured with."""

    def __init__(self, plane: ControlPlane, server: PostgresServer, folder: Path) -> None:
        self.plane, self.server, self.folder = plane, server, folder
        self.admin: Credentials = server.admin_role("superuser")
        for what in (
            ("-k", str(ROOT / "crds")),
            ("-f", str(ROOT / "manifests" / "namespace" / "namespace.yaml")),
            ("-k", str(ROOT / "manifests" / "rbac")),
        ):
            plane.kubectl("apply", "--server-side", *what)
        plane.kubectl("create", "namespace", NAMESPACE)
        secret = {
            "host": server.host,
            "port": str(server.port),
            "username": self.admin.user,
            "password": self.admin.password,
        }
        plane.request(
            "POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": "admin"}, "stringData": secret}
        )
        access = plane.service_account_kubeconfig(SYSTEM_NAMESPACE, "database-bootstrap-operator")
        self.operator = Operator(access, folder, ("--namespace", NAMESPACE)).start()
        self.client = Client(plane)
        self.readiness = Readiness(plane, BOOTSTRAPS.format(NAMESPACE))

    def create(self, name: str) -> None:
        """Apply one resource."""
        self.client.post(BOOTSTRAPS.format(NAMESPACE), resource(name, NAMESPACE, self.server))

    def script(self, name: str) -> Script:
        """Return the plain tool for the same."""
        return Script(name, self.server, self.admin)

    def single(self, rounds: int) -> float:
        """Print and return the ratio of one resource, apply → Ready, to the sequential script."""
        ours, theirs = [], []
        for number in range(rounds):
            began = time.perf_counter()
            self.create(f"one_{number}")
            self.readiness.wait({f"one-{number}"})
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            self.script(f"plain_{number}").run()
            theirs.append(time.perf_counter() - began)
        ratio = statistics.median(ours) / statistics.median(theirs)
        print(f"one resource, apply to Ready    {1000 * statistics.median(ours):7.0f} ms")
        print(f"psql scripts, in sequence       {1000 * statistics.median(theirs):7.0f} ms")
        print(f"ratio                           {ratio:7.2f}    (wanted: at most 1.5; medians of {rounds})")
        return ratio

    def many(self, count: int) -> float:
        """Print and return the ratio of many at once to the same scripts run by four workers."""
        before = cpu_by_program()
        began = time.perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda number: self.script(f"plainmany_{number}").run(), range(count)))
        theirs = time.perf_counter() - began
        plain = sum(cpu_by_program().values()) - sum(before.values())
        with SessionCount(self.server) as sessions:
            before = cpu_by_program()
            began = time.perf_counter()
            with ThreadPoolExecutor(WORKERS) as pool:
                list(pool.map(lambda number: self.create(f"many_{number}"), range(count)))
            self.readiness.wait({f"many-{number}" for number in range(count)})
            ours = time.perf_counter() - began
            used = {name: cpu - before.get(name, 0) for name, cpu in cpu_by_program().items()}
        time.sleep(1)  # Whoever still ends a session has done so by then.
        idle = sessions.now()
        made = [line for line in writes(self.plane, NAMESPACE) if "many" in line or line.startswith("create events")]
        print(f"{count} resources at once           {ours:7.2f} s    {count / ours:.1f} a second")
        print(f"psql scripts, four workers      {theirs:7.2f} s    {count / theirs:.1f} a second")
        print(f"ratio                           {ours / theirs:7.2f}    (wanted: at most 1.3)")
        print(f"PostgreSQL connections at once  {sessions.most:7d}    (wanted: at most 10)")
        print(f"idle ones afterwards            {idle:7d}    (wanted: none)")
        print(f"API writes per resource         {len(made) / count:7.2f}    (wanted: at most 6)")
        print(f"psql scripts' CPU a resource    {1000 * plain / count:7.0f} ms    all programs, PostgreSQL included")
        print("CPU a resource, by program:")
        for name, cpu in sorted(used.items(), key=lambda one: -one[1])[:5]:
            print(f"  {name:<29} {1000 * cpu / count:7.0f} ms")
        print(f"operator's peak memory          {_peak_memory(self.operator.pid):7.0f} MiB")
        return ours / theirs

    def unchanged(self, count: int, seconds: float) -> None:
        """Print what visits cost that find nothing to do."""
        path = BOOTSTRAPS.format(NAMESPACE)
        for number in range(count):
            self.plane.request("PATCH", f"{path}/many-{number}", {"spec": {"intervalSeconds": 5}})
        time.sleep(7)  # until the changed specs are through; what follows is a measurement, not a test
        self._measure_unchanged(seconds)

    def _measure_unchanged(self, seconds: float) -> None:
        with psycopg.connect(self.server.dsn(), autocommit=True) as watcher:
            before = self._state(watcher)
            time.sleep(seconds)
            after = self._state(watcher)
        visits = after["visits"] - before["visits"]
        print(f"unchanged visits in {seconds:.0f} s        {visits:7.0f}")
        print(f"API writes by them              {after['writes'] - before['writes']:7.0f}    (wanted: none)")
        print(f"transaction ids used            {after['xid'] - before['xid']:7.0f}    (wanted: none)")
        print(
            f"PostgreSQL connections a visit  {(after['sessions'] - before['sessions']) / visits:7.2f}    (wanted: 1)"
        )
        print(f"operator's CPU a visit          {1000 * (after['cpu'] - before['cpu']) / visits:7.2f} ms")

    def _state(self, watcher: psycopg.Connection[object]) -> dict[str, float]:
        xid = watcher.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
        sessions = watcher.execute("SELECT sum(sessions) FROM pg_stat_database WHERE datname LIKE 'many%'").fetchone()
        assert isinstance(xid, tuple)
        assert isinstance(sessions, tuple)
        entries = self.plane.audit_log.read_text().splitlines()
        done = sum(
            value for name, value in self.operator.metrics().items() if name.startswith("dbbootstrap_reconcile_total")
        )
        return {
            "xid": float(xid[0]),
            "sessions": float(sessions[0]),
            "visits": done,
            "writes": float(sum(SERVICE_ACCOUNT in line and "/leases/" not in line for line in entries)),
            "cpu": _cpu(self.operator.pid),
        }


def _peak_memory(pid: int) -> float:
    """Return the process's peak resident memory in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _cpu(pid: int) -> float:
    """Return the CPU seconds that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run it all, and say with the exit code whether the two ratios hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--major", type=int, help="PostgreSQL major; by default the oldest found")
    parser.add_argument("--rounds", type=int, default=15, help="of the single resource")
    parser.add_argument("--count", type=int, default=100, help="resources at once")
    parser.add_argument("--seconds", type=float, default=20, help="of unchanged visits")
    arguments = parser.parse_args()
    installations = {installation.major: installation for installation in discover()}
    installation = installations[arguments.major or min(installations)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plane = stack.enter_context(ControlPlane.start(folder / "plane", may_build=True))
        settings = {"autovacuum": "off", "max_connections": "100"}
        server = stack.enter_context(PostgresServer.start(folder / "pg", installation, settings=settings))
        bench = Bench(plane, server, folder)
        stack.callback(bench.operator.stop)
        print(f"PostgreSQL {server.version}, {os.cpu_count()} cores, {threading.active_count()} threads here")
        ratios = bench.single(arguments.rounds), bench.many(arguments.count)
        bench.unchanged(arguments.count, arguments.seconds)
    return 0 if ratios[0] <= 1.5 and ratios[1] <= 1.3 else 1


if __name__ == "__main__":
    raise SystemExit(main())
