"""Which offsets may be committed, and when. Pure: time is passed in.

Batches of a lane are settled in the order they were polled, so what is done is always a prefix, and one
number per partition holds it.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncer.events import Position

Partition = tuple[str, int]


class Offsets:
    """interval: seconds between commits; a crash repeats at most the batches of one interval."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next: dict[Partition, int] = {}
        self._since: float | None = None

    def done(self, positions: Iterable[Position], now: float) -> None:
        """Every sink has acknowledged what these records asked for."""
        for topic, partition, offset in positions:
            self._next[topic, partition] = max(offset + 1, self._next.get((topic, partition), 0))
        if self._next and self._since is None:
            self._since = now

    def due(self, now: float) -> bool:
        return self._since is not None and now - self._since >= self._interval

    def take(self) -> dict[Partition, int]:
        """The next offset of each partition that has news since the last take."""
        taken, self._next, self._since = self._next, {}, None
        return taken
