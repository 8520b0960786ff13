"""An administrator with CREATEROLE CREATEDB alone: what that suffices for, and what needs more and says so before."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import psycopg
import pytest

from database_bootstrap.api import names
from database_bootstrap.api.models import Model
from database_bootstrap.api.outcomes import Reason
from database_bootstrap.api.v1alpha1 import Spec
from database_bootstrap.bundles.sources import ConfigMapData
from fix_engine import Bootstrap
from localservers import Credentials, PostgresServer

README = Path(__file__).parents[2] / "README.md"
PASSWORD = "theirs"
MIGRATION = {"20240101000000_a/migration.sql": "CREATE TABLE a (id int);"}


@pytest.fixture
def admin(postgres_server: PostgresServer) -> Credentials:
    """The administrator of this file: no superuser."""
    return postgres_server.admin_role("createrole")


@pytest.fixture(autouse=True)
def _same_server_for_the_next(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "postgres_server" in request.fixturenames:
        request.getfixturevalue("postgres_server").psql("ALTER DATABASE template1 IS_TEMPLATE true")


def fields_of(model: type[Model], before: str = "") -> Iterator[str]:
    """Yield the path of each field that holds a value: `database.locale.name`, `extensions[].name`."""
    for field in model.model_fields.values():
        path, inner = f"{before}{field.alias}", _model_in(field.annotation)
        if inner:
            is_list = "tuple" in str(field.annotation)
            yield from fields_of(inner, f"{path}{'[]' if is_list else ''}.")
        else:
            yield path


def _model_in(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for it in get_args(annotation) if (found := _model_in(it))), None)


def fields_in(raw: Any, before: str = "") -> Iterator[str]:
    """Yield the same paths of a manifest."""
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from fields_in(value, f"{before}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                yield from fields_in(item, f"{before}{key}[].")
        else:
            yield f"{before}{key}"


def everything(**changes: Any) -> dict[str, Any]:
    """Return a spec with every field, but for role and database's names, each with a value that may ask for rights."""
    inline = {"inline": [{"path": "V1__a.sql", "content": "CREATE TABLE a (id int);"}]}
    return {
        "server": {"adminSecretRef": {"name": "admin"}},
        "role": {"passwordSecretRef": {"name": "own", "key": "word"}, "connectionLimit": 20},
        "database": {
            "encoding": "UTF8",
            "template": "template0",
            "locale": {"provider": "Libc", "name": "C"},
            "connectionLimit": 20,
            "parameters": [{"name": "timezone", "value": "UTC"}, {"name": "search_path", "value": "app, public"}],
        },
        "schemas": [{"name": "app"}],
        "extensions": [{"name": "pg_trgm", "version": "1.5", "schema": "app"}],
        "access": [{"level": "ReadWrite"}],
        "migrations": {
            "tool": "SQL",
            "schema": "app",
            "source": inline,
            "baseline": "V1__a.sql",
            "allowOutOfOrder": ["V1__a.sql"],
            "onDestructive": "Allow",
            "allowDestructive": ["V1__a.sql"],
            "lockTimeoutSeconds": 5,
            "statementTimeoutSeconds": 5,
            "timeoutSeconds": 60,
        },
        "seed": {
            "policy": "IfEmpty",
            "source": {"inline": [{"path": "1.sql", "content": "INSERT INTO app.a VALUES (1);"}]},
            "ignoreTables": ["app.b"],
            "timeoutSeconds": 60,
        },
        "connectionSecret": {"name": "for-the-application"},
        "adoption": "Force",
        "deletionPolicy": "Delete",
        "suspend": False,
        "intervalSeconds": 60,
    } | changes


OTHERWISE: dict[str, Any] = {
    "server": {"ref": {"name": "main"}},
    "role": {"connectionLimit": 10},
    "extensions": [{"name": "pg_trgm"}, {"name": "hstore"}],
    "migrations": {"tool": "SQL", "schema": "public", "source": {"configMapRefs": [{"name": "migrations"}]}},
    "seed": {"policy": "Once", "source": {"configMapRefs": [{"name": "seed"}]}},
}
"""The other side of each union."""
NAMES = {"role.name", "database.name", "access[].role"}
"""Every resource has these."""
SUFFICES = {*fields_in(everything()), *fields_in(OTHERWISE), *NAMES}


