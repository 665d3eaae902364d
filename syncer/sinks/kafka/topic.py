"""The topic of the documents: the settings that it must have, and a second topic that records what was written to it.

The settings bound the time between two records of an id that are in the wrong order:

- The sink stamps a record when it hands it to the client, and only while the document is younger than `max_age`.
- The broker rejects a record whose stamp differs from its own clock by more than `STAMP_TOLERANCE`
  (`message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`). So a paused process or a slow network cannot
  append an older document later than that.
- Compaction leaves all records alone for `min.compaction.lag.ms`, so the order lane sees both of them.

`TOPIC.syncer` has one record for each generation: the read model, the hash of its declaration, and the number of
partitions. Kafka has no other place for that next to the documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Producer

from syncer.errors import Fatal, Retry, SyncerError
from syncer.kafka.admin import MAX_BYTES, KafkaAdmin
from syncer.kafka.errors import classify_error
from syncer.sinks.kafka.settings import Connection, Settings, client_settings
from syncer.sinks.kafka.tail import TopicTail
from syncer.sinks.target import Target

STAMP_TOLERANCE = 15.0
"""Seconds by which the clocks of the syncer and of a broker may differ. It is the longest time of a delivery, too."""
_LEAST_LAG_MS = 3600 * 1000
"""Two windows of the largest `max_age` (600 s), and the lag of the order lane."""
_ANSWER = 30.0  # seconds
_KEPT = {"retention.ms": "-1", "retention.bytes": "-1"}
"""The settings with which a topic with `cleanup.policy=delete` deletes nothing by itself."""

Configuration = Mapping[str, str]


def window(max_age: float) -> float:
    """Returns the longest time between two records of an id that are in the wrong order, in seconds.

    The later one was appended at most `max_age` and a delivery after its snapshot. Each stamp may be wrong by the
    tolerance, and the time of the log is that of its highest stamp. The second `max_age` is a reserve.
    """
    return 2 * max_age + 4 * STAMP_TOLERANCE


def configuration(settings: Settings, replicas: int) -> dict[str, str]:
    """Returns the configuration of a new topic."""
    lag, stamp = str(int(settings.compaction_lag * 1000)), str(int(STAMP_TOLERANCE * 1000))
    kept = _KEPT if settings.cleanup_policy == "delete" else {}
    return {
        "cleanup.policy": settings.cleanup_policy,
        **kept,
        "min.compaction.lag.ms": lag,
        "delete.retention.ms": lag,
        "message.timestamp.type": "CreateTime",
        "message.timestamp.before.max.ms": stamp,
        "message.timestamp.after.max.ms": stamp,
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(min(2, replicas)),
        "max.message.bytes": str(MAX_BYTES),
    }


def admin_of(connection: Connection) -> KafkaAdmin:
    return KafkaAdmin(
        client_settings(connection),
        partitions=connection.partitions,
        replication_factor=connection.replication_factor,
    )


def lossy(found: Configuration) -> str:
    """Returns the setting by which a topic removes records, with its value. Empty if it removes none."""
    wanted = {"cleanup.policy": "delete", **_KEPT}
    return next((f"{key}={found.get(key)}" for key, value in wanted.items() if found.get(key) != value), "")


def problems(settings: Settings, found: Configuration, connection: Connection, replicas: int) -> Iterator[SyncerError]:
    """Yields an error for each setting of a topic with which documents could be lost or stay wrong."""
    topic = settings.topic

    def wrong(key: str, why: str, value: str) -> Fatal:
        servers = connection.bootstrap_servers
        return Fatal(
            f"topic {topic} cannot hold documents",
            where=f"topic {topic}",
            why=f"{key}={found.get(key, 'unknown to this Kafka')}: {why}",
            hint=f"kafka-configs.sh --bootstrap-server {servers} --alter --topic {topic} --add-config {key}={value}",
        )

    for key, why, value in _wrong_cleanup(settings, found):
        yield wrong(key, why, value)
    if found.get("message.timestamp.type") != "CreateTime":
        yield wrong("message.timestamp.type", "the broker has to compare the time of the writer", "CreateTime")
    for key in ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms"):
        if int(found.get(key, str(1 << 62))) > STAMP_TOLERANCE * 1000:
            yield wrong(key, "a late record could replace a newer one (Kafka 3.6 or later)", "15000")
    if found.get("unclean.leader.election.enable") != "false":
        yield wrong("unclean.leader.election.enable", "acknowledged documents could be lost", "false")
    if replicas > 1 and int(found.get("min.insync.replicas", "1")) < 2:
        yield wrong("min.insync.replicas", "a document could be acknowledged by one broker alone", "2")


def _wrong_cleanup(settings: Settings, found: Configuration) -> Iterator[tuple[str, str, str]]:
    """Yields the settings with which a topic would remove records that it has to keep: name, reason, wanted value."""
    wanted, policy = settings.cleanup_policy, found.get("cleanup.policy")
    if wanted == "delete":
        if policy != wanted:
            yield "cleanup.policy", "the read model declares cleanup_policy: delete, to keep every record", wanted
        for key, value in _KEPT.items():
            if found.get(key) != value:
                yield key, "documents would be deleted by age or size", value
        return
    if policy != wanted:
        why = "Kafka would delete documents by age, or keep every version of them (see cleanup_policy of the sink)"
        yield "cleanup.policy", why, wanted
    for key in ("min.compaction.lag.ms", "delete.retention.ms"):
        if int(found.get(key, "0")) < _LEAST_LAG_MS:
            yield key, "records must stay for an hour at least, until their order was checked", "86400000"


def reserved(topic: str, connection: Connection) -> str:
    """Returns why the syncer must not write documents to a topic of this name; empty if it may."""
    if topic.startswith(f"{connection.topic_prefix}."):
        return f"topics that begin with {connection.topic_prefix}. (kafka.topic_prefix) hold change events"
    if topic.startswith(f"{connection.group_prefix}."):
        return f"topics that begin with {connection.group_prefix}. (kafka.group_prefix) are the syncer's own"
    return "it is the state topic (kafka.state_topic)" if topic == connection.state_topic else ""


class TopicRecord:
    """The topic `TOPIC.syncer`: what the documents were written from, by generation."""

    def __init__(self, topic: str, connection: Connection, admin: KafkaAdmin, target: Target) -> None:
        self.name = f"{topic}.syncer"
        self._settings, self._admin, self._target = client_settings(connection), admin, target

    def create(self, replicas: int) -> None:
        config = {"cleanup.policy": "compact", "min.insync.replicas": str(min(2, replicas))}
        self._admin.create([self.name], config, partitions=1)

    def read(self) -> list[dict[str, Any]]:
        """Returns the records of all generations. Empty if the topic does not exist."""
        ends = {number: end for (_, number), end in self._admin.ends([self.name]).items()}
        found: dict[str, dict[str, Any]] = {}
        if ends:
            tail = TopicTail(self._settings, self.name, dict.fromkeys(ends, 0))
            try:
                for record in tail.read(ends, _ANSWER):
                    found[record.id] = orjson.loads(record.body or b"{}")
            finally:
                tail.close()
        return [value for value in found.values() if value]

    def write(self, partitions: int) -> None:
        """Adds the record of this generation. Returns when it is durable."""
        value = orjson.dumps({**self._target.meta(), "partitions": partitions})
        producer = Producer({**self._settings, "acks": "all", "message.timeout.ms": int(_ANSWER * 1000)})
        key, answers = f"{self._target.epoch}/{self._target.generation}", list[KafkaError | None]()
        try:
            producer.produce(self.name, value, key, on_delivery=lambda error, _: answers.append(error))
            producer.flush(_ANSWER)
        except KafkaException as error:
            raise classify_error(f"cannot write to topic {self.name}", error) from error
        if answers != [None]:
            why = answers[0].str() if answers and answers[0] else f"no answer in {_ANSWER:.0f} s"
            raise Retry(f"cannot write to topic {self.name}", where=self._target.name, why=why)


def at_time(topic: str, partitions: int, at_ms: int, admin: KafkaAdmin) -> dict[int, int]:
    """Returns the first offset of each partition at a time or later. Where there is none, the end offset."""
    ends = admin.ends([topic])  # first: a record that is appended in between is behind them
    found = admin.ends([topic], at_ms=at_ms)
    offsets = {number: found.get((topic, number), -1) for number in range(partitions)}
    return {number: ends.get((topic, number), 0) if offset < 0 else offset for number, offset in offsets.items()}
