"""A read model in a topic: what its readers see during changes, faults, manual edits and a resync."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from threading import Event
from typing import Any, NamedTuple

import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from devstack import Stack
from syncer import sinks
from syncer.clock import split_version
from syncer.document import Batch, Outcome
from syncer.errors import Fatal, Retry
from syncer.kafka.group_offsets import GroupOffsets
from syncer.operations.catch_up import _CatchUp
from syncer.pipeline.order_lane import OrderLane
from syncer.ports import LogStart, Partition, Sink
from syncer.runtime.ordered_logs import OrderedLogs
from syncer.sinks.kafka.delivery import Delivery
from syncer.sinks.kafka.sink import KafkaSink
from tests.contracts.sinks import compiled
from tests.harness import Names
from tests.harness.proxy import kafka_proxy
from tests.harness.system import EXPECTED_SUMMARIES, SUMMARIES, System
from tests.harness.waiting import until

DOCUMENTS = SUMMARIES.replace("{summaries}", "{prefix}-documents").replace(
    '{{redis: {{key: "{prefix}:summary:{{id}}"}}}}', '{{kafka: {{topic: "{prefix}-documents"}}}}'
)
_PRODUCE = b"\0\0"
"""The number of the request that appends records, in Kafka's protocol."""
ROWS = (
    "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger')",
    "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 20) n",
)


class Seen(NamedTuple):
    """One record, as a reader of the topic sees it."""

    id: str
    document: Any
    version: int
    headers: dict[str, str]


class Documents:
    """The topic of a system's read model, as its readers see it."""

    def __init__(self, system: System) -> None:
        system.declare("documents", DOCUMENTS)
        self.system = system
        self.name = self.topic = f"{system.prefix}-documents"
        """Of the read model, and of the topic."""
        self.admin = AdminClient({"bootstrap.servers": system.stack.kafka})

    def records(self) -> list[Seen]:
        found = []
        for message in self.system.topic_reader().messages(self.topic):
            pairs: Any = message.headers() or []
            headers = {name: value.decode() for name, value in pairs}
            body: Any = message.value()
            key: Any = message.key()
            document = None if body is None else json.loads(body)
            found.append(Seen(key.decode(), document, int(headers.get("version", 0)), headers))
        return found

    def newest(self) -> dict[str, Seen]:
        """Returns the last record of each id, as compaction leaves it."""
        return {one.id: one for one in self.records()}

    def last(self) -> dict[str, Any]:
        """Returns the documents of these records, without tombstones."""
        return {id: one.document for id, one in self.newest().items() if one.document is not None}

    def expected(self) -> dict[str, Any]:
        return dict(self.system.database.query(EXPECTED_SUMMARIES.format(schema=self.system.schema)))

    def until_in_sync(self) -> None:
        until(lambda: self.last() == self.expected(), lambda: f"{self.last()}\n{self.expected()}")

    def produce(self, id: str, document: Any, version: int | None = None) -> None:
        """Writes a record by hand."""
        producer = Producer({"bootstrap.servers": self.system.stack.kafka, "partitioner": "murmur2_random"})
        headers: Any = [] if version is None else [("version", str(version).encode())]
        body = None if document is None else json.dumps(document).encode()
        producer.produce(self.topic, body, id, headers=headers)
        assert producer.flush(10) == 0

    def verify(self, *options: str, expect: int = 0) -> dict[str, Any]:
        output = self.system.run("verify", *options, "--patience", "0", "--json", self.name, expect=expect)
        [report] = json.loads(output[output.index("[\n") :])
        return dict(report)


@pytest.fixture
def documents(system: System) -> Documents:
    return Documents(system)


def test_readers_see_each_change_as_a_record(documents: Documents) -> None:
    system = documents.system
    system.execute(*ROWS)
    daemon = system.start(documents.name)
    system.run("backfill", documents.name)
    documents.until_in_sync()
    began_ms = time.time() * 1000
    system.execute("UPDATE {schema}.customers SET name = 'Augusta' WHERE id = 1")
    documents.until_in_sync()
    record = documents.newest()["1"]
    assert record.document["name"] == "Augusta"
    assert (record.headers["model"], record.headers["generation"]) == (documents.name, "1")
    assert began_ms - 60_000 < int(record.headers["committed_ms"]) < time.time() * 1000 + 60_000
    assert split_version(record.version)[0] == 1
    system.execute(
        "UPDATE {schema}.orders SET customer_id = 3 WHERE id = 7", "DELETE FROM {schema}.customers WHERE id = 2"
    )
    documents.until_in_sync()
    system.execute("INSERT INTO {schema}.customers VALUES (4, 'Barbara')", "DELETE FROM {schema}.orders WHERE id < 5")
    documents.until_in_sync()
    records = documents.records()
    assert [one.document for one in records if one.id == "2"][-1] is None, "a delete is a tombstone"
    for id in "1234":
        versions = [one.version for one in records if one.id == id]
        assert versions == sorted(set(versions)), "each record of an id has a higher version"
    assert documents.verify()["equal"]
    until(lambda: daemon.metric("syncer_lag_records", lane="order") == 0)
    assert daemon.metric("syncer_documents_reordered_total") == 0


