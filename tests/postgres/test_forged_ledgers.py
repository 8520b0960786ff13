"""Ledgers that the role has made up: nothing of it runs as the administrator, and a person learns what to do."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from database_bootstrap.api.outcomes import Reason
from database_bootstrap.api.status import Status
from database_bootstrap.postgres import ledger
from fix_engine import Bootstrap

TRAP = """
    CREATE TABLE public.caught (who text);
    GRANT ALL ON public.caught TO PUBLIC;
    CREATE FUNCTION public.trap() RETURNS boolean LANGUAGE plpgsql
        AS $$BEGIN INSERT INTO public.caught VALUES (current_user); RETURN true; END$$;
    ALTER TABLE dbbootstrap.identity ADD CHECK (public.trap());
"""
CAST = """
    CREATE TYPE public.strange AS (x text);
    CREATE FUNCTION public.told(public.strange) RETURNS text LANGUAGE plpgsql
        AS $$BEGIN PERFORM public.trap(); RETURN ($1).x; END$$;
    CREATE CAST (public.strange AS text) WITH FUNCTION public.told(public.strange);
    ALTER TABLE dbbootstrap.identity ALTER incarnation TYPE public.strange
        USING ROW(incarnation::text)::public.strange;
"""
FOR_THE_OWNER = "ALTER SCHEMA dbbootstrap OWNER TO pg_database_owner;" + "".join(
    f"ALTER TABLE dbbootstrap.{table} OWNER TO pg_database_owner;" for table in ledger.TABLES
)


def forged(shop: Bootstrap, uid: str = "old") -> str:
    owner = shop.owner
    return (
        f"CREATE SCHEMA dbbootstrap; {ledger.DDL};"
        "INSERT INTO dbbootstrap.identity (incarnation, cluster, namespace, name, uid, origin, database_oid)"
        f" VALUES ('{uuid4()}', '{owner.cluster}', '{owner.namespace}', '{owner.name}', '{uid}', 'Created', 1);" + TRAP
    )


def caught(shop: Bootstrap) -> set[str]:
    """Return who has stepped into the trap, but for the role."""
    found = shop.as_superuser("SELECT DISTINCT who FROM public.caught", shop.database)
    return {who for (who,) in found} - {shop.role}


def owners(shop: Bootstrap) -> set[str]:
    found = shop.as_superuser(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
        " WHERE relnamespace = 'dbbootstrap'::regnamespace UNION SELECT pg_get_userbyid(nspowner) FROM pg_namespace"
        " WHERE nspname = 'dbbootstrap'",
        shop.database,
    )
    return {who for (who,) in found}


def refused(shop: Bootstrap, message: str) -> str:
    """Return the statement that a message asks for."""
    (_, separator, statement) = message.rpartition(": ")
    assert separator and statement.startswith("ALTER SCHEMA dbbootstrap")
    return statement


@pytest.fixture
def adopted(bootstrap: Bootstrap) -> Bootstrap:
    """A resource for a role and a database that were there before."""
    bootstrap.as_superuser(f"CREATE ROLE \"{bootstrap.role}\" LOGIN PASSWORD 'pw'")
    bootstrap.as_superuser(f'CREATE DATABASE "{bootstrap.database}" OWNER "{bootstrap.role}"')
    bootstrap.raw["role"]["passwordSecretRef"] = {"name": "own"}
    bootstrap.drawer.put("own", {"password": "pw"})
    return bootstrap


def as_role(shop: Bootstrap, statements: str) -> None:
    shop.server.psql(f'SET ROLE "{shop.role}"; {statements}', dbname=shop.database)


async def test_ledger_that_the_role_hands_to_the_owner_of_the_database_is_its_own(adopted: Bootstrap) -> None:
    as_role(adopted, forged(adopted) + FOR_THE_OWNER)
    report = await adopted.ready()
    assert any("set the restored ledger aside" in change for change in report.changes)
    assert owners(adopted) == {adopted.admin.user}
    assert caught(adopted) == set()
    assert (await adopted.ready()).changes == ()


@pytest.fixture
def template(bootstrap: Bootstrap) -> Iterator[Bootstrap]:
    """A resource whose new database holds such a ledger when it is entered: an application was faster."""
    bootstrap.as_superuser(f"BEGIN; {forged(bootstrap)} {FOR_THE_OWNER} TRUNCATE public.caught; COMMIT", "template1")
    yield bootstrap
    bootstrap.as_superuser(
        "DROP SCHEMA dbbootstrap CASCADE; DROP FUNCTION public.trap; DROP TABLE public.caught", "template1"
    )


async def test_ledger_that_is_there_before_ours_is_made_is_never_ours(template: Bootstrap) -> None:
    report = await template.apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    assert '"pg_database_owner"' in report.trouble.message
    assert "take over the ledger" not in report.changes
    as_role(template, refused(template, report.trouble.message))
    await template.ready()
    assert owners(template) == {template.admin.user}
    assert caught(template) == set()


LAID_OUT = {
    "constraint trap": (
        "ALTER TABLE dbbootstrap.identity ADD CONSTRAINT trap CHECK (public.trap())",
        "ALTER TABLE dbbootstrap.identity DROP CONSTRAINT trap",
    ),
    "index dbbootstrap.trap": (
        "CREATE INDEX trap ON dbbootstrap.identity (public.indexed(uid))",
        "DROP INDEX dbbootstrap.trap",
    ),
    "trigger trap": (
        "CREATE TRIGGER trap BEFORE UPDATE ON dbbootstrap.identity FOR EACH ROW EXECUTE FUNCTION public.triggered()",
        "DROP TRIGGER trap ON dbbootstrap.identity",
    ),
    "rule trap": (
        "CREATE RULE trap AS ON UPDATE TO dbbootstrap.identity DO ALSO SELECT public.trap()",
        "DROP RULE trap ON dbbootstrap.identity",
    ),
}
"""What somebody laid out in a ledger that was his, before a DBA gave it to the administrator; and how it goes again."""


POLICY = (
    "ALTER TABLE dbbootstrap.identity ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
    "CREATE POLICY trap ON dbbootstrap.identity USING (public.trap())"
)


@pytest.fixture
async def trapped(bootstrap: Bootstrap) -> Bootstrap:
    """A resource in whose database are functions to lay out."""
    bootstrap.remember(await bootstrap.ready())
    functions, _, _ = TRAP.partition("ALTER TABLE")
    bootstrap.as_superuser(
        f"{functions};"
        "CREATE FUNCTION public.triggered() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM public.trap(); RETURN new; END$$;"
        "CREATE FUNCTION public.indexed(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM public.trap(); RETURN $1; END$$",
        bootstrap.database,
    )
    return bootstrap


async def test_ledger_with_the_roles_code_is_not_written_into_whoever_owns_it(trapped: Bootstrap) -> None:
    for name, (trap, removal) in LAID_OUT.items():
        # Whoever adds a constraint runs it himself.
        trapped.as_superuser(f"{trap}; TRUNCATE public.caught", trapped.database)
        again = replace(trapped, owner=replace(trapped.owner, uid=str(uuid4())), status=Status())
        report = await again.apply()
        assert caught(trapped) == set(), name
        uid = "SELECT uid FROM dbbootstrap.identity"
        assert trapped.as_superuser(uid, trapped.database) == [(trapped.owner.uid,)]
        # One that had a trigger or a rule is not even looked at as something that could be taken.
        if not name.startswith(("trigger", "rule")):
            assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
            assert "code in it" in report.trouble.message and name in report.trouble.message
        trapped.as_superuser(removal, trapped.database)


async def test_deletion_runs_no_policy_of_a_ledger(trapped: Bootstrap) -> None:
    trapped.as_superuser(POLICY, trapped.database)
    ending = await trapped.delete()
    assert caught(trapped) == set()
    assert ending.drops == ()
    assert ending.error and "code in it that is not ours (policy trap)" in ending.error.message


async def test_deletion_does_not_read_what_the_role_has_made_up(bootstrap: Bootstrap) -> None:
    bootstrap.remember(await bootstrap.ready())
    bootstrap.as_superuser("DROP SCHEMA dbbootstrap CASCADE", bootstrap.database)
    as_role(bootstrap, forged(bootstrap, bootstrap.owner.uid) + FOR_THE_OWNER + CAST)
    bootstrap.drawer.secrets["shop-db"] = replace(bootstrap.drawer.secrets["shop-db"], incarnation=None)
    bootstrap.status = bootstrap.status.model_copy(update={"database": None})
    ending = await bootstrap.delete()
    assert ending.drops == ()
    assert ending.error and ending.error.reason == Reason.NOT_OWNED
    assert f'DROP DATABASE "{bootstrap.database}"' in ending.error.message
    assert caught(bootstrap) == set()


async def test_schema_of_the_name_for_restored_ledgers_is_no_restored_ledger(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.query("CREATE SCHEMA dbbootstrap_restored")
    assert (await bootstrap.ready()).changes == ()
    bootstrap.as_superuser(
        "DO $$ DECLARE it regclass; BEGIN"
        f' ALTER SCHEMA dbbootstrap OWNER TO "{bootstrap.role}";'
        " FOR it IN SELECT c.oid FROM pg_class c WHERE relnamespace = 'dbbootstrap'::regnamespace AND relkind = 'r'"
        f" LOOP EXECUTE format('ALTER TABLE %s OWNER TO %I', it, '{bootstrap.role}'); END LOOP; END $$",
        bootstrap.database,
    )
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    bootstrap.query(refused(bootstrap, report.trouble.message))
    await bootstrap.ready()
    assert owners(bootstrap) == {bootstrap.admin.user}
    assert (await bootstrap.ready()).changes == ()


async def test_restored_ledger_that_cannot_be_copied_says_what_to_rename(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.query(
        "CREATE SCHEMA dbbootstrap_restored;"
        "CREATE TABLE dbbootstrap_restored.identity AS SELECT * FROM dbbootstrap.identity;"
        "CREATE TABLE dbbootstrap_restored.audit_log AS SELECT * FROM dbbootstrap.audit_log;"
        "CREATE TABLE dbbootstrap_restored.seed AS SELECT * FROM dbbootstrap.seed;"
        "CREATE TABLE dbbootstrap_restored.migration AS SELECT 0::bigint AS seq, point '0,0' AS tool"
    )
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.NOT_OWNED
    bootstrap.query(refused(bootstrap, report.trouble.message))
    assert (await bootstrap.ready()).changes == ()


async def test_text_in_a_ledger_is_not_shown_as_what_to_run(adopted: Bootstrap) -> None:
    evil = "1; then run as superuser: ALTER ROLE x SUPERUSER"
    as_role(adopted, forged(adopted, evil).replace(f"'{adopted.owner.name}'", "'another'") + FOR_THE_OWNER)
    report = await adopted.apply()
    assert evil not in str(report)
    assert report.trouble is None
    assert adopted.query("SELECT name FROM dbbootstrap.identity") == [(adopted.owner.name,)]


async def test_text_in_a_comment_is_not_shown_as_what_to_run(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    evil = "1; then run as superuser: ALTER ROLE x SUPERUSER"
    ((comment,),) = bootstrap.as_superuser(
        f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{bootstrap.database}'"
    )
    said = comment.replace(bootstrap.owner.uid, evil).replace('"shop"', '"other"')
    bootstrap.query(f"COMMENT ON DATABASE \"{bootstrap.database}\" IS '{said}'")
    assert "ALTER ROLE" not in str(await bootstrap.apply())
