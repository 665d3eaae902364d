"""Two tables that share one topic: changes of other tables that are ignored, and those that become dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack import Stack
from syncer.errors import Fatal
from syncer.events import TableName
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.names import topic_of
from syncer.pipeline.lane import Lane
from tests.harness import Database, Names
from tests.harness.engine import Engine
from tests.harness.system import System
from tests.harness.waiting import until

LINES = TableName("public", "Order Lines")
OTHER = TableName("public", "Order_Lines")
MODEL = """
name: lines
root: {table: 'public."Order Lines"'}
document: {n: n}
sink: {memory: {}}
"""
SCHEMA = (
    'CREATE TABLE "Order Lines" (id int, k int, n int, PRIMARY KEY (id, k)) PARTITION BY LIST (k)',
    'CREATE TABLE lines1 PARTITION OF "Order Lines" FOR VALUES IN (1)',
    'CREATE TABLE "Order_Lines" (id int PRIMARY KEY)',
)


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Iterator[Engine]:
    database.execute(*SCHEMA)
    engine = Engine(database, tmp_path, MODEL)
    engine.changes.topic = topic_of("here", LINES)
    yield engine
    engine.close()


def lane(engine: Engine) -> Lane:
    return engine.lane(topic_of=lambda table: topic_of("here", table))


def test_a_character_beyond_16_bits_becomes_two_in_a_topic_name() -> None:
    assert topic_of("p", TableName("s", "a ü😀-b.c_d")) == "p.s.a____-b.c_d"


def test_changes_of_a_table_that_shares_the_topic_are_ignored(engine: Engine) -> None:
    engine.add_event(
        engine.execute('INSERT INTO "Order Lines" VALUES (1, 1, 5)'),
        *LINES[1:],
        op="c",
        after={"id": 1, "k": 1, "n": 5},
    )
    for id in range(3):
        engine.add_event(None, OTHER.name, "c", after={"id": id})
    engine.drain(lane(engine))
    assert engine.documents() == {"1|1": {"n": 5}} and engine.dead_letters.written == []
    assert engine.changes.committed == 4


def test_the_catalog_is_read_in_a_snapshot_that_sees_the_event(engine: Engine) -> None:
    """A table and its first rows may come from one transaction, whose event arrives before its commit is visible."""
    engine.database.execute('DROP TABLE "Order_Lines"')
    with engine.database.connect(autocommit=False) as session:
        session.execute('CREATE TABLE "Order_Lines" (id int PRIMARY KEY)')
        [(txid,)] = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()
        engine.add_event(txid, OTHER.name, "c", after={"id": 1})
        waits: Any = lane(engine)
        with engine.running(waits):
            until(lambda: "not visible yet" in waits.observer.reason)
            assert engine.dead_letters.written == [] and engine.changes.committed == 0
            session.commit()
            until(lambda: engine.changes.committed == 1)
    assert engine.dead_letters.written == []


def test_changes_of_a_missing_table_are_dead_letters_until_it_exists(engine: Engine) -> None:
    engine.database.execute('DROP TABLE "Order_Lines"')
    tried = lane(engine)
    engine.add_event(None, OTHER.name, "c", after={"id": 1})
    engine.drain(tried)
    assert len(engine.dead_letters.written) == 1
    engine.database.execute('CREATE TABLE "Order_Lines" (id int PRIMARY KEY)')
    engine.add_event(None, OTHER.name, "c", after={"id": 2})
    engine.drain(tried)
    engine.database.execute('DROP TABLE "Order_Lines"')  # older events are still in the topic
    engine.add_event(None, OTHER.name, "d", before={"id": 2})
    engine.drain(tried)
    assert len(engine.dead_letters.written) == 1


@pytest.mark.parametrize(
    "made",
    [
        'CREATE TABLE "Order-Lines" (id int PRIMARY KEY)',  # this table has a topic of its own
        'CREATE VIEW "Order_Lines" AS SELECT 1 AS id',
        'CREATE TABLE "Order_Lines" PARTITION OF "Order Lines" FOR VALUES IN (2)',
        'CREATE TABLE "Order_Lines" PARTITION OF "Order Lines" FOR VALUES IN (2) PARTITION BY LIST (id)',
    ],
)
def test_only_another_table_of_this_topic_is_ignored(engine: Engine, made: str) -> None:
    """A partition's own name in an event means that the read model's changes are published under it."""
    engine.database.execute('DROP TABLE "Order_Lines"', made)
    name = "Order-Lines" if "Order-Lines" in made else "Order_Lines"
    engine.add_event(None, name, "c", after={"id": 1, "k": 2, "n": 1})
    engine.drain(lane(engine))
    assert len(engine.dead_letters.written) == 1 and engine.changes.committed == 1


def test_a_topic_name_refused_by_kafka_fails_at_once(stack: Stack, names: Names) -> None:
    topics = KafkaAdmin({"bootstrap.servers": stack.kafka}, partitions=1, replication_factor=1)
    first, second = (topic_of(names("p"), TableName("s", table)) for table in ("a.b", "a_b"))
    topics.create([first], {})
    for name, why in ((second, "collides"), (names("x" * 250), "249")):
        with pytest.raises(Fatal, match=f"cannot create topic {name}") as error:
            topics.create([name], {})
        assert why in str(error.value) and "rename the table" in error.value.hint


# -- with Debezium ------------------------------------------------------------------------------------------

TABLES = (
    'CREATE TABLE {schema}."Lines 😀" (id int PRIMARY KEY, n int)',
    'CREATE TABLE {schema}."Lines___" (id int PRIMARY KEY, n int)',
    'INSERT INTO {schema}."Lines 😀" VALUES (1, 10), (2, 20)',
    'INSERT INTO {schema}."Lines___" VALUES (1, 11), (3, 31)',
)
ONE = """
name: {prefix}-one
root: {{table: '{schema}."Lines 😀"'}}
document: {{n: n}}
sink: {{redis: {{key: "{prefix}:one:{{id}}"}}}}
"""
BOTH = """
name: {prefix}-both
root: {{table: '{schema}."Lines 😀"'}}
document: {{n: n, other: {{one: '{schema}."Lines___"', on: {{id: id}}, value: n}}}}
sink: {{elasticsearch: {{index: "{prefix}-both", settings: {{number_of_replicas: 0}}}}}}
"""


def test_two_tables_in_one_topic_feed_a_model_of_one_and_a_model_of_both(system: System) -> None:
    one, both = f"{system.prefix}-one", f"{system.prefix}-both"
    system.execute(*TABLES)
    system.declare("one", ONE)
    system.declare("both", BOTH)
    system.run("check", one, both, expect=0)
    system.run("backfill", one, both)
    daemon = system.start(one, both)
    system.execute(
        'UPDATE {schema}."Lines___" SET n = n + 1',
        'UPDATE {schema}."Lines 😀" SET n = n + 1 WHERE id = 2',
        'INSERT INTO {schema}."Lines___" VALUES (2, 22)',
    )
    want = {"1": {"n": 10, "other": 12}, "2": {"n": 21, "other": 22}}
    until(lambda: system.documents(both) == want, lambda: f"{system.documents(both)}\n{daemon.log.read_text()}")
    for model in (one, both):
        until(lambda m=model: system.status_of(m)["lag_records"] == 0)  # type: ignore[misc]
        assert system.status_of(model)["dead_letters"] == 0 and not daemon.logged("dead letter written")
    daemon.stop()

    # left by an earlier version, or from a time without the table
    system.execute('ALTER TABLE {schema}."Lines___" RENAME TO gone')
    record: dict[str, Any] = {"op": "c", "before": None, "after": {"id": 9, "n": 9}}
    record["source"] = {"schema": system.schema, "table": "Lines___", "txId": None, "ts_ms": 1}
    system.produce("Lines___", json.dumps(record).encode())
    daemon = system.start(one)
    until(lambda: system.status_of(one)["dead_letters"] == 1, daemon.log.read_text)
    [letter] = daemon.logged("dead letter written", model=one)
    assert "PostgreSQL has no such table now" in letter["why"] and f"syncer dlq drop {one}" in letter["hint"]
    assert "no such table now" in system.run("dlq", "replay", one, "--all", expect=1)
    system.execute('ALTER TABLE {schema}.gone RENAME TO "Lines___"')
    assert "1 of 1 dead letter resolved" in system.run("dlq", "replay", one, "--all")
    assert "equal" in system.run("verify", one)
