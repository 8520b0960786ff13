"""Extensions: absent → made, present → nothing, another version or schema, unknown, and those for superusers only."""

import pytest

from database_bootstrap.api.outcomes import Reason, StageName, Verdict
from fix_engine import Bootstrap, outcome
from localservers import Credentials


async def test_trusted_extension_is_made_by_the_owner(bootstrap: Bootstrap) -> None:
    bootstrap.raw["extensions"] = [{"name": "pg_trgm"}]
    report = await bootstrap.ready()
    assert "create extension pg_trgm" in report.changes
    assert bootstrap.query(
        "SELECT extowner::regrole::text, extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_trgm'"
    ) == [(f'"{bootstrap.role}"' if bootstrap.role != bootstrap.role.lower() else bootstrap.role, "public")]
    assert (await bootstrap.ready()).changes == ()
    assert report.facts.extensions and report.facts.extensions[0].name == "pg_trgm"


async def test_extension_goes_into_the_named_schema(bootstrap: Bootstrap) -> None:
    bootstrap.raw["schemas"] = [{"name": "tools"}]
    bootstrap.raw["extensions"] = [{"name": "pg_trgm", "schema": "tools", "version": "1.6"}]
    report = await bootstrap.ready()
    assert report.facts.extensions and report.facts.extensions[0].schema_name == "tools"
    bootstrap.raw["extensions"] = [{"name": "pg_trgm", "schema": "public"}]
    trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.reason is Reason.SETTING_MISMATCH


async def test_older_extension_is_updated_when_a_version_is_named(bootstrap: Bootstrap) -> None:
    bootstrap.raw["extensions"] = [{"name": "pg_trgm", "version": "1.3"}]
    await bootstrap.ready()
    bootstrap.raw["extensions"] = [{"name": "pg_trgm"}]
    assert (await bootstrap.ready()).changes == ()
    bootstrap.raw["extensions"] = [{"name": "pg_trgm", "version": "1.6"}]
    assert (await bootstrap.ready()).changes == ("update extension pg_trgm to 1.6",)


async def test_unknown_extension_is_named_and_the_stages_before_stay_true(bootstrap: Bootstrap) -> None:
    bootstrap.raw["extensions"] = [{"name": "pg_trgm"}, {"name": "no_such_thing"}]
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.EXTENSION_UNAVAILABLE
    assert "no_such_thing" in report.trouble.message and "package" in report.trouble.message
    assert outcome(report, StageName.ROLE).verdict is Verdict.DONE
    assert outcome(report, StageName.DATABASE).verdict is Verdict.DONE
    assert outcome(report, StageName.SEED).verdict is Verdict.BLOCKED
    assert "shop-db" not in bootstrap.drawer.secrets


async def test_unknown_version_lists_those_that_are_there(bootstrap: Bootstrap) -> None:
    bootstrap.raw["extensions"] = [{"name": "pg_trgm", "version": "99"}]
    trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.reason is Reason.EXTENSION_UNAVAILABLE
    assert "1.6" in trouble.message


async def test_extension_for_superusers_goes_where_the_role_cannot_create(
    bootstrap: Bootstrap, admin: Credentials, request: pytest.FixtureRequest
) -> None:
    bootstrap.raw["extensions"] = [{"name": "pageinspect"}]
    report = await bootstrap.apply()
    if "createrole" in request.node.name:
        assert report.trouble and report.trouble.reason is Reason.ACCESS_DENIED
        assert "pageinspect" in report.trouble.message
        # Schema, check and extension are one transaction: what fails leaves no schema behind.
        query = "SELECT 1 FROM pg_namespace WHERE nspname = 'extensions'"
        assert bootstrap.as_superuser(query, bootstrap.database) == []
        return
    assert report.trouble is None
    assert report.facts.extensions and report.facts.extensions[0].schema_name == "extensions"
    assert bootstrap.query("SELECT has_schema_privilege('extensions', 'CREATE')") == [(False,)]


