"""Decides which dirty roots are rendered now, and which later. This limits how often one root is rendered.

The first change after a quiet interval is rendered at once. Later changes within the interval become a delayed item. A
separate lane renders the item when the interval has passed (`delayed_items.py`). So the last state always arrives.

A process remembers its recent renders in memory. It uses them only to choose between now and later, and both are
correct. A delayed root is durable in a topic before the offsets of its change are committed. If a process restarts, or
does not know the renders of another process, it only renders a root more often.

A document that is combined from partials is written after each render of a partial. So the interval counts for the
root, and a busy root delays all its partials.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from syncer.events import Key

REASON = "min_interval"
"""`WorkItem.reason` of delayed items."""


class HotRoots:
    """The roots that were rendered or delayed lately. The lanes of a read model share it.

    interval: seconds. columns: the number of columns of a root's key, with which the key of a partial begins. None: the
    whole key is the root's.
    """

    def __init__(self, interval: float, columns: int | None = None) -> None:
        self.interval, self._columns = interval, columns
        self._lock = threading.Lock()
        self._busy_until: dict[Key, float] = {}
        self._before: dict[Key, float] = {}
        """The entries of the last period. All of them end before the next period begins."""
        self._period_ends = 0.0

    def __len__(self) -> int:
        return len(self._busy_until) + len(self._before)

    def split(self, keys: Iterable[Key], now: float) -> tuple[list[Key], list[Key]]:
        """Returns the keys to render now, and those to render after the interval. now: monotonic seconds.

        All partials of a root are rendered at the same time.
        """
        due, later = list[Key](), list[Key]()
        chosen: dict[Key, list[Key]] = {}
        with self._lock:
            if now >= self._period_ends:
                outdated = now >= self._period_ends + 2 * self.interval
                self._before, self._busy_until = {} if outdated else self._busy_until, {}
                self._period_ends = now + 2 * self.interval
            for key in keys:
                root = key[: self._columns]
                if (among := chosen.get(root)) is None:
                    busy = now < max(self._busy_until.get(root, 0.0), self._before.get(root, 0.0))
                    among = chosen[root] = later if busy else due
                    # A busy root is rendered after one interval, and then the next one begins.
                    self._busy_until[root] = now + (2 if busy else 1) * self.interval
                among.append(key)
        return due, later
