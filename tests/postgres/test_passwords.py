"""Passwords: another one on a person's word, once for each; never by accident; and a crash leaves none unknown."""

from dataclasses import dataclass, replace

import psycopg
import pytest

from database_bootstrap.api import names
from database_bootstrap.api.binding import Connection
from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.api.status import Origin, Status
from database_bootstrap.errors import ClusterUnavailable
from fix_engine import Bootstrap, Drawer, outcome

ROTATED = (
    "generate another password into Secret shop-role, as a person said",
    'set the password of role "{}" to that of its Secret',
    "publish the new password in Secret shop-db",
)


def rotated(bootstrap: Bootstrap) -> tuple[str, ...]:
    return tuple(change.format(bootstrap.role) for change in ROTATED)


def say(bootstrap: Bootstrap, word: str) -> None:
    bootstrap.annotations[names.ANNOTATION_ROTATE_PASSWORD] = word


def kept(bootstrap: Bootstrap) -> str:
    return bootstrap.drawer.secrets["shop-role"].data["password"].decode()


def logs_in(bootstrap: Bootstrap, password: str) -> bool:
    try:
        return bootstrap.query("SELECT 1", password=password) == [(1,)]
    except psycopg.OperationalError as error:
        assert "password authentication failed" in str(error)  # noqa: PT017 another refusal is a failure of the test
        return False


async def visit(bootstrap: Bootstrap) -> tuple[str, ...]:
    """Visit as the controller does, with what the last visit told, and return the changes."""
    report = await bootstrap.ready()
    bootstrap.remember(report)
    return report.changes


async def test_a_word_makes_another_password_once(bootstrap: Bootstrap) -> None:
    began = len(bootstrap.server.log.read_bytes())
    say(bootstrap, "there from the beginning")
    await visit(bootstrap)
    passwords = [kept(bootstrap)]
    assert await visit(bootstrap) == ()
    for word in ("first", "second"):
        say(bootstrap, word)
        with psycopg.connect(**bootstrap.connection()) as session:
            assert (await bootstrap.plan()).changes == rotated(bootstrap)
            assert await visit(bootstrap) == rotated(bootstrap)
            assert session.execute("SELECT 1").fetchone() == (1,)  # who is in stays in
        assert bootstrap.status.role and bootstrap.status.role.password_rotation == word
        passwords.append(kept(bootstrap))
        assert [logs_in(bootstrap, password) for password in passwords] == [False] * (len(passwords) - 1) + [True]
        assert bootstrap.connection()["password"] == passwords[-1]
        assert await visit(bootstrap) == ()
    # Applied again by somebody who has the manifest, to whom the status does not matter.
    bootstrap.status = Status()
    assert await visit(bootstrap) == ()
    assert len(set(passwords)) == 3
    said = bootstrap.server.said(began)
    assert said.count(f'ALTER ROLE "{bootstrap.role}" PASSWORD \'SCRAM-SHA-256$') == 2
    assert not any(password in said for password in passwords)
    logged = [action for (action,) in bootstrap.query("SELECT action FROM dbbootstrap.audit_log ORDER BY seq")]
    assert logged[-6:] == list(rotated(bootstrap) * 2)


async def test_a_deleted_secret_never_makes_another_password(bootstrap: Bootstrap) -> None:
    await visit(bootstrap)
    say(bootstrap, "once")
    await visit(bootstrap)
    password = kept(bootstrap)
    restored = "restore Secret shop-role from the connection Secret"
    for _ in range(2):
        del bootstrap.drawer.secrets["shop-role"]
        assert await visit(bootstrap) == (restored,)
        bootstrap.status = Status()  # as of a resource that was deleted and applied again
    assert kept(bootstrap) == password
    del bootstrap.drawer.secrets["shop-role"]
    bootstrap.remember(await bootstrap.plan())
    say(bootstrap, "twice")
    assert await visit(bootstrap) == (restored, *rotated(bootstrap))
    assert logs_in(bootstrap, kept(bootstrap))
    assert not logs_in(bootstrap, password)


async def test_a_lost_password_is_made_anew_on_a_new_word_only(bootstrap: Bootstrap) -> None:
    say(bootstrap, "old")
    await visit(bootstrap)
    bootstrap.drawer.secrets.pop("shop-db")
    bootstrap.drawer.secrets.pop("shop-role")
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.PASSWORD_LOST
    assert f"{names.ANNOTATION_ROTATE_PASSWORD}=<any new value>" in report.trouble.message
    assert report.changes == ()
    say(bootstrap, "new")
    assert (await visit(bootstrap))[:2] == ("generate a password into Secret shop-role", rotated(bootstrap)[1])
    assert logs_in(bootstrap, kept(bootstrap))
    assert await visit(bootstrap) == ()


