"""What makes a ledger of tables: its columns; and of a row, an identity. Read as the role, judged here; pure."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from database_bootstrap.postgres import ledger
from database_bootstrap.postgres.ownership import Owner

QUERY = f"""
    SELECT pg_catalog.json_object_agg(n.nspname, pg_catalog.json_build_array(
        EXISTS (
            SELECT FROM (SELECT n.nspowner AS oid
                         UNION SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid) it
            JOIN pg_catalog.pg_roles o ON o.oid = it.oid
            WHERE pg_catalog.pg_has_role(o.oid, 'MEMBER') AND NOT (o.rolsuper OR o.rolcreaterole)
        ),
        ARRAY(
            SELECT c.relname || '.' || a.attname || ' ' || pg_catalog.format_type(a.atttypid, NULL)
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = n.oid AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
              AND c.relname IN ({", ".join(f"'{table}'" for table in ledger.TABLES)})
              AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
        )))
    FROM pg_catalog.pg_namespace n WHERE n.nspname IN ('{ledger.SCHEMA}', '{ledger.ASIDE}')
"""  # noqa: S608 constants
"""For each schema: whether it, or a table in it, belongs to the role or to one that it is a member of, and the columns.

Who owns the database is a member of pg_database_owner, and can hand its own tables to that. An administrator is the
role's superior even where somebody has made the role a member of it, and its ledger is no restored one.
"""
_SEQ = frozenset(f"{table}.seq bigint" for table in ledger.WRITABLE)
_IDENTITY = frozenset(
    {"identity.incarnation uuid", *(f"identity.{name} text" for name in ("cluster", "namespace", "name", "uid"))}
)
READ = _IDENTITY | {"audit_log.seq bigint"}
"""What is read of a ledger, whatever the operator that made it."""
COPIED = _IDENTITY | _SEQ


def identity_in(row: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of a ledger's row of identity, and its end; none where they are nobody's names.

    They are shown to people in sentences that tell them what to run, and the role may have written them.
    """
    incarnation, cluster, namespace, name, uid, seq = row
    owner = Owner(cluster=cluster, namespace=namespace, name=name, uid=uid)
    if not (owner.is_plausible and is_uuid(incarnation)):
        return {}
    named = {"cluster": cluster, "namespace": namespace, "name": name, "uid": uid}
    return named | {"incarnation": incarnation, "ledger_seq": seq}


def is_uuid(text: str) -> bool:
    """Whether it is an incarnation."""
    try:
        return str(UUID(text)) == text
    except (ValueError, TypeError, AttributeError):
        return False
