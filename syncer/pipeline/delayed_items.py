"""The source of the lane that renders delayed roots: releases the items of a topic when they are due.

All items of a read model have the same delay. So their topic is ordered by time, and the lane waits for the first item
only. No other topic has to wait, and no item has to be written again.

The source also reads items that are not due yet. When it releases a root, the render covers all items of this root that
were read before. The snapshot of the render is taken after they were read, so it shows their changes. So a root is
rendered once for each interval, however many items name it.

If documents are combined from partials, the items name partials. When a partial of a root is due, all partials of this
root that were read before are released with it. So the document is written once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from syncer.errors import Reject
from syncer.events import Key, WorkItem
from syncer.pacing import Waiter
from syncer.pipeline import decode
from syncer.pipeline.hot_roots import REASON
from syncer.ports import GroupSource, Partition, Record

_AT_ONCE = 500  # records
_MOST_KEYS = 200_000
"""Roots that wait in memory. More of them stay in Kafka, and are rendered for each of their items."""


@dataclass(slots=True)
class _Waiting:
    """An item that is not due yet."""

    record: Record
    item: WorkItem | None
    """None if the record cannot be read: the lane writes a dead letter."""
    number: int
    """Counts the items in the order in which they were read."""
    read_at: float
    """Monotonic seconds."""


class DelayedItems:
    """Implements `ports.GroupSource` over the source of a topic with delayed items.

    most_delay: seconds for which an item is held, even if its time is later: the clock of the process that wrote it may
    have been wrong, or the interval may have been longer then.
    columns: the number of columns of a root's key, if the items name partials. None: they name roots.
    """

    def __init__(self, source: GroupSource, wait: Waiter, *, most_delay: float, columns: int | None = None) -> None:
        self._source, self._wait, self._most_delay = source, wait, most_delay
        self._columns = columns
        self._waiting: deque[_Waiting] = deque()
        self._keys = 0
        self._read = 0
        """The number of items that were read."""
        self._pending: dict[Key, tuple[int, int]] = {}
        """The keys that have to be rendered, each with the first item that names it since its last release.

        Earlier items need no further render of the key. The item: its number, and the commit time of its changes.
        """
        self._of_root: dict[Key, list[Key]] = {}
        """Root → its partials in `_pending`. Empty if the items name roots."""

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        """Returns the records that are due. If there is none, waits for at most `timeout` seconds.

        The first of them names all roots that are due. The others only move the offsets of their partitions.
        """
        if self._keys < _MOST_KEYS:
            self._add(self._source.poll(0.0 if self._waiting else timeout, _AT_ONCE, max_bytes))
        else:
            self._source.heartbeat()
        if not (due := self._take_due()) and self._waiting:
            self._wait(min(timeout, self._until_due(self._waiting[0])))
            due = self._take_due()
        return self._release(due)

    def commit(self, next_offsets: Mapping[Partition, int], *, wait: bool) -> None:
        self._source.commit(next_offsets, wait=wait)

    def heartbeat(self) -> None:
        self._source.heartbeat()

    def progress(self) -> Mapping[Partition, tuple[int, int]]:
        """Returns the offset of the first item of each partition that is not released, and the end offset."""
        found = dict(self._source.progress())
        for one in reversed(self._waiting):
            partition = _partition(one.record)
            if partition in found:
                found[partition] = one.record.position.offset, found[partition][1]
        return found

    def is_assigned(self, partition: Partition) -> bool:
        return self._source.is_assigned(partition)

    def close(self) -> None:
        self._source.close()

    def _add(self, records: Sequence[Record]) -> None:
        self._drop_moved(records)
        for record in records:
            try:
                item = decode.work(record.position, record.value, None)
            except Reject:
                item = None
            self._read += 1
            self._waiting.append(_Waiting(record, item, self._read, self._wait.time.monotonic()))
            if item is not None:
                self._keys += len(item.keys)
                self._expect(item.keys, self._read, item.committed_ms)

    def _expect(self, keys: Iterable[Key], number: int, committed_ms: int) -> None:
        """Adds the keys of an item to those that have to be rendered."""
        for key in keys:
            if key not in self._pending:
                self._pending[key] = number, committed_ms
                if self._columns is not None:
                    self._of_root.setdefault(key[: self._columns], []).append(key)

    def _drop_moved(self, records: Sequence[Record]) -> None:
        """Drops the items of partitions that now belong to another member, and those that come again."""
        assigned: Collection[Partition] = self._source.progress().keys()
        first: dict[Partition, int] = {}
        for record in records:
            first.setdefault(_partition(record), record.position.offset)

        def stays(one: _Waiting) -> bool:
            partition, offset = _partition(one.record), one.record.position.offset
            return partition in assigned and offset < first.get(partition, offset + 1)

        if not all(map(stays, self._waiting)):
            self._waiting = deque(filter(stays, self._waiting))
            self._keys = sum(len(one.item.keys) for one in self._waiting if one.item)
            before, self._pending, self._of_root = self._pending, {}, {}
            for one in self._waiting:
                if one.item is not None:
                    keys = [key for key in one.item.keys if key in before and before[key][0] <= one.number]
                    self._expect(keys, one.number, one.item.committed_ms)

    def _take_due(self) -> list[_Waiting]:
        found = []
        while self._waiting and self._until_due(self._waiting[0]) <= 0:
            one = self._waiting.popleft()
            self._keys -= len(one.item.keys) if one.item else 0
            found.append(one)
        return found

    def _until_due(self, one: _Waiting) -> float:
        """Returns the seconds until an item is due."""
        if one.item is None:
            return 0.0
        time = self._wait.time
        return min((one.item.not_before_ms - time.now_ms()) / 1000, one.read_at + self._most_delay - time.monotonic())

    def _release(self, due: Sequence[_Waiting]) -> list[Record]:
        keys: dict[Key, int] = {}
        for one in due:
            for key in one.item.keys if one.item else ():
                if key in self._pending and self._pending[key][0] <= one.number:
                    keys |= {other: self._pending.pop(other)[1] for other in self._with(key)}
        since_ms = min(filter(None, keys.values()), default=0)
        unreadable = [one.record for one in due if one.item is None]
        last = {_partition(one.record): one.record.position for one in due if one.item is not None}
        released = [Record(position, None, None) for position in last.values()]
        if keys:
            item = WorkItem("keys", REASON, keys=tuple(keys), committed_ms=since_ms)
            released[0] = released[0]._replace(value=decode.encode_item(item))
        return unreadable + released

    def _with(self, key: Key) -> list[Key]:
        """Returns the keys that are released with this one: all partials of its root that wait."""
        return [key] if self._columns is None else self._of_root.pop(key[: self._columns])


def _partition(record: Record) -> Partition:
    return record.position.topic, record.position.partition
