"""Where the files of migrations and seed come from."""

import re
from typing import Annotated, ClassVar

from pydantic import Field

from database_bootstrap.api import rules
from database_bootstrap.api.models import OBJECT_NAME, Model
from database_bootstrap.api.rules import Rule, Unique

INLINE_CHARACTERS = 200 * 1024
"""In characters: the API server allows a rule to count the bytes of so much text for a few files only."""
INLINE_FILES = 512
NO_PATH = r"\\|(^|/)\.{0,2}(/|$)"
"""A backslash, or a part that is empty, `.` or `..`."""


class ConfigMapRef(Model):
    """A ConfigMap with files."""

    name: Annotated[str, OBJECT_NAME, rules.object_name("source.configMapRefs[].name", "ConfigMap")]
    """Name of a ConfigMap in the same namespace; its keys are files, and binaryData may hold a .tar.gz."""


class InlineFile(Model):
    """A file, written into the resource itself."""

    path: Annotated[
        str,
        Field(strict=True, min_length=1, max_length=512),
        rules.printable("source.inline[].path"),
        Rule(
            cel=f"!self.matches(r'{NO_PATH}')",
            message="`source.inline[].path` must be relative, with `/` between its parts, and without `.` and `..`",
            holds=lambda path: re.search(NO_PATH, path) is None,
        ),
    ]
    """Path of the file in the source, such as `20240101000000_init/migration.sql`."""
    content: Annotated[str, Field(strict=True, max_length=INLINE_CHARACTERS)]
    """What the file holds, as text."""


class SourceSpec(Model):
    """Files: from ConfigMaps, or written here; exactly one of the two."""

    obeys: ClassVar = (
        Rule(
            cel="has(self.configMapRefs) != has(self.inline)",
            message="`source` must have exactly one of `configMapRefs` and `inline`",
            holds=lambda source: bool(source.config_map_refs) != bool(source.inline),
        ),
    )

    config_map_refs: Annotated[
        tuple[ConfigMapRef, ...],
        Field(min_length=1, max_length=64),
        Unique(field="source.configMapRefs", key="name"),
    ] = ()
    """ConfigMaps in the same namespace, merged into one set of files."""
    inline: Annotated[
        tuple[InlineFile, ...],
        Field(min_length=1, max_length=INLINE_FILES),
        Unique(field="source.inline", key="path"),
    ] = ()
    """Files written here; 200 KiB (204800 characters) in all, migrations and seed together."""
