"""Our own topics: made before anything else, and measured; `writing.py` writes them.

work         keys and ranges to render, per read model and generation          deleted by size and age
dead letters what was refused, per read model (`letters.py`)                   compacted
state        where each read model began, its epoch, its backfill (`state.py`)  compacted
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from syncer.errors import Fatal, Retry
from syncer.kafka.errors import classify_error, unreadable
from syncer.ports import Partition

_TIMEOUT, _FIRST_TIMEOUT = 20.0, 5.0
"""Seconds. After a broker's restart a client can wait for an answer that never comes, and a new one gets it
at once. So the first wait is short; each that was in vain doubles the next, for a Kafka that is slow."""
MAX_BYTES = 16 << 20
"""The largest record of our own topics: a dead letter holds the record that nobody could read."""
_SOON = 10.0  # the first thing asked: whether Kafka is there at all

_SETTLING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
}
"""Of a topic that was just made, or whose leader changes: gone in a moment."""


class KafkaAdmin:
    """Administration. settings: of librdkafka. Raises Retry when Kafka is away, Fatal when it refuses."""

    def __init__(self, settings: Mapping[str, Any], *, partitions: int, replication_factor: int) -> None:
        self._settings = dict(settings)
        self._partitions, self._replicas = partitions, replication_factor
        self._patience = _FIRST_TIMEOUT
        self._renew()

    def _renew(self) -> None:
        """A new client. After an outage, one can wait for ever for a group's coordinator
        (confluentinc/librdkafka#5511); others who wait for the same get an error at once."""
        self._said = ""
        try:
            settings: dict[str, Any] = {"log_level": 2, "error_cb": self._note, **self._settings}
            self._admin = AdminClient(settings)
        except KafkaException as error:
            raise Fatal(
                "a setting of Kafka's client is wrong",
                where="kafka.properties",
                why=error.args[0].str(),
                hint=unreadable(self._settings),
            ) from error

    def _note(self, error: KafkaError) -> None:
        """What the client says of its connections, as a TLS handshake that failed. Last comes that all of
        them are down."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._said = error.str()

    def existing(self, timeout: float = _SOON) -> dict[str, int]:
        """All topics and how many partitions each has."""
        try:
            topics = self._admin.list_topics(timeout=timeout).topics
        except KafkaException as error:
            self._admin.poll(0)
            raise classify_error("cannot list topics", error, self._said) from error
        return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}

    def create(self, names: Collection[str], config: Mapping[str, str], *, partitions: int = 0) -> list[str]:
        """Make those that are missing; returns their names."""
        missing = sorted(set(names) - self.existing().keys())
        if not missing:
            return []
        wanted = [
            NewTopic(
                name,
                num_partitions=partitions or self._partitions,
                replication_factor=self._replicas,
                config=dict(config),
            )
            for name in missing
        ]
        for name, future in self._admin.create_topics(wanted, operation_timeout=_TIMEOUT).items():
            try:
                self._result(future, f"cannot create topic {name}")
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise classify_error(f"cannot create topic {name}", error) from error
        deadline = time.monotonic() + _TIMEOUT
        while not set(missing) <= self.existing().keys() and time.monotonic() < deadline:
            time.sleep(0.05)  # creation is acknowledged before every broker knows the topic
        return missing

    def ids(self, topics: Collection[str]) -> dict[str, str]:
        """What tells each topic from a later one of its name; those that are not there are left out."""
        found = {}
        for name, future in self._admin.describe_topics(TopicCollection(list(topics))).items():
            try:
                found[name] = str(self._result(future, f"cannot describe topic {name}").topic_id)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise classify_error(f"cannot describe topic {name}", error) from error
        return found

    def config(self, topic: str, key: str) -> str | None:
        """A topic's setting, e.g. `cleanup.policy`."""
        try:
            futures = self._admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)])
            entry = self._result(next(iter(futures.values())), "cannot read a topic's settings").get(key)
        except KafkaException as error:
            raise classify_error(f"cannot read the settings of topic {topic}", error) from error
        return entry.value if entry else None

    def configure(self, topic: str, config: Mapping[str, str]) -> None:
        """Change these settings of a topic; the others stay."""
        what = f"cannot change the settings of topic {topic}"
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        try:
            for future in self._admin.incremental_alter_configs([resource]).values():
                self._result(future, what)
        except KafkaException as error:
            raise classify_error(what, error) from error

    def ends(self, topics: Collection[str], at_ms: int | None = None) -> dict[Partition, int]:
        """The end offset of every partition; or, with at_ms, the first offset of that time or later (where
        there is none: −1)."""
        spec = OffsetSpec.latest() if at_ms is None else OffsetSpec.for_timestamp(at_ms)  # type: ignore[no-untyped-call]
        return self._offsets(topics, spec)

    def begins(self, topics: Collection[str]) -> dict[Partition, int]:
        """The first offset that every partition still has."""
        return self._offsets(topics, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def _offsets(self, topics: Collection[str], spec: Any) -> dict[Partition, int]:
        existing = self.existing()
        wanted = {TopicPartition(t, p): spec for t in topics for p in range(existing.get(t, 0))}
        if not wanted:
            return {}
        what, deadline = "cannot read the offsets", time.monotonic() + _SOON
        while True:
            try:
                futures = self._admin.list_offsets(wanted)
                return {(tp.topic, tp.partition): self._result(f, what).offset for tp, f in futures.items()}
            except KafkaException as error:
                if error.args[0].code() not in _SETTLING or time.monotonic() > deadline:
                    raise classify_error(what, error) from error
                time.sleep(0.1)

    def committed(self, group: str) -> dict[Partition, int]:
        """The group's offsets; empty if it has none."""
        what = f"cannot read the offsets of group {group}"
        try:
            request = [ConsumerGroupTopicPartitions(group)]
            futures = self._admin.list_consumer_group_offsets(request)
            result = self._result(next(iter(futures.values())), what)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return {}
            raise classify_error(what, error) from error
        return {(p.topic, p.partition): p.offset for p in result.topic_partitions if p.offset >= 0}

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Set the offsets of a group without members. Raises Retry if it has some by now: then another
        process has begun at the same time, and set them."""
        partitions = [TopicPartition(t, p, o) for (t, p), o in offsets.items()]
        if not partitions:
            return
        try:
            request = [ConsumerGroupTopicPartitions(group, partitions)]
            futures = self._admin.alter_consumer_group_offsets(request)
            self._result(next(iter(futures.values())), f"cannot set the offsets of group {group}")
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID:
                raise Retry(
                    "the consumer group is in use, so its offsets cannot be set",
                    where=f"group {group}",
                    hint="another syncer begins this read model: nothing to do",
                ) from error
            raise classify_error(f"cannot set the offsets of group {group}", error) from error

    def members(self, group: str) -> int:
        """How many consumers the group has now."""
        try:
            futures = self._admin.describe_consumer_groups([group])
            described = self._result(next(iter(futures.values())), f"cannot describe group {group}")
            return len(described.members)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return 0
            raise classify_error(f"cannot describe group {group}", error) from error

    def _result(self, future: Future[Any], what: str) -> Any:
        waited = self._patience
        try:
            found = future.result(waited)
        except TimeoutError:
            self._patience = min(2 * waited, _TIMEOUT)
            self._renew()
            raise Retry(what, where="Kafka", why=f"no answer in {waited:.0f} s") from None
        self._patience = _FIRST_TIMEOUT
        return found
