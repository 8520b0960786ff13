"""A migration that is one SQL file."""

from dataclasses import dataclass
from functools import cached_property

from database_bootstrap.tools.scripts import Script, script_of


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One SQL file and the name under which its tool records it."""

    name: str
    path: str
    """The file, as messages name it."""
    text: str
    checksum: str
    """As the tool records it."""
    own_transactions: bool = False
    """Whether the tool lets a script begin and commit as it likes."""

    @cached_property
    def script(self) -> Script:
        """The script; raise `BundleRejected` for what cannot be run.

        Parsed when first asked for: nobody asks for one that is applied.
        """
        return script_of(self.path, self.text, own_transactions=self.own_transactions)
