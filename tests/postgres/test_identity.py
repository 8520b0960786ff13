"""Identity: lost data stays lost until a person says so, foreign data is not touched, and one's own is taken back."""

import uuid
from dataclasses import replace

import pytest

from database_bootstrap.api.outcomes import Reason, StageName
from database_bootstrap.api.status import Status
from database_bootstrap.stages.subject import Report
from fix_engine import Bootstrap, Drawer

USERS = {"1_users.sql": "CREATE TABLE users (id int)"}
SEED = {"users.sql": "INSERT INTO users VALUES (1), (2)"}


def remember(bootstrap: Bootstrap, report: Report) -> None:
    """Keep in the status what the controller would keep."""
    facts = report.facts
    bootstrap.status = Status(
        server=facts.server,
        role=facts.role,
        database=facts.database,
        binding=facts.binding,
    )


@pytest.fixture
async def shop(bootstrap: Bootstrap) -> Bootstrap:
    bootstrap.migrate("SQL", USERS)
    bootstrap.seed(SEED)
    remember(bootstrap, await bootstrap.ready())
    assert (await bootstrap.ready()).changes == ()
    return bootstrap


def incarnation(bootstrap: Bootstrap) -> str:
    assert bootstrap.status.database
    assert bootstrap.status.database.incarnation
    return bootstrap.status.database.incarnation


