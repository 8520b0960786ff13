"""A migration that is one SQL file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from database_bootstrap.bundles.bundle import File
from database_bootstrap.errors import BundleRejected, SpecRejected
from database_bootstrap.tools import scripts
from database_bootstrap.tools.batch import Judged, judged_of
from database_bootstrap.tools.scripts import Script, Verdict, script_as
from database_bootstrap.tools.sql_text import STEPS_LIMIT

PENDING_BYTES_LIMIT = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One SQL file and the name under which its tool records it."""

    name: str
    path: str
    """The file, as messages name it."""
    content: bytes
    """UTF-8; kept as it came, since it is the bundle that has it."""
    checksum: str
    """As the tool records it."""
    own_transactions: bool = False
    """Whether the tool lets a script begin and commit as it likes."""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content)

    @property
    def verdict(self) -> Verdict:
        """How it must be sent; raise `BundleRejected` for what cannot be run."""
        if isinstance(self._judgement, BundleRejected):
            raise BundleRejected(self._judgement.message)
        return self._judgement

    @property
    def script(self) -> Script:
        """The script; raise `BundleRejected` for what cannot be run. Not kept: there may be hundreds."""
        return script_as(self.path, self.content.decode(), self.verdict)

    @cached_property
    def judged(self) -> Judged:
        """What it does to what is there; found when first asked for."""
        text = self.content.decode().removeprefix("\ufeff")
        return judged_of(self.name, self.path, text)

    @cached_property
    def _judgement(self) -> Verdict | BundleRejected:
        """Found when first asked for: nobody asks for one that is applied, and nobody twice."""
        try:
            scripts.check_size(self.path, self.size)
            return scripts.judge(self.path, self.content.decode(), own_transactions=self.own_transactions)
        except BundleRejected as refusal:
            return refusal


def content_of(file: File) -> bytes:
    """Return a script's bytes; raise `BundleRejected` when it is not UTF-8 text."""
    _ = file.text
    return file.content


def upto(ordered: Sequence[str], name: str) -> tuple[str, ...]:
    """Return this one and all before it; raise `SpecRejected` where the baseline is not in the source."""
    if name not in ordered:
        raise SpecRejected(
            f"`migrations.baseline` names {name}, which the source does not have; its newest is {ordered[-1]}"
        )
    return tuple(ordered[: ordered.index(name) + 1])


def check_pending(migrations: Iterable[Migration]) -> None:
    """Raise `BundleRejected` when one of them cannot be run, before anything is, or when judging all takes too long."""
    size = steps = 0
    for migration in migrations:
        size += migration.size
        if size > PENDING_BYTES_LIMIT:
            raise BundleRejected(
                f"The migrations that are yet to be applied have more than {PENDING_BYTES_LIMIT} bytes together; let "
                "fewer of them come at a time"
            )
        steps += migration.verdict.steps
        if steps > STEPS_LIMIT:
            raise BundleRejected(
                f"The migrations up to {migration.name} have too many statements, or parentheses and comments within "
                "each other, to be applied at once; let fewer of them come at a time"
            )
