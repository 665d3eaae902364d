"""Limits how often something may happen, per name: token buckets. Pure; the caller passes the time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

_REMEMBERED = 10_000
"""Names. The one that was used least recently is forgotten first: its bucket is the fullest."""


class RateLimit:
    """One bucket for each name. Any thread may use it.

    rate: units per second; 0 for no limit. burst: units that a full bucket holds.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Name → (units left, time of the last request)."""
        self._lock = threading.Lock()

    def take(self, names: Iterable[str], now: float, units: float = 1.0) -> float:
        """Takes these units from the bucket of each name, or from none of them.

        now: monotonic seconds.
        Returns 0 if all buckets had them, otherwise the seconds until they will.
        """
        if not self._rate:
            return 0.0
        with self._lock:
            left = {name: self._left(name, now) for name in names}
            missing = units - min(left.values(), default=units)
            if missing > 0:
                return missing / self._rate
            for name, units_left in left.items():
                self._buckets[name] = units_left - units, now
                self._buckets.move_to_end(name)
            while len(self._buckets) > _REMEMBERED:
                self._buckets.popitem(last=False)
        return 0.0

    def _left(self, name: str, now: float) -> float:
        left, before = self._buckets.get(name, (self._burst, now))
        return min(self._burst, left + (now - before) * self._rate)
