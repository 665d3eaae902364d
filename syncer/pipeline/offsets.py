"""Stage 8, commit: decides which offsets may be committed, and when. Pure: the caller passes the time.

Every sink acknowledges the batches of a lane in the order in which they were polled. So the acknowledged
records of a partition are always the first ones, and one offset describes them.

That offset can be higher than the last record's offset plus one: the markers of Kafka's transactions take offsets, too.
"""

from __future__ import annotations

from collections.abc import Mapping

Partition = tuple[str, int]
"""Topic and number of a partition."""
_IDLE_INTERVAL = 0.1
"""Seconds between commits of a lane that has caught up and shares its group with other processes. They learn its
positions from its commits, and callers of `/wait` wait for that."""


class Offsets:
    """interval: seconds between commits. A crash repeats at most the batches of one interval."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.shared = True
        """Whether other processes may read partitions of the group. Other threads may set it."""
        self.reached: dict[Partition, int] = {}
        """The next offset of every partition that this lane has had records of. Other threads may copy it."""
        self._last: dict[Partition, int] = {}
        """The offsets of the last calls. They are lower than those reached if records come again."""
        self._next: dict[Partition, int] = {}
        self._since: float | None = None

    def acknowledged(self, positions: Mapping[Partition, int], now: float) -> None:
        """Every sink has acknowledged the documents of all records before these offsets. now: monotonic seconds.

        The offsets are committed again if they did not move: a record that comes again was not committed.
        """
        for partition, offset in positions.items():
            self.reached[partition] = max(offset, self.reached.get(partition, 0))
            self._last[partition] = self._next[partition] = offset
        if self._next and self._since is None:
            self._since = now

    def idle(self, positions: Mapping[Partition, int], now: float) -> None:
        """As `acknowledged`, for a poll without records. Offsets that did not move are not committed again."""
        moved = {partition: offset for partition, offset in positions.items() if offset != self._last.get(partition)}
        if moved:
            self.acknowledged(moved, now)

    def due(self, now: float, *, idle: bool = False) -> bool:
        """Whether an offset has waited for the interval. idle: whether the lane has acknowledged all that it polled."""
        interval = min(self._interval, _IDLE_INTERVAL) if idle and self.shared else self._interval
        return self._since is not None and now - self._since >= interval

    def take(self) -> dict[Partition, int]:
        """Returns the next offset of each partition that has moved since the last call."""
        taken, self._next, self._since = self._next, {}, None
        return taken
