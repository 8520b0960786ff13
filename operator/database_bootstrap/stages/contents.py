"""What a database holds that is no system's, no extension's and not ours: tables, and what else may have data."""

from dataclasses import dataclass

from psycopg import sql

from database_bootstrap.postgres.connection import Connection
from database_bootstrap.stages import leftovers
from database_bootstrap.stages.sessions import rows

_USER_TABLES = """
    SELECT n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'dbbootstrap') AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.objid = c.oid AND d.deptype = 'e')
"""
_COUNT = f"""
    WITH found (schema, name, owner) AS ({_USER_TABLES})
    SELECT (SELECT pg_catalog.count(*) FROM found),
           ARRAY(SELECT pg_catalog.concat(schema, '.', name) FROM found ORDER BY schema, name LIMIT 5),
           ARRAY(SELECT DISTINCT owner::text FROM found WHERE owner <> %s ORDER BY 1 LIMIT 20)
"""  # noqa: S608 constants
_IS_PROVIDED = sql.SQL("""
    n.nspname IN ({}) AND (
        EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extnamespace = n.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                     AND d.objid = n.oid AND d.deptype = 'e')
        OR NOT (pg_catalog.pg_has_role(n.nspowner, 'USAGE') OR pg_catalog.pg_has_role(c.relowner, 'USAGE')))
""").format(sql.SQL(", ").join(map(sql.Literal, leftovers.PROVIDER_SCHEMAS)))
"""The name alone does not make a schema a provider's: an extension is behind it, or nothing of it is the role's."""
_WITHOUT_PROVIDERS = sql.SQL("{} AND NOT ({}) ORDER BY 1, 2").format(sql.SQL(_USER_TABLES), _IS_PROVIDED).as_string()
_OTHER_DATA = """
    SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata), (
        SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('m', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            AND d.objid = c.oid AND d.deptype = 'e'))
"""
"""Large objects, and what is a materialized view or a foreign table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """How many tables there are that are no system's, no extension's and not ours."""

    count: int
    first: tuple[str, ...]
    owners: tuple[str, ...]
    """Of those that the role does not own."""
    large_objects: int = 0
    views: int = 0
    """Materialized ones, and foreign tables."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could hold somebody's data."""
        return not (self.count or self.large_objects or self.views)

    def __str__(self) -> str:
        others = f", materialized views and foreign tables: {self.views}" if self.views else ""
        others += f", large objects: {self.large_objects}" if self.large_objects else ""
        return self._tables() + others

    def _tables(self) -> str:
        if not self.count:
            return "no tables"
        more = ", …" if self.count > len(self.first) else ""
        owners = f", some owned by {', '.join(self.owners)}" if self.owners else ""
        return f"{self.count} table{'s' * (self.count > 1)}: {', '.join(self.first)}{more}{owners}"


async def user_tables(connection: Connection) -> list[tuple[str, str]]:
    """Return (schema, table) of all that is no system's, no extension's and not ours; partitions with their parent."""
    found = await rows(connection, f"{_USER_TABLES} ORDER BY 1, 2", doing="look for tables")
    return [(schema, table) for schema, table, _ in found]


async def tables_for_rows(connection: Connection) -> list[tuple[str, str]]:
    """Return those of `user_tables` whose rows are data, and not what extensions and cloud providers put in."""
    found = await rows(connection, _WITHOUT_PROVIDERS, doing="look for tables")
    return [(schema, table) for schema, table, _ in found]


async def count_tables(connection: Connection, role: str) -> Tables:
    """Return what `user_tables` finds, for people, and what else may hold data."""
    ((count, first, owners),) = await rows(connection, _COUNT, (role,), doing="look for tables")
    ((large_objects, views),) = await rows(connection, _OTHER_DATA, doing="look for other data")
    return Tables(
        count=count,
        first=tuple(first),
        owners=tuple(owners),
        large_objects=large_objects,
        views=views,
    )