async def test_it_suffices_for_every_field(bootstrap: Bootstrap, unique_name: Callable[[str], str]) -> None:
    reader = unique_name("reader")
    bootstrap.as_superuser(f'CREATE ROLE "{reader}" LOGIN')
    bootstrap.drawer.put("own", {"word": PASSWORD})
    wanted = everything(access=[{"role": reader, "level": "ReadWrite"}])
    for part in ("role", "database"):
        wanted[part] |= bootstrap.raw[part]
    bootstrap.raw.clear()
    bootstrap.raw.update(wanted)
    await bootstrap.ready()
    # What is changed later, and what has drifted.
    bootstrap.raw["role"]["connectionLimit"] = 30
    bootstrap.raw["database"]["connectionLimit"] = 30
    bootstrap.raw["database"]["parameters"][0]["value"] = "CET"
    bootstrap.raw["extensions"][0]["version"] = "1.6"
    bootstrap.raw["access"][0]["level"] = "ReadOnly"
    bootstrap.drawer.put("own", {"word": "another"})
    changes = (await bootstrap.ready()).changes
    assert len(changes) == 7, changes
    bootstrap.remember(await bootstrap.ready())
    bootstrap.raw["access"].clear()
    assert (await bootstrap.ready()).changes == (f'take access from role "{reader}"',)
    assert (await bootstrap.delete()).error is None
    gone = f"SELECT 1 FROM pg_roles WHERE rolname = '{bootstrap.role}'"
    assert bootstrap.as_superuser(gone) == []


async def test_it_suffices_for_the_other_side_of_each_union(bootstrap: Bootstrap) -> None:
    bootstrap.offer(allowedExtensions=["*"])
    files = {"migrations": {"V1__a.sql": "CREATE TABLE a (id int);"}, "seed": {"1.sql": "INSERT INTO a VALUES (1);"}}
    for name, texts in files.items():
        bootstrap.drawer.config_maps[name] = ConfigMapData(name=name, data=texts)
    for part, wanted in OTHERWISE.items():
        bootstrap.raw[part] = bootstrap.raw.get(part, {}) | wanted if isinstance(wanted, dict) else wanted
    bootstrap.remember(await bootstrap.ready())
    bootstrap.annotations[names.ANNOTATION_ROTATE_PASSWORD] = "1"
    assert len((await bootstrap.ready()).changes) == 3
    assert (await bootstrap.ready()).changes == ()


@pytest.mark.pg(">= 17")
async def test_it_suffices_for_the_builtin_provider(bootstrap: Bootstrap) -> None:
    bootstrap.raw["database"] |= {"template": "template0", "locale": {"provider": "Builtin", "name": "C.UTF-8"}}
    await bootstrap.ready()


Arrange = Callable[[Bootstrap], Any]


@dataclass(frozen=True, kw_only=True)
class More:
    """One thing that needs more than CREATEROLE CREATEDB."""

    fields: tuple[str, ...]
    """Of the spec, whose values can need it; empty for what needs more whatever the spec says."""
    arrange: Arrange
    """Makes the state in which it does."""
    says: tuple[str, ...]
    """Words of the message, in which {role}, {database} and {admin} are names."""
    reason: Reason = Reason.ACCESS_DENIED
    since: int = 15
    """The first major on which it does; before, the same visit succeeds."""
    meanwhile: bool = False
    """Role and database are made first, as the cure is for something in them."""
    fails: bool = False
    """Only trying tells, in a transaction that is rolled back."""


async def _made(shop: Bootstrap) -> None:
    shop.remember(await shop.ready())


def _other_administrator(shop: Bootstrap) -> None:
    """Let the operator work as another administrator from now on."""
    other = shop.server.admin_role("createrole")
    login = {"username": other.user, "password": other.password}
    shop.drawer.put("admin", {"host": shop.server.host, "port": str(shop.server.port)} | login)
    shop.admin = other


