"""Servers that a platform team offers: what tenants get of them, what they are refused, and what they learn."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from database_bootstrap.api.binding import Connection, secret_data
from database_bootstrap.api.outcomes import Reason
from database_bootstrap.errors import ClusterUnavailable
from database_bootstrap.postgres import ledger
from database_bootstrap.postgres.ownership import Mark, Origin, with_mark
from database_bootstrap.reconcile import Engine
from database_bootstrap.settings import AdminSecretRefs
from database_bootstrap.stages.subject import Report
from fix_engine import Bootstrap
from localservers.processes import free_port
from outage_measures import SessionCount

CANARY = "canary-7f3a"


def refused(report: Report, reason: Reason = Reason.SERVER_REFUSED) -> str:
    assert report.trouble, "it was let through"
    assert report.trouble.reason is reason, report.trouble.message
    return report.trouble.message


@pytest.fixture
def made(bootstrap: Bootstrap) -> Callable[[], list[Any]]:
    """Return what there is of the resource on the server."""

    def there() -> list[Any]:
        names = f"('{bootstrap.role}', '{bootstrap.database}')"
        query = f"SELECT rolname FROM pg_roles WHERE rolname IN {names} UNION ALL "
        return bootstrap.as_superuser(query + f"SELECT datname FROM pg_database WHERE datname IN {names}")

    return there


async def test_tenant_gets_its_database_without_any_admin_secret(bootstrap: Bootstrap) -> None:
    del bootstrap.drawer.secrets["admin"]
    bootstrap.offer(publicHost="db.example.org", publicPort=6432, maxConnectionLimit={"role": 20, "database": 30})
    await bootstrap.ready()
    data = bootstrap.drawer.secrets["shop-db"].data
    assert (data["host"], data["port"]) == (b"db.example.org", b"6432")
    here = {"host": bootstrap.server.host, "port": bootstrap.server.port}
    assert bootstrap.query("SELECT current_user::text", **here) == [(bootstrap.role,)]
    limits = f"SELECT rolconnlimit FROM pg_roles WHERE rolname = '{bootstrap.role}'"
    assert bootstrap.as_superuser(limits) == [(20,)]
    assert bootstrap.as_superuser(f"SELECT datconnlimit FROM pg_database WHERE datname = '{bootstrap.database}'") == [
        (30,)
    ]
    writes = len(bootstrap.drawer.writes)
    assert (await bootstrap.ready()).changes == ()
    assert len(bootstrap.drawer.writes) == writes


async def test_nothing_is_asked_of_the_server_before_all_rules_are_kept(
    bootstrap: Bootstrap, made: Callable[[], list[Any]]
) -> None:
    # Whoever asks a server that is not there is told so, and not that a rule refused.
    bootstrap.offer(allowedExtensions=["pg_trgm"])
    bootstrap.drawer.platform["platform", "postgres"] = {"host": b"192.0.2.1", "username": b"a", "password": b"b"}
    bootstrap.raw["extensions"] = [{"name": "dblink"}]
    assert "extensions dblink are not among its allowedExtensions (pg_trgm)" in refused(await bootstrap.apply())
    del bootstrap.drawer.platform["platform", "postgres"]
    assert "dblink" in refused(await bootstrap.plan())
    bootstrap.offer(allowedNames={"roles": ["*"], "databases": ["*"]}, allowedExtensions=["*"])
    bootstrap.raw["access"] = [{"role": "team-b_app", "level": "ReadOnly"}]
    assert 'access[].role "team-b_app" is none of the allowedNames.accessRoles' in refused(await bootstrap.plan())
    assert made() == []


async def test_rules_count_at_an_unchanged_visit_too(bootstrap: Bootstrap) -> None:
    bootstrap.offer()
    bootstrap.remember(await bootstrap.ready())
    bootstrap.offer(allowedNamespaces={"matchLabels": {"team": "shop"}})
    said = refused(await bootstrap.apply())
    assert "namespace shop may not use it" in said
    bootstrap.offer(allowedNamespaces={"matchLabels": {"team": "shop"}}, labels={"team": "shop"})
    assert (await bootstrap.ready()).changes == ()


async def test_what_exists_is_not_adopted_unless_the_server_allows_it(
    bootstrap: Bootstrap, unique_name: Callable[[str], str]
) -> None:
    password = unique_name("secret")
    bootstrap.as_superuser(f"CREATE ROLE \"{bootstrap.role}\" LOGIN PASSWORD '{password}'")
    bootstrap.as_superuser(f'CREATE DATABASE "{bootstrap.database}" OWNER "{bootstrap.role}"')
    bootstrap.drawer.put("own", {"password": password})
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    bootstrap.offer()
    said = refused(await bootstrap.apply())
    assert "DatabaseServer main does not allow it to be taken over: its allowAdoption is false" in said
    bootstrap.raw["adoption"] = "Force"
    assert "adoption Force takes over" in refused(await bootstrap.apply())
    comments = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{}'"
    assert bootstrap.as_superuser(comments.format(bootstrap.database)) == [(None,)]
    bootstrap.raw["adoption"] = "WithCredentials"
    # A mark on the database, or a ledger, that the role writes itself makes nothing this resource's.
    here: dict[str, Any] = {"host": bootstrap.server.host, "port": bootstrap.server.port, "dbname": bootstrap.database}
    comment = f'COMMENT ON DATABASE "{bootstrap.database}" IS'
    mark = with_mark(None, Mark(owner=bootstrap.owner, database=bootstrap.database, origin=Origin.CREATED))
    with psycopg.connect(**here, user=bootstrap.role, password=password) as connection:
        connection.execute(f"{comment} '{mark}'".encode())
    assert "its allowAdoption is false" in refused(await bootstrap.apply())
    bootstrap.as_superuser(f"{comment} NULL")
    for schema in (ledger.SCHEMA, ledger.ASIDE):
        with psycopg.connect(**here, user=bootstrap.role, password=password) as connection:
            connection.execute(f"CREATE SCHEMA {schema};{ledger.DDL.replace('dbbootstrap.', f'{schema}.')}".encode())
            connection.execute(
                f"INSERT INTO {schema}.identity (incarnation, cluster, namespace, name, uid, database_oid, origin)"
                " VALUES (gen_random_uuid(), 'tests', 'shop', 'shop', 'x', 1, 'Created')".encode()
            )
        assert "its allowAdoption is false" in refused(await bootstrap.apply())
        bootstrap.as_superuser(f"DROP SCHEMA {schema} CASCADE", bootstrap.database)
    bootstrap.offer(allowAdoption=True)
    await bootstrap.ready()
    # What was taken over once stays so.
    bootstrap.offer()
    assert (await bootstrap.ready()).changes == ()


async def test_mark_in_the_databases_comment_sets_no_password(bootstrap: Bootstrap) -> None:
    """Whoever gets SQL run as the owner can write that comment, and must not get the owner's password for it."""
    bootstrap.as_superuser(f"CREATE ROLE \"{bootstrap.role}\" LOGIN PASSWORD 'the application has it'")
    bootstrap.as_superuser(f'CREATE DATABASE "{bootstrap.database}" OWNER "{bootstrap.role}"')
    mark = with_mark(None, Mark(owner=bootstrap.owner, database=bootstrap.database, origin=Origin.CREATED))
    bootstrap.as_superuser(f"COMMENT ON DATABASE \"{bootstrap.database}\" IS '{mark}'")
    bootstrap.drawer.put("own", {"password": "the attacker has it"})
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    bootstrap.offer(allowAdoption=True)
    report = await bootstrap.apply()
    assert "carries no mark of its own" in refused(report, Reason.ROLE_LOGIN_REFUSED)
    assert report.changes == ()


