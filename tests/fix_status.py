"""Every status that the control plane under test ever held is linted, not only the last one."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest

from database_bootstrap.api import names
from status_linter import kstatus, lint_history, lint_status

__all__ = ["StatusWatch", "kstatus", "lint_history", "lint_status", "status_watch", "status_watcher"]

PATH = f"/apis/{names.GROUP}/{names.VERSION}/{names.PLURAL}"
PAUSE_SECONDS = 0.1
SETTLE_SECONDS = 5.0
NO_ANSWER_SECONDS = 2.0
BROKEN = (OSError, http.client.HTTPException, ValueError, AttributeError)
"""What reading says when the server has gone, or when `stop` has shut the socket (AttributeError, from ssl)."""


class Plane(Protocol):
    """What is needed of a control plane."""

    @property
    def url(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def ca_file(self) -> str | Path: ...


class StatusWatch:
    """Collects every version of every DatabaseBootstrap in a thread of its own, whatever happens to the server."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._histories: dict[str, list[dict[str, Any]]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._found: list[tuple[str, str]] = []
        self._excused: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="status-watch", daemon=True)

    def start(self) -> "StatusWatch":
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        while self._thread.is_alive():
            if (open_socket := self._socket) is not None:
                _shut(open_socket)
            self._thread.join(PAUSE_SECONDS)

    def versions(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Return all versions seen of the resources of this name, in order."""
        self._settle()
        with self._lock:
            return [it for history in self._histories.values() for it in history if _who(it) == f"{namespace}/{name}"]

    def excuse(self, namespace: str, name: str) -> None:
        """Leave out a resource whose status a test itself writes."""
        self._excused.add(f"{namespace}/{name}")

    def findings(self) -> list[str]:
        """Return what was found since the last call, after all that is written by now has been seen."""
        self._settle()
        if not self._thread.is_alive():
            return ["the watch has ended, and its log says why"]
        with self._lock:
            found, self._found = self._found, []
        return [f"{who} {finding}" for who, finding in found if who not in self._excused]

    def _settle(self) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            written = self._list(NO_ANSWER_SECONDS)
            if written is None or all(_version(item) in self._seen for item in written["items"]):
                return
            time.sleep(PAUSE_SECONDS / 5)

    def _keep(self, item: dict[str, Any]) -> None:
        with self._lock:
            if _version(item) in self._seen:
                return
            history = self._histories.setdefault(item["metadata"]["uid"], [])
            history.append(item)
            findings = [f"{finding}: {_brief(item)}" for finding in lint_status(item)] + lint_history(history[-2:])
            place = f"at {item['metadata']['resourceVersion']}:"
            self._found += [(_who(item), f"{place} {finding}") for finding in findings]
            self._seen.add(_version(item))

    def _run(self) -> None:
        position = ""
        while not self._stopping.is_set():
            try:
                position = self._follow(position or self._begin())
            except BROKEN:
                # The server is away, or `stop` has shut the socket under our hands.
                self._stopping.wait(PAUSE_SECONDS)

    def _begin(self) -> str:
        listed = self._list(NO_ANSWER_SECONDS)
        if listed is None:
            raise ConnectionError("nothing to list yet")
        for item in listed["items"]:
            self._keep(item)
        return str(listed["metadata"]["resourceVersion"])

    def _follow(self, position: str) -> str:
        """Read events until the stream ends; return where to go on, or nothing to begin anew."""
        with contextlib.closing(self._connect(timeout=None)) as connection:
            self._socket = connection.sock
            query = f"?watch=1&allowWatchBookmarks=true&resourceVersion={position}"
            connection.request("GET", PATH + query, headers=self._headers())
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                return ""
            with contextlib.suppress(*BROKEN):
                while line := answer.readline():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return ""
                    position = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._keep(event["object"])
        return position

    def _list(self, timeout: float) -> dict[str, Any] | None:
        """Return all resources; None where there is no server that answers, or no such kind."""
        with contextlib.suppress(*BROKEN), contextlib.closing(self._connect(timeout)) as connection:
            connection.request("GET", PATH, headers=self._headers())
            answer = connection.getresponse()
            return json.load(answer) if answer.status == http.client.OK else None
        return None

    def _connect(self, timeout: float | None) -> http.client.HTTPSConnection:
        server = urlsplit(self._plane.url)
        trust = ssl.create_default_context(cafile=str(self._plane.ca_file))
        connection = http.client.HTTPSConnection(str(server.hostname), server.port, context=trust, timeout=timeout)
        connection.connect()
        return connection

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._plane.token}", "Accept": "application/json"}


def _shut(open_socket: socket.socket) -> None:
    with contextlib.suppress(OSError):
        open_socket.shutdown(socket.SHUT_RDWR)


def _who(item: dict[str, Any]) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _version(item: dict[str, Any]) -> tuple[str, str]:
    return (item["metadata"]["uid"], item["metadata"]["resourceVersion"])


def _brief(version: dict[str, Any]) -> str:
    told = version.get("status", {}).get("conditions", [])
    return ", ".join(f"{it['type']}={it['status']}/{it.get('reason')}" for it in told)


@pytest.fixture(scope="session")
def status_watcher(control_plane: Plane) -> Iterator[StatusWatch]:
    """The watch over the session's control plane."""
    watch = StatusWatch(control_plane).start()
    yield watch
    watch.stop()


@pytest.fixture
def status_watch(status_watcher: StatusWatch) -> Iterator[StatusWatch]:
    """The same watch; the test fails at its end where any status since the last test was wrong."""
    yield status_watcher
    findings = status_watcher.findings()
    if findings:
        pytest.fail("The status was wrong:\n" + "\n".join(findings[:20]), pytrace=False)


@pytest.fixture(autouse=True)
def _every_status(request: pytest.FixtureRequest) -> None:
    """No test with a control plane can forget the linter."""
    if "control_plane" in request.fixturenames:
        request.getfixturevalue("status_watch")
