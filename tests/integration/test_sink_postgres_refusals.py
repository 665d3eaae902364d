"""What the PostgreSQL sink and `syncer check` refuse. Each hint is a statement that helps, and the tests run it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
from psycopg.conninfo import make_conninfo

from syncer import sinks
from syncer.document import Batch
from syncer.errors import Fatal
from syncer.sinks.postgres import Connection, Settings
from tests.harness.table_sink import OTHER, Reads, prepared
from tests.harness.waiting import until

TABLE_FAULTS = {
    "UNLOGGED": "ALTER TABLE read.things_000001 SET UNLOGGED",
    "has the unique index": "CREATE UNIQUE INDEX ON read.things_000001 (name)",
    "has the unique index read.own": "ALTER TABLE read.things_000001 ADD CONSTRAINT own UNIQUE (name)",
    "has no primary key (_id)": "ALTER TABLE read.things_000001 DROP CONSTRAINT things_000001_pkey",
    "is NOT NULL": "ALTER TABLE read.things_000001 ALTER COLUMN name SET NOT NULL",
    "has the trigger t": (
        "CREATE TRIGGER t BEFORE UPDATE ON read.things_000001"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    ),
    "has the rule r": "CREATE RULE r AS ON INSERT TO read.things_000001 DO INSTEAD NOTHING",
    "has row security": "ALTER TABLE read.things_000001 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "has the check constraint c": "ALTER TABLE read.things_000001 ADD CONSTRAINT c CHECK (n > 0)",
    "has the foreign key f": (
        "ALTER TABLE read.things_000001 ADD CONSTRAINT f FOREIGN KEY (name) REFERENCES read.things_000001"
    ),
    "it has the table things_000001": "CREATE PUBLICATION p FOR TABLE read.things_000001",
    "it has the table syncer_generations": "CREATE PUBLICATION p FOR TABLE read.syncer_generations",
    "it has all tables of the schema read": "CREATE PUBLICATION p FOR TABLES IN SCHEMA read",
}


@pytest.mark.parametrize("words", TABLE_FAULTS)
def test_a_table_that_loses_or_refuses_documents_is_refused_until_the_hint_is_applied(reads: Reads, words: str) -> None:
    if "SCHEMA" in TABLE_FAULTS[words] and reads.admin.info.server_version < 150_000:
        pytest.skip("PostgreSQL 14 has no publications of schemas")
    with prepared(reads.sink()) as sink:
        reads.execute(TABLE_FAULTS[words])
        [problem] = reads.trial()
        assert words in f"{problem.what} {problem.why}"
        with pytest.raises(Fatal) as caught:
            sink.prepare()
        assert caught.value.hint == problem.hint
        reads.execute(problem.hint)
        assert reads.trial() == []
        sink.prepare()


def test_a_row_that_a_trigger_suppresses_does_not_count_as_written(reads: Reads) -> None:
    """The trigger was added after the check."""
    with prepared(reads.sink(), {"1": "Ada"}) as sink:
        reads.execute(
            "CREATE FUNCTION public.suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
            "CREATE TRIGGER t BEFORE INSERT ON read.things_000001 FOR EACH ROW EXECUTE FUNCTION public.suppress()",
        )
        out = sink.write(Batch((1 << 48) + 1, {"new": b'{"name":"Grace"}'}, []))
        assert out.retry == ["new"] and "missing" in out.retry_reason and not out.stale
        with pytest.raises(Fatal, match="refused the row of document '1'"):
            sink.write(Batch((1 << 48) + 1, {"1": b'{"name":"Augusta"}'}, []))


def test_a_publication_of_all_tables_is_refused_before_the_table_exists(reads: Reads) -> None:
    reads.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    [problem] = reads.trial()
    assert "everything" in problem.what and "FOR ALL TABLES" in problem.why and "postgres_sink.dsn" in problem.hint
    with closing(reads.sink()) as sink, pytest.raises(Fatal, match="everything"):
        sink.prepare()
    assert reads.query("SELECT to_regclass('read.things_000001')") == [(None,)]


def test_a_server_that_may_lose_commits_is_refused(reads: Reads) -> None:
    off = make_conninfo(reads.dsn, options="-c synchronous_commit=off")
    [error] = reads.preflight(off)
    assert "synchronous_commit is off" in error
    with closing(reads.sink(dsn=off)) as sink, pytest.raises(Fatal, match="synchronous_commit is off"):
        sink.prepare()
    reads.execute(f"ALTER ROLE {reads.role} SET synchronous_commit = off")
    [error] = reads.preflight()
    reads.execute(error.partition("→ ")[2].partition(", or")[0])
    assert reads.preflight() == []


def test_a_server_without_fsync_is_refused_also_if_it_was_changed_later(reads: Reads) -> None:
    with prepared(reads.sink()) as sink:
        sink.durability()
        reads.execute("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        try:
            until(lambda: reads.preflight() != [])
            [error] = reads.preflight()
            assert "fsync is off" in error
            with closing(reads.sink()) as other, pytest.raises(Fatal, match="lose acknowledged documents"):
                other.prepare()
            with pytest.raises(Fatal, match="lose acknowledged documents"):
                sink.durability()
        finally:
            reads.execute("ALTER SYSTEM RESET fsync", "SELECT pg_reload_conf()")
        until(lambda: reads.preflight() == [])
        until(lambda: reads.query("SHOW fsync") == [("on",)])


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TABLE read.things (a int)", "a table"),
        ("CREATE VIEW read.things AS SELECT 1 AS a", "a view of no table, which the syncer did not create"),
        ("CREATE MATERIALIZED VIEW read.things AS SELECT 1 AS a", "a materialized view"),
        ("CREATE SEQUENCE read.things", "another relation"),
        ("CREATE TABLE read.things_000001 (a int)", 'relation "read"."things_000001" was not created by the syncer'),
    ],
)
def test_a_relation_of_the_user_is_neither_replaced_nor_used(reads: Reads, statement: str, words: str) -> None:
    reads.execute(statement)
    [problem] = reads.trial()
    assert words in problem.what and "choose another table name" in problem.hint
    with closing(reads.sink()) as sink, pytest.raises(Fatal) as caught:
        sink.prepare()
    assert words in caught.value.what
    assert reads.query("SELECT count(*) FROM pg_class WHERE relnamespace = 'read'::regnamespace AND relkind = 'v'")[0][
        0
    ] == ("VIEW read.things AS" in statement and "MATERIALIZED" not in statement)


def test_a_lost_record_is_reported_and_a_resync_helps(reads: Reads) -> None:
    with prepared(reads.sink(), {"1": "Ada"}) as sink:
        reads.execute("DROP TABLE read.syncer_generations")
        [problem] = reads.trial()
        assert "record of the table" in problem.what and problem.hint == "syncer resync things"
        with pytest.raises(Fatal) as caught:
            sink.prepare(new=False)
        assert (caught.value.what, caught.value.hint) == (problem.what, problem.hint)
        with prepared(reads.sink(OTHER, generation=2), {"1": "Grace"}) as following:
            assert reads.names() == ["Ada"]
            following.activate()
            assert reads.names() == ["Grace"]


def test_the_table_of_another_read_model_is_refused(reads: Reads) -> None:
    with prepared(reads.sink()):
        pass
    module, settings = sinks.find("postgres"), Settings(table="read.things")
    other = replace(reads.model(), name="others")
    [problem] = module.trial(Connection(dsn=reads.dsn), settings, other)
    assert problem.what == "read.things belongs to the read model things"


def test_a_missing_schema_or_privilege_is_reported_with_the_statement(reads: Reads) -> None:
    [error] = reads.preflight(table="elsewhere.things")
    statement = error.partition("→ ")[2]
    assert statement == f'CREATE SCHEMA "elsewhere" AUTHORIZATION "{reads.role}"'
    reads.execute("CREATE SCHEMA elsewhere")
    [error] = reads.preflight(table="elsewhere.things")
    assert "USAGE, CREATE" in error
    reads.execute(error.partition("→ ")[2])
    assert reads.preflight(table="elsewhere.things") == []


def test_what_postgresql_refuses_of_the_table_is_a_problem_at_its_line(reads: Reads) -> None:
    [problem] = reads.trial(indexes=[{"columns": ["n"]}, {"columns": ["name"], "using": "gin"}])
    assert "gin" in problem.why and problem.block == ("indexes", 1)
    assert reads.query("SELECT count(*) FROM pg_class WHERE relnamespace = 'read'::regnamespace") == [(0,)]


def test_an_unreachable_server_or_a_wrong_password_is_reported(reads: Reads) -> None:
    [error] = reads.preflight(make_conninfo(reads.dsn, port=1))
    assert "postgres_sink.dsn is correct" in error
    [error] = reads.preflight(make_conninfo(reads.dsn, password="wrong"))
    assert "SYNCER_POSTGRES_SINK__PASSWORD" in error and "wrong" not in error
