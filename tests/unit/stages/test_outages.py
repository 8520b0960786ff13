"""What may have passed by the next visit is a matter of the server only where all of its visits meet it."""

import pytest

from database_bootstrap import errors
from database_bootstrap.api.status import Status
from database_bootstrap.api.v1alpha1 import parse_spec
from database_bootstrap.postgres.login import Endpoint
from database_bootstrap.postgres.ownership import Owner
from database_bootstrap.stages.outages import question
from database_bootstrap.stages.subject import Subject
from fix_engine import Drawer

SPEC = {"server": {"adminSecretRef": {"name": "admin"}}, "role": {"name": "r"}, "database": {"name": "d"}}
SUBJECT = Subject(
    owner=Owner(cluster="c", namespace="n", name="x", uid="u"), spec=parse_spec(SPEC), status=Status(), annotations={}
)


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        pytest.param(errors.ServerUnreachable("away"), True, id="away"),
        pytest.param(errors.ServerReadOnly("a standby"), True, id="a standby"),
        pytest.param(errors.ServerBusy("full", login="administrator"), True, id="full"),
        pytest.param(errors.ServerBusy("full", login="role"), True, id="full for the role"),
        pytest.param(errors.ServerBusy("an object is in use"), False, id="a lock"),
        pytest.param(errors.AdminLoginRefused("28P01"), False, id="a wrong password must not be tried again and again"),
        pytest.param(errors.MigrationInterrupted("deadlock"), False, id="a deadlock"),
        pytest.param(errors.ClusterUnavailable("no answer"), False, id="another server's"),
    ],
)
def test_server_is_asked_about_what_is_its_own(error: errors.BootstrapError, asked: bool) -> None:
    assert bool(question(error, Endpoint(host="h"), SUBJECT, Drawer(uid="u"))) is asked


async def test_nobody_is_kept_waiting_for_a_secret_that_has_gone() -> None:
    ask = question(errors.ServerReadOnly("a standby"), Endpoint(host="h"), SUBJECT, Drawer(uid="u"))
    assert ask is not None
    assert await ask() is None
