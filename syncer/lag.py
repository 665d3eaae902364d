"""How far behind a read model is. Pure arithmetic; time is passed in.

The lag in records is what Kafka holds and the sinks do not have yet. The lag in seconds is the age of the
oldest of these, told by the commit time of the last settled change before it: zero when nothing waits.
"""

from __future__ import annotations

from collections.abc import Mapping

from syncer.change import Position
from syncer.offsets import Partition


class Lag:
    """started_ms: what a partition with waiting records and none settled yet is measured from."""

    def __init__(self, started_ms: int) -> None:
        self._started_ms = started_ms
        self._next: dict[Partition, int] = {}
        self._settled_ms: dict[Partition, int] = {}
        self._waiting: list[Partition] = []
        self.records = 0

    def settled(self, position: Position, committed_ms: int) -> None:
        """A record has reached every sink. committed_ms: its commit time, 0 if it has none."""
        topic, partition, offset = position
        self._next[topic, partition] = offset + 1
        if committed_ms:
            self._settled_ms[topic, partition] = committed_ms

    def idle(self, progress: Mapping[Partition, tuple[int, int]], now_ms: int) -> None:
        """Nothing is under way: what was polled is settled, also records that carry nothing for us. Where
        nothing waits, the next change is younger than now."""
        for partition, (position, end) in progress.items():
            self._next[partition] = position
            if position >= end:
                self._settled_ms[partition] = now_ms

    def waiting(self, progress: Mapping[Partition, tuple[int, int]]) -> None:
        """progress: the next offset to poll and the end offset of each partition."""
        counts = {p: end - self._next.get(p, position) for p, (position, end) in progress.items()}
        self._waiting = [partition for partition, count in counts.items() if count > 0]
        self.records = sum(max(count, 0) for count in counts.values())

    def seconds(self, now_ms: int) -> float:
        oldest = min((self._settled_ms.get(p, self._started_ms) for p in self._waiting), default=now_ms)
        return max(now_ms - oldest, 0) / 1000
