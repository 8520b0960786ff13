"""Ownership marks: the last line of a role's or database's COMMENT names the resource that it belongs to."""

import json
import re
from dataclasses import asdict, dataclass
from enum import StrEnum

from database_bootstrap.settings import is_id

_PREFIX = "dbbootstrap.io/owner "
LONGEST = 65_536
"""Characters of a database's comment that are read: its owner may write a gigabyte into it."""
_DNS = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Origin(StrEnum):
    """How a role or database came to be this resource's."""

    CREATED = "Created"
    ADOPTED = "Adopted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """One resource, in one cluster."""

    cluster: str
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name} (cluster {self.cluster}, uid {self.uid})"

    @property
    def is_plausible(self) -> bool:
        """Whether a resource can have these names.

        What stands in a comment or a ledger may be anybody's text, and it is shown to people in sentences that tell
        them what to run.
        """
        return is_id(self.cluster) and is_id(self.uid) and is_name(self.namespace) and is_name(self.name)


def is_name(text: object) -> bool:
    """Whether it can be the name of a namespace or of a resource."""
    return isinstance(text, str) and _DNS.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a comment says: whose it is, how it came to be, and which database it is or is about to have."""

    owner: Owner
    database: str
    origin: Origin
    role_unmarked: bool = False
    """On a database: its role carries no mark, as the administrator may not comment on it; this one counts for both."""


def mark_in(comment: str | None) -> Mark | None:
    """Return the mark in a comment, or None where there is none that can be read, or that names what cannot be."""
    last_line = (comment or "").rstrip("\n").rsplit("\n", 1)[-1]
    if not last_line.startswith(_PREFIX):
        return None
    try:
        fields = json.loads(last_line.removeprefix(_PREFIX))
        owner = Owner(**fields["owner"])
        if not owner.is_plausible:
            return None
        return Mark(
            owner=owner,
            database=fields["database"],
            origin=Origin(fields["origin"]),
            role_unmarked=fields.get("role_unmarked") is True,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def with_mark(comment: str | None, mark: Mark) -> str:
    """Return the comment with this mark as its last line; the text of people before it is kept."""
    return "\n".join([*_words(comment), _PREFIX + json.dumps(asdict(mark), sort_keys=True)])


def without_mark(comment: str | None) -> str | None:
    """Return the comment as people wrote it; None where they wrote nothing."""
    return "\n".join(_words(comment)) or None


def _words(comment: str | None) -> list[str]:
    return [line for line in (comment or "").splitlines() if not line.startswith(_PREFIX)]
