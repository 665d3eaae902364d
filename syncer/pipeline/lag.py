"""Stage 9, lag: measures how far a lane is behind. Pure arithmetic; the caller passes the time.

The lag in records counts the records that Kafka holds and that the sinks have not acknowledged yet. The lag in
seconds is the age of the oldest change behind these records. It is 0 if no record waits.

The age of a polled record is known. A change carries its commit time. A work item carries the commit time of the
change that caused it. The age of a record that is not polled yet is estimated from its partition:

    change topics   Records are in commit order. The record is not older than the change before it, nor than the
                    last moment at which the partition was empty.
    work topics     The record is as old as the item before it, because the two mostly belong to the same fan-out.
                    After the range of a backfill the age is unknown, and the record does not count until it is
                    polled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from syncer.events import Position
from syncer.pipeline.offsets import Partition


class Lag:
    """floor_ms: when the read model began. Its backfill covers all earlier changes, so they are no lag.
    items: the topics of work items. All times are in milliseconds since the Unix epoch."""

    def __init__(self, floor_ms: int = 0, items: Collection[str] = ()) -> None:
        self._floor_ms, self._items = floor_ms, frozenset(items)
        self._next: dict[Partition, int] = {}
        self._since_ms: dict[Partition, int] = {}
        """By partition: the records that are not polled yet are not older than this."""
        self._polled: dict[Position, int] = {}
        """By the last record of a batch that is not acknowledged yet: the commit time of its oldest change."""
        self._behind: list[Partition] = []
        self.records = 0

    def polled(self, last: Position, oldest_ms: int) -> None:
        """Adds polled records that are not acknowledged yet.

        last: of these records, the one that is acknowledged last.
        oldest_ms: commit time of the oldest change behind them; 0 if there is none.
        """
        if oldest_ms:
            self._polled[last] = max(oldest_ms, self._floor_ms)
        partition = last.topic, last.partition
        if last.topic in self._items:
            self._since_ms.pop(partition, None)
            if oldest_ms:
                self._since_ms[partition] = max(oldest_ms, self._floor_ms)

    def acknowledged(self, position: Position, committed_ms: int) -> None:
        """Every sink has acknowledged the documents of a record. committed_ms: its commit time; 0 if it has none."""
        partition = position.topic, position.partition
        self._next[partition] = position.offset + 1
        self._polled.pop(position, None)
        if committed_ms and position.topic not in self._items:
            known = self._since_ms.get(partition, self._floor_ms)
            self._since_ms[partition] = max(committed_ms, known)

    def idle(self, progress: Mapping[Partition, tuple[int, int]]) -> None:
        """All polled records are acknowledged, also those that touch no document of the read model."""
        self._polled.clear()
        for partition, (position, _) in progress.items():
            self._next[partition] = position

    def update(self, progress: Mapping[Partition, tuple[int, int]], now_ms: int) -> None:
        """Counts the waiting records. progress: the next offset to poll and the end offset of each partition."""
        known, self._since_ms, self._behind = self._since_ms, {}, []
        for partition, (position, end) in progress.items():
            if end > position:
                self._behind.append(partition)
            if partition[0] not in self._items:
                self._since_ms[partition] = known.get(partition, now_ms) if end > position else now_ms
            elif end > position and partition in known:
                self._since_ms[partition] = known[partition]
        self.records = sum(
            max(end - self._next.get(partition, position), 0) for partition, (position, end) in progress.items()
        )

    def seconds(self, now_ms: int) -> float:
        """Returns the age of the oldest change that has not reached every sink, in seconds."""
        since = [self._since_ms[partition] for partition in self._behind if partition in self._since_ms]
        return max(now_ms - min((*since, *self._polled.values()), default=now_ms), 0) / 1000
