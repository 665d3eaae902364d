"""How far behind a lane is. Pure arithmetic; time is passed in.

The lag in records is what Kafka holds and the sinks do not have yet. The lag in seconds is the age of the
oldest change behind these records; 0 when nothing waits. Of records that were polled the age is known: a
change carries its commit time, a work item that of the change that caused it. What was not polled yet is at
most as old as what is known of its partition:

    change topics   In commit order: not older than the change before it, nor than the last moment at which
                    nothing waited there.
    work topics     As old as the item before it, which mostly is of the same fan-out. After a backfill's
                    range nothing is known, and it does not count until it is polled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from syncer.events import Position
from syncer.pipeline.offsets import Partition


class Lag:
    """floor_ms: when the read model began; what was committed before is its backfill's. items: the topics of
    work items. All times in milliseconds since the epoch."""

    def __init__(self, floor_ms: int = 0, items: Collection[str] = ()) -> None:
        self._floor_ms, self._items = floor_ms, frozenset(items)
        self._next: dict[Partition, int] = {}
        self._since_ms: dict[Partition, int] = {}
        """What was not polled yet of these partitions is not older than this."""
        self._taken: dict[Position, int] = {}
        self._behind: list[Partition] = []
        self.records = 0

    def taken(self, last: Position, oldest_ms: int) -> None:
        """Records were polled and are not settled; `last` of them is settled last. oldest_ms: the commit time
        of the oldest change behind them; 0 if there is none."""
        if oldest_ms:
            self._taken[last] = max(oldest_ms, self._floor_ms)
        partition = last.topic, last.partition
        if last.topic in self._items:
            self._since_ms.pop(partition, None)
            if oldest_ms:
                self._since_ms[partition] = max(oldest_ms, self._floor_ms)

    def settled(self, position: Position, committed_ms: int) -> None:
        """A record has reached every sink. committed_ms: its commit time, 0 if it has none."""
        partition = position.topic, position.partition
        self._next[partition] = position.offset + 1
        self._taken.pop(position, None)
        if committed_ms and position.topic not in self._items:
            known = self._since_ms.get(partition, self._floor_ms)
            self._since_ms[partition] = max(committed_ms, known)

    def idle(self, progress: Mapping[Partition, tuple[int, int]]) -> None:
        """Nothing is under way: what was polled is settled, also records that carry nothing for us."""
        self._taken.clear()
        for partition, (position, _) in progress.items():
            self._next[partition] = position

    def waiting(self, progress: Mapping[Partition, tuple[int, int]], now_ms: int) -> None:
        """progress: the next offset to poll and the end offset of each partition."""
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
        since = [self._since_ms[partition] for partition in self._behind if partition in self._since_ms]
        return max(now_ms - min((*since, *self._taken.values()), default=now_ms), 0) / 1000
