"""What every status must obey: the rules of kstatus and Flux, and ours; pure, so that it can be tested itself."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from database_bootstrap.api import conditions, names
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.api.status import MESSAGE_LENGTH, TIME_FORMAT

Object: TypeAlias = Mapping[str, Any]
Verdict: TypeAlias = Literal["InProgress", "Failed", "Current"]

STAGES = [stage.condition for stage in StageName]
LOGIN_IN_URI = re.compile(r"\b(jdbc:)?postgres(ql)?://[^/\s]*:[^@\s]*@|password=\S", re.IGNORECASE)


def kstatus(obj: Object) -> Verdict:
    """Return what kubectl, Flux and others make of an object of an unknown kind that follows the conventions."""
    status = obj.get("status", {})
    observed = status.get("observedGeneration")
    if observed is not None and observed != obj["metadata"].get("generation"):
        return "InProgress"
    for condition in status.get("conditions", []):
        if condition["status"] != "True":
            continue
        if condition["type"] == "Reconciling":
            return "InProgress"
        if condition["type"] == "Stalled":
            return "Failed"
    ready = _by_type(obj).get("Ready")
    return "Current" if ready is None or ready["status"] == "True" else "InProgress"


def lint_status(obj: Object) -> list[str]:
    """Return what is wrong with the status of one version of an object, a sentence each."""
    findings = [*_root(obj), *_owners(obj)]
    by_type = _by_type(obj)
    if not by_type:
        return findings
    for condition in obj["status"]["conditions"]:
        findings += _condition(condition, obj["metadata"]["generation"])
    if len(by_type) < len(obj["status"]["conditions"]):
        findings.append("a type of condition occurs twice")
    missing = {"Ready", *STAGES} - by_type.keys()
    if missing:
        return [*findings, f"no {', '.join(sorted(missing))} although somebody has looked"]
    return [*findings, *_summary(obj, by_type), *_stages(by_type), *_generations(obj), *_verdict(obj, by_type)]


def lint_history(versions: Sequence[Object]) -> list[str]:
    """Return what is wrong between the versions of one object, given in order."""
    return [finding for before, after in pairwise(versions) for finding in _step(before, after)]


def _by_type(obj: Object) -> dict[str, Any]:
    return {condition["type"]: condition for condition in obj.get("status", {}).get("conditions", [])}


def _root(obj: Object) -> Iterator[str]:
    status, generation = obj.get("status", {}), obj["metadata"]["generation"]
    observed = status.get("observedGeneration")
    if observed is None:
        yield "no observedGeneration at the root"
    elif not -1 <= observed <= generation:
        yield f"observedGeneration {observed} at generation {generation}"
    if observed not in (None, -1) and not status.get("conditions"):
        yield "somebody has looked, and there is no condition"
    yield from (f"status.{key} has no place here" for key in ("phase", "kopf") if key in status)
    if LOGIN_IN_URI.search(json.dumps(status)):
        yield "a login or a password in the status"


def _owners(obj: Object) -> Iterator[str]:
    for entry in obj["metadata"].get("managedFields", []):
        ours = (entry["manager"], entry["operation"]) == (names.FIELD_MANAGER, "Apply")
        if entry.get("subresource") == "status" and not ours:
            yield f"{entry['manager']} wrote the status by {entry['operation']}"


def _condition(condition: Mapping[str, Any], generation: int) -> Iterator[str]:
    kind, message = condition["type"], condition.get("message", "")
    if kind not in conditions.TYPES:
        yield f"{kind} is no condition of ours"
    if condition["status"] not in ("True", "False", "Unknown"):
        yield f"{kind} is {condition['status']}"
    if condition.get("reason") not in set(Reason):
        yield f"{kind} has reason {condition.get('reason')}, which is not in the list"
    if not 0 <= condition.get("observedGeneration", -1) <= generation:
        yield f"{kind} has observedGeneration {condition.get('observedGeneration')} at generation {generation}"
    if not 0 < len(message) <= MESSAGE_LENGTH or re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", message):
        yield f"{kind} has no message, one that is too long, or one with control characters"
    if _time(condition) is None:
        yield f"{kind} has the transition time {condition.get('lastTransitionTime')}"


def _time(condition: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.strptime(condition.get("lastTransitionTime", ""), TIME_FORMAT)  # noqa: DTZ007 Z is in the format
    except ValueError:
        return None


def _summary(obj: Object, by_type: Mapping[str, Any]) -> Iterator[str]:
    ready, both = by_type["Ready"], [kind for kind in ("Reconciling", "Stalled") if kind in by_type]
    for kind in both:
        if by_type[kind]["status"] != "True":
            yield f"{kind} is {by_type[kind]['status']}, and should be absent"
    if len(both) == 2:
        yield "Reconciling and Stalled at once"
    if ready["status"] == "True" and both:
        yield f"Ready is True beside {both[0]}"
    if ready["status"] == "False" and not both:
        yield "Ready is False with neither Reconciling nor Stalled"
    if ready["status"] == "Unknown" and "Reconciling" not in both:
        yield "Ready is Unknown without Reconciling"
    stalled, reconciling = by_type.get("Stalled"), by_type.get("Reconciling")
    if stalled and (ready["status"], ready["reason"]) != ("False", stalled["reason"]):
        yield "Stalled without the same reason at Ready=False"
    wanted = {"True": "Succeeded", "Unknown": "Progressing"}.get(ready["status"], ready["reason"])
    if ready["reason"] != wanted:
        yield f"Ready is {ready['status']} for the reason {ready['reason']}"
    if reconciling and (ready["status"] == "Unknown") != (reconciling["reason"] == "Progressing"):
        yield f"Reconciling says {reconciling['reason']} beside Ready={ready['status']}"


def _stages(by_type: Mapping[str, Any]) -> Iterator[str]:
    told = [by_type[kind] for kind in STAGES]
    ready = by_type["Ready"]
    at = next((index for index, stage in enumerate(told) if stage["status"] != "True"), len(told))
    rest = told[at + 1 :]
    if (ready["status"] == "True") != (at == len(told)) and ready["status"] != "Unknown":
        yield f"Ready is {ready['status']}, and {at} stages of {len(told)} are True"
    if ready["status"] == "False":
        if at < len(told) and (told[at]["status"], told[at]["reason"]) != ("False", ready["reason"]):
            yield f"Ready says {ready['reason']}, and {told[at]['type']} says {told[at]['reason']}"
        # Where a person is waited for, and the database is there, others are let in or shut out all the same.
        is_apart = "Stalled" in by_type and at > STAGES.index("DatabaseReady")
        rest = [stage for stage in rest if not (is_apart and stage["type"] == "AccessReady")]
        loose = [stage["type"] for stage in rest if (stage["status"], stage["reason"]) != ("Unknown", "Blocked")]
        yield from (f"{kind} is not Blocked after a failure" for kind in loose)
    if ready["status"] == "Unknown":
        loose = [it["type"] for it in told[at:] if (it["status"], it["reason"]) != ("Unknown", "Progressing")]
        yield from (f"{kind} is not Unknown/Progressing in the middle of a visit" for kind in loose)


def _generations(obj: Object) -> Iterator[str]:
    status = obj["status"]
    seen = {condition.get("observedGeneration") for condition in status["conditions"]}
    if len(seen) > 1:
        yield f"conditions of different generations: {sorted(map(str, seen))}"
    elif _by_type(obj)["Ready"]["status"] != "Unknown" and seen != {status.get("observedGeneration")}:
        yield f"a visit ended at generation {seen.pop()}, and the root says {status.get('observedGeneration')}"


def _verdict(obj: Object, by_type: Mapping[str, Any]) -> Iterator[str]:
    current = obj["metadata"]["generation"] == obj["status"].get("observedGeneration")
    expected: Verdict = "InProgress"
    if current and "Stalled" in by_type:
        expected = "Failed"
    elif current and by_type["Ready"]["status"] == "True":
        expected = "Current"
    if kstatus(obj) != expected:
        yield f"kstatus says {kstatus(obj)}, and the situation is {expected}"


def _step(before: Object, after: Object) -> Iterator[str]:
    was, now = _by_type(before), _by_type(after)
    if was and not now:
        yield "all conditions have gone"
    pairs = [(obj.get("status", {}).get("observedGeneration", -1)) for obj in (before, after)]
    if pairs[1] < pairs[0]:
        yield f"observedGeneration went back from {pairs[0]} to {pairs[1]}"
    for kind in was.keys() & now.keys():
        times = (was[kind]["lastTransitionTime"], now[kind]["lastTransitionTime"])
        if was[kind]["status"] == now[kind]["status"] and times[0] != times[1]:
            yield f"{kind} stayed {now[kind]['status']}, and its transition time moved from {times[0]} to {times[1]}"
        if times[1] < times[0]:
            yield f"{kind} changed before it was what it was: {times[0]}, then {times[1]}"