async def _made_by_another(shop: Bootstrap) -> None:
    await _made(shop)
    _other_administrator(shop)


def _attributes(words: str) -> Arrange:
    async def arrange(shop: Bootstrap) -> None:
        shop.as_superuser(f'ALTER ROLE "{shop.admin.user}" {words}')

    return arrange


async def _no_template(shop: Bootstrap) -> None:
    shop.as_superuser("ALTER DATABASE template1 IS_TEMPLATE false")


async def _limit(shop: Bootstrap) -> None:
    await _made_by_another(shop)
    shop.raw["role"]["connectionLimit"] = 17


async def _rotation(shop: Bootstrap) -> None:
    await _made_by_another(shop)
    shop.annotations[names.ANNOTATION_ROTATE_PASSWORD] = "1"


async def _drift(shop: Bootstrap) -> None:
    await _made_by_another(shop)
    shop.as_superuser(f"ALTER ROLE \"{shop.role}\" PASSWORD 'by hand'")


async def _taken_back(shop: Bootstrap) -> None:
    """The resource is made anew under its own name."""
    await _made_by_another(shop)
    shop.owner = replace(shop.owner, uid="00000000-0000-4000-8000-000000000000")


async def _dropped(shop: Bootstrap) -> None:
    await _made_by_another(shop)
    shop.as_superuser(f'DROP DATABASE "{shop.database}" WITH (FORCE)')
    assert shop.status.database
    shop.annotations[names.ANNOTATION_ACKNOWLEDGE_DATA_LOSS] = str(shop.status.database.incarnation)


def _legacy(shop: Bootstrap, owner: str) -> None:
    shop.as_superuser(f"CREATE ROLE \"{shop.role}\" LOGIN PASSWORD '{PASSWORD}'")
    shop.drawer.put("own", {"password": PASSWORD})
    shop.raw["role"]["passwordSecretRef"] = {"name": "own"}
    if owner:
        shop.as_superuser(f'CREATE DATABASE "{shop.database}" OWNER "{owner}"')


async def _adopted_role(shop: Bootstrap) -> None:
    _legacy(shop, "")


async def _adopted_limit(shop: Bootstrap) -> None:
    _legacy(shop, shop.role)
    await _made(shop)
    shop.raw["role"]["connectionLimit"] = 17


async def _superusers_database(shop: Bootstrap) -> None:
    _legacy(shop, shop.server.superuser)
    shop.raw["adoption"] = "Force"


async def _own_database(shop: Bootstrap) -> None:
    _legacy(shop, shop.admin.user)
    shop.raw["adoption"] = "Force"


def _parameters(*wanted: tuple[str, str], later: bool = True) -> Arrange:
    async def arrange(shop: Bootstrap) -> None:
        if later:
            await _made(shop)
        parameters = [("timezone", "UTC"), *wanted]
        shop.raw["database"]["parameters"] = [{"name": name, "value": value} for name, value in parameters]
        shop.raw["schemas"] = [{"name": "app"}]

    return arrange


def _extensions(*wanted: dict[str, str], before: str = "") -> Arrange:
    async def arrange(shop: Bootstrap) -> None:
        await _made(shop)
        if before:
            shop.as_superuser(before, shop.database)
        shop.raw["extensions"] = [{"name": "hstore"}, *wanted]

    return arrange


async def _extensions_at_first(shop: Bootstrap) -> None:
    shop.raw["extensions"] = [{"name": "hstore"}, {"name": "pageinspect"}]


async def _no_create(shop: Bootstrap) -> None:
    await _made(shop)
    shop.as_superuser(f'REVOKE CREATE ON DATABASE "{shop.database}" FROM "{shop.role}"')


async def _schema_without_create(shop: Bootstrap) -> None:
    await _no_create(shop)
    shop.raw["schemas"] = [{"name": "app"}]


async def _extension_without_create(shop: Bootstrap) -> None:
    await _no_create(shop)
    shop.raw["extensions"] = [{"name": "hstore"}]


