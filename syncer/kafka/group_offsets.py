"""Reads and sets the committed offsets of consumer groups, also those of groups that other processes belong to.

A consumer of the group is used which never subscribes. Such a consumer sends no JoinGroup, so it is no member and
causes no rebalance. It costs four threads and half a megabyte.

The requests of librdkafka's admin client are not used, because they can end the process while a broker restarts:

- `ListConsumerGroupOffsets` has a segmentation fault if a broker answers that it does not coordinate the group
  (confluentinc/librdkafka#5040, also in 2.16).
- All requests that look for the coordinator of a group use freed memory if the connection breaks at the wrong moment
  (confluentinc/librdkafka#4605 and #5397). `KafkaAdmin.members` still sends such a request, but only for commands.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from syncer.errors import Retry, SyncerError
from syncer.kafka.errors import classify_error
from syncer.ports import Partition

_ANSWER, _DEADLINE = 5.0, 10.0
"""Seconds for one request, and for all attempts of a call."""
_PAUSE = 0.1  # seconds between two attempts
_IDLE = 60.0
"""Seconds after which a call closes the consumers of other groups that were not used."""
_MOVING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._WAIT_COORD,
    KafkaError._TRANSPORT,
}
"""The group gets another coordinator, or its coordinator restarts. The consumer looks for it again."""


class GroupOffsets:
    """Reads and sets committed offsets. Any thread may use it. settings: of librdkafka.

    No two threads share a consumer: a call takes the group's consumer out, and puts it back.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self._lock = threading.Lock()
        self._free: dict[str, _Reader] = {}
        """Group → its consumer, while no call uses it."""
        self._closed = False

    def committed(self, group: str, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Returns the committed offsets of these partitions. Leaves out partitions without one.

        Raises Retry when Kafka is unreachable, Fatal when it denies access.
        """
        if not partitions:
            return {}
        with self._reader(group) as reader:
            return reader.committed(partitions)

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Sets the offsets of a group without members. Does nothing without offsets.

        Raises Retry if the group has members, because another process started at the same time and set them. Raises
        Retry when Kafka is unreachable, Fatal when it denies access.
        """
        if offsets:
            with self._reader(group) as reader:
                reader.commit(offsets)

    def close(self) -> None:
        """Closes the consumers. A call that runs now, or begins later, closes its own at its end."""
        with self._lock:
            self._closed = True
            readers, self._free = list(self._free.values()), {}
        for reader in readers:
            reader.close()

    @contextmanager
    def _reader(self, group: str) -> Iterator[_Reader]:
        """Lends the consumer of a group. Closes it after an error: a new one may find another coordinator."""
        before = time.monotonic() - _IDLE
        with self._lock:
            reader = self._free.pop(group, None)
            unused = [self._free.pop(name) for name, one in list(self._free.items()) if one.used_at < before]
        for one in unused:
            one.close()
        reader = reader or _Reader(self._settings, group)
        try:
            yield reader
        except BaseException:
            reader.close()
            raise
        reader.used_at = time.monotonic()
        with self._lock:
            if self._closed:
                other: _Reader | None = reader
            else:
                other, self._free[group] = self._free.get(group), reader
        if other:  # of a call that ran concurrently, or was running at `close`
            other.close()


class _UnknownGroup(Retry):
    """The group does not exist: it has no offsets."""


class _Reader:
    """A consumer that never subscribes. For one thread at a time."""

    def __init__(self, settings: Mapping[str, Any], group: str) -> None:
        self.used_at, self._group = 0.0, group
        self._connection_error = ""
        own = {"group.id": group, "enable.auto.commit": False, "error_cb": self._on_error}
        try:
            self._consumer = Consumer({"log_level": 2, **settings, **own})
        except KafkaException as error:
            raise classify_error(f"cannot open group {group}", error) from error

    def committed(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        wanted = [TopicPartition(*partition) for partition in partitions]
        try:
            found = self._call("read", lambda: self._consumer.committed(wanted, timeout=_ANSWER))
        except _UnknownGroup:
            return {}
        return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        wanted = [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        self._call("set", lambda: self._consumer.commit(offsets=wanted, asynchronous=False))

    def close(self) -> None:
        self._consumer.close()

    def _call(self, verb: str, request: Callable[[], list[TopicPartition] | None]) -> list[TopicPartition]:
        """Returns the answer. Sends the request again while the coordinator moves."""
        deadline = time.monotonic() + _DEADLINE
        while True:
            try:
                found = request() or []
                if failed := next((one.error for one in found if one.error is not None), None):
                    raise KafkaException(failed)
                self._consumer.poll(0)
                return found
            except KafkaException as error:
                self._consumer.poll(0)  # reports the errors of connections
                if error.args[0].code() not in _MOVING or time.monotonic() > deadline:
                    raise self._to_error(verb, error) from error
                time.sleep(_PAUSE)

    def _to_error(self, verb: str, error: KafkaException) -> SyncerError:
        code, what = error.args[0].code(), f"cannot {verb} the offsets of group {self._group}"
        if code == KafkaError.GROUP_ID_NOT_FOUND:
            return _UnknownGroup(what, where="Kafka", why=error.args[0].str())
        if code == KafkaError.UNKNOWN_MEMBER_ID:
            return Retry(
                "the consumer group is in use, so its offsets cannot be set",
                where=f"group {self._group}",
                hint="another syncer process starts this read model at the same time: no action is needed",
            )
        return classify_error(what, error, self._connection_error)

    def _on_error(self, error: KafkaError) -> None:
        """Keeps the last error of a connection. "All brokers are down" would hide its cause."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._connection_error = error.str()
