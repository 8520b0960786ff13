"""Baseline: what somebody else is said to have made is there, and was not said of data that is lost since."""

import asyncio
from collections.abc import Sequence
from typing import Any

from database_bootstrap import errors
from database_bootstrap.api import names
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.stages import tooling
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.visit import Visit
from database_bootstrap.tools import making
from database_bootstrap.tools.tool import Tool

_RELATIONS = """
    SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname !~ '^(pg_|information_schema$|dbbootstrap)'
      AND c.relname = ANY (%s)
"""


async def missing(
    visit: Visit, connection: Connection, tool: Tool[Any], source: Any, names_of: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the tables that these migrations would have made, and that are not there; revisions of Alembic are code.

    Nothing is looked for where a person has said that the data is to be gone on with as it is.
    """
    if not names_of or _is_accepted(visit):
        return ()
    wanted = await asyncio.to_thread(lambda: making.tables_of(tool.judge(source, names_of)))
    asked = [name.name for name in wanted]
    return making.missing(wanted, await rows(connection, _RELATIONS, (asked,), doing="look for the baseline's tables"))


def check(visit: Visit, baseline: tuple[str, ...], absent: Sequence[str]) -> None:
    """Raise `SchemaHasOtherOwner` where recording all of this as applied would leave out what was never made."""
    if not baseline or _is_accepted(visit):
        return
    said = f"`migrations.baseline` says that all up to {baseline[-1]} is in the database already"
    # While planning there may be none yet.
    word = f"{names.ANNOTATION_ACCEPT_INCARNATION}={visit.incarnation or '<incarnation>'}"
    out = (
        "Nothing was recorded and nothing run. Bring what is missing back; or move the tables out of this database, "
        f"and the migrations make them; or, if all is there as it should be, annotate the resource with {word}"
    )
    if absent:
        raise errors.SchemaHasOtherOwner(
            f"{said}, and tables that these migrations make are not there: {tooling.some(absent)}. {out}"
        )
    if visit.pin and visit.incarnation not in visit.pin.incarnations:
        raise errors.SchemaHasOtherOwner(
            f"{said}; but that may have been said of incarnation {visit.pin.name}, whose loss was acknowledged since. "
            f"{out}"
        )


def _is_accepted(visit: Visit) -> bool:
    accepted = visit.subject.annotations.get(names.ANNOTATION_ACCEPT_INCARNATION)
    return accepted is not None and accepted == visit.incarnation
