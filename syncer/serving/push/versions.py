"""Detects writes of older versions that come after newer ones in a documents topic. Pure.

The order lane of the daemon writes a newer version afterwards. Until then, clients must not see the older one.
"""

from __future__ import annotations

MAX_KEYS = 500_000
"""Keys in each of the two dictionaries. If more change within the window, the oldest are forgotten early."""


class RecentVersions:
    """Remembers the highest version of each key for `window` seconds, by the times of the writes."""

    def __init__(self, window: float, max_keys: int = MAX_KEYS) -> None:
        self._window_ms, self._max_keys = window * 1000, max_keys
        self._now_ms = self._since_ms = 0
        self._new: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def is_late(self, key: str, version: int, at_ms: int) -> bool:
        """Adds the next write. Returns whether its version is lower than that of an earlier one."""
        self._now_ms = max(self._now_ms, at_ms)
        if self._now_ms - self._since_ms > self._window_ms or len(self._new) >= self._max_keys:
            self._old, self._new, self._since_ms = self._new, {}, self._now_ms
        highest = self._new.get(key, -1)
        if highest < 0:
            highest = self._old.get(key, -1)
        if version < highest:
            return True
        self._new[key] = version
        return False