def test_two_daemons_and_a_killed_one_leave_the_newest_documents(documents: Documents) -> None:
    system = documents.system
    system.execute(*ROWS)
    daemons = [system.start(documents.name, ready=False) for _ in range(2)]
    system.run("backfill", documents.name)
    for n in range(30):
        system.execute(
            f"UPDATE {{schema}}.customers SET name = 'name {n}'",
            f"UPDATE {{schema}}.orders SET status = 'status {n}', customer_id = 1 + (id + {n}) % 3",
        )
        if n == 10:
            daemons[0].kill()
        if n == 20:
            daemons.append(system.start(documents.name, ready=False))
    documents.until_in_sync()
    assert documents.verify()["equal"]
    daemons[1].kill()
    system.execute("UPDATE {schema}.customers SET name = 'last'")
    documents.until_in_sync()


def test_an_older_version_that_came_last_is_corrected(documents: Documents) -> None:
    """As after a write of a process that was frozen, with a running daemon and with a stopped one.

    Two lanes may write a document at the same time, so the daemon may count more corrections than the test causes.
    """
    system = documents.system
    system.execute(*ROWS)
    daemon = system.start(documents.name)
    system.run("backfill", documents.name)
    documents.until_in_sync()
    version = min(one.version for one in documents.newest().values())
    documents.produce("1", {"name": "old", "orders": []}, version - 1)
    documents.produce("2", None, version - 1)
    documents.until_in_sync()
    until(lambda: daemon.metric("syncer_documents_reordered_total") >= 2, daemon.log.read_text)
    assert all(one.version >= version for one in documents.newest().values())
    daemon.stop()
    documents.produce("3", {"name": "old", "orders": []}, version - 1)
    daemon = system.start(documents.name)
    documents.until_in_sync()
    until(lambda: daemon.metric("syncer_documents_reordered_total") >= 1, daemon.log.read_text)
    assert documents.verify()["equal"]


def test_verify_repairs_manual_edits(documents: Documents) -> None:
    system = documents.system
    system.execute(*ROWS)
    system.run("backfill", documents.name)
    documents.produce("1", {"name": "Eve", "orders": []})
    documents.produce("2", None)
    documents.produce("99", {"name": "nobody", "orders": []})
    report = documents.verify(expect=1)
    assert (report["differing"], report["missing"], report["orphaned"]) == (["1"], ["2"], ["99"])
    report = documents.verify("--repair")
    assert report["equal"] and report["repaired"] == 3
    assert documents.last() == documents.expected()


def test_a_resync_fills_the_same_topic_and_stops_older_writers(documents: Documents) -> None:
    system = documents.system
    system.execute(*ROWS)
    daemon = system.start(documents.name)
    system.run("backfill", documents.name)
    documents.until_in_sync()
    documents.produce("98", {"name": "left over", "orders": []}, 5)
    system.run("resync", documents.name, "--yes")
    documents.until_in_sync()
    newest = documents.newest()
    assert newest.keys() == {"1", "2", "3", "98"} and newest["98"].document is None
    assert {split_version(one.version)[0] for one in newest.values()} == {2}
    assert {one.headers["generation"] for one in newest.values()} == {"2"}
    system.until_status(documents.name, generation=2, state="running")
    system.execute("UPDATE {schema}.customers SET name = 'later'", "DELETE FROM {schema}.customers WHERE id = 3")
    documents.until_in_sync()
    assert documents.verify()["equal"]
    assert daemon.alive


def test_a_topic_that_was_deleted_stops_the_read_model(documents: Documents) -> None:
    system = documents.system
    system.execute(*ROWS)
    daemon = system.start(documents.name)
    system.run("backfill", documents.name)
    documents.until_in_sync()
    for future in documents.admin.delete_topics([documents.topic]).values():
        future.result(10)
    reason = daemon.until_reason(documents.name, "failed")
    assert f"topic {documents.topic} is missing" in reason and f"syncer resync {documents.name}" in reason
    system.run("resync", documents.name, "--yes")
    documents.until_in_sync()


