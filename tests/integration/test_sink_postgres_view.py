"""The switch of the view that applications read: what it keeps, what forbids it, and what happens if it fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from syncer.errors import Fatal, Retry
from syncer.sinks.postgres import Connection, Settings, catalog, readers_elsewhere, schema
from tests.harness.table_sink import OTHER, WIDER, Reads, prepared
from tests.harness.waiting import until


def test_a_view_that_only_gains_columns_is_replaced_and_keeps_its_dependents(reads: Reads) -> None:
    with prepared(reads.sink(), {"1": "old"}), prepared(reads.sink(WIDER, generation=2), {"1": "new"}) as following:
        reads.execute("CREATE VIEW read.mine AS SELECT name FROM read.things")
        assert reads.trial(WIDER) == []
        assert following.activate() == ["read.things_000001"]
        assert following.activate() == ["read.things_000001"]
        assert reads.query("SELECT name FROM read.mine") == [("new",)]
        assert reads.query("SELECT name, added FROM read.things") == [("new", None)]


def test_a_missing_view_is_created_over_the_table_that_applications_read(reads: Reads) -> None:
    with prepared(reads.sink(), {"1": "old"}):
        reads.execute("DROP VIEW read.things")
        with prepared(reads.sink(OTHER, generation=2)) as following:  # a resync begins
            assert reads.names() == ["old"] and reads.query(ACTIVE) == [(1,)]
            assert reads.query("SELECT pg_typeof(n)::text FROM read.things") == [("bigint",)]
            following.activate()
            assert reads.names() == [] and reads.query(ACTIVE) == [(2,)]
            reads.execute("DROP VIEW read.things", "DROP TABLE read.things_000002")
        with prepared(reads.sink(generation=3)):
            assert reads.names() == [] and reads.query(ACTIVE) == [(3,)]


def test_a_view_with_other_columns_keeps_owner_options_and_grants(reads: Reads) -> None:
    with prepared(reads.sink(), {"1": "old"}), prepared(reads.sink(OTHER, generation=2), {"1": "new"}) as following:
        reads.execute(
            f"CREATE ROLE owner_{reads.role}",
            f"CREATE ROLE app_{reads.role}",
            f"GRANT owner_{reads.role} TO {reads.role}",
            f"GRANT USAGE, CREATE ON SCHEMA read TO owner_{reads.role}",
            f"ALTER VIEW read.things OWNER TO owner_{reads.role}",
            f"GRANT SELECT ON read.things_000001 TO owner_{reads.role}",
            "ALTER VIEW read.things SET (security_barrier = true)",
            f"GRANT SELECT ON read.things TO app_{reads.role} WITH GRANT OPTION",
            f"GRANT UPDATE (name) ON read.things TO app_{reads.role}",
            "GRANT SELECT ON read.things TO PUBLIC",
        )
        before = reads.query(SHOWN)
        following.activate()
        assert reads.query(SHOWN) == before
        reads.execute(f"SET ROLE app_{reads.role}", "RESET ROLE")
        reads.execute(f"GRANT USAGE ON SCHEMA read TO app_{reads.role}", f"SET ROLE app_{reads.role}")
        assert reads.names() == ["new"]
        reads.execute("RESET ROLE")
    for role in ("app", "owner"):
        reads.execute(f"DROP OWNED BY {role}_{reads.role} CASCADE", f"DROP ROLE {role}_{reads.role}")


SHOWN = """
SELECT c.relowner::regrole, c.reloptions, a.attacl::text,
       (SELECT array_agg(g ORDER BY g) FROM unnest(c.relacl::text[]) g)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.oid = 'read.things'::regclass AND a.attname = 'name'"""


def test_readers_of_a_security_invoker_view_can_read_the_new_table(reads: Reads) -> None:
    if reads.admin.info.server_version < 150_000:
        pytest.skip("PostgreSQL 14 has no views with security_invoker")
    app = f"app_{reads.role}"
    with prepared(reads.sink(), {"1": "old"}), prepared(reads.sink(OTHER, generation=2), {"1": "new"}) as following:
        reads.execute(
            f"CREATE ROLE {app}",
            f"GRANT USAGE ON SCHEMA read TO {app}",
            "ALTER VIEW read.things SET (security_invoker = true)",
            f"GRANT SELECT ON read.things TO {app}",
            f"GRANT SELECT, UPDATE (name) ON read.things_000001 TO {app}",
        )
        for expected in ("old", "new"):
            reads.execute(f"SET ROLE {app}")
            assert reads.names() == [expected]
            reads.execute("RESET ROLE")
            following.activate()
    reads.execute(f"DROP OWNED BY {app}", f"DROP ROLE {app}")


def test_a_grant_during_the_switch_is_kept(reads: Reads) -> None:
    app = f"app_{reads.role}"
    reads.execute(f"CREATE ROLE {app}")
    with prepared(reads.sink()), prepared(reads.sink(OTHER, generation=2)) as following:
        with reads.admin.transaction():
            reads.execute(f"GRANT SELECT ON read.things TO {app}")
            switch = threading.Thread(target=following.activate)
            switch.start()
            with psycopg.connect(reads.dsn, autocommit=True) as session:
                until(lambda: session.execute(BLOCKED).fetchall() != [])
        switch.join(20)
        assert reads.query(f"SELECT has_table_privilege('{app}', 'read.things', 'SELECT')") == [(True,)]
        assert reads.query(ACTIVE) == [(2,)]
    reads.execute(f"DROP OWNED BY {app}", f"DROP ROLE {app}")


def test_no_grant_is_lost_between_reading_the_grants_and_the_drop(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, granted, refused = catalog.access, list[str](), list[str]()

    def access(session: psycopg.Connection[Any], oid: int) -> catalog.Access:
        found = real(session, oid)
        try:
            reads.execute("SET lock_timeout = '200ms'", "GRANT SELECT ON read.things TO PUBLIC")
            granted.append("GRANT")
        except psycopg.errors.LockNotAvailable:
            refused.append("GRANT")
        return found

    monkeypatch.setattr(catalog, "access", access)
    with prepared(reads.sink()), prepared(reads.sink(OTHER, generation=2)) as following:
        following.activate()
    assert refused and not granted and reads.query(ACTIVE) == [(2,)]


BLOCKED = """
SELECT 1 FROM pg_stat_activity WHERE usename = current_user AND cardinality(pg_blocking_pids(pid)) > 0"""


def test_a_switch_that_is_blocked_for_too_long_names_the_sessions(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_ATTEMPTS", 1)
    with prepared(reads.sink(), {"1": "old"}), prepared(reads.sink(OTHER, generation=2)) as following:
        with psycopg.connect(reads.dsn) as long:
            long.execute("SELECT name FROM read.things")
            with pytest.raises(Retry) as caught:
                following.activate()
            assert f"PID {long.info.backend_pid} of {reads.role}" in caught.value.why
            assert "pg_terminate_backend" in caught.value.hint and reads.names() == ["old"]
        following.activate()


def test_dependents_of_a_view_whose_columns_change_are_listed(reads: Reads) -> None:
    with prepared(reads.sink(), {"1": "old"}), prepared(reads.sink(OTHER, generation=2)) as following:
        reads.execute("CREATE VIEW read.mine AS SELECT name FROM read.things")
        [problem] = reads.trial(OTHER)
        assert "view read.mine" in problem.why and "drop these objects" in problem.hint
        with pytest.raises(Fatal, match=r"view read\.mine"):
            following.activate()
        assert reads.names() == ["old"]
        reads.execute("DROP VIEW read.mine")
        following.activate()
        assert reads.names() == []


def test_an_activation_that_fails_half_way_changes_nothing(reads: Reads) -> None:
    """The failure comes after the old view was dropped and the new one was created."""
    with prepared(reads.sink(), {"1": "old"}), prepared(reads.sink(OTHER, generation=2), {"1": "new"}) as following:
        reads.execute(
            "CREATE ROLE other" + reads.role,
            f"GRANT SELECT ON read.things TO other{reads.role}",
            "CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'disk failure' USING ERRCODE = '58030'; END $$",
            "CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('GRANT') EXECUTE FUNCTION public.refuse()",
        )
        shown = reads.query(SHOWN)
        with pytest.raises(Retry, match="disk failure"):
            following.activate()
        assert reads.names() == ["old"] and reads.query(SHOWN) == shown
        assert reads.query(ACTIVE) == [(1,)]
        reads.execute("DROP EVENT TRIGGER refuse")
        following.activate()
        assert reads.names() == ["new"] and reads.query(SHOWN) == shown
        assert reads.query(ACTIVE) == [(2,)]
    reads.execute(f"DROP OWNED BY other{reads.role}", f"DROP ROLE other{reads.role}")


def test_an_activation_in_several_transactions_is_detected(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weakened rule: each statement of the switch commits alone."""

    @contextmanager
    def unlocked(self: schema.Schema, session: Any) -> Iterator[None]:
        yield

    activate = schema.Schema._activate

    def weaker(self: schema.Schema) -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr(schema.Schema, "_locked", unlocked)
            return activate(self)

    monkeypatch.setattr(schema.Schema, "_activate", weaker)
    with pytest.raises((AssertionError, psycopg.Error)):
        test_an_activation_that_fails_half_way_changes_nothing(reads)
    reads.execute("DROP EVENT TRIGGER refuse", f"DROP OWNED BY other{reads.role}", f"DROP ROLE other{reads.role}")


