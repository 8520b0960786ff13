"""Claims: whose is what is there, by its mark; pure."""

from collections.abc import Callable
from dataclasses import replace

from psycopg import sql

from database_bootstrap import errors
from database_bootstrap.api import names
from database_bootstrap.postgres.ownership import Mark, Origin, Owner
from database_bootstrap.stages import identity, marking, policy
from database_bootstrap.stages.catalogue import Database
from database_bootstrap.stages.visit import Visit


def is_ours(visit: Visit, mark: Mark | None) -> bool:
    """Whether the mark names this very resource."""
    return mark is not None and mark.owner == visit.subject.owner


def may_be_ours(visit: Visit, mark: Mark) -> bool:
    """Whether it is worth asking if the role's password is this resource's."""
    return _has_our_name(visit, mark) or was_said_to_be_ours(visit, mark)


def may_take(visit: Visit, mark: Mark) -> bool:
    """Whether what is marked so is this resource's to take.

    It is its own; or it was, under another uid, and the role's password proves it; or a person has said so.
    """
    if is_ours(visit, mark) or was_said_to_be_ours(visit, mark):
        return True
    return _has_our_name(visit, mark) and visit.sessions.as_role is not None


def was_said_to_be_ours(visit: Visit, mark: Mark) -> bool:
    """Whether a person has named the resource of the mark as one whose things are this one's."""
    return visit.subject.taken_over == mark.owner.uid


async def require_role_gone(visit: Visit, comment: str | None) -> None:
    """Raise `NotOwned` where the role's owner is a resource that is there, or may be."""
    name = visit.spec.role.name
    if visit.role_mark:
        await _require_gone(
            visit, f'Role "{name}"', visit.role_mark.owner, lambda mark: marking.role(name, comment, mark)
        )


async def require_database_gone(visit: Visit, database: Database, owner: Owner) -> None:
    """Raise the same for the owner of the database, by its mark or its ledger."""
    name, comment = database.name, database.comment
    await _require_gone(visit, f'Database "{name}"', owner, lambda mark: marking.database(name, comment, mark))


async def _require_gone(visit: Visit, what: str, owner: Owner, saying: Callable[[Mark], sql.Composed]) -> None:
    """Raise `NotOwned` where a person gives away, by mistake or for gain, what a resource that is there still uses.

    Whoever brings an administrator's access may do so to what cannot be seen. On a platform team's server that takes
    its administrator's word: the role's comment, which nobody else writes.
    """
    mine = visit.subject.owner
    if visit.subject.taken_over != owner.uid or owner == mine:
        return
    is_there = await visit.surroundings.lives(owner) if owner.cluster == mine.cluster else None
    if is_there is None and visit.spec.server.ref and not is_ours(visit, visit.role_mark):
        said = saying(Mark(owner=mine, database=visit.spec.database.name, origin=Origin.ADOPTED))
        raise errors.NotOwned(
            f"{what} belongs to {owner}, and it cannot be seen from here whether that is gone; nothing was touched. If "
            f"it is, let the administrator of DatabaseServer {visit.spec.server.ref.name} say so: {said.as_string()}"
        )
    if is_there:
        raise errors.NotOwned(
            f"{what} belongs to {owner}, which is there and would lose it; nothing was touched. "
            f"{names.ANNOTATION_TAKE_OVER} counts once that resource is gone: under deletionPolicy: Retain its "
            "deletion drops nothing"
        )


def origin_after(visit: Visit, mark: Mark) -> Origin:
    """Return how what is marked so came to be this resource's, once it is.

    What another resource has made is adopted: that one may live all the same, and what it made is never dropped here.
    """
    return mark.origin if _has_our_name(visit, mark) else Origin.ADOPTED


def not_owned(visit: Visit, what: str, mark: Mark) -> errors.BootstrapError:
    """Return the error for what is marked as another's."""
    subject, belongs = visit.subject, f"{what} belongs to {mark.owner}; it is left alone"
    if subject.adoption_refused_by and subject.said_to_be_ours == mark.owner.uid:
        return policy.adoption_refusal(subject.adoption_refused_by, belongs)
    return errors.NotOwned(f"{belongs}. {identity.how_to_take(subject, mark.owner)}")


def _has_our_name(visit: Visit, mark: Mark) -> bool:
    """Whether the mark names a resource of our cluster, namespace and name that is not there any more."""
    owner = visit.subject.owner
    return replace(mark.owner, uid=owner.uid) == owner
