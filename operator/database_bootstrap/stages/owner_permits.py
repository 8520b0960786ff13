"""Permits of the role: what PostgreSQL keeps from the owner of a database, asked before it is tried."""

from collections.abc import Sequence

from database_bootstrap import errors
from database_bootstrap.api.v1alpha1 import Tool
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.stages.database_actions import CreateSchema, SetParameter
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.stage import Action, Refusal
from database_bootstrap.stages.visit import Visit

_HIDDEN = ("session_preload_libraries", "dynamic_library_path", "extension_control_path")
"""Parameters of superusers that pg_settings does not even show to others, and that a database can have."""
_PARAMETERS = """
    SELECT it.name FROM pg_catalog.unnest(%s::text[]) AS it (name)
    LEFT JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) = it.name
    LEFT JOIN pg_catalog.pg_roles r ON r.rolname = %s
    WHERE (s.context = 'superuser' OR (s.name IS NULL AND (it.name = ANY(%s) OR pg_catalog.strpos(it.name, '.') > 0)))
      AND pg_catalog.has_parameter_privilege(r.oid, it.name, 'SET') IS NOT TRUE
"""
"""Of what has a dot and no library has loaded PostgreSQL knows nothing, and lets only superusers set it."""
_MAY_CREATE = """
    SELECT pg_catalog.has_database_privilege(d.oid, 'CREATE') OR pg_catalog.pg_get_userbyid(d.datdba) <> current_user
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""
"""Or it is about to become the owner, who has it by that."""


async def for_database(visit: Visit, planned: Sequence[Action], *, is_there: bool) -> Refusal | None:
    """Refuse parameters and schemas that the role may not set and make in its own database."""
    refused = await _refused_parameters(visit, [it for it in planned if isinstance(it, SetParameter)])
    if refused:
        names = ", ".join(it.name for it in refused)
        statements = cure(*(it.statement.as_string() for it in refused))
        error = errors.AccessDenied(
            f'Only a superuser may set {names} for database "{visit.spec.database.name}" (database.parameters), and '
            f"the operator sets parameters as the role; {'nothing was changed' if is_there else 'all else is done'}; "
            f"{statements}"
        )
        meanwhile = () if is_there else tuple(it for it in planned if it not in refused)
        return Refusal(error=error, meanwhile=meanwhile, is_for_later=not is_there)
    if is_there and any(isinstance(it, CreateSchema) for it in planned):
        return await may_create(visit, "make a schema in it")
    return None


async def _refused_parameters(visit: Visit, wanted: Sequence[SetParameter]) -> Sequence[SetParameter]:
    if not wanted:
        return ()
    arguments = ([it.name for it in wanted], visit.spec.role.name, list(_HIDDEN))
    found = await rows(await visit.view(), _PARAMETERS, arguments, doing="look at the parameters")
    refused = {name for (name,) in found}
    return [it for it in wanted if it.name in refused]


async def may_create(visit: Visit, doing: str) -> Refusal | None:
    """Refuse where somebody has taken from the role the right to create in its own database."""
    role, database = visit.spec.role.name, visit.spec.database.name
    session = visit.sessions.as_role  # Where it cannot enter yet, nobody has taken anything from it.
    if session is None or await rows(session, _MAY_CREATE, doing="look at the role's rights") == [(True,)]:
        return None
    grant = f"GRANT CREATE ON DATABASE {sql_name(database)} TO {sql_name(role)}"
    return Refusal(
        error=errors.AccessDenied(
            f'Role "{role}" owns database "{database}" and may not {doing}, as somebody has revoked CREATE from it; '
            f"nothing was changed; {cure(grant)}"
        )
    )


_CLOSED = """
    SELECT NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE'),
           EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = '_prisma_migrations')
    FROM pg_catalog.pg_namespace n WHERE n.nspname = %s
"""


async def to_migrate(visit: Visit) -> Refusal | None:
    """Refuse where the tool makes its history in a schema in which the role may not create."""
    spec, session = visit.spec.migrations, visit.sessions.as_role
    if spec is None or spec.tool is not Tool.PRISMA or session is None:
        return None  # The others' files say where they make things.
    found = await rows(session, _CLOSED, (spec.schema_name,), doing="look at the migrations' schema")
    if found != [(True, False)]:
        return None
    return Refusal(error=errors.AccessDenied(f"Nothing was run. {_closed(visit, spec.schema_name)}"))


async def remark_on(visit: Visit, failure: errors.MigrationFailed) -> str | None:
    """Return what a migration may lack that the server let do less than it wants: the schema may be closed to it."""
    if failure.sql_state != "42501" or visit.spec.migrations is None:
        return None
    schema = visit.spec.migrations.schema_name
    found = await rows(await visit.sessions.another(), _CLOSED, (schema,), doing="look at the migrations' schema")
    return _closed(visit, schema) if found and found[0][0] else None


def _closed(visit: Visit, schema: str) -> str:
    role, database = visit.spec.role.name, visit.spec.database.name
    grant = f"GRANT USAGE, CREATE ON SCHEMA {sql_name(schema)} TO {sql_name(role)}"
    return (
        f'Role "{role}" may not create anything in schema "{schema}", which is not its own; to let it, '
        f"{cure(grant, database=database)}"
    )