ACTIVE = "SELECT generation FROM read.syncer_generations WHERE name = 'things' AND active"


def test_readers_never_find_the_view_missing_and_a_long_reader_delays_the_switch(reads: Reads) -> None:
    stop, seen = threading.Event(), list[list[str]]()

    def read() -> None:
        with psycopg.connect(reads.dsn, autocommit=True) as session:
            while not stop.is_set():
                seen.append([name for (name,) in session.execute("SELECT name FROM read.things")])

    with prepared(reads.sink(), {"1": "old"}), prepared(reads.sink(OTHER, generation=2), {"1": "new"}) as following:
        reader = threading.Thread(target=read)
        reader.start()
        with psycopg.connect(reads.dsn) as long:
            long.execute("SELECT name FROM read.things")
            switch = threading.Thread(target=following.activate)
            switch.start()
            until(lambda: reads.query(WAITING) != [])
            before = len(seen)
            until(lambda: reads.query(WAITING) == [])  # the switch gives up, so that other readers go on
            until(lambda: len(seen) > before + 5)
            assert seen[-1] == ["old"]
        switch.join(20)
        until(lambda: seen[-1] == ["new"])
        stop.set()
        reader.join(20)
    assert not reader.is_alive() and sorted({tuple(names) for names in seen}) == [("new",), ("old",)]


WAITING = """
SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND relation = 'read.things'::regclass"""


def test_readers_of_another_table_are_reported_with_the_statement_that_fixes_it(reads: Reads) -> None:
    link, settings = Connection(dsn=reads.dsn), Settings(table="read.things")
    assert readers_elsewhere(link, settings, 1) is None
    with prepared(reads.sink(), {"1": "first"}), prepared(reads.sink(generation=2), {"1": "second"}) as following:
        assert readers_elsewhere(link, settings, 1) is None
        following.activate()
        assert readers_elsewhere(link, settings, 1) is None  # a resync is about to register the second one
        for statement in (
            "CREATE OR REPLACE VIEW read.things AS SELECT * FROM (TABLE read.things_000001) t",
            "DROP VIEW read.things",
        ):
            if "REPLACE" in statement:
                reads.execute("DROP VIEW read.things")
            reads.execute(statement)
            error = readers_elsewhere(link, settings, 2)
            assert error is not None and "the syncer writes to things_000002" in error.what
            reads.execute("DROP VIEW IF EXISTS read.things", error.hint)
            assert readers_elsewhere(link, settings, 2) is None
            assert reads.names() == ["second"]
