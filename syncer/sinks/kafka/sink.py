"""The Kafka sink: one record for each write, in a compacted topic.

Readers of a topic see the last record of an id. So the last record must have the highest version, although Kafka
compares nothing. Three rules ensure that:

1. Before a write, the sink reads the topic up to its end. It leaves out documents of which the topic has a newer
   version, or the same one, in the last `_REMEMBERED` seconds. So a late write is rarely appended at all.
2. Another process may append between this check and the write. The order lane reads the topic, too, and writes a
   document again when an older version came last (`log.py`, `pipeline/order_lane.py`).
3. The broker rejects records that arrive too late for rule 2 (`topic.py`).

The versions of a later epoch stop the writer: a resync has begun to fill the topic.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from syncer.clock import split_version
from syncer.declaration.compile import Compiled
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry
from syncer.pipeline.log_order import RecentVersions
from syncer.ports import DurabilityToken, Partition
from syncer.sinks.kafka import records, topic
from syncer.sinks.kafka.delivery import Delivery
from syncer.sinks.kafka.log import TopicLog
from syncer.sinks.kafka.settings import Connection, Settings, client_settings
from syncer.sinks.kafka.table import TopicTable
from syncer.sinks.kafka.tail import TopicTail
from syncer.sinks.target import Target

_REMEMBERED = 60.0
"""Seconds. Forgetting a version early only makes more work for the order lane."""


class KafkaSink:
    """Implements `ports.Sink` and `ports.ReorderingSink` over one topic. Safe to share between threads.

    Writes are serialized. Otherwise a document could be left out because of a newer one that is never acknowledged.
    """

    in_place = True

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        *,
        model: Compiled,
        epoch: int = 1,
        generation: int = 1,
    ) -> None:
        self.name = f"kafka:{settings.topic}"
        self.topic = settings.topic
        self._block, self._connection = settings, connection
        self._settings = client_settings(connection)
        self._target = Target.of(self.name, model, epoch, generation)
        self._admin = topic.admin_of(connection)
        self._delivery = Delivery(self._settings, self.topic, self.name)
        self._partitions = self._max_bytes = 0
        self._id = ""
        """Of the topic, when its durability token was read last."""
        self._lock = threading.Lock()
        self._recent = RecentVersions(_REMEMBERED)
        self._newest = ("", 0)
        """Id and version of the record with the highest version that was read."""
        self._tail: TopicTail | None = None
        self._table: TopicTable | None = None
        self._table_lock = threading.Lock()

    # -- the topic ------------------------------------------------------------------------------------

    def prepare(self, *, new: bool = True) -> None:
        """Creates the topic, or refuses one whose settings, partitions or records do not fit."""
        if why := topic.reserved(self.topic, self._connection):
            raise Fatal(
                f"topic {self.topic} cannot hold documents", where=self.name, why=why, hint="choose another topic"
            )
        if not self._admin.replicas(self.topic):
            if not new:
                raise self._target.gone(f"topic {self.topic}")
            replicas = self._connection.replication_factor
            wanted = topic.configuration(self._block, replicas)
            self._admin.create([self.topic], wanted, partitions=self._block.partitions or 0)
        partitions, replicas = self._check_topic()
        record = topic.TopicRecord(self.topic, self._connection, self._admin, self._target)
        record.create(replicas)
        known = record.read()
        if not known and any(self._admin.ends_of(self.topic, partitions).values()):
            raise Fatal(
                f"topic {self.topic} has records, but {record.name} does not say who wrote them",
                where=self.name,
                hint=f"choose another topic, or delete {self.topic}",
            )
        if self._accept(known, partitions):
            record.write(partitions)
            self._accept(record.read(), partitions)  # another process may have added a later one meanwhile

    def _check_topic(self) -> tuple[int, int]:
        """Returns the number of partitions and of replicas. Raises Fatal if the settings of the topic do not fit."""
        replicas = self._admin.replicas(self.topic)
        if not replicas:
            raise self._target.gone(f"topic {self.topic}")
        found = self._admin.configs(self.topic)
        for problem in topic.problems(self._block, found, self._connection, min(replicas)):
            raise problem
        if self._partitions:
            self._check_partitions(self._partitions, len(replicas))
        self._partitions, self._max_bytes = len(replicas), int(found["max.message.bytes"])
        return len(replicas), min(replicas)

    def _accept(self, known: Sequence[dict[str, Any]], partitions: int) -> bool:
        """Returns whether the record of this generation is missing. Raises Fatal if the topic is not this sink's."""
        for found in sorted(known, key=lambda one: (one["epoch"], one["generation"])):
            if found["model"] != self._target.model:
                raise Fatal(
                    f"topic {self.topic} belongs to the read model {found['model']}",
                    where=self.name,
                    hint=f"choose another topic; if {found['model']} no longer exists, delete {self.topic}"
                    f" and {self.topic}.syncer",
                )
            self._target.check_epoch(found["epoch"], f"the record in {self.topic}.syncer")
            if found["generation"] >= self._target.generation:
                self._target.check_hash(found["hash"])
            self._check_partitions(found["partitions"], partitions)
        return self._target.meta().items() not in [found.items() & self._target.meta().items() for found in known]

    def _check_partitions(self, before: int, now: int) -> None:
        if before != now:
            raise Fatal(
                f"topic {self.topic} has another number of partitions than when it was created",
                where=self.name,
                why=f"it had {before} and has {now}, so the records of an id are not in order",
                hint=f"delete {self.topic} and {self.topic}.syncer, then: {self._target.resync}",
            )

    def outgrown(self) -> list[str]:
        """Returns nothing: a record holds any document."""
        return []

    def activate(self) -> list[str]:
        """Does nothing: generations share the topic, so each document is readable as soon as it is written."""
        return []

    def durability(self) -> DurabilityToken:
        """Returns the topic's id and first offsets. Both change when records are deleted by an operator.

        Raises Fatal when the topic is missing, or when its settings allow Kafka to lose documents.
        """
        self._check_topic()
        id = self._admin.ids([self.topic]).get(self.topic, "")
        if self._id not in ("", id):  # offsets that were read belong to the old topic
            with self._lock:
                self._forget()
            with self._table_lock:
                self._close_table()
        self._id = id
        begins = {number: offset for (_, number), offset in self._admin.begins([self.topic]).items()}
        ends = self._admin.ends_of(self.topic, self._partitions)
        first = ",".join(str(begins[number]) for number in sorted(begins))
        return DurabilityToken("", f"{id} {first}", orjson.dumps([ends[n] for n in sorted(ends)]).decode())

    # -- writing --------------------------------------------------------------------------------------

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        """Writes as `ports.WritableSink.write` says. A document of which the topic has a newer version is stale."""
        deadline, out = time.monotonic() + timeout, Outcome()
        if not self._lock.acquire(timeout=timeout):
            raise self._target.late(timeout, len(batch))
        try:
            self._catch_up(timeout)
            id, newest = self._newest
            self._target.check_epoch(split_version(newest)[0], f"document {id!r}, version {newest},")
            wanted = dict(self._wanted(batch, out))
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._target.late(timeout, len(batch))

            def headers(id: str) -> records.Headers:
                return records.headers(batch, id, self._target.model, self._target.generation)

            self._delivery(wanted, headers, left, out)
            if wanted and len(out.retry) == len(batch):
                raise Retry("cannot write", where=self.name, why=out.retry_reason)
        finally:
            self._lock.release()
        return out

    def _wanted(self, batch: Batch, out: Outcome) -> Iterator[tuple[str, bytes | None]]:
        """Yields the documents that are to be appended. Counts the others."""
        for id in batch.deletes:
            if not id:
                out.deleted += 1  # no such document can exist
            elif self._recent.has(id, version := batch.version_of(id)):
                self._target.stale(id, version, self._recent.highest(id), out)
            else:
                yield id, None
        for id, body in batch.upserts.items():
            if not id:
                out.rejected.append(Rejection(id, "the id is empty", "the id"))
            elif (size := records.size(id, body)) > self._max_bytes:
                reason = f"the record has {size:,} bytes, and max.message.bytes of the topic is {self._max_bytes:,}"
                out.rejected.append(Rejection(id, reason, "too large"))
            elif self._recent.has(id, version := batch.version_of(id)):
                self._target.stale(id, version, self._recent.highest(id), out)
            else:
                yield id, body

    def _catch_up(self, timeout: float) -> None:
        """Reads what was appended since the last call. Raises Retry, and Fatal if the topic is gone."""
        if not self._partitions:
            self._check_topic()
        try:
            if self._tail is None:
                since_ms = int((time.time() - _REMEMBERED) * 1000)
                start = topic.at_time(self.topic, self._partitions, since_ms, self._admin)
                self._tail = TopicTail(self._settings, self.topic, start)
            for record in self._tail.read(self._admin.ends_of(self.topic, self._partitions), timeout):
                self._recent.add(record.id, record.version, record.at_ms)
                if record.version > self._newest[1]:
                    self._newest = record.id, record.version
        except Retry:
            self._forget()
            if not self._admin.replicas(self.topic):
                raise self._target.gone(f"topic {self.topic}") from None
            raise

    def _forget(self) -> None:
        """Begins again with the next write. The offsets of the tail may not be those of the topic any more."""
        if self._tail is not None:
            self._tail.close()
        self._tail, self._recent = None, RecentVersions(_REMEMBERED)

    # -- reading --------------------------------------------------------------------------------------

    def document_log(self, group: str, *, max_age: float, since_ms: int) -> TopicLog:
        """See `ports.ReorderingSink`."""
        if not self._partitions:
            self._check_topic()
        window = topic.window(max_age)
        begin_ms = max(0, since_ms - int(window * 1000))

        def begin() -> dict[int, int]:
            return topic.at_time(self.topic, self._partitions, begin_ms, self._admin)

        return TopicLog(self._settings, self.topic, group, self._admin, self._target, window=window, begin=begin)

    def log_ends(self) -> dict[Partition, int]:
        """See `ports.ReorderingSink`."""
        ends = self._admin.ends_of(self.topic, self._partitions)
        return {(self.topic, number): end for number, end in ends.items()}

    def ids(self, since: str = "") -> Iterator[str]:
        """Yields every id whose last record is a document. `since`: those with a record after these offsets."""
        with self._table_lock:
            found = self._read_table().ids(dict(enumerate(orjson.loads(since))) if since else {})
        yield from found

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Returns the last records. The first call reads the whole topic into a temporary file on disk."""
        with self._table_lock:
            return self._read_table().documents(ids) if ids else {}

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        with self._table_lock:
            return self._read_table().versions(ids) if ids else {}

    def count(self) -> int:
        with self._table_lock:
            return self._read_table().count()

    def _read_table(self) -> TopicTable:
        """Returns the table, up to date."""
        if not self._partitions:
            self._check_topic()
        if self._table is None:
            begins = {number: offset for (_, number), offset in self._admin.begins([self.topic]).items()}
            self._table = TopicTable(self._settings, self.topic, begins)
        try:
            self._table.update(self._admin.ends_of(self.topic, self._partitions))
        except Retry:
            self._close_table()
            raise
        return self._table

    def _close_table(self) -> None:
        if self._table is not None:
            self._table.close()
        self._table = None

    def normalize(self, body: bytes) -> bytes | None:
        """Returns the document as it is: a record holds the text that was written."""
        return body

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Returns nothing: no document is removed by itself."""
        return set()

    def close(self) -> None:
        with self._lock:
            self._forget()
            self._delivery.close()
        with self._table_lock:
            self._close_table()


SINK = KafkaSink
