"""An exception of the project's code, as an event: where and what, without row data."""

import traceback
from pathlib import Path

import psycopg
from sqlalchemy import exc

from database_bootstrap.tools.sandbox import gate, guard, migrate, wire


def describe(error: BaseException, project: Path, run: migrate.Run) -> wire.Failed:
    """Return what is to be known of an exception."""
    file, line = _place(error, project)
    refusal = _refusal(error)
    return wire.Failed(
        kind=_kind(error, refusal),
        type=type(refusal or error).__name__,
        text=_text(error, refusal),
        revision=run.running,
        file=file,
        line=line,
        sql_state=refusal.sqlstate if refusal else None,
        broken=isinstance(refusal, psycopg.OperationalError) and refusal.sqlstate is None,
    )


def _kind(error: BaseException, refusal: psycopg.Error | None) -> str:
    if isinstance(error, guard.Refused):
        return error.kind
    if isinstance(error, gate.Loss):
        return "destructive"
    if refusal is not None:
        return "database"
    return "module" if isinstance(error, ModuleNotFoundError) and error.name else "code"


def _refusal(error: BaseException) -> psycopg.Error | None:
    """Return psycopg's own exception; SQLAlchemy's text holds the statement and its parameters."""
    inner = error.orig if isinstance(error, exc.DBAPIError) else error
    return inner if isinstance(inner, psycopg.Error) else None


def _text(error: BaseException, refusal: psycopg.Error | None) -> str:
    if refusal is not None and refusal.diag.message_primary:
        return refusal.diag.message_primary
    if isinstance(error, ModuleNotFoundError) and error.name:
        return error.name
    if isinstance(error, SyntaxError):
        return error.msg
    lines = str(refusal or error).strip().splitlines()
    return lines[0] if lines else ""


def _place(error: BaseException, project: Path) -> tuple[str | None, int | None]:
    """Return the innermost place in the project's own files."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(project):
        return str(Path(error.filename).relative_to(project)), error.lineno
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(project):
            return str(path.relative_to(project)), line
    return None, None
