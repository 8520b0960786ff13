"""The process in which Alembic runs a project's own Python: the only importer of alembic and sqlalchemy."""