async def _others_schema(shop: Bootstrap) -> None:
    await _made(shop)
    shop.as_superuser("CREATE SCHEMA app", shop.database)
    shop.raw["schemas"] = [{"name": "app"}]


def _close_public(shop: Bootstrap) -> None:
    """As where template1 came from PostgreSQL 14, and somebody has closed it since."""
    shop.as_superuser(
        f'ALTER SCHEMA public OWNER TO "{shop.server.superuser}"; REVOKE CREATE ON SCHEMA public FROM PUBLIC',
        shop.database,
    )


async def _closed_to_prisma(shop: Bootstrap) -> None:
    await _made(shop)
    _close_public(shop)
    shop.migrate("Prisma", MIGRATION)


async def _closed_to_scripts(shop: Bootstrap) -> None:
    await _made(shop)
    _close_public(shop)
    shop.migrate("SQL", {"V1__a.sql": "CREATE TABLE a (id int);"})


async def _closed_to_readers(shop: Bootstrap) -> None:
    await _made(shop)
    _close_public(shop)
    reader = f"{shop.role}_reader"
    shop.as_superuser(f'CREATE ROLE "{reader}"; REVOKE USAGE ON SCHEMA public FROM PUBLIC', "postgres")
    shop.as_superuser("REVOKE USAGE ON SCHEMA public FROM PUBLIC", shop.database)
    shop.raw["access"] = [{"role": reader, "level": "ReadOnly"}]


async def _shut_out_administrator(shop: Bootstrap) -> None:
    """Of the database to which its Secret leads."""
    shop.as_superuser(f'CREATE DATABASE "{shop.database}_m"')
    shop.as_superuser(f'REVOKE CONNECT ON DATABASE "{shop.database}_m" FROM PUBLIC')
    data = {key: value.decode() for key, value in shop.drawer.secrets["admin"].data.items()}
    shop.drawer.put("admin", data | {"dbname": f"{shop.database}_m"})


async def _shut_out_role(shop: Bootstrap) -> None:
    await _made(shop)
    shop.as_superuser(f'REVOKE CONNECT ON DATABASE "{shop.database}" FROM "{shop.role}"')


async def _closed_database(shop: Bootstrap) -> None:
    await _made(shop)
    shop.as_superuser(f'ALTER DATABASE "{shop.database}" ALLOW_CONNECTIONS false')


async def _unreadable_ledger(shop: Bootstrap) -> None:
    await _made(shop)
    shop.as_superuser(f'REVOKE ALL ON ALL TABLES IN SCHEMA dbbootstrap FROM "{shop.role}"', shop.database)


async def _ledger_to_read(shop: Bootstrap) -> None:
    await _made(shop)
    shop.as_superuser(f'REVOKE INSERT ON dbbootstrap.audit_log FROM "{shop.role}"', shop.database)


