"""Writing marks: the comment of a role or a database says whose it is, and keeps what people wrote there."""

from psycopg import sql

from database_bootstrap.postgres.ownership import Mark, with_mark, without_mark


def role(name: str, comment: str | None, mark: Mark) -> sql.Composed:
    """Return the statement that adds the mark to the role's comment, or renews it there."""
    return sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(with_mark(comment, mark)))


def role_of_nobody(name: str, comment: str | None) -> sql.Composed:
    """Return the statement that takes the mark off the role's comment."""
    return sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(without_mark(comment)))


def database(name: str, comment: str | None, mark: Mark) -> sql.Composed:
    """Return the statement that adds the mark to the database's comment, or renews it there."""
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(with_mark(comment, mark)))