async def test_what_another_resource_has_is_not_taken_over_unless_the_server_allows_it(bootstrap: Bootstrap) -> None:
    bootstrap.offer()
    await bootstrap.ready()
    other = bootstrap.another("other")
    other.drawer.servers, other.drawer.platform = bootstrap.drawer.servers, bootstrap.drawer.platform
    said = refused(await other.apply(), Reason.NOT_OWNED)
    assert "take-over=" not in said
    assert "DatabaseServer main does not allow it to be taken over (allowAdoption)" in said
    other.annotations["dbbootstrap.io/take-over"] = bootstrap.owner.uid
    refused(await other.apply())
    assert (await bootstrap.ready()).changes == ()
    other.offer(allowAdoption=True)
    other.drawer.put("shop-role", {"password": "x"})
    other.raw["role"] = bootstrap.raw["role"] | {"passwordSecretRef": {"name": "shop-role"}}
    taken = await other.ready()
    assert any("as a person said" in change for change in taken.changes)


async def test_what_cannot_be_seen_to_be_gone_is_taken_over_on_the_administrators_word_only(
    bootstrap: Bootstrap,
) -> None:
    """An operator of few namespaces does not see the others' resources, nor does one cluster those of another."""
    bootstrap.offer()
    await bootstrap.ready()
    bootstrap.as_superuser(f'COMMENT ON ROLE "{bootstrap.role}" IS $$of the shop\n{mark_of(bootstrap)}$$')
    thief = bootstrap.another("thief")
    thief.drawer.servers, thief.drawer.platform = bootstrap.drawer.servers, bootstrap.drawer.platform
    thief.offer(allowAdoption=True)
    thief.drawer.put("own", {"password": "x"})
    thief.raw = bootstrap.raw | {"role": bootstrap.raw["role"] | {"passwordSecretRef": {"name": "own"}}}
    thief.annotations = {"dbbootstrap.io/take-over": bootstrap.owner.uid}
    thief.drawer.hidden = True
    said = refused(await thief.apply(), Reason.NOT_OWNED)
    assert "it cannot be seen from here whether that is gone" in said
    elsewhere = replace(
        thief, owner=replace(thief.owner, cluster="another"), drawer=replace(thief.drawer, hidden=False)
    )
    assert "it cannot be seen" in refused(await elsewhere.apply(), Reason.NOT_OWNED)
    assert (await bootstrap.ready()).changes == ()
    thief.as_superuser(said.partition("let the administrator of DatabaseServer main say so: ")[2])
    assert "adoption never sets one" in refused(await thief.apply(), Reason.ROLE_LOGIN_REFUSED)
    thief.as_superuser(f"ALTER ROLE \"{thief.role}\" PASSWORD 'x'")
    await thief.ready()
    assert (await thief.ready()).changes == ()
    assert "belongs to shop/thief" in refused(await bootstrap.apply(), Reason.NOT_OWNED)
    ((comment,),) = thief.as_superuser(
        f"SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{thief.role}'"
    )
    assert comment.startswith("of the shop\n")


