"""Identity: is the data still the data that was set up here? Pure; what is pinned against what is found."""

from collections.abc import Iterator
from dataclasses import dataclass

from database_bootstrap import errors
from database_bootstrap.api import names
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.stages.catalogue import Database, Inside
from database_bootstrap.stages.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What a complete success left behind: the incarnation, and what explains later why it is another."""

    incarnations: tuple[str, ...]
    """One; two where a crash, or a person, let the connection Secret and the status disagree. Either is this resource's
    data, and for a loss to be known each must be named."""
    system_identifier: str | None = None
    oid: int | None = None
    ledger_seq: int | None = None

    @property
    def name(self) -> str:
        """What annotations and messages call it."""
        return ",".join(self.incarnations)


def pin_of(subject: Subject, published: str | None) -> Pin | None:
    """Return what the status has pinned, and the connection Secret, which outlives the resource."""
    database, server = subject.status.database, subject.status.server
    known = database.incarnation if database else None
    incarnations = tuple(dict.fromkeys(one for one in (known, published) if one))
    if not incarnations:
        return None
    if database is None or known is None:
        return Pin(incarnations=incarnations)
    return Pin(
        incarnations=incarnations,
        system_identifier=server.system_identifier if server else None,
        oid=database.oid,
        ledger_seq=database.ledger_seq,
    )


def is_acknowledged(subject: Subject, pin: Pin) -> bool:
    """Whether a person has said that the loss of this very incarnation is known.

    One that was acknowledged before, and whose annotation was left behind, says nothing of the one that came after it.
    """
    said = subject.annotations.get(names.ANNOTATION_ACKNOWLEDGE_DATA_LOSS, "")
    return set(pin.incarnations) <= {one.strip() for one in said.split(",")}


def pinned(subject: Subject, pin: Pin | None, inside: Inside) -> str | None:
    """Return what stays pinned until the next complete success; what a person has accepted counts at once."""
    if pin is None:
        return None
    is_known = inside.incarnation in pin.incarnations or _is_accepted(subject, inside)
    return inside.incarnation if is_known else pin.incarnations[0]


def check(subject: Subject, pin: Pin | None, database: Database | None, inside: Inside | None) -> None:
    """Raise `DataLossDetected`, `ForeignDatabase` or `NotOwned` where the data is not what was set up here."""
    if error := trouble(subject, pin, database, inside):
        raise error


def trouble(
    subject: Subject, pin: Pin | None, database: Database | None, inside: Inside | None
) -> errors.BootstrapError | None:
    """Return why nothing must be done here, or None where the data is what was set up here, or new."""
    found = inside.incarnation if inside else None
    if pin is None:
        return foreign_ledger(subject, inside) if inside and found and not is_of(subject, inside) else None
    if found is None:
        return None if is_acknowledged(subject, pin) else _loss(subject, pin, database, inside)
    if found in pin.incarnations or (inside and _is_expected(subject, pin, inside)):
        return None
    return errors.ForeignDatabase(
        f"The database is incarnation {found}, and not {pin.name} that was set up here: another's data, as after "
        "refreshing it from a dump. Nothing was touched; to go on with it, annotate the resource with "
        f"{names.ANNOTATION_ACCEPT_INCARNATION}={found}"
    )


def foreign_ledger(subject: Subject, inside: Inside) -> errors.NotOwned:
    """Return the error for a database that another resource has set up."""
    return errors.NotOwned(
        f"The ledger in the database belongs to {inside.namespace}/{inside.name} (cluster {inside.cluster}), as after "
        f"restoring its dump here; nothing was touched. {how_to_take(subject, inside)}"
    )


def how_to_take(subject: Subject, owner: Owner | Inside) -> str:
    """Return the sentence that says when a person may give to this resource what is another's, and how."""
    if subject.adoption_refused_by:
        return f"DatabaseServer {subject.adoption_refused_by} does not allow it to be taken over (allowAdoption)"
    where = "" if owner.cluster == subject.owner.cluster else " in that cluster"
    return (
        f"Only if that resource is gone for good (look with kubectl get {names.SHORT_NAME}/{owner.name} --namespace "
        f"{owner.namespace}{where}; a living one would lose its database), annotate this one with "
        f"{names.ANNOTATION_TAKE_OVER}={owner.uid}"
    )


def lost(pin: Pin, where: str) -> errors.DataLossDetected:
    """Return the error for data that is nowhere to be found."""
    return errors.DataLossDetected(
        f"{where}, and incarnation {pin.name} of the database had been set up. Nothing was made anew; bring the "
        "data back, or, if it is lost for good, start over by annotating the resource with "
        f"{names.ANNOTATION_ACKNOWLEDGE_DATA_LOSS}={pin.name}"
    )


def notes(subject: Subject, pin: Pin | None, database: Database | None, inside: Inside) -> Iterator[str]:
    """Yield what is worth an event, and no reason to stop: a move, a restore, a person's word that counts."""
    if pin is None:
        return
    if inside.incarnation is None:
        yield f"start over after the loss of incarnation {pin.name}, as a person said"
    elif inside.incarnation not in pin.incarnations:
        if _is_accepted(subject, inside):
            yield f"go on with incarnation {inside.incarnation} in place of {pin.name}, as a person said"
    elif inside.incarnation == pin.incarnations[0]:
        yield from _journeys(pin, database, inside)


def _journeys(pin: Pin, database: Database | None, inside: Inside) -> Iterator[str]:
    system = inside.server.system_identifier
    if pin.system_identifier and system and pin.system_identifier != system:
        yield f"note that the database has moved to server {system} (upgrade, restore or move); its data came along"
    elif pin.oid and database and pin.oid != database.oid:
        yield "note that the database was made anew from its own dump; its data came along"
    if pin.ledger_seq and inside.ledger_seq is not None and inside.ledger_seq < pin.ledger_seq:
        yield (
            f"note that the database was restored to an earlier point (its ledger had come to {pin.ledger_seq}); "
            "migrations that are pending again run again, a seed that is in does not"
        )


def is_of(subject: Subject, inside: Inside) -> bool:
    """Whether the ledger names this resource, or one whose things are this one's by a person's word."""
    owner = subject.owner
    if subject.taken_over == inside.uid:
        return True
    return (inside.cluster, inside.namespace, inside.name) == (owner.cluster, owner.namespace, owner.name)


def _is_accepted(subject: Subject, inside: Inside) -> bool:
    accepted = subject.annotations.get(names.ANNOTATION_ACCEPT_INCARNATION)
    return accepted is not None and accepted == inside.incarnation


def _is_expected(subject: Subject, pin: Pin, inside: Inside) -> bool:
    # Or a new beginning after an acknowledged loss, which has not come to its first complete success yet.
    return _is_accepted(subject, inside) or (is_acknowledged(subject, pin) and is_of(subject, inside))


def _loss(subject: Subject, pin: Pin, database: Database | None, inside: Inside | None) -> errors.DataLossDetected:
    name = f'"{subject.spec.database.name}"'
    system = inside.server.system_identifier if inside else None
    if database is None:
        why = f"Database {name} is gone: it was dropped, its server was wiped, or the Secret names another server"
    elif pin.system_identifier and system and system != pin.system_identifier:
        why = f"The server is another one, and its database {name} was not set up here"
    elif pin.oid and pin.oid != database.oid:
        why = f"Database {name} was dropped and made anew by somebody else"
    else:
        why = f"The ledger (schema dbbootstrap) is gone from database {name}"
    return lost(pin, why)
