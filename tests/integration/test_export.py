"""`syncer export` as an operator runs it, with records that the Kafka sink wrote. DuckDB reads the tables."""

from __future__ import annotations

import json
import random
import re
import socket
import time
from decimal import Decimal
from pathlib import Path
from threading import Thread

import pytest
import urllib3
from click.testing import CliRunner
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec

import devstack
from demo.lake import Lake
from syncer import cli, sinks
from syncer.clock import version
from tests.contracts.sinks import compiled
from tests.harness.exports import MODEL, Exports, views
from tests.harness.system import System
from tests.harness.waiting import until

LAKE = """
name: {prefix}-lake
root: {{table: {schema}.orders}}
document:
  status: status
  each: amount / parts
  customer: {{one: {schema}.customers, on: {{id: customer_id}}, value: name}}
sink: {{kafka: {{topic: "{prefix}-lake", cleanup_policy: delete}}}}
"""


def test_each_version_becomes_a_row_and_the_views_show_the_newest(exports: Exports) -> None:
    exports.write(1, {"1": {"n": 1, "price": 1.5, "name": "a", "tags": ["x"]}, "2": {"n": 2}})
    exports.write(2, {"1": {"n": 10, "price": None, "name": "b", "tags": []}}, ["2"])
    exports.run("--check", caught_up=False)
    assert not exports.path.exists(), "--check creates nothing"
    report = json.loads(exports.run("--json", output="stdout"))
    assert (report["rows"], report["commits"], report["lag_records"]) == (4, 1, 0)
    types = dict(
        exports.lake.query("SELECT column_name, data_type FROM information_schema.columns WHERE table_name='lake'")
    )
    assert (types["n"], types["price"], types["_version"], types["_written_at"]) == (
        "BIGINT",
        "DECIMAL(38,18)",
        "BIGINT",
        "TIMESTAMP WITH TIME ZONE",
    )
    changes = exports.lake.query("SELECT _id, n, price, tags, _deleted FROM order_changes ORDER BY _version, _id")
    assert changes == [
        ("1", 1, Decimal("1.5"), '["x"]', False),
        ("2", 2, None, None, False),
        ("1", 10, None, "[]", False),
        ("2", None, None, None, True),
    ]
    assert exports.lake.query("SELECT _id, name, _generation, epoch_ms(_committed_at) FROM orders") == [
        ("1", "b", 1, 1_700_000_000_000)
    ]
    assert "0 records appended" in exports.run()
    # A late, older version and a second copy, as after a crash of a writer: neither is shown.
    late = Producer({"bootstrap.servers": exports.kafka, "partitioner": "murmur2_random"})
    for body, clock in ((b'{"n":1}', 1), (b'{"n":10,"name":"b"}', 2)):
        late.produce(exports.topic, body, "1", headers=[("version", str(version(1, clock)).encode())])
    assert late.flush(10) == 0
    assert "2 records appended" in exports.run()
    assert exports.lake.query("SELECT n FROM orders") == [(10,)]
    assert exports.lake.query("SELECT count(*) FROM order_changes") == [(4,)]
    exports.check_rows(6)


@pytest.mark.parametrize("exports", ["folder", "s3"], indirect=True)
def test_several_exports_some_killed_or_frozen_append_each_record_once(exports: Exports) -> None:
    choice, documents, rounds = random.Random(), 40, 25

    def write() -> None:
        for clock in range(1, rounds + 1):
            exports.write(clock, {str(id): {"n": clock} for id in range(documents)})

    writer = Thread(target=write)
    writer.start()
    options = ("--batch-seconds", "0.05", "--batch-rows", "100")
    for _ in range(2):
        exports.start(*options)
    until(lambda: exports.count() > 0, lambda: [one.tail() for one in exports.processes])
    exports.processes[0].freeze(1)
    for _ in range(2):
        exports.processes[-1].kill()
        before = exports.count()
        exports.start(*options)
        time.sleep(choice.random())  # the moment is random; test_export_object_store.py has every one
        writer.join(0.1)
        assert exports.count() >= before
    writer.join()
    alive = [one for one in exports.processes if one.alive]
    assert alive
    until(lambda: exports.count() >= documents * rounds, lambda: [one.tail() for one in exports.processes])
    for one in alive:
        until(one.tail)  # from its first line on, it handles the signal
        one.terminate([0])
    exports.run()
    exports.check_rows(documents * rounds)
    assert exports.lake.query("SELECT count(*), min(n) FROM orders") == [(documents, rounds)]


def test_sigterm_commits_what_is_held(exports: Exports) -> None:
    exports.write(1, {"1": {"n": 1}})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = exports.start("--batch-seconds", "3600", "--metrics-port", str(port))

    def metric(name: str) -> float:
        try:
            text = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics", retries=False).data.decode()
        except urllib3.exceptions.HTTPError:
            return -1
        found = re.search(rf"(?m)^{name}{{.*}} (.+)$", text)
        return float(found[1]) if found else -1

    until(lambda: metric("syncer_export_lag_seconds") > 0, process.tail)
    assert metric("syncer_export_lag_records") == 1 and metric("syncer_export_rows_total") == 0
    process.terminate([0])
    exports.check_rows(1)