POWER = 'GRANT "{role}" TO "{admin}" WITH ADMIN OPTION'
NEEDS_MORE = {
    "CREATEDB": More(
        fields=("database.name",),
        arrange=_attributes("NOCREATEDB"),
        says=("may not make databases", 'ALTER ROLE "{admin}" CREATEDB'),
    ),
    "CREATEROLE": More(
        fields=("role.name",),
        arrange=_attributes("NOCREATEROLE"),
        says=("may not make roles", 'ALTER ROLE "{admin}" CREATEROLE'),
    ),
    "neither": More(
        fields=(),
        arrange=_attributes("NOCREATEROLE NOCREATEDB"),
        says=("may not make roles and databases", 'ALTER ROLE "{admin}" CREATEROLE CREATEDB'),
    ),
    "template that is none": More(
        fields=("database.template",),
        arrange=_no_template,
        says=('copy database "template1"', 'ALTER DATABASE "template1" IS_TEMPLATE true'),
    ),
    "limit of a role of another administrator": More(
        fields=("role.connectionLimit",),
        arrange=_limit,
        says=('limit role "{role}" to 17', POWER),
        since=16,
    ),
    "rotation for a role of another administrator": More(
        fields=(),
        arrange=_rotation,
        says=('set the password of role "{role}"', POWER),
        since=16,
    ),
    "drifted password of a role of another administrator": More(
        fields=("role.passwordSecretRef.name", "role.passwordSecretRef.key"),
        arrange=_drift,
        says=('set the password of role "{role}"', POWER),
        since=16,
    ),
    "mark of a role of another administrator": More(
        fields=(),
        arrange=_taken_back,
        says=('take over role "{role}"', POWER),
        since=16,
    ),
    "database for a role of another administrator": More(
        fields=(),
        arrange=_dropped,
        says=('make a database for role "{role}"', POWER),
        since=16,
    ),
    "database for an adopted role": More(
        fields=("adoption",),
        arrange=_adopted_role,
        says=('make a database for role "{role}"', POWER),
        since=16,
    ),
    "limit of an adopted role": More(
        fields=("role.connectionLimit",),
        arrange=_adopted_limit,
        says=('limit role "{role}" to 17', POWER),
        since=16,
    ),
    "database of a superuser": More(
        fields=("adoption",),
        arrange=_superusers_database,
        says=("may not hand over", 'ALTER DATABASE "{database}" OWNER TO "{role}"'),
    ),
    "own database for a role of a superuser": More(
        fields=("adoption",),
        arrange=_own_database,
        says=("may not hand over", 'ALTER DATABASE "{database}" OWNER TO "{role}"'),
        since=16,
    ),
    "parameters of superusers": More(
        fields=("database.parameters[].name", "database.parameters[].value"),
        arrange=_parameters(
            ("log_statement", "all"),
            ("session_preload_libraries", "auto_explain"),
            ("app.mode", "it's"),
        ),
        says=(
            "log_statement, session_preload_libraries, app.mode",
            'ALTER DATABASE "{database}" SET "log_statement" TO \'all\'',
            "SET \"app\".\"mode\" TO 'it''s'",
        ),
    ),
    "parameters of superusers at first": More(
        fields=("database.parameters[].name",),
        arrange=_parameters(("log_statement", "all"), later=False),
        says=('ALTER DATABASE "{database}" SET "log_statement" TO \'all\'',),
        meanwhile=True,
    ),
    "extensions of superusers": More(
        fields=("extensions[].name", "extensions[].version"),
        arrange=_extensions({"name": "pageinspect", "version": "1.9"}, {"name": "dblink"}),
        says=(
            "create extension pageinspect, create extension dblink",
            'CREATE EXTENSION IF NOT EXISTS "pageinspect" SCHEMA "extensions" VERSION \'1.9\'',
            'CREATE EXTENSION IF NOT EXISTS "dblink" SCHEMA "extensions"',
        ),
    ),
    "extensions of superusers at first": More(
        fields=("extensions[].name",),
        arrange=_extensions_at_first,
        says=('CREATE EXTENSION IF NOT EXISTS "pageinspect"',),
        meanwhile=True,
    ),
    "extension of superusers that requires another": More(
        fields=("extensions[].name",),
        arrange=_extensions({"name": "earthdistance"}),
        says=('CREATE EXTENSION IF NOT EXISTS "earthdistance" SCHEMA "extensions" CASCADE',),
    ),
    "extension of superusers in a schema of its own": More(
        fields=("extensions[].schema",),
        arrange=_extensions({"name": "dblink", "schema": "tools"}),
        says=('CREATE SCHEMA IF NOT EXISTS "tools"',),
    ),
    "newer version of what a superuser has made": More(
        fields=("extensions[].version",),
        arrange=_extensions(
            {"name": "pg_trgm", "version": "1.6"},
            before="CREATE SCHEMA theirs; CREATE EXTENSION pg_trgm VERSION '1.5' SCHEMA theirs",
        ),
        says=("update extension pg_trgm to 1.6", "ALTER EXTENSION \"pg_trgm\" UPDATE TO '1.6'"),
    ),
    "another schema of an extension": More(
        fields=("extensions[].schema",),
        arrange=_extensions({"name": "pg_trgm", "schema": "app"}, before="CREATE EXTENSION pg_trgm"),
        says=('ALTER EXTENSION "pg_trgm" SET SCHEMA "app"',),
        reason=Reason.SETTING_MISMATCH,
    ),
    "extension where the owner may not create": More(
        fields=("extensions[].name",),
        arrange=_extension_without_create,
        says=("create extension hstore", 'GRANT CREATE ON DATABASE "{database}" TO "{role}"'),
    ),
    "schema where the owner may not create": More(
        fields=("schemas[].name",),
        arrange=_schema_without_create,
        says=('GRANT CREATE ON DATABASE "{database}" TO "{role}"',),
    ),
    "schema of another": More(
        fields=("schemas[].name",),
        arrange=_others_schema,
        says=('ALTER SCHEMA "app" OWNER TO "{role}"',),
        reason=Reason.SETTING_MISMATCH,
    ),
    "migrations in a closed schema": More(
        fields=("migrations.schema",),
        arrange=_closed_to_prisma,
        says=('GRANT USAGE, CREATE ON SCHEMA "public" TO "{role}"', "Nothing was run"),
    ),
    "migrations in a closed schema, as the script says": More(
        fields=("migrations.schema",),
        arrange=_closed_to_scripts,
        says=('GRANT USAGE, CREATE ON SCHEMA "public" TO "{role}"',),
        reason=Reason.MIGRATION_FAILED,
        fails=True,
    ),
    "access to a closed schema": More(
        fields=("access[].role",),
        arrange=_closed_to_readers,
        says=('GRANT USAGE ON SCHEMA "public" TO "{role}_reader"',),
    ),
    "login of the administrator": More(
        fields=("server.adminSecretRef.name",),
        arrange=_shut_out_administrator,
        says=('GRANT CONNECT ON DATABASE "{database}_m" TO "{admin}"',),
    ),
    "login of the role": More(
        fields=(),
        arrange=_shut_out_role,
        says=('GRANT CONNECT ON DATABASE "{database}" TO "{role}"',),
        reason=Reason.ROLE_LOGIN_REFUSED,
    ),
    "database without connections": More(
        fields=(),
        arrange=_closed_database,
        says=('ALTER DATABASE "{database}" ALLOW_CONNECTIONS true',),
        reason=Reason.SERVER_BUSY,
    ),
    "ledger that the role may only read": More(
        fields=(),
        arrange=_ledger_to_read,
        says=('GRANT INSERT ON "dbbootstrap"."migration"',),
    ),
    "ledger without rights": More(
        fields=(),
        arrange=_unreadable_ledger,
        says=('GRANT SELECT ON ALL TABLES IN SCHEMA dbbootstrap TO "{role}"',),
    ),
}
"""What needs more, and on which majors; the README has the same table."""