async def test_extension_for_superusers_is_refused_where_the_role_can_create(
    bootstrap: Bootstrap, request: pytest.FixtureRequest
) -> None:
    bootstrap.raw["extensions"] = [{"name": "pageinspect", "schema": "public"}]
    trouble = (await bootstrap.apply()).trouble
    assert trouble and trouble.reason is Reason.SPEC_REJECTED
    assert "public" in trouble.message


async def test_extension_that_nobody_named_is_left_alone(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.query("CREATE EXTENSION pg_trgm")
    assert (await bootstrap.ready()).changes == ()
    assert bootstrap.query("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'") == [(1,)]


async def test_update_for_superusers_is_refused_where_the_role_can_create(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    bootstrap.as_superuser("CREATE EXTENSION pageinspect VERSION '1.5' SCHEMA public", bootstrap.database)
    bootstrap.raw["extensions"] = [{"name": "pageinspect", "version": "1.6"}]
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.SPEC_REJECTED
    assert report.changes == ()


async def test_extension_is_not_even_begun_where_others_can_create(bootstrap: Bootstrap) -> None:
    """Its script has run code of theirs by then, and not all that code does is rolled back."""
    await bootstrap.ready()
    bootstrap.as_superuser(
        "CREATE SEQUENCE public.begun; CREATE FUNCTION public.note() RETURNS event_trigger SECURITY DEFINER"
        " LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.nextval('public.begun'); END $$;"
        "CREATE EVENT TRIGGER begun ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION', 'ALTER EXTENSION')"
        " EXECUTE FUNCTION public.note()",
        bootstrap.database,
    )
    begun = "SELECT is_called FROM public.begun"
    bootstrap.raw["extensions"] = [{"name": "pageinspect", "schema": "public"}]
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.SPEC_REJECTED
    assert bootstrap.as_superuser(begun, bootstrap.database) == [(False,)]
    # That the sequence tells: a superuser may do what the operator does not.
    bootstrap.as_superuser("CREATE EXTENSION pageinspect VERSION '1.5' SCHEMA public", bootstrap.database)
    assert bootstrap.as_superuser(begun, bootstrap.database) == [(True,)]
    bootstrap.as_superuser("SELECT setval('public.begun', 1, false)", bootstrap.database)
    bootstrap.raw["extensions"] = [{"name": "pageinspect", "version": "1.6"}]
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.SPEC_REJECTED
    assert bootstrap.as_superuser(begun, bootstrap.database) == [(False,)]


async def test_extension_schema_of_an_accomplice_is_refused(bootstrap: Bootstrap) -> None:
    await bootstrap.ready()
    accomplice = bootstrap.role + "_2"
    bootstrap.as_superuser(
        f'CREATE ROLE "{accomplice}"; GRANT CREATE ON DATABASE "{bootstrap.database}" TO "{accomplice}"'
    )
    bootstrap.as_superuser(f'CREATE SCHEMA extensions AUTHORIZATION "{accomplice}"', bootstrap.database)
    bootstrap.raw["extensions"] = [{"name": "pageinspect"}]
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.SPEC_REJECTED


async def test_extension_of_another_owner_is_updated_by_the_administrator(
    bootstrap: Bootstrap, request: pytest.FixtureRequest
) -> None:
    await bootstrap.ready()
    bootstrap.as_superuser(
        "CREATE SCHEMA theirs; CREATE EXTENSION pg_trgm VERSION '1.5' SCHEMA theirs", bootstrap.database
    )
    bootstrap.raw["extensions"] = [{"name": "pg_trgm", "version": "1.6"}]
    report = await bootstrap.apply()
    if "createrole" in request.node.name:
        assert report.trouble and report.trouble.verdict is Verdict.STALLED
        return
    assert report.changes == ("update extension pg_trgm to 1.6",)
