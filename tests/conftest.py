"""Fixtures live in plug-ins, one for each kind of server."""

pytest_plugins = ("fix_servers", "fix_postgres", "fix_apiserver", "fix_engine", "fix_operator", "fix_alembic")
