"""What a visit ends by, and how to find out when it has passed."""

from functools import partial

from database_bootstrap import errors
from database_bootstrap.postgres import probe
from database_bootstrap.postgres.login import Endpoint
from database_bootstrap.postgres.server import Ask
from database_bootstrap.stages.credentials import Credentials
from database_bootstrap.stages.subject import Subject
from database_bootstrap.stages.surroundings import Surroundings


def knock(endpoint: Endpoint, subject: Subject) -> Ask:
    """Return what asks a server whether it takes sessions at all."""
    return partial(probe.knock, endpoint, subject.spec.role.name, subject.spec.database.name)


def question(
    error: errors.BootstrapError, endpoint: Endpoint, subject: Subject, surroundings: Surroundings
) -> Ask | None:
    """Return what asks the server whether this error has passed; None where it is no matter of the server."""
    match error:
        case errors.ServerUnreachable():
            return knock(endpoint, subject)
        case errors.ServerBusy(login=str()):
            as_role = error.login == "role"
        case errors.ServerReadOnly():
            as_role = False
        case _:
            return None

    async def log_in() -> str | None:
        # The Secret is read anew each time: nothing of it is kept for as long as an outage lasts.
        credentials = Credentials(subject, surroundings)
        try:
            login = await (credentials.role() if as_role else credentials.administrator())
        except errors.BootstrapError:
            return None  # Not to be asked; whoever comes next finds out more.
        return await probe.log_in(login, to_write=isinstance(error, errors.ServerReadOnly)) if login else None

    return log_in
