"""Creates and inspects topics and consumer groups.

`group_offsets.py` reads and sets the offsets of groups, `reader.py` reads records, `producer.py` writes them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
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
from syncer.pacing import poll_until
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
        # Kafka acknowledges the creation before every broker knows the topic.
        poll_until(lambda: self.existing().keys() >= set(missing), timeout=_TIMEOUT, interval=0.05)
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

    def id_and_end(self, topic: str) -> tuple[str, int | None]:
        """Returns the id of a topic with one partition, and its end offset. Both requests are under way at once.

        The id is empty if the topic does not exist. The end is None if it is not known now, as while a leader moves.
        """
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        futures = self._admin.list_offsets({TopicPartition(topic, 0): latest})
        id = self.ids([topic]).get(topic, "")
        what = f"cannot read the end of topic {topic}"
        try:
            return id, int(self._result(next(iter(futures.values())), what).offset)
        except KafkaException as error:
            if error.args[0].code() not in _TRANSIENT:
                raise classify_error(what, error) from error
            return id, None

    def config(self, topic: str, key: str) -> str | None:
        """Returns one setting of a topic, e.g. `cleanup.policy`. None if Kafka has no such setting."""
        return self.configs(topic).get(key)

    def configs(self, topic: str) -> dict[str, str]:
        """Returns the settings that apply to a topic, with the defaults. Raises Retry if the topic does not exist."""
        what = f"cannot read the settings of topic {topic}"
        try:
            futures = self._admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)])
            found = self._result(next(iter(futures.values())), what)
        except KafkaException as error:
            raise classify_error(what, error) from error
        return {name: entry.value for name, entry in found.items() if entry.value is not None}

    def replicas(self, topic: str) -> list[int]:
        """Returns the number of replicas of each partition. Empty if the topic does not exist."""
        try:
            found = self._admin.list_topics(topic, timeout=_CONNECT_TIMEOUT).topics.get(topic)
        except KafkaException as error:
            raise classify_error(f"cannot describe topic {topic}", error, self._connection_error) from error
        return [len(p.replicas) for p in found.partitions.values()] if found and found.error is None else []

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

    def known_ends(self, topics: Collection[str]) -> dict[Partition, int]:
        """As `ends`, at once: leaves out topics whose end offsets are not all known now, as while a leader moves."""
        existing = self.existing()
        wanted = [TopicPartition(topic, p) for topic in topics for p in range(existing.get(topic, 0))]
        found: dict[Partition, int] = {}
        unknown: set[str] = set()
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for one, future in self._admin.list_offsets(dict.fromkeys(wanted, latest)).items() if wanted else ():
            try:
                found[one.topic, one.partition] = self._result(future, "cannot read the offsets").offset
            except KafkaException:
                unknown.add(one.topic)
        return {partition: end for partition, end in found.items() if partition[0] not in unknown}

    def begins(self, topics: Collection[str]) -> dict[Partition, int]:
        """Returns the first offset that each partition still has."""
        return self._offsets(topics, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def ends_of(self, topic: str, partitions: int) -> dict[int, int]:
        """As `ends`, of a topic with a known number of partitions: one request instead of two."""
        wanted = {TopicPartition(topic, p): OffsetSpec.latest() for p in range(partitions)}  # type: ignore[no-untyped-call]
        return {number: end for (_, number), end in self._list_offsets(wanted).items()}

    def _offsets(self, topics: Collection[str], spec: Any) -> dict[Partition, int]:
        existing = self.existing()
        return self._list_offsets({TopicPartition(t, p): spec for t in topics for p in range(existing.get(t, 0))})

    def _list_offsets(self, wanted: Mapping[TopicPartition, Any]) -> dict[Partition, int]:
        if not wanted:
            return {}
        what, deadline = "cannot read the offsets", time.monotonic() + _CONNECT_TIMEOUT
        while True:
            try:
                futures = self._admin.list_offsets(dict(wanted))
                return {(tp.topic, tp.partition): self._result(f, what).offset for tp, f in futures.items()}
            except KafkaException as error:
                if error.args[0].code() not in _TRANSIENT or time.monotonic() > deadline:
                    raise classify_error(what, error) from error
                time.sleep(0.1)

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
