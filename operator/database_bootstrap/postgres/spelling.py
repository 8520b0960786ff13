"""Names in statements that people are told to run; what the operator runs itself is composed by psycopg."""


def sql_name(name: str) -> str:
    """Return the name as SQL has it; a tenant chooses it, and whoever pastes the statement may be a superuser."""
    return '"' + name.replace('"', '""') + '"'


def cure(*statements: str, database: str | None = None) -> str:
    """Return the end of a sentence that says what a superuser is to run, word for word, and in which database."""
    where = f" in database {sql_name(database)}" if database else ""
    return f"let a superuser run{where}: {'; '.join(statements)}"
