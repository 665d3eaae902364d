"""Reads the change topics of one read model for `syncer trace`, first back to a time, then what arrives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import islice

from syncer.events import TableName
from syncer.operations.trace.changes import Changes
from syncer.ports import ChangeLog, Partition

_BATCH = 5000
"""Records that are matched together. Each batch asks PostgreSQL once for each table use."""


class ChangeTopics:
    """Reads each record once for every depth at which its topic is used.

    since: seconds to look back at first. most: records to read at most; the time is halved until it has fewer.
    topic_of: returns the topic of a table's changes.
    progress: called with the records read so far, and with all that will be read.
    """

    def __init__(
        self,
        log: ChangeLog,
        topics: Collection[str],
        topic_of: Callable[[TableName], str],
        *,
        since: float,
        most: int,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._log, self._topics, self._topic_of = log, topics, topic_of
        self._seconds, self._most, self._progress = since, most, progress
        self._next: dict[Partition, int] = {}
        self.start: dict[Partition, int] = {}
        """The first offset that was read of each partition."""
        self.since_ms = 0
        """When the first of these records arrived, or later."""
        self.shortened = False
        """Whether the time was halved."""

    def read(self, changes: Changes, now_ms: int) -> None:
        """Adds the changes since the last call. If it raises, the next call reads the same records again."""
        ends = self._log.ends(self._topics)
        if not self.since_ms:
            self._begin(ends, now_ms)
        parts = []
        for depth in range(changes.depths):
            topics = {self._topic_of(table) for table in changes.tables(depth)}
            start = {p: self._next.get(p, 0) for p in ends if p[0] in topics}
            parts.append({p: offset for p, offset in start.items() if offset < ends[p]})
        total, done = sum(ends[p] - offset for part in parts for p, offset in part.items()), 0
        for depth, part in enumerate(parts):
            records = self._log.between(part, ends)
            while batch := list(islice(records, _BATCH)):
                changes.add(depth, batch)
                done += len(batch)
                self._progress(done, total)
        self._next = ends

    def _begin(self, ends: Mapping[Partition, int], now_ms: int) -> None:
        """Chooses the first offsets. They are of the same time in all partitions, so that no change is missing."""
        begins, seconds = self._log.begins(self._topics), self._seconds
        while True:
            since_ms = now_ms - round(seconds * 1000)
            at = self._log.ends(self._topics, at_ms=since_ms)
            start = {p: min(end, max(at.get(p, -1), begins.get(p, 0))) for p, end in ends.items()}
            start |= {p: end for p, end in ends.items() if at.get(p, -1) < 0}
            if sum(ends[p] - offset for p, offset in start.items()) <= self._most or seconds < 1:
                break
            seconds /= 2
            self.shortened = True
        self.start, self._next, self.since_ms = start, start, since_ms
