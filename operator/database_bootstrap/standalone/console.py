"""What `apply` and `plan` say: lines for people, or a JSON object a line for machines; never a password."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TextIO

from database_bootstrap.api.conditions import READY
from database_bootstrap.api.outcomes import Outcome, Verdict
from database_bootstrap.api.rules import CONTROL
from database_bootstrap.api.status import Status
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.stages.subject import Report
from database_bootstrap.standalone.collection import Resource

COLUMNS = ("NAMESPACE", "NAME", "READY", "REASON", "DATABASE", "MIGRATION")


class Console(Protocol):
    """Where a run says what happens."""

    def begin(self, resource: Resource) -> None:
        """Say which resource is looked at."""
        ...

    def outcome(self, owner: Owner, outcome: Outcome) -> None:
        """Say what one stage said, with what it did."""
        ...

    def progress(self, owner: Owner, doing: str) -> None:
        """Say how far a long work is."""
        ...

    def waiting(self, owner: Owner, outcome: Outcome, seconds: float) -> None:
        """Say why, and for how long, nothing is done."""
        ...

    def end(self, owner: Owner, changes: int, status: Status) -> None:
        """Sum up what was done for one resource."""
        ...

    def planned(self, owner: Owner, report: Report) -> None:
        """Sum up what would be done for one resource."""
        ...

    def finish(self, applied: Sequence[tuple[Resource, Status]]) -> None:
        """Sum up the run."""
        ...


class TextConsole:
    """Lines for people, each written as soon as it is true."""

    def begin(self, resource: Resource) -> None:
        _say(f"{resource.owner.namespace}/{resource.owner.name}")

    def outcome(self, owner: Owner, outcome: Outcome) -> None:
        _say(f"  {outcome.stage:<11} {outcome.reason}: {outcome.message}")
        for change in outcome.changes:
            _say(f"  {'':<11} + {change}")
        for warning in outcome.warnings:
            _say(f"  {'':<11} ! {warning}")

    def progress(self, owner: Owner, doing: str) -> None:
        _say(f"  {'':<11} {doing}")

    def waiting(self, owner: Owner, outcome: Outcome, seconds: float) -> None:
        _say(f"  {'':<11} next try in {seconds:.0f} s")

    def end(self, owner: Owner, changes: int, status: Status) -> None:
        _say(f"  {_count(changes)} made." if changes else "  Nothing changed.")

    def planned(self, owner: Owner, report: Report) -> None:
        count, trouble = len(report.changes), report.trouble
        if count:
            _say(f"  {_count(count)} to make; nothing was changed.")
        if trouble:
            _say(f"  Stopped at {trouble.stage}.")
        elif not count:
            _say("  Nothing to change.")

    def finish(self, applied: Sequence[tuple[Resource, Status]]) -> None:
        if applied:
            _say("")
            for line in _table([COLUMNS, *(_row(resource, status) for resource, status in applied)]):
                _say(line)


class JsonConsole:
    """An object a line."""

    def begin(self, resource: Resource) -> None:
        """Say nothing: every line names its resource."""

    def outcome(self, owner: Owner, outcome: Outcome) -> None:
        _write(owner, "stage", asdict(outcome))

    def progress(self, owner: Owner, doing: str) -> None:
        _write(owner, "progress", {"message": doing})

    def waiting(self, owner: Owner, outcome: Outcome, seconds: float) -> None:
        _write(owner, "waiting", {"reason": outcome.reason, "message": outcome.message, "seconds": round(seconds, 1)})

    def end(self, owner: Owner, changes: int, status: Status) -> None:
        _write(owner, "end", {"changes": changes, "status": status.manifest()})

    def planned(self, owner: Owner, report: Report) -> None:
        stopped = {"stopped": report.trouble.stage} if report.trouble else {}
        _write(owner, "end", {"changes": len(report.changes), **stopped})

    def finish(self, applied: Sequence[tuple[Resource, Status]]) -> None:
        """Say nothing: each resource's last line has its status."""


def note(text: str) -> None:
    """Say something beside the run's own output."""
    _line(text, sys.stderr)


def is_worth_saying(outcome: Outcome) -> bool:
    """Return whether a stage was looked at at all."""
    return outcome.verdict is not Verdict.BLOCKED


def _count(changes: int) -> str:
    return f"{changes} change{'s' if changes != 1 else ''}"


def _row(resource: Resource, status: Status) -> tuple[str, ...]:
    ready = next((condition for condition in status.conditions if condition.type == READY), None)
    migration = (status.migrations and status.migrations.current) or ""
    truth, reason = (ready.status, str(ready.reason)) if ready else ("", "")
    owner = resource.owner
    return (owner.namespace, owner.name, truth, reason, resource.spec.database.name, migration)


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _write(owner: Owner, event: str, content: dict[str, Any]) -> None:
    line = {"namespace": owner.namespace, "name": owner.name, "event": event, **content}
    _line(json.dumps(line), sys.stdout)


def _say(text: str) -> None:
    _line(text, sys.stdout)


def _line(text: str, to: TextIO) -> None:
    # Flushed: whoever watches through a pipe sees it now.
    to.write(f"{_printable(text)}\n")
    to.flush()


def _printable(text: str) -> str:
    # Names and the words of servers come from anywhere; a terminal obeys what is in them.
    return re.sub(CONTROL, lambda found: found[0] if found[0] in "\n\t" else "\ufffd", text)
