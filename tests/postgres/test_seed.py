"""Seed: into an empty database, once, all or nothing."""

import asyncio

import psycopg
import pytest

from database_bootstrap.api.outcomes import Reason, StageName, Verdict
from database_bootstrap.postgres import locks
from fix_engine import Bootstrap, outcome, within

TABLES = {
    "1_tables.sql": """
        CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE NOT NULL);
        CREATE TABLE countries (code text PRIMARY KEY);
        CREATE TABLE "Odd Name" (id int GENERATED ALWAYS AS IDENTITY, "a b" text);
    """
}
USERS = {"01_users.sql": "INSERT INTO users (id, email) VALUES (1, 'a@example.com'), (2, 'b@example.com');"}

WAITS_FOR_A_TABLE = "SELECT 1 FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'"
TRIES_THE_LOCK = "SELECT 1 FROM pg_stat_activity WHERE usename = '{}' AND query ~ 'pg_try_advisory_lock'"


@pytest.fixture
def shop(bootstrap: Bootstrap) -> Bootstrap:
    bootstrap.migrate("SQL", TABLES)
    return bootstrap


async def test_seed_runs_once_and_a_restart_changes_nothing(shop: Bootstrap) -> None:
    shop.seed(USERS)
    report = await shop.ready()
    assert outcome(report, StageName.SEED).reason is Reason.DATABASE_SEEDED
    assert report.facts.seed and report.facts.seed.state == "Seeded"
    assert shop.query("SELECT count(*) FROM users") == [(2,)]
    assert shop.query("SELECT state, rows FROM dbbootstrap.seed") == [("seeded", 2)]
    assert (await shop.ready()).changes == ()
    assert shop.query("SELECT count(*) FROM users") == [(2,)]


async def test_script_that_is_one_transaction_itself_stays_in_ours(shop: Bootstrap) -> None:
    shop.seed({"1.sql": "BEGIN;\nINSERT INTO users (email) VALUES ('a');\nCOMMIT;", "2.sql": "SELECT 1 / 0"})
    report = await shop.apply()
    assert report.trouble and report.trouble.reason is Reason.SEED_FAILED
    assert shop.as_superuser("SELECT count(*) FROM users", shop.database) == [(0,)]


async def test_deleted_rows_do_not_come_back(shop: Bootstrap) -> None:
    shop.seed(USERS)
    await shop.ready()
    shop.query("DELETE FROM users")
    assert (await shop.ready()).changes == ()
    assert shop.query("SELECT count(*) FROM users") == [(0,)]


async def test_changed_seed_is_said_and_not_put_in(shop: Bootstrap) -> None:
    shop.seed(USERS)
    await shop.ready()
    shop.seed({"01_users.sql": "INSERT INTO users (email) VALUES ('c@example.com')"})
    report = await shop.ready()
    assert report.changes == ()
    assert outcome(report, StageName.SEED).warnings
    assert shop.query("SELECT count(*) FROM users") == [(2,)]


async def test_first_insert_of_the_application_finds_a_free_number(shop: Bootstrap) -> None:
    shop.seed(USERS)
    await shop.ready()
    assert shop.query("INSERT INTO users (email) VALUES ('test@example.com') RETURNING id") == [(3,)]


async def test_sequences_are_never_lowered(shop: Bootstrap) -> None:
    await shop.ready()
    shop.query("SELECT setval('users_id_seq', 100)")
    shop.seed(USERS)
    await shop.ready()
    assert shop.query("INSERT INTO users (email) VALUES ('test@example.com') RETURNING id") == [(101,)]


async def test_seed_that_fails_at_its_last_row_leaves_nothing(shop: Bootstrap) -> None:
    shop.seed(
        USERS
        | {
            "02_more.sql": "INSERT INTO countries VALUES ('AT');\n"
            "INSERT INTO users (id, email) VALUES (3, 'a@example.com');"
        }
    )
    report = await shop.apply()
    assert report.trouble and report.trouble.reason is Reason.SEED_FAILED
    assert "02_more.sql" in report.trouble.message and "23505" in report.trouble.message
    assert "a@example.com" not in report.trouble.message
    for table in ("users", "countries", "dbbootstrap.seed"):
        assert shop.as_superuser(f"SELECT count(*) FROM {table}", shop.database) == [(0,)]
    shop.seed(USERS)
    await shop.ready()
    assert shop.query("SELECT count(*) FROM users") == [(2,)]


