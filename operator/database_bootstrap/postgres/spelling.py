"""Names in statements that people are told to run; what the operator runs itself is composed by psycopg."""


def sql_name(name: str) -> str:
    """Return the name as SQL has it; a tenant chooses it, and whoever pastes the statement may be a superuser."""
    return '"' + name.replace('"', '""') + '"'
