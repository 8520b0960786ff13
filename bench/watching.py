"""What the benchmark sees of both servers while the operator works."""

import contextlib
import http.client
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast

from localservers import ControlPlane

DEADLINE_SECONDS = 300.0


class Client:
    """Posts to the API server over one connection a thread, as any client but a shell loop does."""

    def __init__(self, plane: ControlPlane) -> None:
        self._host = plane.url.removeprefix("https://")
        self._token = plane.token
        self._context = ssl.create_default_context(cafile=str(plane.ca_file))
        self._local = threading.local()

    def post(self, path: str, body: str) -> None:
        """Create an object from its JSON."""
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPSConnection(self._host, context=self._context)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        self._local.connection.request("POST", path, body=body, headers=headers)
        answer = self._local.connection.getresponse()
        text = answer.read()
        if answer.status != 201:
            raise OSError(f"{answer.status}: {text[:500]!r}")


def cpu_by_program() -> dict[str, float]:
    """Return the CPU seconds of all processes by their program's name, those that they have waited for included."""
    used: dict[str, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
            used[name] = used.get(name, 0) + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return used


class Readiness:
    """Watches resources, and knows which are Ready."""

    def __init__(self, plane: ControlPlane, path: str) -> None:
        self._ready: set[str] = set()
        self._news = threading.Condition()
        request = urllib.request.Request(
            f"{plane.url}{path}?watch=1", headers={"Authorization": f"Bearer {plane.token}"}
        )
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        self._stream = _open(request, context)
        threading.Thread(target=self._read, daemon=True).start()

    def wait(self, names: set[str]) -> None:
        """Wait until all of these are Ready."""
        with self._news:
            if not self._news.wait_for(lambda: names <= self._ready, timeout=DEADLINE_SECONDS):
                raise TimeoutError(f"not Ready: {', '.join(sorted(names - self._ready)[:5])}")

    def _read(self) -> None:
        for line in self._stream:
            resource = json.loads(line)["object"]
            if _is_ready(resource):
                with self._news:
                    self._ready.add(resource["metadata"]["name"])
                    self._news.notify_all()


def _open(request: urllib.request.Request, context: ssl.SSLContext) -> http.client.HTTPResponse:
    """Open the watch; a CRD that was made this moment answers 429 until its storage is there."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return cast(http.client.HTTPResponse, urllib.request.urlopen(request, context=context))
        except urllib.error.HTTPError as error:
            if error.code != 429 or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _is_ready(resource: dict[str, Any]) -> bool:
    conditions = resource.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