async def test_the_word_has_no_effect_where_the_secret_is_somebody_elses(bootstrap: Bootstrap) -> None:
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    bootstrap.drawer.put("own", {"password": "one"})
    await visit(bootstrap)
    say(bootstrap, "now")
    report = await bootstrap.ready()
    assert report.changes == ()
    (warning,) = outcome(report, StageName.ROLE).warnings
    assert "write another password into Secret own" in warning
    assert logs_in(bootstrap, "one")


async def test_a_secret_of_another_is_neither_used_nor_written(bootstrap: Bootstrap) -> None:
    bootstrap.drawer.put("shop-role", {"password": "another's"})
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    # By its beginning `reporting` knows that it is about a Secret, which is looked at again soon.
    assert report.trouble.message.startswith("Secret shop-role exists and is not this resource's")
    assert (report.changes, kept(bootstrap)) == ((), "another's")


async def test_an_adopted_role_never_gets_a_password(bootstrap: Bootstrap) -> None:
    await visit(bootstrap)
    heir = bootstrap.another("heir")
    heir.annotations = {names.ANNOTATION_TAKE_OVER: bootstrap.owner.uid}
    heir.drawer.put("heir-role", {"password": kept(bootstrap)}, ours=True)
    heir.remember(await heir.ready())
    assert heir.status.role and heir.status.role.origin is Origin.ADOPTED
    # The word for the take-over stays in the manifest, and is none for this.
    say(heir, "now")
    report = await heir.ready()
    assert report.changes == ()
    (warning,) = outcome(report, StageName.ROLE).warnings
    assert f'ALTER ROLE "{bootstrap.role}" PASSWORD' in warning
    assert logs_in(bootstrap, kept(bootstrap))


async def test_another_password_is_published_although_migrations_fail(bootstrap: Bootstrap) -> None:
    await visit(bootstrap)
    bootstrap.migrate("SQL", {"1_bad.sql": "SELECT 1 / 0"})
    say(bootstrap, "now")
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.MIGRATION_FAILED
    assert logs_in(bootstrap, bootstrap.connection()["password"])
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    bootstrap.drawer.put("own", {"password": "edited"})
    before = bootstrap.drawer.secrets["shop-db"].incarnation
    report = await bootstrap.apply()
    assert report.changes == rotated(bootstrap)[1:]
    assert bootstrap.connection()["password"] == "edited"
    assert bootstrap.drawer.secrets["shop-db"].incarnation == before is not None
    assert logs_in(bootstrap, "edited")


@dataclass
class Breaking(Drawer):
    """A drawer whose answer is lost once, after it has written, or before."""

    breaks: str = ""

    async def replace_password(self, name: str, username: str, password: str, rotation: str) -> None:
        await super().replace_password(name, username, password, rotation)
        self._break("replaced")

    async def publish(self, name: str, connection: Connection, incarnation: str | None) -> None:
        self._break("publishing")
        await super().publish(name, connection, incarnation)
        self._break("published")

    def _break(self, where: str) -> None:
        if where == self.breaks:
            self.breaks = ""
            raise ClusterUnavailable("The connection broke off.")


@pytest.mark.parametrize("breaks", ["replaced", "publishing", "published"])
async def test_a_rotation_that_breaks_off_is_ended_by_the_next_visit(bootstrap: Bootstrap, breaks: str) -> None:
    await visit(bootstrap)
    old = kept(bootstrap)
    say(bootstrap, "now")
    drawer = Breaking(uid=bootstrap.drawer.uid, secrets=bootstrap.drawer.secrets, breaks=breaks)
    broken = replace(bootstrap, drawer=drawer)
    report = await broken.apply()
    assert report.trouble and report.trouble.reason is Reason.CLUSTER_UNAVAILABLE
    new = kept(broken)
    # Whatever logs in is written down in one of the two Secrets.
    assert [logs_in(broken, password) for password in (old, new)] == [breaks == "replaced", breaks != "replaced"]
    assert {old, new} >= {broken.connection()["password"]}
    await visit(broken)
    assert kept(broken) == new == broken.connection()["password"]
    assert logs_in(broken, new)
    assert await visit(broken) == ()
