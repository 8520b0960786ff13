"""The first-run data that a resource asks for."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from database_bootstrap.api import rules
from database_bootstrap.api.models import DAY_SECONDS, Model, Whole
from database_bootstrap.api.rules import Rule, Unique
from database_bootstrap.api.sources import SourceSpec


class SeedPolicy(StrEnum):
    """When the seed runs."""

    IF_EMPTY = "IfEmpty"
    ONCE = "Once"
    NEVER = "Never"


class SeedSpec(Model):
    """First-run data, put in once and never again."""

    policy: SeedPolicy = SeedPolicy.IF_EMPTY
    """IfEmpty: when no user table has a row. Once: when never seeded before, rows or not. Never: not at all."""
    source: SourceSpec
    """The data: .sql files, run in the order of their paths, and .csv files named `schema.table.csv`, or
    `schema.table.part-1.csv` and so on where one table has several."""
    ignore_tables: Annotated[
        tuple[
            Annotated[
                str,
                Field(strict=True, min_length=3, max_length=2 * rules.IDENTIFIER_BYTES + 1),
                rules.printable("seed.ignoreTables[]"),
                Rule(
                    cel="self.split('.').size() == 2 && "
                    f"self.split('.').all(part, size(part) > 0 && size(bytes(part)) <= {rules.IDENTIFIER_BYTES})",
                    message="`seed.ignoreTables[]` must be `schema.table`, each part of 1 to 63 bytes",
                    holds=lambda name: (
                        [0 < len(part.encode()) <= rules.IDENTIFIER_BYTES for part in name.split(".")] == [True, True]
                    ),
                ),
            ],
            ...,
        ],
        Field(max_length=256),
        Unique(field="seed.ignoreTables"),
    ] = ()
    """Tables that do not count when asking whether the database is empty: what migrations fill themselves."""
    timeout_seconds: Annotated[Whole, Field(ge=1, le=DAY_SECONDS)] = 3600
    """How long the seed may take; then nothing of it stays."""
