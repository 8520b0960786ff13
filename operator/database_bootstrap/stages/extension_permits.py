"""Permits for extensions: what takes a superuser, said with all statements before the first extension is made."""

from collections.abc import Sequence

from database_bootstrap import errors
from database_bootstrap.stages import owner_permits
from database_bootstrap.stages.extension_actions import (
    CreateExtension,
    ExtensionAction,
    UpdateExtension,
    check_safe,
    denied,
)
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.stage import Action, Refusal
from database_bootstrap.stages.visit import Visit

IS_LENT_POWER = """
    EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname IN (
        'rds_superuser', 'cloudsqlsuperuser', 'alloydbsuperuser', 'azure_pg_admin', 'neon_superuser', 'supabase_admin'))
    OR EXISTS (SELECT FROM pg_catalog.pg_settings
               WHERE name ~ '^(rds|cloudsql|alloydb|azure|neon|supautils|extwlist)[.]')
"""
"""A provider's own code lets its customers create extensions that PostgreSQL keeps for superusers: some of them, and
only trying tells which."""
_SCHEMAS = "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname = ANY(%s)"
_POWERS = f"""
    SELECT a.rolsuper, {IS_LENT_POWER}, ARRAY(
        SELECT o.rolname::text FROM pg_catalog.pg_roles o
        WHERE o.rolname = ANY(%s) AND pg_catalog.pg_has_role(a.oid, o.oid, 'USAGE'))
    FROM pg_catalog.pg_roles a WHERE a.rolname = %s
"""  # noqa: S608 constants


async def permit(visit: Visit, found: object, planned: Sequence[Action]) -> Refusal | None:
    """Refuse all of it where one takes a superuser, and the administrator is none."""
    own = [it for it in planned if isinstance(it, CreateExtension) and it.by_owner]
    if own and (refusal := await owner_permits.may_create(visit, ", ".join(map(str, own)))):
        return refusal
    others = [it for it in planned if isinstance(it, CreateExtension | UpdateExtension) and not it.by_owner]
    return await _of_the_administrator(visit, others) if others else None


async def _of_the_administrator(visit: Visit, planned: Sequence[ExtensionAction]) -> Refusal | None:
    administrator, session = (await visit.credentials.administrator()).user, visit.sessions.as_role
    try:
        for it in planned if session else ():
            await check_safe(await visit.view(), it, administrator)
    except errors.SpecRejected as unsafe:
        return Refusal(error=unsafe)
    refused = await _beyond(visit, administrator, planned)
    if not refused:
        return None
    wanted = [schema for it in refused for schema in it.path]
    there = await rows(session, _SCHEMAS, (wanted,), doing="look for schemas") if session else []
    error = denied(visit, administrator, refused, {name for (name,) in there})
    return Refusal(error=error, is_for_later=not visit.database_exists)


async def _beyond(visit: Visit, administrator: str, planned: Sequence[ExtensionAction]) -> list[ExtensionAction]:
    owners = [it.owner for it in planned if isinstance(it, UpdateExtension)]
    doing = "look at the administrator's rights"
    ((is_superuser, is_lent, has_rights_of),) = await rows(
        await visit.view(), _POWERS, (owners, administrator), doing=doing
    )
    if is_superuser or is_lent:
        return []
    return [
        it
        for it in planned
        if not (isinstance(it, UpdateExtension) and it.offer.for_owner and it.owner in has_rights_of)
    ]
