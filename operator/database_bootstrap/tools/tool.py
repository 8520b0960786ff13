"""What every migration tool gives the stage that runs it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from database_bootstrap.bundles.bundle import Bundle
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.login import Login
from database_bootstrap.tools.batch import Judged

if TYPE_CHECKING:
    from database_bootstrap.tools.resolution import Word

Source = TypeVar("Source")
"""What a tool makes of a bundle."""


async def _nobody() -> None:
    """Be told, and do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the resource wants its migrations run; times in seconds, 0 means without limit."""

    schema: str
    """Where the tool works."""
    lock_timeout: int = 5
    statement_timeout: int = 0
    timeout: int = 600
    """For the whole run."""
    allow_out_of_order: frozenset[str] = frozenset()
    refuse_destructive: bool = True
    allow_destructive: frozenset[str] = frozenset()
    """Migrations that may destroy data all the same."""
    baseline: str | None = None
    """The migration up to which all is in the database already, made by somebody else; for an empty history only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One row of a tool's own history."""

    name: str
    """As the tool records it: directory name, version, revision."""
    checksum: str | None = None
    finished: bool = True
    """False: it began, and neither ended nor was declared rolled back."""
    rolled_back: bool = False
    stop: str | None = None
    """What names this one stop in a person's word; known of one that did not end."""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the tool's own table says."""

    table_exists: bool
    rows: tuple[Applied, ...] = ()
    """In the order in which they were applied."""
    tables: tuple[str, ...] = ()
    """Qualified names of the tool's own tables, which are nobody's data: `public._prisma_migrations`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What comparing a source with a history gives."""

    pending: tuple[str, ...]
    """In the order in which they will be applied."""
    current: str | None
    """The newest applied one, for people to read."""
    applied: int
    """How many are applied."""
    warnings: tuple[str, ...] = ()
    baseline: tuple[str, ...] = ()
    """What is to be recorded as applied first, in order, without running it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a database is, as far as that is known; also where nothing can follow."""

    current: str | None = None
    applied: int | None = None
    pending: int | None = None
    """Those of the source that are not applied, whether or not they can be."""


class Recount(Protocol):
    """A second look at what one migration would destroy, had any row come since the first."""

    async def locks(self) -> str:
        """Return the statements that keep others from writing there until the transaction ends; asked outside of it."""
        ...

    async def check(self) -> None:
        """Raise `DestructiveMigration` where rows have come."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What the gate in front of destructive migrations has found before a run."""

    is_open: bool = False
    """Nothing is judged: until its first success a database holds nothing but what its migrations have put in, as long
    as nobody knows the role's password before."""
    losses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Migration → what it was allowed to destroy, for the audit log."""
    recounts: Mapping[str, Recount] = field(default_factory=dict)
    """Migration → what to do just before it, for those that were let through since no row was there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a tool needs to apply migrations."""

    connection: Connection
    """The role's session, autocommit, ordinary settings; it holds the database's advisory lock for the whole run."""
    login: Login
    """The role's credentials, for a tool that opens a session of its own."""
    options: Options
    gate: Gate = field(default_factory=Gate)
    actor: str = ""
    """Who acts, for the ledger: namespace and name of the resource."""
    verify_lock: Callable[[], Awaitable[None]]
    """Raises `LockHeld` when the advisory lock is no longer ours; to be called before each migration."""
    applied: Callable[[str], Awaitable[None]]
    """To be awaited after each migration that is committed: progress, and one entry in the list of changes."""
    baseline: tuple[str, ...] = ()
    """What the tool records as applied before it applies anything."""
    baselined: Callable[[], Awaitable[None]] = _nobody
    """To be awaited once that is committed."""


class Tool(Protocol[Source]):
    """One migration tool."""

    name: str
    """As in the resource: Prisma, Alembic, SQL."""

    def load(self, bundle: Bundle) -> Source:
        """Return the migrations of a bundle; pure; raise `BundleRejected` for what is none. Nothing was run."""
        ...

    async def read(self, connection: Connection, options: Options) -> History:
        """Return the history over a read-only session as the role."""
        ...

    def compare(self, source: Source, history: History, options: Options) -> Comparison:
        """Return what is pending; pure; raise `MigrationDiverged` or `MigrationHalfApplied` where none can follow."""
        ...

    def judge(self, source: Source, pending: tuple[str, ...]) -> tuple[Judged, ...]:
        """Return what these do to what is there, as far as their text says so; pure, and may take a second."""
        ...

    def standing(self, source: Source, history: History) -> Standing:
        """Return how far the database is; pure; raises nothing, whatever the history looks like."""
        ...

    def upto(self, source: Source, name: str) -> tuple[str, ...]:
        """Return this migration and all before it, in order; pure; raise `SpecRejected` for one that is not there."""
        ...

    def assume(self, source: Source, history: History, word: "Word") -> History:
        """Return the history as a person's word will leave it; pure; raise `MigrationDiverged` where it cannot be."""
        ...

    async def resolve(self, source: Source, word: "Word", run: Run) -> bool:
        """Write a person's word down, in one transaction; False where it does not count any more."""
        ...

    async def apply(self, source: Source, pending: tuple[str, ...], run: Run) -> None:
        """Apply these in order; raise `MigrationFailed`, `MigrationHalfApplied` or `MigrationInterrupted`."""
        ...
