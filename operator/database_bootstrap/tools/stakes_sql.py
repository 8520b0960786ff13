"""The queries of `stakes`; every name is qualified, and none writes."""

from collections.abc import Sequence

from psycopg import sql

from database_bootstrap.tools.effects import Code, Finding, Kind, Reach

_READABLE = """
    pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
    AND NOT pg_catalog.row_security_active(c.oid)
"""
_SIZE = """
    CASE WHEN c.relkind = 'r' AND NOT c.relhassubclass THEN pg_catalog.pg_relation_size(c.oid)
         WHEN c.relkind = 'p' THEN (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(leaf.relid)), 0)::bigint
            FROM pg_catalog.pg_partition_tree(c.oid) AS leaf WHERE leaf.isleaf) END
"""
"""Zero means that there is no row, whoever asks; where foreign tables or children may have some it is not known."""
_NO_SYSTEM = """
    n.nspname NOT IN ('pg_catalog', 'information_schema', 'dbbootstrap') AND n.nspname !~ '^pg_toast'
"""
_NO_MEMBER = """
    NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = {catalogue}::pg_catalog.regclass AND d.objid = {oid} AND d.deptype = 'e')
"""
_SOURCES_LIMIT = 2 * 1024 * 1024
_NO_TABLE_OF_EXTENSION = _NO_MEMBER.format(catalogue="'pg_catalog.pg_class'", oid="c.oid")
USER_TABLES = sql.SQL(f"""
    WITH counted AS MATERIALIZED (
        SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND {_NO_SYSTEM}
          AND {_NO_TABLE_OF_EXTENSION}
          AND pg_catalog.concat(n.nspname, '.', c.relname) <> ALL ({{ignored}}::text[])
    ), measured AS MATERIALIZED (
        SELECT c.oid, n.nspname, c.relname, {_READABLE} AS is_readable, {_SIZE} AS size
        FROM counted JOIN pg_catalog.pg_class AS c ON c.oid = counted.oid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    )
    SELECT oid::bigint, nspname::text, relname::text, is_readable, size FROM measured
    WHERE size IS DISTINCT FROM 0 ORDER BY 2, 3
""")  # noqa: S608 constants
"""Only what counts is measured: Alembic keeps its version table locked, and even a size has to wait for that."""
ANY_TABLE = sql.SQL(f"""
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {_NO_SYSTEM} AND {_NO_TABLE_OF_EXTENSION}
          AND pg_catalog.concat(n.nspname, '.', c.relname) <> ALL ({{ignored}}::text[]))
""")  # noqa: S608 constants
LOCKABLE = sql.SQL("""
    SELECT c.oid::bigint, n.nspname::text, c.relname::text
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = ANY ({oids}::bigint[]) AND c.relkind IN ('r', 'p')
      AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
      AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
    ORDER BY 2, 3
""")
"""What the session may lock; views and foreign tables cannot be."""
SNAPSHOT = "SELECT oid::bigint, relnatts FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'f')"
FUNCTIONS = sql.SQL(f"""
    SELECT nspname::text, proname::text, lanname::text, CASE WHEN size <= {_SOURCES_LIMIT} THEN prosrc END,
        CASE WHEN size <= {_SOURCES_LIMIT} THEN pg_catalog.pg_get_function_sqlbody(oid) END
    FROM (
        SELECT p.oid, n.nspname, p.proname, l.lanname, p.prosrc, pg_catalog.sum(pg_catalog.octet_length(p.prosrc)
            + coalesce(pg_catalog.pg_column_size(p.prosqlbody), 0)) OVER (ORDER BY p.oid) AS size
        FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
        WHERE p.proname = ANY ({{names}}::text[]) AND p.provolatile = 'v' AND p.prokind IN ('f', 'p')
          AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND {_NO_MEMBER.format(catalogue="'pg_catalog.pg_proc'", oid="p.oid")}
    ) AS found
""")  # noqa: S608 constants
"""Of sources that are longer together than a script may be, none is read: nobody knows what they do."""
COLUMNS = sql.SQL("""
    SELECT a.attnum, a.attname::text, coalesce(element.typname, t.typname)::text, a.atttypmod, element.oid IS NOT NULL,
        coalesce(element.typtype, t.typtype) = 'e',
        (SELECT pg_catalog.array_agg(e.typname::text) FROM pg_catalog.pg_type AS e WHERE e.typtype = 'e')
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type AS element ON element.oid = t.typelem AND t.typcategory = 'A'
    WHERE a.attrelid = {oid} AND a.attname = ANY ({names}::text[]) AND a.attnum > 0 AND NOT a.attisdropped
""")
PATH = """
    SELECT coalesce(
        (SELECT pg_catalog.substr(setting, pg_catalog.strpos(setting, '=') + 1, 20000)
         FROM pg_catalog.pg_db_role_setting AS s
         JOIN pg_catalog.pg_roles AS r ON r.rolname = session_user
         JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database(),
             pg_catalog.unnest(s.setconfig) AS setting
         WHERE s.setrole IN (0, r.oid) AND s.setdatabase IN (0, d.oid) AND setting LIKE 'search\\_path=%'
         ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1),
        pg_catalog.quote_ident(session_user) || ',public')
"""
_REACHED = """
    WITH RECURSIVE named (classid, objid, objsubid) AS ({named}),
    reached (classid, objid, objsubid) AS (SELECT * FROM named{step})
    SELECT c.oid::bigint, n.nspname::text, c.relname::text,
        CASE WHEN pg_catalog.bool_and(r.objsubid > 0) THEN pg_catalog.array_agg(DISTINCT a.attname::text) END,
        {readable}, {size}
    FROM reached AS r
    JOIN pg_catalog.pg_class AS c ON r.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = r.objid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = r.objsubid AND r.objsubid > 0
    WHERE c.relkind::text = ANY ({kinds}::text[]) AND {no_system} AND {no_member}
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS i JOIN reached AS parent ON parent.objid = i.inhparent
          AND parent.classid = r.classid AND parent.objsubid = 0 WHERE i.inhrelid = c.oid)
    GROUP BY c.oid, n.oid, n.nspname, c.relname, c.relkind, c.relhassubclass
    ORDER BY 2, 3
"""
_STEPS = {
    Reach.ITSELF: "",
    # A column goes with its type, and a table with its schema; what goes with one column of a table is not followed.
    Reach.DEPENDENTS: """
        UNION SELECT d.classid, d.objid, d.objsubid FROM reached AS r JOIN pg_catalog.pg_depend AS d
            ON d.refclassid = r.classid AND d.refobjid = r.objid AND r.objsubid = 0
            AND NOT (d.classid = r.classid AND d.objid = r.objid)""",
    Reach.TRUNCATED: """
        UNION SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, k.conrelid, 0
        FROM reached AS r JOIN pg_catalog.pg_constraint AS k ON k.confrelid = r.objid AND k.contype = 'f'""",
    Reach.DELETED: """
        UNION SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, k.conrelid, 0
        FROM reached AS r JOIN pg_catalog.pg_constraint AS k
            ON k.confrelid = r.objid AND k.contype = 'f' AND k.confdeltype = 'c'""",
}
_RELATION = """
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, found.oid, 0 FROM (
        SELECT c.oid, c.relkind, pg_catalog.rank() OVER (
            ORDER BY coalesce(pg_catalog.array_position({path}::text[], n.nspname::text), 1000)) AS place
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relname = {name} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {where}
    ) AS found WHERE found.place = 1
"""
"""The one that the search path finds; where it finds none, or is not known, each of that name."""
_ON_ROWS = (Code.DELETE, Code.TRUNCATE)
_NAMED = {
    Kind.SCHEMA: "SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass::oid, oid, 0"
    " FROM pg_catalog.pg_namespace WHERE nspname = {name}",
    Kind.EXTENSION: "SELECT 'pg_catalog.pg_extension'::pg_catalog.regclass::oid, oid, 0"
    " FROM pg_catalog.pg_extension WHERE extname = {name}",
    Kind.TYPE: "SELECT 'pg_catalog.pg_type'::pg_catalog.regclass::oid, t.oid, 0 FROM pg_catalog.pg_type AS t"
    " JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace WHERE t.typname = {name} AND {where}",
    Kind.ROLE: "SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, c.oid, 0 FROM pg_catalog.pg_class AS c"
    " WHERE c.relowner = (SELECT oid FROM pg_catalog.pg_roles"
    " WHERE rolname = coalesce(nullif({name}, ''), session_user))",
    Kind.TABLE: _RELATION,
}


def reached(finding: Finding, path: Sequence[str] | None) -> str:
    """Return the query for the tables that a finding reaches: oid, schema, name, columns, readable, size."""
    schema, name = finding.name
    where = sql.SQL("n.nspname = {}").format(schema) if schema else sql.SQL(_NO_SYSTEM)
    if schema == "pg_temp":
        where = sql.SQL("n.oid = pg_catalog.pg_my_temp_schema()")
    named = sql.SQL(_NAMED[finding.kind]).format(name=name, path=list(path or ()), where=where)
    # A DELETE or an UPDATE reaches the rows behind a view too.
    kinds = ["r", "p"] if finding.code not in _ON_ROWS else ["r", "p", "v", "f"]
    return (
        sql.SQL(_REACHED)
        .format(
            named=named,
            step=sql.SQL(_STEPS[finding.reach]),
            readable=sql.SQL(_READABLE),
            size=sql.SQL(_SIZE),
            kinds=kinds,
            no_system=sql.SQL(_NO_SYSTEM),
            no_member=sql.SQL(_NO_TABLE_OF_EXTENSION),
        )
        .as_string()
    )