async def test_rows_that_were_there_are_adopted_and_named(shop: Bootstrap) -> None:
    await shop.ready()
    shop.query("INSERT INTO users (email) VALUES ('old@example.com')")
    shop.seed(USERS)
    report = await shop.ready()
    assert outcome(report, StageName.SEED).reason is Reason.SEED_NOT_NEEDED
    assert "public.users" in outcome(report, StageName.SEED).message
    assert report.facts.seed and report.facts.seed.state == "Adopted"
    assert shop.query("SELECT email FROM users") == [("old@example.com",)]
    assert (await shop.ready()).changes == ()


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        pytest.param("CREATE SCHEMA topology AUTHORIZATION {}", Reason.SEED_NOT_NEEDED, id="the role's own"),
        pytest.param("CREATE SCHEMA topology", Reason.DATABASE_SEEDED, id="another's"),
        pytest.param(
            "CREATE SCHEMA topology AUTHORIZATION {}; CREATE EXTENSION hstore SCHEMA topology",
            Reason.DATABASE_SEEDED,
            id="an extension's",
        ),
    ],
)
async def test_schema_is_a_provider_s_by_more_than_its_name(shop: Bootstrap, schema: str, reason: Reason) -> None:
    await shop.ready()
    make = "CREATE TABLE topology.routers AS SELECT 1 AS id; GRANT USAGE ON SCHEMA topology TO PUBLIC"
    shop.as_superuser(f"SET client_min_messages = error; {schema.format(shop.role)}; {make}", shop.database)
    shop.seed(USERS)
    if reason is Reason.SEED_NOT_NEEDED:
        shop.as_superuser(f"ALTER TABLE topology.routers OWNER TO {shop.role}", shop.database)
    assert outcome(await shop.ready(), StageName.SEED).reason is reason


async def test_adoption_is_reconsidered_when_the_question_changes(shop: Bootstrap) -> None:
    shop.migrate("SQL", TABLES | {"2_countries.sql": "INSERT INTO countries VALUES ('AT')"})
    shop.seed(USERS)
    assert outcome(await shop.ready(), StageName.SEED).reason is Reason.SEED_NOT_NEEDED
    shop.seed(USERS, ignoreTables=["public.countries"])
    assert outcome(await shop.ready(), StageName.SEED).reason is Reason.DATABASE_SEEDED
    assert shop.query("SELECT count(*) FROM users") == [(2,)]


async def test_policy_once_seeds_although_there_are_rows(shop: Bootstrap) -> None:
    await shop.ready()
    shop.query("INSERT INTO countries VALUES ('AT')")
    shop.seed(USERS, policy="Once")
    await shop.ready()
    assert shop.query("SELECT count(*) FROM users") == [(2,)]
    assert (await shop.ready()).changes == ()


async def test_policy_never_does_nothing(shop: Bootstrap) -> None:
    shop.seed(USERS, policy="Never")
    assert outcome(await shop.ready(), StageName.SEED).reason is Reason.NOT_REQUESTED
    assert shop.query("SELECT count(*) FROM users") == [(0,)]


async def test_rows_behind_forced_row_level_security_count(shop: Bootstrap) -> None:
    await shop.ready()
    shop.query(
        "INSERT INTO users (email) VALUES ('hidden@example.com');"
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY"
    )
    shop.seed(USERS)
    assert outcome(await shop.ready(), StageName.SEED).reason is Reason.SEED_NOT_NEEDED


async def test_csv_goes_into_the_table_of_its_name(shop: Bootstrap) -> None:
    shop.seed(
        {
            "1/users.csv": '\ufeffid,email\r\n7,"x,y@example.com"\r\n8,"two\nlines"\r\n',
            "2/public.Odd Name.csv": "a b\nhello\n",
        }
    )
    await shop.ready()
    assert shop.query("SELECT email FROM users ORDER BY id") == [("x,y@example.com",), ("two\nlines",)]
    assert shop.query('SELECT id, "a b" FROM "Odd Name"') == [(1, "hello")]
    assert shop.query("INSERT INTO users (email) VALUES ('n') RETURNING id") == [(9,)]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("users.txt", "x", id="unknown-kind"),
        pytest.param("users.sql", "SELECT 1; BEGIN; INSERT INTO users VALUES (1, 'a'); COMMIT;", id="own-transaction"),
        pytest.param("users.sql", "VACUUM users", id="not-in-a-transaction"),
        pytest.param("users.sql", "\\copy users from 'x'", id="psql"),
        pytest.param("a.b.c.csv", "id\n1\n", id="csv-of-no-table"),
        pytest.param("users.csv", "", id="csv-without-columns"),
    ],
)
async def test_file_that_is_no_seed_is_refused_before_anything_runs(shop: Bootstrap, path: str, text: str) -> None:
    shop.seed({"00_first.sql": "INSERT INTO countries VALUES ('AT')", path: text})
    report = await shop.apply()
    assert report.trouble and report.trouble.reason is Reason.BUNDLE_REJECTED
    assert path in report.trouble.message
    assert shop.as_superuser("SELECT count(*) FROM countries", shop.database) == [(0,)]


