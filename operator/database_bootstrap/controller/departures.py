"""Resources that are being deleted under `deletionPolicy: Delete`: what goes with them, what stays, and who is told."""

import logging
from dataclasses import dataclass
from typing import Protocol

from database_bootstrap import logs, metrics
from database_bootstrap.api import v1alpha1
from database_bootstrap.errors import BootstrapError
from database_bootstrap.kube import removal
from database_bootstrap.kube.client import Kube
from database_bootstrap.kube.recorder import Note, Recorder, listed
from database_bootstrap.kube.resource import Resource
from database_bootstrap.stages.deletion import Ending
from database_bootstrap.stages.subject import Subject
from database_bootstrap.stages.surroundings import Belongings

DELETED = "Deleted"
KEPT = "Kept"
ACTION = "Delete"
EVERYTHING = "Role, database and Secrets are kept"

log = logging.getLogger(__name__)


class Undertaker(Protocol):
    """What drops: the engine."""

    async def delete(self, subject: Subject, belongings: Belongings) -> Ending:
        """Drop what this very resource has made, and say what went and what stays."""
        ...


class Introduce(Protocol):
    """What makes an engine's words of a resource."""

    def __call__(self, resource: Resource, spec: v1alpha1.Spec) -> tuple[Subject, Belongings]:
        """Return the subject and its surroundings."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Departures:
    """Decides what a deletion takes with it, has it done, and tells of it."""

    kube: Kube
    line: Undertaker
    introduce: Introduce
    recorder: Recorder

    async def see_off(self, resource: Resource) -> Ending:
        """Drop what is to go, and tell of it; the resource may go where the ending has no error."""
        ending, may_post = await self._end(resource)
        self._log(resource, ending)
        _count(ending)
        if may_post and (ending.drops or ending.error is None):
            await self.recorder.post(resource, _note(ending))
        return ending

    async def _end(self, resource: Resource) -> tuple[Ending, bool]:
        """Return what came of it, and whether an event can tell of it: not where the namespace goes as well."""
        if not resource.drops:
            return _keeping("deletionPolicy is Retain"), True
        if resource.suspended:
            return _keeping("spec.suspend asks to leave all alone"), True
        try:
            if why := await removal.larger_than(self.kube, resource.key):
                return _keeping(why.text), why.takes_events
            subject, belongings = self.introduce(resource, v1alpha1.parse_spec(resource.spec))
        except BootstrapError as error:
            return Ending(error=error), True
        return await self.line.delete(subject, belongings), True

    def _log(self, resource: Resource, ending: Ending) -> None:
        # The audit log in the database goes with it: this line is what remains.
        extra = logs.about(*resource.key)
        if ending.drops:
            log.info("Deleted: %s", "; ".join(map(str, ending.drops)), extra=extra)
        for kept in ending.kept:
            log.log(logging.INFO if ending.error is None else logging.DEBUG, "Kept: %s", kept, extra=extra)


def _keeping(why: str) -> Ending:
    return Ending(kept=(f"{EVERYTHING}: {why}",))


def _note(ending: Ending) -> Note:
    said = [*map(str, ending.drops), *ending.kept] or ["Nothing was left to drop"]
    return Note(type="Normal", reason=DELETED if ending.drops else KEPT, text=listed(said), action=ACTION)


def _count(ending: Ending) -> None:
    for drop in ending.drops:
        metrics.DROPS.labels(what=drop.stage).inc()
