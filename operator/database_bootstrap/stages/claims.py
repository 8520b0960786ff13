"""Claims: whose is what is there, by its mark; pure."""

from dataclasses import replace

from database_bootstrap import errors
from database_bootstrap.api import names
from database_bootstrap.postgres.ownership import Mark, Origin, Owner
from database_bootstrap.stages import identity, policy
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


async def require_gone(visit: Visit, what: str, owner: Owner) -> None:
    """Raise `NotOwned` where a person gives away, by mistake or for gain, what a resource that is there still uses."""
    if visit.subject.taken_over != owner.uid or owner == visit.subject.owner:
        return
    if owner.cluster == visit.subject.owner.cluster and await visit.surroundings.lives(owner):
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