def test_each_field_is_known_to_suffice_or_to_need_more() -> None:
    every = set(fields_of(Spec))
    assert SUFFICES | {field for row in NEEDS_MORE.values() for field in row.fields} == every
    # What needs more for one value suffices for another, which has been tried as well.
    assert every >= SUFFICES


def test_readme_has_each_kind_of_statement() -> None:
    section = README.read_text().partition("## An administrator that is no superuser")[2].partition("\n## ")[0]
    statements = [words for row in NEEDS_MORE.values() for words in row.says]
    kinds = {found[0].strip() for it in statements if (found := re.match(r"(?:[A-Z]{2,},? ){1,2}", it))}
    assert len(kinds) > 5
    assert {kind for kind in kinds if kind not in section} == set()


@pytest.mark.parametrize("what", NEEDS_MORE)
async def test_what_needs_more_says_so_before_it_fails(bootstrap: Bootstrap, what: str) -> None:
    row = NEEDS_MORE[what]
    await row.arrange(bootstrap)
    before = world(bootstrap)
    if bootstrap.server.major < row.since:
        assert (await bootstrap.ready()).changes
        return
    planned = await bootstrap.plan()
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is row.reason, report.trouble
    said = report.trouble.message
    here = {"role": bootstrap.role, "database": bootstrap.database, "admin": bootstrap.admin.user}
    for words in row.says:
        assert words.format(**here) in said
    if not row.meanwhile:
        assert report.changes == ()
        assert world(bootstrap) == before
    if not row.fails:
        planned_words = [words for it in planned.outcomes for words in (it.message, *it.warnings)]
        assert told_to_run(said) in " ".join(planned_words)
    before = world(bootstrap)
    again = await bootstrap.apply()
    assert again.trouble and told_to_run(again.trouble.message) == told_to_run(said)
    assert again.changes == () and world(bootstrap) == before
    bootstrap.run_cure(said)
    await bootstrap.ready()
    assert (await bootstrap.ready()).changes == ()