def test_a_topic_that_loses_records_is_refused(exports: Exports, stack: devstack.Stack) -> None:
    compacted = exports.name + "-compacted"
    text = MODEL.replace("NAME", exports.name).replace(f"topic: {exports.name}", f"topic: {compacted}")
    sink = sinks.build(
        "kafka",
        {"topic": compacted},
        model=compiled(exports.name),
        connection={"bootstrap_servers": stack.kafka, "topic_prefix": "shop"},
    )
    sink.prepare()
    sink.close()
    (exports.folder / "models" / f"{exports.name}.yaml").write_text(text)
    for options in ((), ("--check",)):
        output = exports.run(*options, expect=3)
        assert "cleanup.policy=compact" in output and "cleanup_policy: delete" in output
    assert not exports.path.exists()


def test_deleted_records_are_reported_and_can_be_skipped(exports: Exports) -> None:
    for clock in range(1, 4):
        exports.write(clock, {"1": {"n": clock}})
    partition = next(p for p in (0, 1) if _end(exports, p) == 3)
    deleted = TopicPartition(exports.topic, partition, 2)
    for future in exports.admin.delete_records([deleted]).values():
        future.result(10)
    output = exports.run(expect=3)
    assert f"partition {partition}, offsets 0 to 1" in output and "--skip-gaps" in output
    assert "skipped missing records" in exports.run("--skip-gaps")
    assert exports.lake.query("SELECT _offset, n FROM lake") == [(2, 3)]
    exports.write(4, {"1": {"n": 4}})
    exports.run()
    assert exports.lake.query("SELECT n FROM orders") == [(4,)]


def _end(exports: Exports, partition: int) -> int:
    wanted = {TopicPartition(exports.topic, partition): OffsetSpec.latest()}  # type: ignore[no-untyped-call]
    [future] = exports.admin.list_offsets(wanted).values()
    return int(future.result(10).offset)


def test_a_transaction_of_another_program_is_reported(exports: Exports) -> None:
    """Its marker occupies an offset that no reader gets. A reader cannot distinguish that from a lost record."""
    producer = Producer({"bootstrap.servers": exports.kafka, "transactional.id": exports.name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(exports.topic, b"{}", "1")
    producer.commit_transaction(30)
    output = exports.run(expect=3)
    assert "written in a transaction by another program" in output and "offset 1" in output


def test_a_topic_that_was_created_again_is_refused(exports: Exports) -> None:
    exports.write(1, {"1": {"n": 1}})
    exports.run()
    for future in exports.admin.delete_topics([exports.topic, f"{exports.topic}.syncer"]).values():
        future.result(10)
    until(lambda: exports.topic not in exports.admin.list_topics(timeout=10).topics)
    exports.sink.close()
    exports.sink = exports.open_sink()
    exports.write(2, {"1": {"n": 2}})
    assert "deleted and created again" in exports.run(expect=3)
    exports.run("--new-topic")
    assert exports.lake.query("SELECT n, _offset FROM lake ORDER BY n") == [(1, 0), (2, 0)]


def test_a_path_that_is_not_writable_is_refused_before_anything_is_read(exports: Exports) -> None:
    exports.path.write_text("a file")
    output = exports.run(expect=3)
    assert "is not writable" in output and "choose another path" in output


def test_an_unreachable_object_store_is_an_error_that_can_be_retried(exports: Exports) -> None:
    store = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "any",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hidden-secret",
    }
    exports.environment |= store
    arguments = ["export", exports.name, "--to", "s3://lake/orders", "--check"]
    done = CliRunner().invoke(cli.main, arguments, env=exports.environment, catch_exceptions=False)
    assert done.exit_code == 4, done.output
    assert "object store" in done.output and "hidden-secret" not in done.output


def test_changes_of_postgresql_reach_the_table(system: System, tmp_path: Path) -> None:
    """The whole way: PostgreSQL, Debezium, the daemon, the topic, the export. The newest rows equal SQL."""
    name = f"{system.prefix}-lake"
    system.declare("lake", LAKE)
    system.execute(
        "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')",
        "INSERT INTO {schema}.orders (id, customer_id, amount) SELECT n, 1 + n % 2, n FROM generate_series(1, 20) n",
    )
    daemon = system.start(name)
    system.run("backfill", name)
    system.execute(
        "UPDATE {schema}.orders SET status = 'paid' WHERE id <= 5",
        "DELETE FROM {schema}.orders WHERE id > 15",
        "UPDATE {schema}.customers SET name = 'Augusta' WHERE id = 1",
    )
    lake = Lake(tmp_path / "lake", views())
    expected = system.database.query(
        f"SELECT o.id::text, o.status, o.amount / o.parts, c.name FROM {system.schema}.orders o"
        f" JOIN {system.schema}.customers c ON c.id = o.customer_id ORDER BY o.id"
    )

    def exported() -> bool:
        system.run("export", name, "--to", str(tmp_path / "lake"), "--until-caught-up")
        found = lake.query("SELECT _id, status, each, customer FROM orders ORDER BY _id::bigint")
        return found == [tuple(row) for row in expected]

    until(exported, daemon.log.read_text)
    assert lake.query("SELECT count(*) FROM order_states WHERE _deleted") == [(5,)]
    system.execute("UPDATE {schema}.orders SET status = 'shipped'")
    system.run("resync", name, "--yes")
    until(lambda: exported_statuses(system, name, lake) == {"shipped"}, daemon.log.read_text)
    assert {row[0] for row in lake.query("SELECT DISTINCT _generation FROM orders")} == {2}


def exported_statuses(system: System, name: str, lake: Lake) -> set[str]:
    system.run("export", name, "--to", str(lake.folder), "--until-caught-up")
    return {status for (status,) in lake.query("SELECT DISTINCT status FROM orders")}
