"""Stage 8, commit: decides which offsets may be committed, and when. Pure: the caller passes the time.

Every sink acknowledges the batches of a lane in the order in which they were polled. So the acknowledged records
of a partition are always a prefix, and one number holds it.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncer.events import Position

Partition = tuple[str, int]
"""Topic and number of a partition."""


class Offsets:
    """interval: seconds between commits. A crash repeats at most the batches of one interval."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next: dict[Partition, int] = {}
        self._since: float | None = None

    def acknowledged(self, positions: Iterable[Position], now: float) -> None:
        """Every sink has acknowledged the documents of these records. now: monotonic seconds."""
        for topic, partition, offset in positions:
            self._next[topic, partition] = max(offset + 1, self._next.get((topic, partition), 0))
        if self._next and self._since is None:
            self._since = now

    def due(self, now: float) -> bool:
        """Whether an offset has waited for the interval."""
        return self._since is not None and now - self._since >= self._interval

    def take(self) -> dict[Partition, int]:
        """Returns the next offset of each partition that has acknowledged records since the last call."""
        taken, self._next, self._since = self._next, {}, None
        return taken
