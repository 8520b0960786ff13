"""Alembic projects for tests, as data: path → text."""

from collections.abc import Iterable, Mapping
from importlib import resources

from database_bootstrap.bundles.bundle import Bundle, File, bundle_of

Project = Mapping[str, str]

REVISION = '''"""{name}"""
import sqlalchemy as sa
from alembic import op

revision: str = {name!r}
down_revision = {down!r}
branch_labels = None
depends_on = {depends_on!r}


def upgrade() -> None:
{body}


def downgrade() -> None:
    raise NotImplementedError
'''
STEPS = {
    "r001": """op.create_table("customer", sa.Column("id", sa.Integer, sa.Identity()), sa.Column("name", sa.Text))""",
    "r002": """op.add_column("customer", sa.Column("email", sa.String(200)))""",
    "r003": """op.execute("INSERT INTO customer (name, email) VALUES ('Ann', 'ann@example.com')")""",
    "r004": """op.create_index("customer_email", "customer", ["email"], unique=True)""",
    "r005": """op.get_bind().execute(sa.text("UPDATE customer SET name = :name"), {"name": "Anna"})""",
}
FIVE = tuple(STEPS)

BEFORE_CONFIGURE = """
from sqlalchemy import create_engine, pool, text
from alembic import context

with create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=pool.NullPool).connect() as connection:
    connection.execute(text("SELECT 1"))
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
OWN_TRANSACTION = """
import os
from sqlalchemy import create_engine, pool
from alembic import context

with create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool).begin() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
PER_MIGRATION = """
from sqlalchemy import engine_from_config, pool
from alembic import context

connectable = engine_from_config(context.config.get_section("alembic"), prefix="sqlalchemy.", poolclass=pool.NullPool)
with connectable.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""
OTHER_TABLE = """
from sqlalchemy import engine_from_config, pool, text
from alembic import context

connectable = engine_from_config(context.config.get_section("alembic"), prefix="sqlalchemy.", poolclass=pool.NullPool)
with connectable.connect() as connection:
    connection.execute(text('CREATE SCHEMA IF NOT EXISTS "The History"'))
    connection.commit()
    context.configure(connection=connection, version_table="Shop.Version", version_table_schema="The History")
    with context.begin_transaction():
        context.run_migrations()
"""


def revision(name: str, down: str | tuple[str, ...] | None, *lines: str, depends_on: str | None = None) -> str:
    """Return the text of a revision's file."""
    body = "\n".join(f"    {line}" for line in lines or ("pass",))
    return REVISION.format(name=name, down=down, body=body, depends_on=depends_on)


def chain(names: Iterable[str], **changed: str) -> dict[str, str]:
    """Return revisions one after the other, with these bodies changed."""
    files = {}
    down = None
    for name in names:
        files[f"{name}_step.py"] = revision(name, down, *changed.get(name, STEPS.get(name, "pass")).splitlines())
        down = name
    return files


def template(name: str, file: str) -> str:
    """Return a file that `alembic init -t <name>` writes."""
    return resources.files("alembic").joinpath("templates", name, file).read_text()


def project(revisions: Project, environment: str | None = None, kind: str = "generic") -> dict[str, str]:
    """Return a project as `alembic init migrations` lays it out; `environment` replaces its env.py."""
    ini = template(kind, "alembic.ini.mako").replace("${script_location}", "%(here)s/migrations")
    return {
        "alembic.ini": ini,
        "migrations/env.py": environment or template(kind, "env.py"),
        "migrations/script.py.mako": template(kind, "script.py.mako"),
        **{f"migrations/versions/{path}": text for path, text in revisions.items()},
    }


def bundle(files: Project) -> Bundle:
    """Return the files as a source brings them."""
    return bundle_of(File(path=path, content=text.encode()) for path, text in files.items())


BRANCHES = {
    "a_trunk.py": revision("trunk", None, 'op.execute("CREATE TABLE trunk (id integer)")'),
    "b_left.py": revision("left", "trunk", 'op.execute("CREATE TABLE left_one (id integer)")'),
    "c_right.py": revision("right", "trunk", 'op.execute("CREATE TABLE right_one (id integer)")'),
}
MERGED = {
    **BRANCHES,
    "d_merge.py": revision("merged", ("left", "right"), 'op.execute("CREATE TABLE merged (id integer)")'),
    "e_other.py": revision("other", None, 'op.execute("CREATE TABLE other (id integer)")', depends_on="merged"),
}