async def test_nothing_is_pinned_before_the_first_complete_success(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("SQL", {"1_bad.sql": "SELECT broken"})
    report = await bootstrap.apply()
    assert report.facts.database and report.facts.database.incarnation is None


@pytest.mark.parametrize("with_role", [False, True], ids=["database dropped", "everything gone"])
async def test_lost_data_is_not_made_anew_in_silence(shop: Bootstrap, with_role: bool) -> None:
    lost = incarnation(shop)
    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    if with_role:
        shop.as_superuser(f'DROP ROLE "{shop.role}"')
    for _ in range(2):
        report = await shop.apply()
        assert report.trouble and report.trouble.reason is Reason.DATA_LOSS_DETECTED
        assert f"dbbootstrap.io/acknowledge-data-loss={lost}" in report.trouble.message
        assert report.changes == ()
    assert shop.as_superuser(f"SELECT 1 FROM pg_database WHERE datname = '{shop.database}'") == []
    shop.annotations["dbbootstrap.io/acknowledge-data-loss"] = "another"
    assert (await shop.apply()).trouble is not None
    shop.annotations["dbbootstrap.io/acknowledge-data-loss"] = lost
    report = await shop.ready()
    assert shop.query("SELECT count(*) FROM users") == [(2,)]
    remember(shop, report)
    assert incarnation(shop) != lost
    assert (await shop.ready()).changes == ()


async def test_new_beginning_that_fails_half_way_goes_on(shop: Bootstrap) -> None:
    lost = incarnation(shop)
    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    shop.annotations["dbbootstrap.io/acknowledge-data-loss"] = lost
    shop.migrate("SQL", {"1_users.sql": "SELECT broken"})
    report = await shop.apply()
    assert report.trouble and report.trouble.reason is Reason.MIGRATION_FAILED
    assert report.facts.database and report.facts.database.incarnation == lost
    remember(shop, report)
    shop.migrate("SQL", USERS)
    await shop.ready()


async def test_ledger_that_is_gone_is_data_loss(shop: Bootstrap) -> None:
    shop.as_superuser("DROP SCHEMA dbbootstrap CASCADE", shop.database)
    report = await shop.apply()
    assert report.trouble and report.trouble.reason is Reason.DATA_LOSS_DETECTED
    assert "ledger" in report.trouble.message
    assert shop.as_superuser("SELECT count(*) FROM users", shop.database) == [(2,)]


async def test_foreign_data_is_not_touched_until_it_is_accepted(shop: Bootstrap) -> None:
    other = str(uuid.uuid4())
    shop.as_superuser(f"UPDATE dbbootstrap.identity SET incarnation = '{other}'", shop.database)
    report = await shop.apply()
    assert report.trouble and report.trouble.reason is Reason.FOREIGN_DATABASE
    assert other in report.trouble.message
    assert report.changes == ()
    shop.annotations["dbbootstrap.io/accept-incarnation"] = other
    report = await shop.ready()
    assert "as a person said" in report.changes[0]
    assert report.changes[1:] == ("pin the incarnation of the database on Secret shop-db",)
    assert (report.changes[0],) in shop.query("SELECT action FROM dbbootstrap.audit_log")
    remember(shop, report)
    assert incarnation(shop) == other
    shop.annotations.clear()
    assert (await shop.ready()).changes == ()


async def test_restore_to_an_earlier_point_is_an_event_and_no_stop(shop: Bootstrap) -> None:
    assert shop.status.database
    ahead = shop.status.database.model_copy(update={"ledger_seq": 10_000})
    shop.status = shop.status.model_copy(update={"database": ahead})
    report = await shop.ready()
    assert len(report.changes) == 1 and "earlier point" in report.changes[0]
    assert shop.query("SELECT count(*) FROM users") == [(2,)]
    remember(shop, report)
    assert (await shop.ready()).changes == ()


async def test_move_to_another_server_is_an_event_and_no_stop(shop: Bootstrap) -> None:
    assert shop.status.server
    elsewhere = shop.status.server.model_copy(update={"system_identifier": "1"})
    shop.status = shop.status.model_copy(update={"server": elsewhere})
    report = await shop.ready()
    assert len(report.changes) == 1 and "moved" in report.changes[0]


async def test_resource_made_again_notices_what_was_lost(shop: Bootstrap) -> None:
    lost = incarnation(shop)
    again = reborn(shop, shop.drawer)
    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    shop.as_superuser(f'DROP ROLE "{shop.role}"')
    for _ in range(2):
        report = await again.apply()
        assert report.trouble and report.trouble.reason is Reason.DATA_LOSS_DETECTED
        assert f"dbbootstrap.io/acknowledge-data-loss={lost}" in report.trouble.message
        assert report.changes == ()
        remember(again, report)
    again.annotations["dbbootstrap.io/acknowledge-data-loss"] = lost
    report = await again.ready()
    said = f"start over after the loss of incarnation {lost}, as a person said"
    assert said in report.changes
    assert again.query(f"SELECT count(*) FROM dbbootstrap.audit_log WHERE action = '{said}'") == [(1,)]


async def test_pin_of_a_foreign_secret_or_of_another_database_does_not_count(bootstrap: Bootstrap) -> None:
    bootstrap.raw["connectionSecret"] = {"name": "pinned"}
    theirs = {"host": "db", "port": "1", "database": bootstrap.database, "username": "u", "password": "p"}
    bootstrap.drawer.put("pinned", theirs, incarnation="i")
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.stage is StageName.CONNECTION
    bootstrap.drawer.put("pinned", theirs | {"database": "another"}, ours=True, incarnation="i")
    assert "publish the connection in Secret pinned" in (await bootstrap.ready()).changes


async def test_acknowledgement_holds_for_one_loss_though_a_crash_kept_the_status_behind(shop: Bootstrap) -> None:
    first = incarnation(shop)
    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    shop.annotations["dbbootstrap.io/acknowledge-data-loss"] = first
    await shop.ready()  # and killed before the status was written
    second = shop.drawer.secrets["shop-db"].incarnation
    assert (await shop.ready()).changes == ()
    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    report = await shop.apply()
    assert report.trouble and report.trouble.reason is Reason.DATA_LOSS_DETECTED
    assert f"dbbootstrap.io/acknowledge-data-loss={first},{second}" in report.trouble.message
    shop.annotations["dbbootstrap.io/acknowledge-data-loss"] = f"{first},{second}"
    remember(shop, await shop.ready())
    assert (await shop.ready()).changes == ()


async def test_database_made_anew_by_hand_is_data_loss(shop: Bootstrap) -> None:
    shop.as_superuser(f'DROP DATABASE "{shop.database}"')
    shop.as_superuser(f'CREATE DATABASE "{shop.database}" OWNER "{shop.role}"')
    said = set()
    for _ in range(2):
        report = await shop.apply()
        assert report.trouble and report.trouble.reason is Reason.DATA_LOSS_DETECTED
        assert report.changes == ()
        said.add(report.trouble.message)
        shop.status = report.facts.over(shop.status)
    assert len(said) == 1 and "made anew by somebody else" in said.pop()


def reborn(shop: Bootstrap, drawer: Drawer) -> Bootstrap:
    """Return the resource of the same name that a GitOps tool makes after it has pruned the first."""
    uid = str(uuid.uuid4())
    return replace(shop, owner=replace(shop.owner, uid=uid), status=Status(), drawer=replace(drawer, uid=uid))


async def test_resource_made_again_takes_its_own_back(shop: Bootstrap) -> None:
    again = reborn(shop, shop.drawer)
    report = await again.ready()
    assert report.changes == (
        f'take over role "{shop.role}"',
        f'take over database "{shop.database}"',
        "take over the ledger",
    )
    assert again.query("SELECT uid, origin FROM dbbootstrap.identity") == [(again.owner.uid, "Created")]
    assert again.query("SELECT count(*) FROM users") == [(2,)]
    assert (await again.ready()).changes == ()


async def test_resource_of_the_same_name_without_the_password_takes_nothing(shop: Bootstrap) -> None:
    drawer = Drawer(uid="x", secrets={"admin": shop.drawer.secrets["admin"]})
    drawer.put("own", {"password": "guessed"})
    again = reborn(shop, drawer)
    again.raw = again.raw | {"role": {"name": shop.role, "passwordSecretRef": {"name": "own"}}}
    report = await again.apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    assert f"dbbootstrap.io/take-over={shop.owner.uid}" in report.trouble.message
    assert report.changes == ()
    assert (await shop.ready()).changes == ()


async def test_another_resource_takes_over_on_a_persons_word(shop: Bootstrap) -> None:
    heir = shop.another("heir")
    heir.drawer.put("own", {"password": "new"})
    heir.raw = heir.raw | {"role": {"name": shop.role, "passwordSecretRef": {"name": "own"}}}
    heir.annotations = {"dbbootstrap.io/take-over": shop.owner.uid}
    heir.drawer.alive = [shop.owner]
    for role in (shop.role, f"{shop.role}_heir"):
        heir.raw = heir.raw | {"role": heir.raw["role"] | {"name": role}}
        refusal = await heir.apply()
        assert refusal.trouble and refusal.trouble.reason is Reason.NOT_OWNED
        assert "is there and would lose it" in refusal.trouble.message
        assert refusal.changes == ()
    heir.raw = heir.raw | {"role": heir.raw["role"] | {"name": shop.role}}
    heir.drawer.alive = []
    report = await heir.ready()
    said = f'take over role "{shop.role}" from {shop.owner}, as a person said'
    assert said in report.changes
    assert (said,) in heir.query("SELECT action FROM dbbootstrap.audit_log")
    assert heir.query("SELECT count(*) FROM users") == [(2,)]
    assert heir.query("SELECT name, uid FROM dbbootstrap.identity") == [("heir", heir.owner.uid)]
    heir.annotations.clear()
    assert (await heir.ready()).changes == ()
    before = await shop.apply()
    assert before.trouble and before.trouble.reason is Reason.NOT_OWNED