async def test_racing_visits_seed_exactly_once(shop: Bootstrap) -> None:
    await shop.ready()
    shop.seed(USERS)
    reports = await asyncio.gather(*(shop.apply() for _ in range(4)))
    assert [report.trouble for report in reports] == [None] * 4
    assert shop.query("SELECT count(*) FROM users") == [(2,)]
    assert shop.query("SELECT count(*) FROM dbbootstrap.seed") == [(1,)]


async def test_rows_that_another_visit_puts_in_between_the_two_looks_are_its_seed(shop: Bootstrap) -> None:
    await shop.ready()
    shop.seed(USERS)
    async with await psycopg.AsyncConnection.connect(shop.server.dsn(shop.database)) as faster:
        await faster.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        visit = asyncio.create_task(shop.apply())
        await within(20, lambda: bool(shop.as_superuser(WAITS_FOR_A_TABLE.format(shop.role))))
        await faster.execute("INSERT INTO users (email) VALUES ('other@example.com')")
        await faster.execute(
            "INSERT INTO dbbootstrap.seed (name, checksum, state, rows, incarnation)"
            " SELECT 'seed', 'x', 'seeded', 1, incarnation FROM dbbootstrap.identity"
        )
    assert outcome(await visit, StageName.SEED).reason is Reason.DATABASE_SEEDED
    assert shop.query("SELECT state FROM dbbootstrap.seed") == [("seeded",)]


async def test_visits_that_find_rows_at_the_same_time_note_it_once(shop: Bootstrap) -> None:
    await shop.ready()
    shop.query("INSERT INTO users (email) VALUES ('old@example.com')")
    shop.seed(USERS)
    async with await psycopg.AsyncConnection.connect(shop.server.dsn(shop.database), autocommit=True) as holder:
        await holder.execute("SELECT pg_advisory_lock(%s)", (locks.KEY,))
        visits = [asyncio.create_task(shop.apply()) for _ in range(2)]
        await within(20, lambda: len(shop.as_superuser(TRIES_THE_LOCK.format(shop.role))) == 2)
    for visit in visits:
        assert outcome(await visit, StageName.SEED).reason is Reason.SEED_NOT_NEEDED
    assert shop.query("SELECT state FROM dbbootstrap.seed") == [("adopted",)]


async def test_killed_backend_leaves_nothing_and_the_next_visit_seeds(shop: Bootstrap) -> None:
    await shop.ready()
    shop.seed(USERS | {"02_slow.sql": "SELECT pg_sleep(30)"})
    visit = asyncio.create_task(shop.apply())
    async with asyncio.timeout(20):
        while not shop.as_superuser(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query ~ '^SELECT pg_sleep' AND pid <> pg_backend_pid()"
        ):
            await asyncio.sleep(0.05)
    report = await visit
    assert report.trouble and report.trouble.reason is Reason.SERVER_UNREACHABLE
    assert shop.query("SELECT count(*) FROM users") == [(0,)]
    shop.seed(USERS)
    await shop.ready()
    assert shop.query("SELECT count(*) FROM users") == [(2,)]


async def test_marker_cannot_be_written_twice(shop: Bootstrap) -> None:
    shop.seed(USERS)
    await shop.ready()
    with pytest.raises(psycopg.errors.UniqueViolation):
        shop.query(
            "INSERT INTO dbbootstrap.seed (name, checksum, state, rows, incarnation)"
            " SELECT name, checksum, state, rows, incarnation FROM dbbootstrap.seed"
        )