def test_partitions_that_were_added_stop_the_read_model(documents: Documents) -> None:
    system = documents.system
    system.execute(*ROWS)
    daemon = system.start(documents.name)
    system.run("backfill", documents.name)
    for future in documents.admin.create_partitions([NewPartitions(documents.topic, 5)]).values():
        future.result(10)
    output = system.run("check", documents.name, expect=1)
    assert "had 2 partitions when it was created, and has 5" in output
    reason = daemon.until_reason(documents.name, "failed")
    assert "another number of partitions" in reason and f"syncer resync {documents.name}" in reason, (
        daemon.log.read_text()
    )


def test_check_refuses_a_topic_that_can_lose_documents(documents: Documents) -> None:
    system, admin = documents.system, documents.system.kafka_admin()
    assert "has one replica" in system.run("check", documents.name)
    admin.create([documents.topic], {"cleanup.policy": "delete", "min.compaction.lag.ms": "0"})
    output = system.run("check", documents.name, expect=1)
    for setting in (
        "cleanup.policy=compact",
        "min.compaction.lag.ms=86400000",
        "message.timestamp.before.max.ms=15000",
    ):
        assert f"--topic {documents.topic} --add-config {setting}" in output
    daemon = system.start(documents.name, ready=False)
    assert "cleanup.policy=delete" in daemon.until_reason(documents.name, "failed")


@pytest.mark.parametrize("name", ["{topic_prefix}.documents", "{prefix}.documents", "{prefix}.state"])
def test_check_refuses_the_topic_of_something_else(documents: Documents, name: str) -> None:
    system = documents.system
    system.declare("documents", DOCUMENTS.replace('"{prefix}-documents"', f'"{name}"'))
    output = system.run("check", documents.name, expect=1)
    assert "cannot hold documents" in output and "choose another topic" in output
    daemon = system.start(documents.name, ready=False)
    assert "cannot hold documents" in daemon.until_reason(documents.name, "failed")


# -- the sink alone ---------------------------------------------------------------------------------------


@pytest.fixture
def make(names: Names, request: pytest.FixtureRequest) -> Iterator[Callable[..., Sink]]:
    """Returns sinks on the topic of one test."""
    opened: list[Sink] = []
    kafka = request.getfixturevalue("stack").kafka

    def make(name: str = "things", **block: Any) -> Sink:
        connection = {"bootstrap_servers": kafka, "topic_prefix": "shop", "partitions": 2}
        model = compiled(names(name))
        opened.append(sinks.build("kafka", {"topic": names("t"), **block}, model=model, connection=connection))
        return opened[-1]

    yield make
    for sink in opened:
        sink.close()


def test_a_wrong_clock_is_named(make: Callable[..., Sink], monkeypatch: pytest.MonkeyPatch) -> None:
    sink = make()
    sink.prepare()
    now = time.time_ns
    monkeypatch.setattr("syncer.sinks.kafka.delivery.time.time_ns", lambda: now() - 60 * 10**9)
    with pytest.raises(Retry, match="cannot write") as caught:
        sink.write(Batch(1, {"a": b"{}"}, []))
    assert "the clock of this host has to agree with the brokers to 15 s" in str(caught.value)
    monkeypatch.undo()
    assert sink.write(Batch(1, {"a": b"{}"}, [])).written == 1


def test_a_batch_without_time_left_is_not_sent(make: Callable[..., Sink]) -> None:
    sink = make()
    sink.prepare()
    with pytest.raises(Retry, match="took longer"):
        sink.write(Batch(1, {"a": b"{}"}, []), timeout=0.0)
    assert sink.count() == 0


def test_a_late_answer_does_not_count_for_a_later_record_of_the_same_document(
    make: Callable[..., Sink], names: Names, stack: Stack
) -> None:
    """Two lanes may write a document. The answer to the first record arrives while the second one has none."""
    sink = make(partitions=1)
    sink.prepare()
    held = [Event(), Event()]
    arrived = iter(held)

    def hold(frame: bytes) -> bytes:
        """Holds each of the first two requests that append records."""
        if frame[4:6] == _PRODUCE and (release := next(arrived, None)):
            assert release.wait(60.0)
        return frame

    with kafka_proxy(stack.kafka) as link:
        link.request = hold
        delivery = Delivery({"bootstrap.servers": link.address}, names("t"), "kafka")
        assert sent(delivery, b'{"n":1}', 1.0) == Outcome(retry=["a"], retry_reason="kafka: no answer in 1 s")
        held[0].set()
        until(lambda: sink.read(["a"]) == {"a": b'{"n":1}'})
        assert sent(delivery, b'{"n":2}', 2.0) == Outcome(retry=["a"], retry_reason="kafka: no answer in 2 s")
        assert sink.read(["a"]) == {"a": b'{"n":1}'}
        held[1].set()
        assert sent(delivery, b'{"n":3}', 10.0) == Outcome(written=1)
        assert sink.read(["a"]) == {"a": b'{"n":3}'}
        delivery.close()


