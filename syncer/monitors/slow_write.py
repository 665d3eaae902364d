"""Reports a write that a sink has not answered for some seconds.

A server that is frozen, or whose disk hangs, keeps its connections open. The client then waits for its timeout, which
may be a minute. Until then, this is the only sign of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SLOW = 5.0
"""Seconds after which a write is reported. Writes usually take less than one second."""


class SlowWrite:
    """Remembers the write of one lane that is under way. Another thread may read the reason.

    monotonic: returns seconds. wall: returns seconds since the Unix epoch.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._under_way: tuple[str, float] | None = None

    @contextmanager
    def to(self, sink: str) -> Iterator[None]:
        """Encloses a write. sink: its name."""
        self._under_way = sink, self._monotonic()
        try:
            yield
        finally:
            self._under_way = None

    @property
    def reason(self) -> str:
        """Returns which sink has not answered since when. Empty if no write has taken longer than `SLOW` seconds."""
        if (under_way := self._under_way) is None:
            return ""
        sink, began = under_way
        seconds = self._monotonic() - began
        if seconds < SLOW:
            return ""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall() - seconds))
        return f"waiting for sink {sink}: it has not answered a write since {since}"
