"""Identity: is the data still the data that was set up here? Pure; what is pinned against what is found."""

from collections.abc import Iterator
from dataclasses import dataclass

from database_bootstrap import errors
from database_bootstrap.api import names
from database_bootstrap.stages.catalogue import Database, Inside
from database_bootstrap.stages.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What a complete success left behind: the incarnation, and what explains later why it is another."""

    incarnation: str
    system_identifier: str | None = None
    oid: int | None = None
    ledger_seq: int | None = None


def pin_of(subject: Subject, published: str | None) -> Pin | None:
    """Return what the status has pinned, or else the connection Secret, which outlives the resource."""
    database, server = subject.status.database, subject.status.server
    if database is not None and database.incarnation is not None:
        return Pin(
            incarnation=database.incarnation,
            system_identifier=server.system_identifier if server else None,
            oid=database.oid,
            ledger_seq=database.ledger_seq,
        )
    return Pin(incarnation=published) if published else None


def is_acknowledged(subject: Subject, pin: Pin) -> bool:
    """Whether a person has said that the loss of this very incarnation is known."""
    return subject.annotations.get(names.ANNOTATION_ACKNOWLEDGE_DATA_LOSS) == pin.incarnation


def pinned(subject: Subject, pin: Pin | None, inside: Inside) -> str | None:
    """Return what stays pinned until the next complete success; what a person has accepted counts at once."""
    if pin is None:
        return None
    accepted = subject.annotations.get(names.ANNOTATION_ACCEPT_INCARNATION)
    return accepted if accepted is not None and accepted == inside.incarnation else pin.incarnation


def check(subject: Subject, pin: Pin | None, database: Database | None, inside: Inside | None) -> None:
    """Raise `DataLossDetected`, `ForeignDatabase` or `NotOwned` where the data is not what was set up here."""
    found = inside.incarnation if inside else None
    if pin is None:
        if inside and found and not _is_of(subject, inside):
            raise errors.NotOwned(
                f"The ledger in the database belongs to {inside.namespace}/{inside.name} (cluster {inside.cluster}), "
                "as after restoring its dump here; nothing was touched"
            )
        return
    if found is None:
        if not is_acknowledged(subject, pin):
            raise errors.DataLossDetected(_loss(pin, database, inside))
    elif found != pin.incarnation and not _is_accepted(subject, pin, inside):
        raise errors.ForeignDatabase(
            f"The database is incarnation {found}, and not {pin.incarnation} that was set up here: another's data, as "
            "after refreshing it from a dump. Nothing was touched; to go on with it, annotate the resource with "
            f"{names.ANNOTATION_ACCEPT_INCARNATION}={found}"
        )


def lost(pin: Pin, where: str) -> errors.DataLossDetected:
    """Return the error for data that is nowhere to be found."""
    return errors.DataLossDetected(
        f"{where}, and incarnation {pin.incarnation} of the database had been set up. Nothing was made anew; bring the "
        "data back, or, if it is lost for good, start over by annotating the resource with "
        f"{names.ANNOTATION_ACKNOWLEDGE_DATA_LOSS}={pin.incarnation}"
    )


def notes(subject: Subject, pin: Pin | None, database: Database, inside: Inside) -> Iterator[str]:
    """Yield what is worth an event, and no reason to stop: a move, a restore, a person's word that counted."""
    if pin is None or inside.incarnation is None:
        return
    if inside.incarnation != pin.incarnation:
        if subject.annotations.get(names.ANNOTATION_ACCEPT_INCARNATION) == inside.incarnation:
            yield f"go on with incarnation {inside.incarnation} in place of {pin.incarnation}, as a person said"
        return
    system = inside.server.system_identifier
    if pin.system_identifier and system and pin.system_identifier != system:
        yield f"note that the database has moved to server {system} (upgrade, restore or move); its data came along"
    elif pin.oid and pin.oid != database.oid:
        yield "note that the database was made anew from its own dump; its data came along"
    if pin.ledger_seq and inside.ledger_seq is not None and inside.ledger_seq < pin.ledger_seq:
        yield "note that the database was restored to an earlier point; pending migrations run again, the seed does not"


def _is_of(subject: Subject, inside: Inside) -> bool:
    owner = subject.owner
    if subject.annotations.get(names.ANNOTATION_TAKE_OVER) == inside.uid:
        return True
    return (inside.cluster, inside.namespace, inside.name) == (owner.cluster, owner.namespace, owner.name)


def _is_accepted(subject: Subject, pin: Pin, inside: Inside | None) -> bool:
    if inside is None:
        return False
    if subject.annotations.get(names.ANNOTATION_ACCEPT_INCARNATION) == inside.incarnation:
        return True
    # A new beginning after an acknowledged loss, which has not come to its first complete success yet.
    return is_acknowledged(subject, pin) and _is_of(subject, inside)


def _loss(pin: Pin, database: Database | None, inside: Inside | None) -> str:
    system = inside.server.system_identifier if inside else None
    if database is None:
        why = "The database is gone: it was dropped, its server's volume was wiped, or the Secret names another server"
    elif pin.system_identifier and system and system != pin.system_identifier:
        why = "The server is another one, and its database was not set up here"
    elif pin.oid and pin.oid != database.oid:
        why = "The database was dropped and made anew by somebody else"
    else:
        why = "The ledger (schema dbbootstrap) is gone from the database"
    return lost(pin, why).message