def sent(delivery: Delivery, body: bytes, timeout: float) -> Outcome:
    """Sends the document `a`."""
    out = Outcome()
    delivery({"a": body}, lambda id: [], timeout, out)
    return out


def test_a_topic_of_another_read_model_is_refused(make: Callable[..., Sink]) -> None:
    make().prepare()
    with pytest.raises(Fatal, match="belongs to the read model") as caught:
        make("others").prepare()
    assert "choose another topic" in caught.value.hint


def test_a_topic_with_records_of_others_is_refused(make: Callable[..., Sink], names: Names) -> None:
    first = make()
    first.prepare()
    first.write(Batch(1, {"a": b"{}"}, []))
    admin = AdminClient({"bootstrap.servers": first._connection.bootstrap_servers})  # type: ignore[attr-defined]
    for future in admin.delete_topics([names("t.syncer")]).values():
        future.result(10)
    until(lambda: names("t.syncer") not in admin.list_topics(timeout=10).topics)
    with pytest.raises(Fatal, match="does not say who wrote them"):
        make().prepare()


def test_a_new_topic_has_the_configured_partitions(make: Callable[..., Sink], names: Names) -> None:
    sink = make(partitions=3, compaction_lag="2h")
    sink.prepare()
    admin = sink._admin  # type: ignore[attr-defined]
    assert len(admin.replicas(names("t"))) == 3
    found = admin.configs(names("t"))
    assert (found["min.compaction.lag.ms"], found["delete.retention.ms"]) == ("7200000", "7200000")
    assert found["cleanup.policy"] == "compact"


def test_a_topic_that_is_created_again_has_another_durability_token(make: Callable[..., Sink], names: Names) -> None:
    sink = make()
    sink.prepare()
    before = sink.durability()
    admin = AdminClient({"bootstrap.servers": sink._connection.bootstrap_servers})  # type: ignore[attr-defined]
    for future in admin.delete_topics([names("t")]).values():
        future.result(10)
    until(lambda: names("t") not in admin.list_topics(timeout=10).topics)
    with pytest.raises(Fatal, match="is missing"):
        sink.durability()
    with pytest.raises(Fatal, match="is missing"):
        sink.write(Batch(1, {"a": b"{}"}, []))
    with pytest.raises(Fatal, match="is missing"):
        make().prepare(new=False)
    make().prepare()
    assert sink.durability().documents != before.documents
    assert sink.write(Batch(1, {"a": b"{}"}, [])).written == 1


def test_a_commit_that_a_rebalance_refused_is_sent_again(make: Callable[..., Sink], names: Names) -> None:
    """The partition may have no further records. Without the commit, the next reader would check old ones again."""
    sink = make()
    assert isinstance(sink, KafkaSink)
    sink.prepare()
    sink.write(Batch(1, {"a": b"{}"}, []))
    offsets = GroupOffsets(sink._settings)
    with closing(sink.document_log(names("order"), max_age=30.0, since_ms=0)) as log, closing(offsets):
        entry = until(lambda: log.poll(0.1, 10))[0]
        partition = entry.position.topic, entry.position.partition
        log._committed[partition] = LogStart(0, entry.position.offset + 1)
        log._on_commit(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [TopicPartition(*partition)])
        log.poll(0.0, 10)
        until(lambda: offsets.committed(names("order"), [partition]) == {partition: entry.position.offset + 1})


def test_a_resync_waits_until_the_order_of_its_documents_is_checked(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers would see an older document last, and nothing would correct it before the switch."""
    system = documents.system
    system.execute(*ROWS)
    system.run("backfill", documents.name)
    step, until_checked, waited_for = OrderLane.step, _CatchUp._until_checked, Event()
    lanes: list[OrderLane] = []
    unchecked: list[int] = []

    def late(lane: OrderLane) -> None:
        """Checks nothing before the resync waits for it."""
        if waited_for.is_set():
            step(lane)
        else:
            lane.wait(0.1)

    def wait_for_checks(catch_up: _CatchUp, ends: Mapping[Partition, int]) -> None:
        waited_for.set()
        until_checked(catch_up, ends)

    def activate(sink: KafkaSink) -> list[str]:
        unchecked.append(OrderedLogs([(sink, lane) for lane in lanes]).left(sink.log_ends()))
        return []

    def order_lane(lane: OrderLane) -> None:
        lanes.append(lane)
        run(lane)

    run = OrderLane.run
    monkeypatch.setattr(_CatchUp, "_until_checked", wait_for_checks)
    monkeypatch.setattr(OrderLane, "step", late)
    monkeypatch.setattr(OrderLane, "run", order_lane)
    monkeypatch.setattr(KafkaSink, "activate", activate)
    system.run("resync", documents.name, "--yes")
    assert lanes and unchecked == [0]
    assert documents.last() == documents.expected()