def told_to_run(message: str) -> str:
    return message.partition("let a superuser run")[2]


def world(shop: Bootstrap) -> Any:
    """Return all that a visit could have made or changed: on the server, in the database, and of Secrets."""
    made = [
        f"SELECT * FROM pg_authid WHERE rolname IN ('{shop.role}', '{shop.admin.user}')",
        "SELECT m.roleid, m.member FROM pg_auth_members m JOIN pg_roles r ON r.oid IN (m.roleid, m.member)"
        f" WHERE rolname = '{shop.role}' ORDER BY 1, 2",
        "SELECT d.datname, datdba, datconnlimit, datacl::text, shobj_description(d.oid, 'pg_database'), setconfig"
        " FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid"
        f" WHERE datname = '{shop.database}'",
    ]
    found: list[Any] = [shop.as_superuser(query) for query in made]
    inside = [
        "SELECT nspname, nspowner, nspacl::text FROM pg_namespace ORDER BY 1",
        "SELECT extname, extversion, extnamespace FROM pg_extension ORDER BY 1",
        "SELECT relname, relacl::text FROM pg_class WHERE relnamespace::regnamespace::text !~ '^pg_' ORDER BY 1",
    ]
    try:
        found += [shop.as_superuser(query, shop.database) for query in inside]
    except psycopg.OperationalError:
        found.append("no database, or closed")
    return found, {name: secret.data for name, secret in shop.drawer.secrets.items()}


@pytest.mark.parametrize(
    "what",
    ["CREATEDB", "CREATEROLE", "neither", "template that is none", "limit of a role of another administrator"],
)
async def test_status_of_a_server_has_the_same_statements(bootstrap: Bootstrap, what: str) -> None:
    row = NEEDS_MORE[what]
    await row.arrange(bootstrap)
    report = await bootstrap.apply()
    bootstrap.offer()
    offered = bootstrap.drawer.servers["main"]
    missing = (await bootstrap.engine.inspect(offered, bootstrap.drawer, "tests")).found.missing_rights
    if bootstrap.server.major < row.since:
        assert missing == ()
        return
    assert report.trouble
    assert told_to_run(report.trouble.message) == f": {'; '.join(it.sql for it in missing)}"
    bootstrap.run_cure(report.trouble.message)
    assert (await bootstrap.engine.inspect(offered, bootstrap.drawer, "tests")).found.missing_rights == ()


async def test_status_of_a_server_names_extensions_of_superusers(bootstrap: Bootstrap) -> None:
    bootstrap.offer(allowedExtensions=["pg_trgm", "pageinspect", "no_such_thing", "dblink"])
    offered = bootstrap.drawer.servers["main"]

    async def named() -> tuple[str, ...]:
        inspection = await bootstrap.engine.inspect(offered, bootstrap.drawer, "tests")
        assert inspection.error is None
        assert inspection.found.missing_rights == ()
        return inspection.found.extensions_for_superusers

    assert await named() == ("dblink", "pageinspect")
    bootstrap.as_superuser(f'ALTER ROLE "{bootstrap.admin.user}" SUPERUSER')
    assert await named() == ()
    bootstrap.as_superuser(f'ALTER ROLE "{bootstrap.admin.user}" NOSUPERUSER')
    bootstrap.as_superuser("CREATE ROLE rds_superuser")
    assert await named() == ()


