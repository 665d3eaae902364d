"""Reports a call that a server has not answered for some seconds.

A server that is frozen, or whose disk hangs, keeps its connections open. The client then waits for its timeout, which
may be a minute. Until then, this is the only sign of it. It is also the only sign of a lock that another transaction
holds on a table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

SLOW = 5.0
"""Seconds after which a call is reported. Most calls take less than one second."""

_OF_POSTGRES = {
    "snapshot": "no snapshot, or no lock on a table,",
    "resolve": "looking up roots",
    "render": "rendering documents",
    "durable": "flushing WAL",
}
"""The stages of a batch that wait for PostgreSQL."""


class SlowCall:
    """Remembers the call of one thread that is under way. Another thread may read the reason.

    monotonic: returns seconds. wall: returns seconds since the Unix epoch.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._under_way: tuple[str, float] | None = None

    def write(self, sink: str) -> AbstractContextManager[None]:
        """Encloses a write to a sink with this name."""
        return self._call(f"sink {sink}: it has not answered a write")

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Encloses a stage of a batch. Only stages that wait for PostgreSQL are remembered."""
        return self._call(f"PostgreSQL: {_OF_POSTGRES[name]}") if name in _OF_POSTGRES else nullcontext()

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        self._under_way = what, self._monotonic()
        try:
            yield
        finally:
            self._under_way = None

    @property
    def reason(self) -> str:
        """Returns which server has not answered since when. Empty if no call has taken longer than `SLOW` seconds."""
        if (under_way := self._under_way) is None:
            return ""
        what, began = under_way
        seconds = self._monotonic() - began
        if seconds < SLOW:
            return ""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall() - seconds))
        return f"waiting for {what} since {since}"
