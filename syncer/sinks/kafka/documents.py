"""The topic as a `ports.DocumentTopic`: for the clients to which changes are pushed."""

from __future__ import annotations

from collections.abc import Mapping

from syncer.errors import Retry
from syncer.ports import DocumentWrite, TopicState
from syncer.sinks.kafka import topic
from syncer.sinks.kafka.settings import Connection, Settings, client_settings
from syncer.sinks.kafka.tail import TopicTail


class TopicDocuments:
    """Implements `ports.DocumentTopic`. max_age: that of the processes that write the topic, in seconds."""

    def __init__(self, settings: Settings, connection: Connection, max_age: float) -> None:
        self.name = f"kafka:{settings.topic}"
        self.window = topic.window(max_age)
        self._topic, self._settings = settings.topic, client_settings(connection)
        self._admin = topic.admin_of(connection)
        self._partitions = 0

    def state(self) -> TopicState:
        found = self._admin.ids([self._topic]).get(self._topic, "")
        if not found:
            hint = "the daemon creates it when it starts the read model"
            raise Retry(f"topic {self._topic} does not exist", where=self.name, hint=hint)
        begins = {number: offset for (_, number), offset in self._admin.begins([self._topic]).items()}
        self._partitions = len(begins)
        settings = self._admin.configs(self._topic)
        retention = int(settings.get("delete.retention.ms", "0")) / 1000
        ends = self._admin.ends_of(self._topic, len(begins))
        return TopicState(found, begins, ends, retention, topic.lossy(settings))

    def at_time(self, at_ms: int) -> dict[int, int]:
        return topic.at_time(self._topic, self._partitions or len(self.state().begins), at_ms, self._admin)

    def reader(self, start: Mapping[int, int]) -> _Reader:
        return _Reader(TopicTail(self._settings, self._topic, start))


class _Reader:
    """Implements `ports.DocumentReader`."""

    def __init__(self, tail: TopicTail) -> None:
        self._tail, self.next = tail, tail.next

    def poll(self, timeout: float) -> list[DocumentWrite]:
        return [
            DocumentWrite(one.position.partition, one.position.offset, *one[1:]) for one in self._tail.poll(timeout)
        ]

    def close(self) -> None:
        self._tail.close()


def documents(connection: Connection, settings: Settings, max_age: float) -> TopicDocuments:
    """Returns the topic for readers of documents. Does not connect. See `sinks.FollowedPackage`."""
    return TopicDocuments(settings, connection, max_age)
