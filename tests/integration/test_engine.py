"""Tests the pipeline step by step: handing over work, retries, skipped renders and commits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from psycopg import errors, sql

from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry
from syncer.events import WorkItem
from syncer.pacing import Stopped, Waiter
from syncer.pipeline import decode
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import range_items
from syncer.ports import View
from tests.harness import Database
from tests.harness.engine import ORDERS, SCHEMA, Engine, MemoryTopic, RecordingSink
from tests.harness.waiting import until

TEN = "INSERT INTO orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 10) n"


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Iterator[Engine]:
    database.execute(*SCHEMA.split(";"))
    engine = Engine(database, tmp_path)
    yield engine
    engine.close()


def order(id: int, customer: int = 1, note: str = "") -> dict[str, Any]:
    return {"id": id, "customer_id": customer, "note": note}


def filled(engine: Engine) -> Engine:
    """Writes ten orders to the sink. They are in sync with PostgreSQL."""
    txid = engine.execute(TEN)
    for n in range(1, 11):
        engine.add_event(txid, "orders", "c", after=order(n, 1 + n % 2))
    engine.drain(engine.lane())
    assert engine.documents() == engine.expected()
    engine.sink.batches.clear()
    return engine


# -- work that is too large for one batch -------------------------------------------------------------------


def test_hazard_20_a_huge_fan_out_goes_through_the_work_topic(engine: Engine) -> None:
    txid = engine.execute(
        "INSERT INTO orders (id, customer_id) SELECT n, 1 FROM generate_series(1, 3500) n",
        "INSERT INTO orders (id, customer_id) VALUES (9000, 2)",
    )
    engine.add_event(txid, "customers", before={"id": 1, "name": "A"}, after={"id": 1, "name": "Ada"})
    engine.add_event(txid, "orders", "c", after=order(9000, 2))
    lane = engine.lane(fan_out=1000, chunk_documents=300)
    engine.drain(lane)
    items = [decode.work(record.position, record.value, 1) for record in engine.work.records]
    assert all(item and (item.kind, item.reason) == ("keys", "fan-out") for item in items)
    assert {item.committed_ms for item in items if item} == {1}, "of the change that caused it"
    assert max(len(item.keys) for item in items if item) == 300
    handed = {key for item in items if item for key in item.keys}
    assert len(handed) == 3000
    assert engine.changes.committed == 2  # the event is committed, because its work is stored durably
    assert len(engine.documents()) == 501
    engine.drain(engine.lane(engine.work))
    assert engine.work.committed == len(items)
    assert engine.documents() == engine.expected()


def test_truncating_a_child_renders_all_documents_and_truncating_the_root_sweeps_twice(engine: Engine) -> None:
    filled(engine)
    txid = engine.execute("TRUNCATE customers", "INSERT INTO customers VALUES (2, 'Barbara')")
    engine.add_event(txid, "customers", "t")
    lanes = engine.lane(chunk_documents=4), engine.lane(engine.work)
    engine.drain(*lanes)
    items = [decode.work(record.position, record.value, 1) for record in engine.work.records]
    assert [item and (item.kind, item.low, item.high) for item in items] == [
        ("range", None, ("4",)),
        ("range", ("4",), ("8",)),
        ("range", ("8",), ("10",)),
    ]
    assert {item and item.committed_ms for item in items} == {1}
    assert engine.documents() == engine.expected()
    engine.add_event(engine.execute("TRUNCATE orders"), "orders", "t")
    engine.drain(lanes[0])
    now, later = (decode.work(record.position, record.value, 1) for record in engine.work.records[3:])
    assert now and later and (now.kind, later.kind) == ("sweep", "sweep")
    assert now.not_before_ms == 0 and later.not_before_ms > (time.time() + 50) * 1000
    assert (now.committed_ms, later.committed_ms) == (1, 0), "nothing is known to be wrong when it is due"
    engine.work.records.pop()
    engine.drain(lanes[1])
    handed = [decode.work(record.position, record.value, 1) for record in engine.work.records[4:]]
    assert handed and {item and item.committed_ms for item in handed} == {1}, "handed over with their cause"
    assert engine.documents() == engine.expected() == {}


def test_an_unreadable_work_item_is_committed_with_its_neighbours(engine: Engine) -> None:
    engine.execute(TEN)
    for value in (
        b"junk",
        b'{"kind":"keys","reason":"test","keys":[["1"]]}',
        b'{"kind":"keys","reason":"?"}',
    ):
        engine.work.add(value)
    engine.drain(engine.lane(engine.work))
    assert engine.documents().keys() == {"1"}
    assert len(engine.dead_letters.written) == 2
    assert engine.work.committed == 3


def test_hazard_26_late_writes_of_a_slow_worker_after_a_truncate_are_swept(engine: Engine) -> None:
    """The slow worker holds a row inserted just before the truncate.

    No sink has it yet, so the first sweep misses it.
    """
    filled(engine)
    source, sink, go = MemoryTopic("here"), RecordingSink(engine.store, engine.compiled), threading.Event()
    slow = engine.lane(source, [sink])

    def block(batch: Batch) -> None:
        go.wait(20)

    sink.on_write = block
    txid = engine.execute("INSERT INTO orders VALUES (11, 1)")
    event = {"op": "c", "after": order(11), "source": {"schema": "public", "table": "orders", "txId": txid}}
    source.add(json.dumps(event).encode())
    slow.step()  # rendered, but blocked before the sink
    until(lambda: sink.batches)
    engine.add_event(engine.execute("TRUNCATE orders"), "orders", "t")
    engine.drain(engine.lane(max_age=1.0))
    work = engine.lane(engine.work, max_records=1)
    while engine.documents():
        work.step()
    go.set()
    engine.drain(slow)
    assert set(engine.documents()) == {"11"}
    engine.drain(work)
    assert engine.documents() == engine.expected() == {}


def test_memory_is_bounded_by_bytes_for_documents_of_any_size(engine: Engine) -> None:
    """Renders 500 documents of an eighth of the limit among many small ones. A single document may exceed the limit."""
    limit = 1 << 20
    engine.execute(
        "INSERT INTO orders (id, customer_id, note) SELECT n, 1, CASE"
        " WHEN n = 700 THEN repeat('x', 1500000) WHEN n > 2000 THEN repeat('x', 125000) ELSE '' END"
        " FROM generate_series(1, 2500) n"
    )
    seen: list[int] = []

    def measure(batch: Batch) -> Outcome:
        seen.append(batch.size)
        assert batch.size <= limit or len(batch) == 1
        return Outcome(written=len(batch))

    engine.sink.on_write = measure
    engine.work.add(b'{"kind":"range","reason":"backfill","high":["2500"]}')
    for at in (*range(1, 100), *range(2400, 2501), 700, *range(100, 110)):
        engine.add_event(None, "orders", "c", after=order(at))
    engine.drain(engine.lane(engine.work, chunk_bytes=limit), engine.lane(chunk_bytes=limit))
    assert sum(seen) > 2 * 1_500_000 + 600 * 125_000
    assert len(seen) < 200


# -- snapshots of the connector -----------------------------------------------------------------------------


def test_a_row_of_a_debezium_snapshot_is_rendered_without_waiting_for_its_transaction(engine: Engine) -> None:
    """The row is rendered even if its last render included all known changes.

    A new snapshot may contain unknown ones.
    """
    filled(engine)
    engine.execute("UPDATE orders SET note = 'changed by someone unheard' WHERE id = 3")
    with engine.database.connect(autocommit=False) as reader:
        row = reader.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row
        engine.add_event(row[0], "orders", "r", after=order(3))
        engine.drain(engine.lane(gate_timeout=0.01))
    assert engine.documents() == engine.expected()
    assert engine.changes.committed == 11


# -- sinks that reject or delay documents -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["again", "Retry"])
def test_a_retried_document_is_rendered_again_instead_of_resent(engine: Engine, how: str) -> None:
    filled(engine)
    attempts = iter(range(3))

    def busy(batch: Batch) -> Outcome | None:
        if (attempt := next(attempts, None)) is None:
            return None
        engine.execute(f"UPDATE orders SET note = 'attempt {attempt}' WHERE id = 3")
        if how == "Retry":
            raise Retry("no answer", where="the sink")
        return Outcome(retry=["3"], retry_reason="busy")

    engine.sink.on_write = busy
    engine.add_event(engine.execute("UPDATE orders SET note = 'first' WHERE id = 3"), "orders", after=order(3))
    lane = engine.lane()
    lane.step()
    until(lambda: engine.sink.batches)
    assert engine.changes.committed == 10
    engine.drain(lane)
    assert [batch.ids() for batch in engine.sink.batches] == [["3"]] * 4
    assert all(a.version < b.version for a, b in pairwise(engine.sink.batches))
    assert engine.documents()["3"]["note"] == "attempt 2"
    assert (engine.changes.committed, engine.documents()) == (11, engine.expected())


def test_a_chunk_that_waited_too_long_is_rendered_again(engine: Engine) -> None:
    filled(engine)
    slow = threading.Event()

    def wait(batch: Batch) -> None:
        slow.wait(5)

    engine.sink.on_write = wait
    lane = engine.lane(max_records=1, max_age=0.5)
    for id in (1, 2):
        engine.add_event(engine.execute(f"UPDATE orders SET note = 'new' WHERE id = {id}"), "orders", after=order(id))
    lane.step()
    second = threading.Thread(target=lane.step)  # rendered, waits until the first batch is written
    second.start()
    time.sleep(0.7)
    engine.execute("UPDATE orders SET note = 'newer' WHERE id = 2")  # its event arrives later
    slow.set()
    second.join()
    engine.drain(lane)
    assert [batch.ids() for batch in engine.sink.batches] == [["1"], ["2"]]
    assert engine.documents() == engine.expected()


def test_rejections_are_reported_once_while_another_sink_is_unavailable(engine: Engine) -> None:
    filled(engine)
    other = RecordingSink(type(engine.store)(), engine.compiled)
    answers = iter([Retry("away")] * 3)

    def unavailable(batch: Batch) -> Outcome | None:
        if error := next(answers, None):
            raise error
        return None

    engine.sink.on_write = lambda batch: Outcome(rejected=[Rejection("3", "no")], written=len(batch) - 1)
    other.on_write = unavailable
    txid = engine.execute("UPDATE orders SET note = 'new'")
    engine.add_event(txid, "orders", after=order(3))
    engine.add_event(txid, "orders", after=order(4))
    engine.drain(engine.lane(sinks=[engine.sink, other]))
    assert set(engine.dead_letters.written) == engine.dead_letters.open.keys() == {"3"}
    assert engine.metric("syncer_errors_total", kind="reject") == 1
    assert set(other.ids()) == {"3", "4"}
    assert engine.changes.committed == 12


def test_a_dead_letter_is_resolved_when_its_document_is_accepted(engine: Engine) -> None:
    filled(engine)
    lane = engine.lane()
    engine.sink.on_write = lambda batch: Outcome(rejected=[Rejection(id, "no") for id in batch.ids()])
    txid = engine.execute("UPDATE orders SET note = 'bad' WHERE id IN (3, 4)")
    for id in (3, 4):
        engine.add_event(txid, "orders", after=order(id, note="bad"))
    engine.drain(lane)
    assert engine.dead_letters.open.keys() == {"3", "4"}
    engine.sink.on_write = lambda batch: None
    txid = engine.execute("UPDATE orders SET note = 'good' WHERE id = 3", "DELETE FROM orders WHERE id = 4")
    engine.add_event(txid, "orders", after=order(3, note="good"))
    engine.drain(lane)
    assert engine.dead_letters.open.keys() == {"4"}
    engine.add_event(txid, "orders", "d", before=order(4))
    engine.drain(lane)
    assert engine.dead_letters.open == {}
    assert engine.documents() == engine.expected()


def test_a_document_that_fails_to_render_on_retry_is_not_counted_as_accepted(engine: Engine) -> None:
    """The sink first asks for a retry. When the retry is due, the row can no longer be rendered."""
    declared = ORDERS.replace("note: note", "note: 1 / length(note)")
    engine = Engine(engine.database, engine.folder / "other", declared)
    txid = engine.execute("INSERT INTO orders VALUES (1, 1, 'a'), (2, 1, 'a')")
    for id in (1, 2):
        engine.add_event(txid, "orders", "c", after=order(id, note="a"))
    answers = iter([Outcome(retry=["1", "2"], retry_reason="busy")])

    def spoil(batch: Batch) -> Outcome | None:
        if (answer := next(answers, None)) is not None:
            engine.execute("UPDATE orders SET note = '' WHERE id = 1")
        return answer

    engine.sink.on_write = spoil
    engine.drain(engine.lane())
    assert engine.dead_letters.open.keys() == {"1"}
    assert engine.documents().keys() == {"2"}
    engine.close()


def test_a_fatal_error_ends_the_lane_and_commits_nothing(engine: Engine) -> None:
    filled(engine)

    def fail(batch: Batch) -> Outcome | None:
        raise Fatal("the index is missing")

    engine.sink.on_write = fail
    engine.add_event(engine.execute("UPDATE orders SET note = 'new' WHERE id = 3"), "orders", after=order(3))
    with engine.running(engine.lane()) as ended:
        until(lambda: ended)
    assert isinstance(ended[0], Fatal)
    assert engine.changes.committed == 10


# -- commits and stops --------------------------------------------------------------------------------------


@pytest.fixture
def blocked(engine: Engine) -> Iterator[tuple[Engine, threading.Event]]:
    """Yields an engine whose sink acknowledges only after the event is set."""
    go = threading.Event()

    def block_sink(batch: Batch) -> None:
        go.wait(20)

    filled(engine).sink.on_write = block_sink
    yield engine, go
    go.set()


def test_a_value_that_cannot_be_looked_up_stops_the_lane_with_a_hint(engine: Engine) -> None:
    """The link is older than an alteration of its column from text. No document is known that could be rejected."""
    engine.add_event(None, "customers", before={"id": "abc", "name": "A"}, after={"id": "abc", "name": "B"})
    with pytest.raises(Fatal, match="does not fit the type of its column") as error:
        engine.drain(engine.lane())
    assert 'bigint: "abc"' in error.value.why and "syncer resync orders" in error.value.hint
    assert engine.changes.committed == 0


def test_keys_outside_the_range_of_a_narrowed_column_match_no_row(engine: Engine) -> None:
    engine.execute(TEN, "ALTER TABLE orders ALTER id TYPE int")
    with engine.rows().view() as view:
        beyond = "3000000000"
        assert [row.body for row in view.render([(beyond,)])] == [None]
        assert len(view.render_range(("5",), (beyond,))) == len(view.keys_in_range(("5",), (beyond,))) == 5


def test_offsets_are_committed_only_after_the_sinks_acknowledge(
    blocked: tuple[Engine, threading.Event],
) -> None:
    engine, go = blocked
    lane = engine.lane(max_records=1)
    for id in (1, 2, 3):
        txid = engine.execute(f"UPDATE orders SET note = 'x' WHERE id = {id}")
        engine.add_event(txid, "orders", after=order(id))
    with engine.running(lane):
        until(lambda: engine.sink.batches)
        until(lambda: engine.changes.heartbeats)  # the lane stays in its group while it waits
        assert engine.changes.committed == 10
        assert len(engine.sink.batches) == 1
        go.set()
        until(lambda: engine.changes.committed == 13)
    assert engine.documents() == engine.expected()


def test_a_stop_in_the_middle_loses_nothing(blocked: tuple[Engine, threading.Event]) -> None:
    engine, go = blocked
    txid = engine.execute("UPDATE orders SET note = 'x'")
    for id in range(1, 11):
        engine.add_event(txid, "orders", after=order(id))
    with engine.running(engine.lane(chunk_documents=3)) as ended:
        until(lambda: engine.sink.batches)
        engine.stop.set()
        time.sleep(0.1)
        go.set()
    assert [type(error) for error in ended] == [Stopped]
    assert engine.changes.committed == 10 and engine.documents() != engine.expected()
    engine.drain(engine.lane())
    assert engine.changes.committed == 20 and engine.documents() == engine.expected()


# -- one render for several changes -------------------------------------------------------------------------


def test_a_root_is_rendered_once_for_all_changes_in_its_snapshot(engine: Engine) -> None:
    filled(engine)
    lane = engine.lane(max_records=1)
    for note in ("a", "b", "c"):
        txid = engine.execute(f"UPDATE orders SET note = '{note}' WHERE id = 5")
        engine.add_event(txid, "orders", after=order(5, note=note))
    engine.drain(lane)
    assert len(engine.sink.batches) == 1 and engine.changes.committed == 13
    txid = engine.execute("UPDATE orders SET note = 'd' WHERE id = 5")
    engine.add_event(txid, "orders", after=order(5, note="d"))
    engine.drain(lane)
    assert len(engine.sink.batches) == 2
    assert engine.documents() == engine.expected()


def test_rendered_but_unacknowledged_changes_are_not_committed_by_later_events(
    blocked: tuple[Engine, threading.Event],
) -> None:
    engine, go = blocked
    txids = [engine.execute(f"UPDATE orders SET note = '{n}' WHERE id = 5") for n in range(3)]
    for txid in txids:
        engine.add_event(txid, "orders", after=order(5))
    with engine.running(engine.lane(max_records=1)):
        until(lambda: engine.sink.batches)
        until(lambda: engine.changes.heartbeats)
        assert engine.changes.committed == 10
        go.set()
        until(lambda: engine.changes.committed == 13)
    assert len(engine.sink.batches) == 1


# -- row security -------------------------------------------------------------------------------------------


def test_hazard_12_row_security_enabled_later_stops_the_read_model_instead_of_deleting(
    engine: Engine, database: Database
) -> None:
    filled(engine)
    role = sql.Identifier(f"reader_{database.name}")
    with database.connect() as session:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(role))
        session.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(role))
        try:
            lane = engine.lane()
            lane.gate.rows = engine.rows(user=f"reader_{database.name}", password="secret")
            txid = engine.execute("UPDATE orders SET note = 'x' WHERE id = 1")
            engine.add_event(txid, "orders", after=order(1))
            engine.drain(lane)
            assert engine.documents() == engine.expected()
            session.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
            txid = engine.execute("UPDATE orders SET note = 'y' WHERE id = 1")
            engine.add_event(txid, "orders", after=order(1))
            with pytest.raises(Fatal, match="row-level security") as error:
                engine.drain(lane)
            assert "BYPASSRLS" in error.value.hint
            assert len(engine.documents()) == 10 and engine.changes.committed == 11
            engine.close()
        finally:
            session.execute(sql.SQL("DROP OWNED BY {}").format(role))
            session.execute(sql.SQL("DROP ROLE {}").format(role))


def test_hazard_29_a_table_rewritten_before_a_snapshot_does_not_appear_empty(engine: Engine) -> None:
    """An older snapshot sees a rewritten table as empty.

    Without a check, the syncer would delete every document. If no used column was altered, nothing else would
    detect it.
    """
    statement = "ALTER TABLE orders ADD COLUMN luck float DEFAULT random()"
    filled(engine)
    rows, keys = engine.rows(), [("1",), ("2",)]

    def render() -> list[bool]:
        with rows.view() as view:
            return [row.body is not None for row in view.render(keys)]

    with ThreadPoolExecutor(1) as executor, engine.database.connect(autocommit=False) as session:
        session.execute(statement.encode())
        rendered = executor.submit(render)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass"
        until(lambda: engine.database.query(waits)[0][0] == 1)
        session.commit()
        assert rendered.result(30) == [True, True]


def test_hazard_29_tables_cannot_be_rewritten_during_a_snapshot(engine: Engine) -> None:
    """Tables must not be rewritten between the snapshot and its first read either.

    REPACK (CONCURRENTLY) of PostgreSQL 19 copies a table alongside all readers and takes the exclusive lock only to
    swap the files. Snapshots from before its commit then see an empty table.
    """
    filled(engine)
    swap = "SET lock_timeout = '50ms'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE"
    with engine.rows().view() as view:
        for _ in range(2):
            for table in ("orders", "customers"):
                with pytest.raises(errors.LockNotAvailable), engine.database.connect() as session:
                    session.execute(f"BEGIN; {swap.format(table)}".encode())
            assert [row.body is not None for row in view.render([("1",), ("2",)])] == [True, True]


def test_a_migration_of_several_tables_takes_precedence_over_a_snapshot(engine: Engine) -> None:
    """Once, a snapshot held a lock on one table and waited for another.

    A migration held the second and waited for the first. After `deadlock_timeout`, PostgreSQL aborted the
    migration.
    """
    filled(engine)
    rows = engine.rows()

    def render() -> list[bool]:
        with rows.view() as view:
            return [row.body is not None for row in view.render([("1",), ("2",)])]

    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass"
    with ThreadPoolExecutor(1) as executor, engine.database.connect(autocommit=False) as migration:
        migration.execute("SET deadlock_timeout = '10s'")  # so that the snapshot's own deadlock check runs first
        migration.execute("ALTER TABLE orders ADD COLUMN more int")
        rendered = executor.submit(render)
        for _ in range(3):  # attempts of the snapshot
            until(lambda: engine.database.query(waits)[0][0] == 1)
            until(lambda: engine.database.query(waits)[0][0] == 0)
        migration.execute("ALTER TABLE customers ADD COLUMN more int")
        migration.commit()
        assert rendered.result(30) == [True, True]


def test_planning_ranges_locks_only_the_root_table(engine: Engine) -> None:
    """Reading the index of a large table takes long. An ALTER TABLE would wait, and block all later queries."""
    filled(engine)
    locks = (
        "SELECT DISTINCT relation::regclass::text FROM pg_locks JOIN pg_class c ON c.oid = relation"
        " WHERE relkind = 'r' AND mode = 'AccessShareLock' AND relnamespace = 'public'::regnamespace"
    )
    found = []

    def plan(view: View) -> Iterator[WorkItem]:
        for item in range_items(view, 5, "test"):
            found.append(engine.database.query(locks))
            yield item

    planned = plan_durably(engine.rows(), plan, Waiter())
    assert [item.high for item in planned] == [("5",), ("10",)]
    assert found == [[("orders",)]] * 2
    assert engine.database.query(locks) == [], "what becomes of the ranges holds no lock"


def test_a_long_table_lock_causes_a_retry_and_no_dead_letters(engine: Engine) -> None:
    """A slow ALTER TABLE holds such a lock. The rows are not the cause, so no dead letter may be written."""
    filled(engine)
    rows = engine.rows()
    rows._statement_timeout = 0.5
    with engine.database.connect(autocommit=False) as session:
        session.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        for keys in ([("1",)], [("1",), ("2",)]):
            with pytest.raises(Retry, match="lock timeout") as error, rows.view() as view:
                view.render(keys)
            assert "AccessExclusiveLock" in error.value.hint
    with rows.view() as view:
        assert len(view.render([("1",), ("2",)])) == 2


def test_prepared_statements_survive_a_wait_for_a_table_lock(engine: Engine) -> None:
    """psycopg forgets all prepared statements of a session at a ROLLBACK, even those that it did not prepare itself."""
    filled(engine)
    rows = engine.rows()
    for _ in range(3):  # psycopg prepares repeated statements
        with rows.view() as view:
            assert len(view.render([("1",)])) == 1
    with engine.database.connect(autocommit=False) as session:
        session.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        waited = []

        def wait(seconds: float) -> None:
            waited.append(seconds)
            session.rollback()

        for _ in range(3):
            with rows.view(wait=wait) as view:
                assert len(view.render([("1",)])) == 1
    assert waited == [0.1]


def test_a_lock_while_a_statement_is_prepared_delays_the_view_only(engine: Engine) -> None:
    """psycopg takes a statement for prepared although PostgreSQL skipped it after the lock timeout."""
    filled(engine)
    with engine.database.connect(autocommit=False) as session:
        for views in range(6):  # psycopg would prepare repeated statements by itself
            rows = engine.rows()
            for number in range(views + 3):
                if number == views:
                    session.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
                with rows.view(wait=lambda _: session.rollback()) as view:
                    assert len(view.render([("1",)])) == 1


def test_a_lane_that_waits_for_a_table_lock_keeps_its_partitions_and_can_be_stopped(engine: Engine) -> None:
    filled(engine)
    kept = engine.changes.heartbeats
    txid = engine.execute("UPDATE orders SET note = 'sent' WHERE id = 1")
    engine.add_event(txid, "orders", before=order(1, 2), after=order(1, 2, "sent"))
    with engine.database.connect(autocommit=False) as session:
        session.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with engine.running(engine.lane()) as ended:
            until(lambda: engine.changes.heartbeats > kept + 1)
            assert not ended
        assert isinstance(ended[0], Stopped)
    engine.drain(engine.lane())
    assert engine.documents() == engine.expected()
