"""What statements destroy, by their text alone, and what of that a batch of migrations takes back."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database_bootstrap.tools.batch import Suspicion, judged_of, suspicions_of
from database_bootstrap.tools.column_types import Change, Type
from database_bootstrap.tools.destructive import effects_of
from database_bootstrap.tools.effects import Doubt, Effect, Finding, Kind
from database_bootstrap.tools.sql_text import parts_of

LONG = ", ".join(f"({number}, 'DELETE FROM cart; UPDATE x SET y = 1')" for number in range(300))
LONG_COMMENT = f"/* {LONG} */".replace("'", "")
WIPES = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM kept; RETURN NEW; END $$"
STAMPS = (
    "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW IS DISTINCT FROM OLD THEN"
    " NEW.updated_at = now(); NEW.by := coalesce(current_setting('app.by', true), user); END IF; RETURN NEW; END $$"
)
FIRES = "CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()"
ZERO = "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM kept RETURNING 0'"
DESTROYS = {
    "DROP SCHEMA s CASCADE": "DS101 s",
    "DROP TABLE cart": "DS102 cart",
    "DROP TABLE IF EXISTS a, b.c CASCADE": "DS102 a|DS102 b.c",
    'DROP TABLE "Cart"': "DS102 Cart",
    'DROP TABLE U&"c\\0061rt"': "DS102 cart",
    "DROP TABLE shop.public.cart": "DS102 public.cart",
    "/* DROP TABLE x */ DROP /* /* */ */ TABLE -- y\n cart": "DS102 cart",
    "dRoP tAbLe CART": "DS102 cart",
    "SELECT ';'; DROP TABLE a;DROP TABLE b": "DS102 a|DS102 b",
    "ALTER TABLE t DROP a, DROP COLUMN IF EXISTS b CASCADE": "DS103 t.a|DS103 t.b",
    "ALTER TABLE IF EXISTS ONLY s.t DROP a": "DS103 s.t.a",
    "DROP TYPE mood CASCADE": "DS103 mood",
    "DROP DOMAIN s.code CASCADE": "DS103 s.code",
    "DROP EXTENSION postgis CASCADE": "DS103 postgis",
    "ALTER TYPE point3 DROP ATTRIBUTE z": "DS103 point3",
    "TRUNCATE a, s.b RESTART IDENTITY CASCADE": "DS104 a|DS104 s.b",
    "DELETE FROM a": "DS105 a",
    "DELETE FROM a USING b": "DS105 a",
    "DELETE FROM a WHERE true": "DS105 a",
    "DELETE FROM a WHERE 1 = 1 AND 'x' <> 'y'": "DS105 a",
    "WITH x AS (SELECT 1), d AS (DELETE FROM a RETURNING *) SELECT 1": "DS105 a",
    "WITH d AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM d": "DS105 a",
    "INSERT INTO b WITH d AS (DELETE FROM a RETURNING *) SELECT * FROM d": "DS105 a",
    "CREATE TABLE b AS WITH d AS (DELETE FROM a RETURNING *) SELECT * FROM d": "DS105 a",
    "(WITH d AS (DELETE FROM a RETURNING *) SELECT * FROM d)": "DS105 a",
    "COPY (DELETE FROM a RETURNING *) TO '/tmp/x'": "DS105 a",
    "EXPLAIN (ANALYZE, COSTS off) DELETE FROM a": "DS105 a",
    "PREPARE p AS DELETE FROM a": "DS105 a",
    "MERGE INTO a USING b ON a.x = b.x WHEN MATCHED AND b.y THEN DELETE WHEN NOT MATCHED THEN DO NOTHING": "DS105 a",
    "UPDATE a SET x = 1, (y, z) = (2, 3)": "DS105 a.x.y.z",
    "UPDATE a SET x = b.y FROM b": "DS105 a.x",
    "ALTER TABLE t ALTER COLUMN c TYPE integer": "DS106 t.c",
    "DROP OWNED BY someone": "DS107 someone",
    "DROP DATABASE shop": "DS107 shop",
    "DO $$ BEGIN DROP TABLE a; END $$": "OP901",
    **dict.fromkeys(
        (
            f"DO $$ DECLARE r record; v int; BEGIN FOR r IN SELECT a FROM b LOOP {text}; END LOOP; END $$"
            for text in (
                "UPDATE t SET n = (SELECT 1 FROM c WHERE c.id = r.id)",
                "UPDATE t SET n = 1 WHERE id = r.id OR true",
                "UPDATE t SET n = 1 WHERE NOT id = r.id",
                "UPDATE t SET n = 1 WHERE v = r.id",
                "UPDATE t SET n = 1 WHERE r = r.id",
                "UPDATE t SET n = 1 WHERE r.id = r.id",
                "UPDATE t SET n = 1 WHERE id = t.id",
                "UPDATE t SET n = 1 WHERE id = r.id; UPDATE t SET n = 2",
                "WITH x AS (UPDATE t SET n = 1) UPDATE y SET a = 1 WHERE id = r.id",
                "WITH x AS (DELETE FROM t) UPDATE y SET a = 1 WHERE id = r.id",
                "DELETE FROM t WHERE id = r.id",
            )
        ),
        "OP901",
    ),
    "DO $x$ BEGIN EXECUTE $$DROP TABLE a$$; END $x$": "OP901",
    "DO 'BEGIN DELETE FROM a; END'": "OP901",
    "DO E'BEGIN \\x44ROP TABLE a; END'": "OP901",
    "DO LANGUAGE plpython3u $$ plpy.execute('') $$": "OP901",
    "DO LANGUAGE plpgsql $$ BEGIN ALTER TABLE a DROP b; END $$": "OP901",
    'DO $$ BEGIN PERFORM "Wipe"(); END $$': "OP901",
    "DO $$ BEGIN PERFORM s.wipe(1); END $$": "OP901 s.wipe",
    "CALL s.wipe()": "OP901 s.wipe",
    "SELECT wipe(1)": "OP901 wipe",
    "EXECUTE p (1)": "OP901 p",
    "DROP COLLATION c CASCADE": "OP901 c",
    "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM a'; SELECT f()": "OP901",
    "CREATE FUNCTION f() RETURNS void LANGUAGE sql BEGIN ATOMIC DELETE FROM a; END; SELECT f()": "OP901",
    "CREATE FUNCTION f() RETURNS/* DROP TABLE b; ' */void LANGUAGE/* a /* nested */ $$ */sql BEGIN"
    "/* a /* nested */ $$ */ATOMIC/* a /* nested */ $$ */DELETE FROM/* a /* nested */ $$ */a; END; SELECT f()": "OP901",
    "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN DELETE FROM a; END$$; SELECT f()": "OP901",
    f"CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN DELETE FROM a; /*{LONG}*/END$$; SELECT f()": "OP901",
    "ALTER TABLE t ADD c int GENERATED ALWAYS AS (1) VIRTUAL, DROP d": "OP902",
    "DROP SOMETHING NEW": "OP902",
    "DROP TABLE a NEW SYNTAX": "OP902",
    f"WITH d AS (DELETE FROM a RETURNING *) INSERT INTO b VALUES {LONG}": "OP902",
    f"INSERT INTO b WITH d AS (DELETE FROM a RETURNING *) SELECT {LONG}": "OP902",
    f"DELETE FROM a USING (VALUES {LONG}) AS v": "OP902",
    f"UPDATE a SET x = (SELECT 1 FROM b WHERE y IN ({LONG}))": "OP902",
    # The names are those of before.
    "ALTER TABLE a RENAME TO b; DROP TABLE b": "DS102 a",
    "ALTER TABLE a RENAME TO b; ALTER TABLE b SET SCHEMA s; DROP TABLE s.b": "DS102 a",
    "ALTER SCHEMA s RENAME TO t; DROP TABLE t.a": "DS102 s.a",
    "ALTER TABLE a RENAME x TO y; ALTER TABLE a RENAME y TO z; ALTER TABLE a DROP z": "DS103 a.x",
    "ALTER TABLE a RENAME TO b; ALTER TABLE b DROP x": "DS103 a.x",
    "ALTER TABLE a RENAME TO old; CREATE TABLE a (id int); DELETE FROM a; DROP TABLE old": "DS102 a",
    "CREATE TABLE b (id int); ALTER TABLE a RENAME TO old; ALTER TABLE b RENAME TO a; DROP TABLE a, old": "DS102 a",
    "CREATE TABLE IF NOT EXISTS a (id int); DROP TABLE a": "DS102 a",
    "CREATE TEMP TABLE a (id int); DROP TABLE a; DROP TABLE a": "DS102 a",
    "CREATE TEMP TABLE a (id int); DROP TABLE public.a": "DS102 public.a",
    "CREATE TABLE a (id int); DROP TABLE other.a": "DS102 other.a",
    "SET search_path TO other; CREATE TABLE a (id int); DROP TABLE public.a": "DS102 public.a",
    "SELECT set_config('search_path', 'other', false); CREATE TABLE a (id int); DROP TABLE public.a": "DS102 public.a",
    "BEGIN; CREATE TABLE b (id int); ALTER TABLE a RENAME TO c; ROLLBACK; DROP TABLE a": "DS102 a",
    "DROP TABLE a; DROP TABLE IF EXISTS a": "DS102 a",
    "ALTER TABLE a DROP x, ADD x int; UPDATE a SET x = 1": "DS103 a.x",
    "ALTER TABLE a SET UNLOGGED": "DS108 a",
    # What comes in is no less worth for what it came into.
    "CREATE SCHEMA s; ALTER TABLE a SET SCHEMA s; DROP SCHEMA s CASCADE": "DS101 a",
    "CREATE SCHEMA s; ALTER TABLE a SET SCHEMA s; ALTER SCHEMA s RENAME TO t; DROP SCHEMA t CASCADE": "DS101 a",
    "CREATE TABLE p (id int) PARTITION BY LIST (id); ALTER TABLE p ATTACH PARTITION a DEFAULT; DROP TABLE p": "DS102 a",
    "CREATE TABLE p (id int) PARTITION BY LIST (id); ALTER TABLE p ATTACH PARTITION a DEFAULT; TRUNCATE p": "DS104 a",
    "CREATE TABLE p (id int); ALTER TABLE a INHERIT p; DROP TABLE p CASCADE": "DS102 a",
    "CREATE TABLE p (id int); ALTER TABLE a INHERIT p; DELETE FROM p": "DS105 a",
    "CREATE TABLE b (id int); INSERT INTO b SELECT * FROM a; DROP TABLE a; DROP TABLE b": "DS102 a|DS102 a",
    "CREATE TABLE b AS SELECT * FROM a; CREATE TABLE c AS TABLE b; DELETE FROM a; TRUNCATE c": "DS105 a|DS104 a",
    "SELECT * INTO b FROM a; ALTER TABLE a DROP x; ALTER TABLE b RENAME TO c; DROP TABLE c": "DS103 a.x|DS102 a",
    "CREATE TABLE b (id int); WITH m AS (DELETE FROM a WHERE x RETURNING *) INSERT INTO b TABLE m; DROP TABLE b": (
        "DS102 a"
    ),
    "CREATE TABLE b (id int); MERGE INTO b USING a ON a.x = b.x WHEN NOT MATCHED THEN INSERT VALUES (1); DROP TABLE a;"
    "ALTER TABLE b DROP id": "DS102 a|DS103 a",
    "CREATE SCHEMA s; CREATE TABLE s.b AS SELECT * FROM a; DROP TABLE a; DROP SCHEMA s CASCADE": "DS102 a|DS101 a",
    "CREATE TABLE b AS SELECT * FROM s.a; DROP SCHEMA s CASCADE; DROP TABLE b": "DS101 s|DS102 s.a",
    # Names that were given where nobody could read it.
    "DO $$ BEGIN ALTER TABLE a RENAME TO b; END $$; DROP TABLE b": "DS102 b Always",
    "DO $$ BEGIN ALTER TABLE a RENAME x TO y; END $$; ALTER TABLE a DROP y": "DS103 a.y Always",
    "CREATE TABLE b (id int); DO $$ BEGIN ALTER TABLE a RENAME TO c; ALTER TABLE b RENAME TO a;"
    "ALTER TABLE c RENAME TO b; END $$; DROP TABLE b": "DS102 b Always",
    f"ALTER TABLE a /* {'x' * 3100} */ RENAME TO b; DROP TABLE b": "DS102 b Always",
    "DO $$ BEGIN EXECUTE f(); END $$; DROP TABLE b": "OP901|DS102 b Absent",
    "SET search_path TO s; CREATE TABLE a (id int); SET search_path TO public; DROP TABLE a": "DS102 a",
    "SET search_path TO public; ALTER TABLE a RENAME TO b; DROP TABLE public.b": "DS102 a",
    "SET search_path TO public; CREATE TABLE public.b (id int); DROP TABLE public.b; ALTER TABLE a RENAME TO b;"
    "DROP TABLE public.b": "DS102 a",
    "SET search_path TO public; ALTER TABLE a RENAME x TO y; ALTER TABLE public.a DROP y": "DS103 public.a.y Absent",
    "BEGIN; CREATE TEMP TABLE a (id int) ON COMMIT DROP; COMMIT; DROP TABLE a": "DS102 a",
    "DO $$ BEGIN ALTER TABLE a DROP role; EXCEPTION WHEN undefined_column THEN NULL; END $$": "OP901",
    "DO $$ BEGIN ALTER TABLE a DROP identity, DROP index; END $$": "OP901",
    "CREATE SCHEMA public; DO $$ BEGIN DELETE FROM a; END $$": "OP901",
    # What the batch makes, and what then runs by itself.
    f"{WIPES}; {FIRES}; INSERT INTO a VALUES (1)": "OP901",
    f"{WIPES}; {FIRES}; INSERT INTO unrelated VALUES (1)": "OP901",
    f"{WIPES}; {FIRES}; UPDATE b SET x = 1 WHERE y": "OP901",
    f"{WIPES}; {FIRES}; COPY a FROM '/x'": "OP901",
    f"{WIPES}; {FIRES}; TRUNCATE b": "OP901|DS104 b Absent",
    f"{WIPES}; {FIRES}; WITH n AS (INSERT INTO a VALUES (1) RETURNING *) SELECT * FROM n": "OP901",
    f"{WIPES}; {FIRES}; DO $$ BEGIN INSERT INTO a VALUES (1); END $$": "OP901",
    f"{WIPES}; {FIRES}; INSERT INTO a VALUES {LONG}": "OP901",
    f"{WIPES}; {FIRES}; INSERT INTO a SELECT * FROM (VALUES {LONG}) AS v": "OP901",
    f"{WIPES}; DO $$ BEGIN {FIRES}; END $$; INSERT INTO a VALUES (1)": "OP901",
    f"CREATE TABLE n (id int); {WIPES}; {FIRES.replace('ON a', 'ON n')}; INSERT INTO n VALUES (1)": "OP901",
    f"CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE n PARTITION OF p DEFAULT; {WIPES};"
    f"{FIRES.replace('ON a', 'ON n')}; INSERT INTO p VALUES (1)": "OP901",
    f"{FIRES}; INSERT INTO a VALUES (1)": "OP901 f",
    f"{WIPES}; {FIRES.replace('ON a', LONG_COMMENT + ' ON a')}; INSERT INTO a VALUES (1)": "OP901",
    f"{ZERO.replace('LANGUAGE', LONG_COMMENT + ' LANGUAGE')}; SELECT f()": "OP901",
    "ALTER FUNCTION wipe RENAME TO w; ALTER FUNCTION w SET SCHEMA s; SELECT s.w()": "OP901 wipe",
    f"{WIPES}; ALTER FUNCTION f RENAME TO g; {FIRES.replace('f()', 'g()')}; INSERT INTO a VALUES (1)": "OP901",
    f"{WIPES.replace('CREATE', 'CREATE OR REPLACE')}; INSERT INTO a VALUES (1)": "OP901",
    "CREATE RULE r AS ON INSERT TO a DO ALSO DELETE FROM b; INSERT INTO a VALUES (1)": "OP901",
    "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT f()'; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS"
    " 'DELETE FROM a RETURNING 1'; SELECT g()": "OP901",
    "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'DELETE FROM a RETURNING 1'; CREATE FUNCTION f() RETURNS int"
    " LANGUAGE sql AS 'SELECT 1'; SELECT f(1)": "OP901",
    f"{WIPES}; {FIRES}; CREATE FUNCTION g() RETURNS void LANGUAGE sql AS 'INSERT INTO a VALUES (1)';"
    "SELECT g()": "OP901",
    f"{WIPES}; {FIRES}; CREATE TABLE n (id int); CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " INSERT INTO a VALUES (1); RETURN NEW; END $$;"
    "CREATE TRIGGER t BEFORE INSERT ON n FOR EACH ROW EXECUTE FUNCTION g(); INSERT INTO n VALUES (1)": "OP901",
    f"{ZERO}; ALTER TABLE a ADD c int DEFAULT f()": "OP901",
    f"{ZERO}; ALTER TABLE a ADD CHECK (f() > 0)": "OP901",
    f"{ZERO}; ALTER TABLE a ADD c int GENERATED ALWAYS AS (f()) STORED": "OP901",
    f"{ZERO}; CREATE VIEW v AS SELECT f()": "OP901",
    f"{ZERO}; CREATE POLICY p ON a USING (f() > 0)": "OP901",
    f"{ZERO}; CREATE INDEX i ON a (f())": "OP901",
    f"{ZERO}; CREATE DOMAIN d AS int CHECK (f() > 0)": "OP901",
    f"{ZERO}; CREATE AGGREGATE every_f(int) (sfunc = f, stype = int)": "OP901",
    f"{ZERO}; CREATE CAST (a AS int) WITH FUNCTION f(a)": "OP901",
    f"{ZERO}; CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()": "OP901",
    f"{ZERO.replace('DELETE', LONG_COMMENT + 'DELETE')}; SELECT f()": "OP901",
    "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS E'BEGIN \\x44ELETE FROM a; END'; SELECT f()": "OP901",
    "CREATE FUNCTION f() RETURNS void LANGUAGE c AS 'x'; SELECT f()": "OP901",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case; END; DROP TABLE a": "DS102 a",
    "CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql AS 'SELECT 1'; DROP TABLE a": "DS102 a",
    "DO $$ BEGIN CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM a'; END $$; SELECT f()": "OP901|OP901 f",
    'DO $$ BEGIN x := "Wipe"(); END $$': "OP901",
}
HARMLESS = (
    "DO $$ DECLARE r record; BEGIN FOR r IN SELECT id, b FROM a LOOP UPDATE a SET c = r.b WHERE id = r.id;"
    ' UPDATE ONLY s."A" AS x SET d = (SELECT n FROM y WHERE y.z) WHERE x."id" = r."id" AND e > 1; END LOOP; END $$',
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF TG_OP = 'INSERT' THEN UPDATE b SET n = n + 1"
    " WHERE id = NEW.b RETURNING n INTO NEW.n; ELSE UPDATE b SET n = n - 1 WHERE b.id = OLD.b; END IF; RETURN NULL; END"
    f" $$; {FIRES}; INSERT INTO a VALUES (1)",
    "DROP VIEW v CASCADE; DROP MATERIALIZED VIEW m; DROP INDEX i; DROP FOREIGN TABLE f; DROP SEQUENCE s",
    "DROP SCHEMA s; DROP TYPE t; DROP EXTENSION e; DROP FUNCTION f; DROP TRIGGER t ON a; DROP POLICY p ON a",
    "ALTER TABLE a DROP CONSTRAINT c, ALTER b DROP NOT NULL, ALTER b DROP DEFAULT, ALTER b SET NOT NULL",
    "ALTER TABLE a DETACH PARTITION b; ALTER TABLE a ADD CONSTRAINT c FOREIGN KEY (x) REFERENCES b ON DELETE CASCADE",
    "DELETE FROM a WHERE id = 1; DELETE FROM a WHERE EXISTS (SELECT 1); UPDATE a SET x = 1 WHERE y",
    "INSERT INTO a VALUES ('DROP TABLE a'); SELECT 'DELETE FROM a', $$TRUNCATE a$$, \"drop table a\" FROM b",
    "-- DROP TABLE a\n/* DELETE FROM a; */ COMMENT ON TABLE a IS 'DELETE FROM a'",
    "INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET x = 1; SELECT 1 FROM a FOR UPDATE",
    "GRANT SELECT, UPDATE, DELETE, TRUNCATE ON a TO b; REVOKE DELETE ON a FROM b",
    "CREATE RULE r AS ON DELETE TO a DO INSTEAD DELETE FROM b",
    "CREATE TRIGGER t BEFORE DELETE ON a EXECUTE FUNCTION f()",
    "EXPLAIN DELETE FROM a",
    "CREATE TABLE b AS SELECT * FROM a; DELETE FROM b; TRUNCATE b; DROP TABLE b",
    "CREATE TEMP TABLE b ON COMMIT DROP AS SELECT * FROM a; DELETE FROM a USING b WHERE a.id = b.id; DROP TABLE b",
    "CREATE TABLE p (id int); ALTER TABLE p ATTACH PARTITION a DEFAULT; ALTER TABLE p DETACH PARTITION a; DROP TABLE p",
    "CREATE TABLE p (id int); ALTER TABLE a INHERIT p; ALTER TABLE a NO INHERIT p; DROP TABLE p CASCADE",
    "CREATE SCHEMA s; ALTER TABLE a SET SCHEMA s; ALTER TABLE s.a SET SCHEMA t; DROP SCHEMA s CASCADE",
    "CREATE SCHEMA s; CREATE TABLE s.b (id int); INSERT INTO s.b VALUES (1); DROP SCHEMA s CASCADE",
    "DO $$ BEGIN ALTER TABLE a ALTER x DROP IDENTITY; DROP FUNCTION f; IF y THEN DROP ROLE b; END IF; END $$",
    "ALTER TABLE a SET LOGGED",
    "CREATE TABLE a (id int); DELETE FROM a; TRUNCATE a; ALTER TABLE a DROP id; DROP TABLE public.a",
    "CREATE TABLE a AS SELECT 1; DROP TABLE a; SELECT 1 INTO b; DROP TABLE b",
    "CREATE SCHEMA s; CREATE TABLE IF NOT EXISTS s.a (id int); DROP TABLE s.a; DROP SCHEMA s CASCADE",
    "ALTER TABLE a ADD x int; UPDATE a SET x = 1; ALTER TABLE a ALTER x TYPE text USING x || 'y', DROP x",
    "PREPARE p AS SELECT 1; EXECUTE p",
    "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN DELETE FROM a; END$$",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT f()",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1; SELECT f()",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN 1; END$$; SELECT f()",
    "DO $$ BEGIN CREATE TYPE t AS ENUM ('a'); EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    "DO $$ BEGIN RAISE NOTICE 'DROP TABLE a'; -- DELETE FROM a\n END $$",
    "DO $$ BEGIN ALTER TABLE a DROP CONSTRAINT IF EXISTS b; DROP INDEX IF EXISTS c; END $$",
    "DO $$ BEGIN CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION f(); END $$",
    "ALTER TABLE t ADD c int GENERATED ALWAYS AS (1) VIRTUAL; ALTER TABLE t ADD CONSTRAINT n NOT NULL c NOT ENFORCED",
    f"INSERT INTO a VALUES {LONG}",
    f"INSERT INTO a VALUES {LONG} ON CONFLICT DO UPDATE SET x = 1",
    f"DELETE FROM a WHERE (id, x) IN ({LONG})",
    f"UPDATE a SET x = CASE WHEN (id, x) IN ({LONG}) THEN 1 END WHERE id = 1",
    f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN DELETE FROM a; /*{LONG}*/ END$$",
    "INSERT INTO a VALUES " + ", ".join(["(1, 'x')"] * 60_000),
    f"{WIPES}; {FIRES}",
    f"INSERT INTO a VALUES (1); {WIPES}; {FIRES}; SELECT 1 FROM a; CREATE INDEX i ON a (x); COMMENT ON TABLE a IS ''",
    f"CREATE TABLE n (id int); {WIPES}; {FIRES}; INSERT INTO n VALUES (1); INSERT INTO public.n SELECT 2;"
    "COPY n FROM '/x'",
    f"{STAMPS}; {FIRES}; UPDATE a SET x = 1 WHERE y; INSERT INTO a VALUES (1)",
    f"{ZERO}; CREATE TABLE n (id int DEFAULT now(), CHECK (length(x) > 0))",
    "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS"
    " 'SELECT g()'; SELECT f(); ALTER TABLE a ADD c int DEFAULT f(); CREATE VIEW v AS SELECT f()",
    'CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO "Log" ("at") VALUES (now());'
    " RETURN NULL; END $$; CREATE TRIGGER t AFTER UPDATE ON a FOR EACH ROW EXECUTE FUNCTION log(); UPDATE a SET x = 1"
    " WHERE y",
    "CREATE RULE r AS ON INSERT TO a DO ALSO INSERT INTO b VALUES (1); INSERT INTO a VALUES (1)",
    'DO $$ BEGIN ALTER TABLE "A" ADD CONSTRAINT "x" FOREIGN KEY ("b") REFERENCES "B"("c"), ADD UNIQUE ("b");'
    ' CREATE INDEX "i" ON "s"."A" ("b"); INSERT INTO "A" ("b") VALUES (1); END $$',
)


BUILT_IN = ("set_config", "now", "current_setting", "length")
"""What the database is asked for, and has no source of."""


def suspicions(text: str) -> tuple[Suspicion, ...]:
    return suspicions_of([judged_of("m", "m.sql", text)], "public").found


def told(text: str) -> str:
    """Return code, name and columns of what is found, in the order of the statements."""
    return "|".join(
        ".".join([f"{one.finding.code} {one.finding.name}".strip(), *one.finding.columns])
        + (f" {one.finding.doubt.name.title()}" if one.finding.doubt is not Doubt.NONE else "")
        for one in suspicions(text)
        if one.finding.kind is not Kind.FUNCTION or one.finding.name.name not in BUILT_IN
    )


@pytest.mark.parametrize(("text", "expected"), DESTROYS.items(), ids=[text[:70] for text in DESTROYS])
def test_what_destroys_is_found(text: str, expected: str) -> None:
    assert told(text) == expected


@pytest.mark.parametrize("text", HARMLESS, ids=[text[:70] for text in HARMLESS])
def test_what_destroys_nothing_is_not_suspected(text: str) -> None:
    assert told(text) == ""


def test_hundreds_of_triggers_are_judged_soon() -> None:
    texts = [f"{STAMPS}; {FIRES}; UPDATE t{number} SET x = 1 WHERE y" for number in range(200)]
    assert told(";".join(texts)) == ""
    assert told(";".join([*texts, WIPES, "INSERT INTO a VALUES (1)"])) == "OP901"


def test_function_that_changes_a_type_is_known_again() -> None:
    body = "ALTER TABLE a ALTER b TYPE int USING b::text::int"
    made = f"CREATE FUNCTION f() RETURNS void LANGUAGE sql AS '{body}'"
    assert told(f"{made}; SELECT f(); SELECT f()") == "OP901|OP901"


def test_finding_says_its_line() -> None:
    text = "-- first\nSELECT 1;\n\n/* \n */ DROP TABLE a;\nDROP TABLE b; DROP TABLE c"
    assert [one.finding.line for one in suspicions(text)] == [5, 6, 6]


def test_migrations_are_judged_one_after_the_other() -> None:
    texts = ("ALTER TABLE a RENAME TO b", "CREATE TABLE a (id int)", "DROP TABLE a; DROP TABLE b")
    found = suspicions_of([judged_of(f"m{place}", "", text) for place, text in enumerate(texts)], "public").found
    assert [(one.migration.name, str(one.finding.name), str(one.finding.written)) for one in found] == [
        ("m2", "a", "b")
    ]


def test_temporary_table_ends_with_the_file_that_lets_it() -> None:
    texts = ("CREATE TEMP TABLE a ON COMMIT DROP AS SELECT 1", "DROP TABLE a")
    found = suspicions_of([judged_of(f"m{place}", "", text) for place, text in enumerate(texts)], "public").found
    assert [str(one.finding.name) for one in found] == ["a"]


_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|\$\w*\$.*?\$\w*\$|\w+|\s+|.", re.DOTALL)
_NOISE = (" ", "\n", "\t", " -- DELETE FROM noise\n", "/* DROP TABLE noise; ' */", '/* a /* nested " */ $$ */', "\r\n")
SHORT = [text for text in DESTROYS if len(text) < 500 and not re.search(r"U&|/\*|--|E'", text)]


@given(
    text=st.sampled_from([*SHORT, *(text for text in HARMLESS if len(text) < 500 and "--" not in text)]),
    chance=st.randoms(),
)
def test_case_and_comments_never_change_the_verdict(text: str, chance: random.Random) -> None:
    tokens = []
    for token in _TOKEN.findall(text):
        if token.isspace():
            tokens.append(chance.choice(_NOISE))
        else:
            # A dollar quote holds code, of which strings are a part that must stay.
            tokens.append(
                "".join(chance.choice((one.lower(), one.upper())) for one in token) if token.isalnum() else token
            )
    assert told("".join(tokens)) == told(text)


@given(st.text(alphabet="aE'\"$;-/*\\ \n(){}é%", max_size=60))
def test_any_text_has_its_parts(text: str) -> None:
    own, strings = parts_of(text)
    assert "'" not in own and len(own) <= 4 * len(text) + 1
    assert sum(map(len, strings)) <= len(text)


@given(st.text(alphabet="aDROPTABLEdeletefrom'\"$;-/*\\ \n()", max_size=60))
def test_any_text_can_be_judged(text: str) -> None:
    assert all(isinstance(effect, Effect) for effect in effects_of(text))


def change(statement: str) -> Change:
    (one,) = (one for one in effects_of(f"ALTER TABLE t ALTER c TYPE {statement}") if isinstance(one, Finding))
    assert one.change is not None
    return one.change.knowing(["mood", "mood_new"])


def column(name: str, *modifiers: int, is_array: bool = False) -> Type:
    return Type(name=name, modifiers=modifiers, is_array=is_array, is_enum=name.startswith("mood"))


KEPT = (
    (column("varchar", 10), "varchar(10)"),
    (column("varchar", 10), "varchar(11)"),
    (column("varchar", 10), "varchar"),
    (column("varchar", 10), "text"),
    (column("varchar", 10), "text USING c::text"),
    (column("varchar", 10), "text USING t.c"),
    (column("bpchar", 5), "varchar(5)"),
    (column("text"), "varchar"),
    (column("int2"), "integer"),
    (column("int4"), "bigint"),
    (column("int4"), "bigint USING c::bigint"),
    (column("int4"), "numeric"),
    (column("int4"), "numeric(12, 2)"),
    (column("int4"), "text"),
    (column("int4", is_array=True), "bigint[]"),
    (column("float4"), "double precision"),
    (column("numeric", 8, 2), "numeric(10, 4)"),
    (column("numeric", 8, 2), "numeric"),
    (column("timestamptz", 3), "timestamptz(6)"),
    (column("timestamptz"), "timestamptz(6)"),
    (column("date"), "timestamp"),
    (column("jsonb"), "text"),
    (column("uuid"), "text"),
    (column("mood"), "text"),
    (column("mood"), "mood_new USING c::text::mood_new"),
    (column("text"), "mood USING c::mood"),
)
CHANGED = (
    (column("varchar", 10), "varchar(9)"),
    (column("text"), "varchar(200)"),
    (column("text"), "integer USING c::integer"),
    (column("varchar", 10), "text USING left(c, 1)"),
    (column("varchar", 10), "text USING c::varchar(3)::text"),
    (column("varchar", 10), "text USING other"),
    (column("int8"), "integer"),
    (column("int4"), "boolean USING c <> 0"),
    (column("int4"), "numeric(5, 2)"),
    (column("int8"), "double precision"),
    (column("int4"), "varchar(5)"),
    (column("int4", is_array=True), "bigint"),
    (column("float8"), "real"),
    (column("numeric", 8, 2), "numeric(8, 3)"),
    (column("numeric", 8, 2), "numeric(8, 1)"),
    (column("numeric"), "numeric(30, 10)"),
    (column("numeric", 8, 2), "integer"),
    (column("timestamptz"), "timestamptz(3)"),
    (column("timestamptz"), "date"),
    (column("timestamp"), "timestamptz"),
    (column("json"), "jsonb"),
    (column("int4"), "mood USING 'a'::mood"),
    (column("bytea"), "text"),
)


def name_of_change(value: object) -> str:
    return f"{value.name}{value.modifiers}" if isinstance(value, Type) else str(value)


@pytest.mark.parametrize(("old", "new"), KEPT, ids=name_of_change)
def test_wider_types_keep_every_value(old: Type, new: str) -> None:
    assert change(new).keeps(old)


@pytest.mark.parametrize(("old", "new"), CHANGED, ids=name_of_change)
def test_other_types_may_lose_some(old: Type, new: str) -> None:
    assert not change(new).keeps(old)
