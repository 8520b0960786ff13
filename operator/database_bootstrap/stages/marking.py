"""Writing marks: the comment of a role or a database says whose it is, and keeps what people wrote there."""

from psycopg import sql

from database_bootstrap.postgres.ownership import Mark, with_mark


def role(name: str, comment: str | None, mark: Mark) -> sql.Composed:
    """Return the statement that adds the mark to the role's comment, or renews it there."""
    return sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(with_mark(comment, mark)))


def database(name: str, comment: str | None, mark: Mark) -> sql.Composed:
    """Return the statement that adds the mark to the database's comment, or renews it there."""
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(with_mark(comment, mark)))
