"""The process in which Alembic runs a project's own Python: the only importer of alembic and sqlalchemy."""

from database_bootstrap.tools.sandbox.client import Lost, Zygote

__all__ = ["Lost", "Zygote"]
