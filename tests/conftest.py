"""Fixtures live in plug-ins, one for each kind of server and of use."""

pytest_plugins = (
    "fix_leaks",
    "fix_logging",
    "fix_servers",
    "fix_postgres",
    "fix_apiserver",
    "fix_status",
    "fix_engine",
    "fix_tools",
    "fix_prisma",
    "fix_alembic",
    "fix_operator",
    "fix_system",
    "fix_crash",
)
