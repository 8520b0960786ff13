"""Effects: what a statement destroys, hides, makes and renames, as far as its text says so."""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import NamedTuple

from database_bootstrap.tools.column_types import Change

PREFIX_OF_OPAQUE = "OP"


class Code(StrEnum):
    """What kind of destruction it is; the scheme is that of Atlas."""

    DROP_SCHEMA = "DS101"
    DROP_TABLE = "DS102"
    DROP_COLUMN = "DS103"
    TRUNCATE = "DS104"
    DELETE = "DS105"
    """Rows deleted, or values overwritten, everywhere in a table."""
    CHANGE_TYPE = "DS106"
    DROP_OWNED = "DS107"
    UNLOG = "DS108"
    """The next crash of the server empties the table."""
    OPAQUE = "OP901"
    """Code that says only when it runs what it does."""
    UNPARSED = "OP902"
    """What this grammar cannot read, and begins like something that destroys."""

    @property
    def is_opaque(self) -> bool:
        """Whether nobody can tell what is at stake."""
        return self.startswith(PREFIX_OF_OPAQUE)


class Kind(Enum):
    """What a name is the name of."""

    TABLE = auto()
    COLUMN = auto()
    SCHEMA = auto()
    TYPE = auto()
    EXTENSION = auto()
    ROLE = auto()
    """Everything that it owns."""
    DATABASE = auto()
    FUNCTION = auto()
    PREPARED = auto()
    """A statement that PREPARE has named."""
    PATH = auto()
    """The schemas in which names without one are looked for."""
    ROLLBACK = auto()
    """Of a transaction that the script has begun itself."""
    COMMIT = auto()
    HIDDEN = auto()
    """Names that code may have given to something else, where nobody could read it."""
    ANYTHING = auto()
    """No name: whatever there is."""


class Reach(Enum):
    """What else goes with a thing."""

    ITSELF = auto()
    DEPENDENTS = auto()
    """What depends on it: DROP … CASCADE."""
    TRUNCATED = auto()
    """Tables that refer to it: TRUNCATE … CASCADE."""
    DELETED = auto()
    """Rows that refer to its rows with ON DELETE CASCADE."""


class Doubt(Enum):
    """Whether what a statement names may be something else that got the name since, in a way that nobody could read."""

    NONE = auto()
    ABSENT = auto()
    """Where nothing of that name is there now."""
    ALWAYS = auto()


class Name(NamedTuple):
    """A name as it was written; without a schema it is looked for in the search path."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that would be lost, if it holds rows."""

    code: Code
    what: str
    """In imperative words, as they stand before the object: `drop table`."""
    kind: Kind
    name: Name
    written: Name | None = None
    """The name that the statement has, where that is a new one."""
    reach: Reach = Reach.ITSELF
    columns: tuple[str, ...] = ()
    """Only rows with a value in one of these count."""
    change: Change | None = None
    """Of a column's type."""
    doubt: Doubt = Doubt.NONE
    is_watched: bool = False
    """Of a call: to put rows in is enough to run code that may destroy anything."""
    line: int | None = None
    """Where the statement begins, counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Something that was not there before: what becomes of it is no loss."""

    kind: Kind
    name: Name
    column: str | None = None
    body: tuple["Effect", ...] = ()
    """Of a function: what it does when it is called."""
    runs_by_itself: bool = False
    """Of a function: triggers that were there before may run it from here on."""
    until_commit: bool = False
    """It goes with the transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """Something that has another name from here on."""

    kind: Kind
    old: Name
    new: Name
    columns: tuple[str, str] | None = None
    """Of a column: the old name and the new one, of the table `old`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """Rows of tables that are in another one too from here on."""

    into: Name
    sources: tuple[Name, ...]
    moved: tuple[Name, ...] = ()
    """Those that they are taken out of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A table that goes with its new parent from here on, or no longer."""

    parent: Name
    child: Name
    leaves: bool = False
    is_new: bool = False
    """It was made as its child: what is in it was never anything else's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Code that runs by itself from here on when rows of a table change: a trigger, a rule."""

    table: Name | None
    """None where it cannot be told."""
    what: str
    """In imperative words."""
    body: tuple["Effect", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """Rows of a table change, and what watches it runs."""

    table: Name | None
    """None where it cannot be told."""
    inserts: bool = False
    """Nothing but new rows: they take no others along."""
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """A definition that has a function called: at once, or whenever rows are put in or read."""

    function: Name
    line: int | None = None


Effect = Finding | Made | Renamed | Copied | Joined | Watch | Changed | Uses
