"""Forecasts when a replication slot is lost, because PostgreSQL retains more WAL for it than its limit allows.

The retained WAL of a healthy slot grows, and falls when the connector confirms a position. So its curve is a sawtooth.
A line through the last values would forecast a loss on every rise. So the forecast compares two halves of a time
window. If the lowest value of the newer half is higher than the highest of the older half, the slot falls behind.
"""

from __future__ import annotations

from collections import deque

_WINDOW = 600.0  # seconds
_SHORTEST = 60.0  # seconds: a shorter window says nothing


class SlotForecast:
    """Remembers the retained WAL of one slot. Only for one thread."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, int]] = deque()

    def add(self, now: float, retained: int) -> None:
        """Adds a measurement. now: monotonic seconds. retained: bytes."""
        self._values.append((now, retained))
        while self._values[0][0] < now - _WINDOW:
            self._values.popleft()

    def rate(self) -> float:
        """Returns the bytes per second by which the slot falls behind; 0 if it does not, or if it is not known yet."""
        if not self._values or self._values[-1][0] - self._values[0][0] < _SHORTEST:
            return 0.0
        first, last = self._values[0][0], self._values[-1][0]
        middle = (first + last) / 2
        older = [retained for at, retained in self._values if at <= middle]
        newer = [retained for at, retained in self._values if at > middle]
        if min(newer) <= max(older):
            return 0.0
        return (min(newer) - min(older)) / (middle - first)

    def seconds_left(self, remaining: int | None) -> float | None:
        """Returns the seconds until the slot is lost at this rate. None if that is not to be expected.

        remaining: bytes until the limit; None if there is no limit.
        """
        rate = self.rate()
        return remaining / rate if remaining is not None and rate > 0 else None