def mark_of(bootstrap: Bootstrap) -> str:
    """Return the mark of a role that the resource has made."""
    return with_mark(None, Mark(owner=bootstrap.owner, database=bootstrap.database, origin=Origin.CREATED))


async def test_moving_from_an_own_admin_secret_to_an_offer_is_no_event(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("SQL", {"V1__a.sql": "CREATE TABLE a (id int); INSERT INTO a VALUES (1);"})
    bootstrap.remember(await bootstrap.ready())
    before = bootstrap.status
    marks = f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{bootstrap.database}'"
    marked = bootstrap.as_superuser(marks)
    del bootstrap.drawer.secrets["admin"]
    bootstrap.offer()
    report = await bootstrap.ready()
    assert report.changes == ()
    bootstrap.remember(report)
    assert bootstrap.status == before
    assert before.binding and before.binding.host == bootstrap.server.host
    assert bootstrap.as_superuser(marks) == marked
    # An address for applications changes the Secret, and not what the operator holds the server to be.
    bootstrap.offer(publicHost="db.example.org")
    report = await bootstrap.ready()
    assert report.changes == ("publish the connection in Secret shop-db",)
    bootstrap.remember(report)
    assert bootstrap.status.server == before.server
    assert bootstrap.status.binding and bootstrap.status.binding.host == "db.example.org"
    assert bootstrap.status.database and before.database
    assert bootstrap.status.database.incarnation == before.database.incarnation


async def test_tenant_learns_nothing_of_the_administrators_access(bootstrap: Bootstrap) -> None:
    del bootstrap.drawer.secrets["admin"]
    bootstrap.offer()
    access = dict(bootstrap.drawer.platform["platform", "postgres"])

    def hold(**data: str) -> None:
        bootstrap.drawer.platform["platform", "postgres"] = access | {k: v.encode() for k, v in data.items()}

    told = []
    hold(password=CANARY, username=f"user-{CANARY}")
    told.append(refused(await bootstrap.apply(), Reason.ADMIN_LOGIN_REFUSED))
    hold(password=f"{CANARY}\n")
    told.append(refused(await bootstrap.apply(), Reason.REFERENCE_REJECTED))
    hold(uri=f"postgres://a:{CANARY}@h/d?service=x")
    told.append(refused(await bootstrap.apply(), Reason.REFERENCE_REJECTED))
    del bootstrap.drawer.platform["platform", "postgres"]
    told.append(refused(await bootstrap.apply(), Reason.REFERENCE_NOT_FOUND))
    words = f'The Kubernetes API does not let the operator get secrets "{CANARY}" in namespace platform'
    bootstrap.drawer.unreadable = ClusterUnavailable(words, forbidden=True)
    told.append(refused(await bootstrap.apply(), Reason.REFERENCE_NOT_FOUND))
    seen = (await bootstrap.engine.inspect(bootstrap.drawer.servers["main"], bootstrap.drawer, "tests")).error
    assert seen and seen.message.startswith(f"{words}. Apply the operator's RBAC rules again")
    bootstrap.drawer.unreadable = ClusterUnavailable(f"It did not answer: get secrets {CANARY} in namespace platform")
    assert refused(await bootstrap.apply(), Reason.CLUSTER_UNAVAILABLE) == "The Kubernetes API does not answer"
    for said in told:
        assert "main" in said
        assert CANARY not in said
        assert "Secret" not in said and "platform" not in said


async def test_server_that_is_not_there_is_waited_for(bootstrap: Bootstrap) -> None:
    bootstrap.raw["server"] = {"ref": {"name": "main"}}
    assert "DatabaseServer main is not there" in refused(await bootstrap.apply(), Reason.REFERENCE_NOT_FOUND)
    bootstrap.offer()
    await bootstrap.ready()


async def test_deletion_without_the_server_keeps_everything(
    bootstrap: Bootstrap, made: Callable[[], list[Any]]
) -> None:
    bootstrap.offer()
    bootstrap.raw["deletionPolicy"] = "Delete"
    bootstrap.remember(await bootstrap.ready())
    offers, there = dict(bootstrap.drawer.servers), made()
    bootstrap.drawer.servers.clear()
    ending = await bootstrap.delete()
    assert ending.error and "DatabaseServer main is not there" in ending.error.message
    assert ending.drops == ()
    assert made() == there
    # Nor does a namespace that is not let in any more drop anything; what it asked for beyond that is no matter.
    bootstrap.offer(allowedNamespaces=None)
    assert "may not use it" in str((await bootstrap.delete()).error)
    bootstrap.raw["extensions"] = [{"name": "pg_trgm"}]
    bootstrap.drawer.servers = offers
    assert (await bootstrap.delete()).error is None
    assert made() == []


async def test_operator_can_refuse_admin_secrets_of_tenants(bootstrap: Bootstrap) -> None:
    engine = Engine(admin_secret_refs=AdminSecretRefs.REFUSED)
    strict = replace(bootstrap, engine=engine)
    try:
        assert "name a DatabaseServer in server.ref" in refused(await strict.apply())
        strict.offer()
        await strict.ready()
    finally:
        await engine.stop()


async def test_guessed_passwords_do_not_multiply_with_resources(
    bootstrap: Bootstrap, make_bootstrap: Callable[[str], Bootstrap]
) -> None:
    """One namespace guesses with many resources and Secrets, under several names of the server's."""
    since = len(bootstrap.server.said())
    victim = bootstrap.admin.user
    guessers = [make_bootstrap(f"guess{number}") for number in range(8)]
    for number, guesser in enumerate(guessers):
        access = {"host": ("127.0.0.1", "localhost")[number % 2], "port": str(bootstrap.server.port)}
        guesser.drawer.put("admin", access | {"username": victim, "password": f"guess {number}"})
    for _ in range(3):
        for report in await asyncio.gather(*(guesser.apply() for guesser in guessers)):
            refused(report, Reason.ADMIN_LOGIN_REFUSED)
    tried = bootstrap.server.said(since).count(f'password authentication failed for user "{victim}"')
    assert 1 <= tried <= 3, "one for each delay that was over"
    # Who serves the same server to others is not held up by it.
    bootstrap.offer()
    await bootstrap.ready()


async def test_guessed_passwords_of_a_role_do_not_multiply_either(
    bootstrap: Bootstrap, make_bootstrap: Callable[[str], Bootstrap]
) -> None:
    """Somebody says by Secrets of their own hand that a neighbour's role is theirs, so that it is tried as a role."""
    await bootstrap.ready()
    victim, port = bootstrap.role, bootstrap.server.port
    claim = Connection(host="127.0.0.1", port=port, database="postgres", user=victim, password="x")
    guessers = [make_bootstrap(f"guess{number}") for number in range(8)]
    since = len(bootstrap.server.said())
    for _ in range(5):
        for guesser in guessers:
            guesser.raw["role"] = {"name": victim, "passwordSecretRef": {"name": "own"}}
            guesser.drawer.put("own", {"password": secrets.token_hex(4)})
            guesser.drawer.put("admin", {"host": "127.0.0.1", "port": str(port), "username": "x", "password": "x"})
            guesser.drawer.put(f"{guesser.owner.name}-db", secret_data(claim), ours=True)
        for report in await asyncio.gather(*(guesser.apply() for guesser in guessers)):
            refused(report, Reason.ADMIN_LOGIN_REFUSED)
    tried = bootstrap.server.said(since).count(f'password authentication failed for user "{victim}"')
    assert 3 <= tried <= 15, "three, as many as were under way meanwhile, and one for each delay that was over"
    assert (await bootstrap.ready()).changes == ()


async def test_comments_of_tenants_keep_nobody_from_looking_at_the_server(bootstrap: Bootstrap) -> None:
    """The owner of a database writes its comment: a mark that ends no reader, and more text than a reader can hold."""
    bootstrap.offer()
    bootstrap.raw["deletionPolicy"] = "Delete"
    bootstrap.remember(await bootstrap.ready())
    offered, name = bootstrap.drawer.servers["main"], f'"{bootstrap.database}"'
    mark = f"(SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{bootstrap.database}')"
    ((kept,),) = bootstrap.query(f"SELECT {mark}")
    comment = "DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE {} IS %L', {}); END $$"
    bootstrap.query(comment.format(name, "'dbbootstrap.io/owner ' || repeat('[', 5000)"))
    assert (await bootstrap.engine.inspect(offered, bootstrap.drawer, "tests")).error is None
    assert len((await bootstrap.ready()).changes) == 1, "the mark is there again"
    bootstrap.query(comment.format(name, f"repeat('{'x' * 63}' || chr(10), 2000) || {mark}"))
    inspection = await bootstrap.engine.inspect(offered, bootstrap.drawer, "tests")
    assert (inspection.error, inspection.found.databases) == (None, 1)
    refused(await bootstrap.apply(), Reason.SPEC_REJECTED)
    ending = await bootstrap.delete()
    assert ending.error and f"The comment of database {name} is longer" in ending.error.message
    assert ending.drops == ()
    bootstrap.query(f"COMMENT ON DATABASE {name} IS $${kept}$$")
    assert (await bootstrap.ready()).changes == ()


async def test_inspection_learns_what_the_server_is(bootstrap: Bootstrap) -> None:
    bootstrap.offer()
    await bootstrap.ready()
    offered = bootstrap.drawer.servers["main"]
    inspection = await bootstrap.engine.inspect(offered, bootstrap.drawer, "tests")
    assert inspection.error is None
    found = inspection.found
    assert found.server and found.server.version and found.server.version.startswith(str(bootstrap.server.major))
    assert found.databases == 1
    assert found.missing_rights == ()
    # Databases of other clusters' resources are not this one's to count.
    assert (await bootstrap.engine.inspect(offered, bootstrap.drawer, "other")).found.databases == 0
    bootstrap.drawer.platform.clear()
    error = (await bootstrap.engine.inspect(offered, bootstrap.drawer, "tests")).error
    assert error and "Secret platform/postgres is not there" in error.message


@pytest.mark.pg(">= 16")
async def test_inspection_names_roles_that_another_administrator_has_made(
    bootstrap: Bootstrap, unique_name: Callable[[str], str]
) -> None:
    bootstrap.offer()
    await bootstrap.ready()
    other = unique_name("other_admin")
    bootstrap.as_superuser(f"CREATE ROLE \"{other}\" LOGIN CREATEROLE CREATEDB PASSWORD 'other'")
    access = bootstrap.drawer.platform["platform", "postgres"]
    bootstrap.drawer.platform["platform", "postgres"] = {**access, "username": other.encode(), "password": b"other"}
    offered = bootstrap.drawer.servers["main"]
    (missing,) = (await bootstrap.engine.inspect(offered, bootstrap.drawer, "tests")).found.missing_rights
    assert missing.sql == f'GRANT "{bootstrap.role}" TO "{other}" WITH ADMIN OPTION'
    bootstrap.as_superuser(missing.sql)
    assert (await bootstrap.engine.inspect(offered, bootstrap.drawer, "tests")).found.missing_rights == ()


async def test_server_that_is_not_there_now_is_an_outage_for_its_own_status_too(bootstrap: Bootstrap) -> None:
    bootstrap.offer()
    bootstrap.drawer.platform["platform", "postgres"] = {
        "host": b"127.0.0.1",
        "port": str(free_port()).encode(),
        "username": b"a",
        "password": b"b",
    }
    inspection = await bootstrap.engine.inspect(bootstrap.drawer.servers["main"], bootstrap.drawer, "tests")
    assert inspection.error and inspection.error.reason == "ServerUnreachable"
    assert inspection.outage is not None
    report = await bootstrap.apply()
    assert report.outage is inspection.outage


async def test_unchanged_resource_goes_on_while_the_platforms_secret_is_missing(bootstrap: Bootstrap) -> None:
    bootstrap.offer(publicHost="db.example.org")
    bootstrap.remember(await bootstrap.ready())
    bootstrap.drawer.unreadable = ClusterUnavailable("The operator may not read it", forbidden=True)
    assert (await bootstrap.ready()).changes == ()
    bootstrap.drawer.unreadable = None
    bootstrap.drawer.platform.clear()
    assert (await bootstrap.ready()).changes == ()
    bootstrap.raw["role"]["connectionLimit"] = 20
    refused(await bootstrap.apply(), Reason.REFERENCE_NOT_FOUND)


async def test_operator_opens_no_more_connections_than_the_server_allows_it(
    bootstrap: Bootstrap, make_bootstrap: Callable[[str], Bootstrap]
) -> None:
    several = [bootstrap, *(make_bootstrap(f"more{number}") for number in range(3))]
    for number, one in enumerate(several):
        # Under another name, and on wider terms, it is the same server.
        one.offer(("main", "wide")[number % 2], maxConnections=(3, 9)[number % 2])
        one.migrate("SQL", {"V1__a.sql": "SELECT pg_sleep(0.3);"})
    with SessionCount(bootstrap.server) as count:
        reports = await asyncio.gather(*(one.apply() for one in several))
    assert [report.trouble for report in reports] == [None] * 4
    assert 1 <= count.most <= 3