async def test_empty_table_behind_forced_row_level_security_is_empty(bootstrap: Bootstrap) -> None:
    policy = "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;"
    allow = "CREATE POLICY all_of_it ON t USING (true);"
    bootstrap.migrate("SQL", {"1_t.sql": f"CREATE TABLE t (id int); {policy} {allow}"})
    bootstrap.seed({"t.sql": "INSERT INTO t VALUES (1)"})
    assert outcome(await bootstrap.ready(), StageName.SEED).reason is Reason.DATABASE_SEEDED
    assert bootstrap.query("SELECT relforcerowsecurity FROM pg_class WHERE relname = 't'") == [(True,)]
    assert bootstrap.query("SELECT count(*) FROM t") == [(1,)]


async def test_sequences_behind_other_than_whole_numbers_are_left_alone(bootstrap: Bootstrap) -> None:
    text = "CREATE SEQUENCE q; CREATE TABLE o (id text DEFAULT 'ORD-' || nextval('q')); ALTER SEQUENCE q OWNED BY o.id;"
    small = "CREATE TABLE s (id smallserial PRIMARY KEY, n bigint); ALTER TABLE s ALTER id TYPE bigint;"
    bootstrap.migrate("SQL", {"1_o.sql": text, "2_s.sql": small})
    bootstrap.seed({"o.sql": "INSERT INTO o VALUES ('ORD-7'); INSERT INTO s (id) VALUES (100000)"})
    await bootstrap.ready()
    assert bootstrap.query("SELECT id FROM o") == [("ORD-7",)]


async def test_sequence_of_another_owner_is_left_alone(shop: Bootstrap) -> None:
    await shop.ready()
    shop.as_superuser(
        "CREATE SCHEMA pgagent; CREATE TABLE pgagent.job (id serial); INSERT INTO pgagent.job VALUES (5);",
        shop.database,
    )
    shop.seed(USERS)
    assert outcome(await shop.ready(), StageName.SEED).reason is Reason.DATABASE_SEEDED


async def test_deferred_constraint_that_fails_at_commit_is_a_failed_seed(bootstrap: Bootstrap) -> None:
    tables = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);"
    bootstrap.migrate("SQL", {"1_t.sql": tables})
    bootstrap.seed({"b.sql": "INSERT INTO b VALUES (1)"})
    report = await bootstrap.apply()
    assert report.trouble and (report.trouble.reason, report.trouble.verdict) == (Reason.SEED_FAILED, Verdict.STALLED)
    assert "23503" in report.trouble.message
    for table in ("a", "b", "dbbootstrap.seed"):
        assert bootstrap.as_superuser(f"SELECT count(*) FROM {table}", bootstrap.database) == [(0,)]
    bootstrap.seed({"1/b.csv": "a\n1\n", "2/a.csv": "id\n1\n"})
    await bootstrap.ready()
    assert bootstrap.query("SELECT count(*) FROM a JOIN b ON a.id = b.a") == [(1,)]


async def test_seed_that_is_stopped_during_its_commit_claims_nothing(bootstrap: Bootstrap) -> None:
    slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'"
    late = "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON a DEFERRABLE INITIALLY DEFERRED"
    table = f"CREATE TABLE a (id int); {slow}; {late} FOR EACH ROW EXECUTE FUNCTION slow()"
    bootstrap.migrate("SQL", {"1_t.sql": table})
    bootstrap.seed({"a.sql": "INSERT INTO a VALUES (1)"}, timeoutSeconds=1)
    report = await bootstrap.apply()
    assert report.trouble and report.trouble.reason is Reason.SEED_FAILED
    assert "being committed: as far as is known nothing stayed; the next look tells" in report.trouble.message
    assert bootstrap.as_superuser("SELECT count(*) FROM a", bootstrap.database) == [(0,)]


async def test_corrected_seed_finds_its_tables_in_the_tools_schema(bootstrap: Bootstrap) -> None:
    bootstrap.migrate("SQL", {"1_t.sql": "CREATE TABLE t (id int);"}, schema="app")
    bootstrap.seed({"t.sql": "INSERT INTO t VALUES ('x')"})
    assert (await bootstrap.apply()).trouble is not None
    bootstrap.seed({"t.sql": "INSERT INTO t VALUES (1)"})
    await bootstrap.ready()
    assert bootstrap.query("SELECT count(*) FROM app.t") == [(1,)]
