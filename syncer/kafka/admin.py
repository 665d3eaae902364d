"""Creates and inspects topics and consumer groups. `reader.py` reads records, `producer.py` writes them."""

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
"""Seconds to wait for an answer. After a broker restarts, a client can wait for an answer that never comes, although a
new client gets one at once. So the first wait is short. Each time-out doubles the next wait, for a slow Kafka."""
MAX_BYTES = 16 << 20
"""The largest record in the syncer's topics. A dead letter holds a whole record that could not be decoded."""
_CONNECT_TIMEOUT = 10.0
"""Seconds for the first request of a call, which shows whether Kafka is reachable."""

_TRANSIENT = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
}
"""The topic was created just now, or its leader changes. The error disappears within seconds."""


class KafkaAdmin:
    """Administers one Kafka cluster. Raises Retry when Kafka is unreachable, Fatal when it denies access.

    settings: of librdkafka.
    partitions, replication_factor: of the topics that `create` makes.
    """

    def __init__(self, settings: Mapping[str, Any], *, partitions: int, replication_factor: int) -> None:
        self._settings = dict(settings)
        self._partitions, self._replicas = partitions, replication_factor
        self._timeout = _FIRST_TIMEOUT
        self._replace_client()

    def _replace_client(self) -> None:
        """Creates another client. Threads that wait for the old client's answer get an error at once.

        After an outage, a client can wait forever for a group's coordinator (confluentinc/librdkafka#5511).
        """
        self._connection_error = ""
        try:
            settings: dict[str, Any] = {"log_level": 2, "error_cb": self._on_error, **self._settings}
            self._admin = AdminClient(settings)
        except KafkaException as error:
            raise Fatal(
                "a setting of Kafka's client is wrong",
                where="kafka.properties",
                why=error.args[0].str(),
                hint=unreadable(self._settings),
            ) from error

    def _on_error(self, error: KafkaError) -> None:
        """Keeps the last error of a connection, for example of a TLS handshake.

        The client then reports that all brokers are down, which would hide the cause.
        """
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._connection_error = error.str()

    def existing(self, timeout: float = _CONNECT_TIMEOUT) -> dict[str, int]:
        """Returns all topics, with the number of partitions of each. Waits at most `timeout` seconds."""
        try:
            topics = self._admin.list_topics(timeout=timeout).topics
        except KafkaException as error:
            self._admin.poll(0)
            raise classify_error("cannot list topics", error, self._connection_error) from error
        return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}

    def create(self, names: Collection[str], config: Mapping[str, str], *, partitions: int = 0) -> list[str]:
        """Creates the topics that do not exist, and returns their names.

        config: of these topics.
        partitions: 0 for the number in the syncer's configuration.
        """
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
            time.sleep(0.05)  # Kafka acknowledges the creation before every broker knows the topic
        return missing

    def ids(self, topics: Collection[str]) -> dict[str, str]:
        """Returns the id of each topic that exists. A topic that is created again has another id."""
        found = {}
        for name, future in self._admin.describe_topics(TopicCollection(list(topics))).items():
            try:
                found[name] = str(self._result(future, f"cannot describe topic {name}").topic_id)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise classify_error(f"cannot describe topic {name}", error) from error
        return found

    def config(self, topic: str, key: str) -> str | None:
        """Returns one setting of a topic, e.g. `cleanup.policy`. None if Kafka has no such setting."""
        try:
            futures = self._admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)])
            entry = self._result(next(iter(futures.values())), "cannot read a topic's settings").get(key)
        except KafkaException as error:
            raise classify_error(f"cannot read the settings of topic {topic}", error) from error
        return entry.value if entry else None

    def configure(self, topic: str, config: Mapping[str, str]) -> None:
        """Changes these settings of a topic and no others."""
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
        """Returns the end offset of each partition. Topics that do not exist are left out.

        at_ms: returns the first offset of that time or later instead, −1 where there is none.
        """
        spec = OffsetSpec.latest() if at_ms is None else OffsetSpec.for_timestamp(at_ms)  # type: ignore[no-untyped-call]
        return self._offsets(topics, spec)

    def begins(self, topics: Collection[str]) -> dict[Partition, int]:
        """Returns the first offset that each partition still has."""
        return self._offsets(topics, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def _offsets(self, topics: Collection[str], spec: Any) -> dict[Partition, int]:
        existing = self.existing()
        wanted = {TopicPartition(t, p): spec for t in topics for p in range(existing.get(t, 0))}
        if not wanted:
            return {}
        what, deadline = "cannot read the offsets", time.monotonic() + _CONNECT_TIMEOUT
        while True:
            try:
                futures = self._admin.list_offsets(wanted)
                return {(tp.topic, tp.partition): self._result(f, what).offset for tp, f in futures.items()}
            except KafkaException as error:
                if error.args[0].code() not in _TRANSIENT or time.monotonic() > deadline:
                    raise classify_error(what, error) from error
                time.sleep(0.1)

    def committed(self, group: str) -> dict[Partition, int]:
        """Returns the committed offsets of a group. Empty if the group has none."""
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
        """Sets the offsets of a group without members.

        Raises Retry if the group has members. Then another process started at the same time and set them.
        """
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
                    hint="another syncer process starts this read model at the same time: no action is needed",
                ) from error
            raise classify_error(f"cannot set the offsets of group {group}", error) from error

    def members(self, group: str) -> int:
        """Returns how many consumers the group has now."""
        try:
            futures = self._admin.describe_consumer_groups([group])
            described = self._result(next(iter(futures.values())), f"cannot describe group {group}")
            return len(described.members)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return 0
            raise classify_error(f"cannot describe group {group}", error) from error

    def _result(self, future: Future[Any], what: str) -> Any:
        timeout = self._timeout
        try:
            found = future.result(timeout)
        except TimeoutError:
            self._timeout = min(2 * timeout, _TIMEOUT)
            self._replace_client()
            raise Retry(what, where="Kafka", why=f"no answer in {timeout:.0f} s") from None
        self._timeout = _FIRST_TIMEOUT
        return found