async def test_where_a_provider_lends_power_only_trying_tells(bootstrap: Bootstrap) -> None:
    bootstrap.as_superuser("CREATE ROLE rds_superuser")
    await bootstrap.ready()
    bootstrap.raw["extensions"] = [{"name": "pageinspect"}]
    assert (await bootstrap.plan()).changes == ("create extension pageinspect",)
    before = world(bootstrap)
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.ACCESS_DENIED
    assert world(bootstrap) == before
    bootstrap.run_cure(report.trouble.message)
    await bootstrap.ready()


async def test_deletion_drops_nothing_where_the_role_would_be_left(bootstrap: Bootstrap) -> None:
    await _made_by_another(bootstrap)
    bootstrap.as_superuser(
        f'GRANT USAGE ON SCHEMA dbbootstrap TO "{bootstrap.admin.user}";'
        f'GRANT SELECT ON dbbootstrap.identity TO "{bootstrap.admin.user}"',
        bootstrap.database,
    )
    # A member of the role, which may drop what the role owns; but not the role.
    bootstrap.as_superuser(f'GRANT "{bootstrap.role}" TO "{bootstrap.admin.user}"')
    if bootstrap.server.major < 16:
        bootstrap.as_superuser(f'ALTER ROLE "{bootstrap.admin.user}" NOCREATEROLE')
    before = world(bootstrap)
    ending = await bootstrap.delete()
    assert ending.error and ending.error.reason == Reason.ACCESS_DENIED
    assert f'may not drop role "{bootstrap.role}"' in ending.error.message
    assert ending.drops == () and world(bootstrap) == before
    bootstrap.run_cure(ending.error.message)
    assert (await bootstrap.delete()).error is None


async def test_deletion_waits_for_sessions_that_the_administrator_sees_and_may_not_end(bootstrap: Bootstrap) -> None:
    await _made(bootstrap)
    bootstrap.as_superuser(f'GRANT pg_monitor TO "{bootstrap.admin.user}"')
    with psycopg.connect(bootstrap.server.dsn(bootstrap.database), autocommit=True) as somebody:
        ending = await bootstrap.delete()
        assert ending.error and ending.error.reason == Reason.SERVER_BUSY
        assert ending.drops == ()
        bootstrap.run_cure(ending.error.message)
        with pytest.raises(psycopg.OperationalError):
            somebody.execute("SELECT 1")
    assert (await bootstrap.delete()).error is None


async def test_plan_takes_no_drifted_password_for_lost_data(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("SQL", {"V1__a.sql": "CREATE TABLE a (id int);"})
    bootstrap.raw["extensions"] = [{"name": "hstore"}]
    await _made(bootstrap)
    bootstrap.as_superuser(f"ALTER ROLE \"{bootstrap.role}\" PASSWORD 'by hand'")
    planned = await bootstrap.plan()
    assert planned.trouble is None
    assert planned.changes == (f'set the password of role "{bootstrap.role}" to that of its Secret',)
    assert (await bootstrap.ready()).changes == planned.changes


async def test_lost_password_is_rotated_where_the_role_says_whose_it_is(bootstrap: Bootstrap) -> None:
    await _made(bootstrap)
    for name in ("shop-db", "shop-role"):
        del bootstrap.drawer.secrets[name]
    trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.reason is Reason.PASSWORD_LOST
    assert names.ANNOTATION_ROTATE_PASSWORD in trouble.message
    bootstrap.annotations[names.ANNOTATION_ROTATE_PASSWORD] = "1"
    await bootstrap.ready()
    # Without a mark of its own the annotation does nothing, and so is not named.
    bootstrap.as_superuser(f'COMMENT ON ROLE "{bootstrap.role}" IS NULL')
    for name in ("shop-db", "shop-role"):
        del bootstrap.drawer.secrets[name]
    bootstrap.annotations[names.ANNOTATION_ROTATE_PASSWORD] = "2"
    trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.reason is Reason.PASSWORD_LOST
    assert names.ANNOTATION_ROTATE_PASSWORD not in trouble.message
    bootstrap.as_superuser(f"ALTER ROLE \"{bootstrap.role}\" PASSWORD '{PASSWORD}'")
    bootstrap.drawer.put("own", {"password": PASSWORD})
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    assert f'mark role "{bootstrap.role}" again' in (await bootstrap.ready()).changes
