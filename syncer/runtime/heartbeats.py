"""Detects threads that hang: one table of heartbeats, over which `/livez` loops.

Every activity that has to make progress owns a `Heartbeat`: a lane, a write to a sink, a periodic check, a
supervisor. The activity beats while it moves on. It also beats while it waits for an unreachable server, because
waiting is not a defect.

An activity that does not beat for longer than its limit hangs in a call that never returns. The limit is longer than
every timeout of such calls, so only a restart of the process helps.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STALLED_AFTER = 300.0
"""Seconds without a heartbeat after which an activity counts as stalled."""


class Heartbeat:
    """Records when one activity moved last. Only an activity between `start` and `end` can stall.

    Any thread may call any method.
    """

    def __init__(self, table: Heartbeats, describe: Callable[[float], str], limit: float) -> None:
        self._table, self._describe, self._limit = table, describe, limit
        self._last = 0.0

    def start(self) -> None:
        """Puts the activity into the table."""
        self.beat()
        self._table.running[self] = None

    def beat(self) -> None:
        """Records that the activity moves on."""
        self._last = time.monotonic()

    def end(self) -> None:
        """Removes the activity from the table. Idempotent."""
        self._table.running.pop(self, None)

    @property
    def silence(self) -> float:
        """Seconds since the last beat; 0 if the activity is not running."""
        return time.monotonic() - self._last if self in self._table.running else 0.0

    def stalled(self) -> str:
        """Describes the stall; empty if the activity makes progress or is not running."""
        silence = self.silence
        return self._describe(silence) if silence > self._limit else ""


class Heartbeats:
    """The table of all activities of a process that have to make progress.

    limit: seconds without a beat after which an activity counts as stalled.
    """

    def __init__(self, limit: float = STALLED_AFTER) -> None:
        self.limit = limit
        self.running: dict[Heartbeat, None] = {}
        """The activities between `start` and `end`, in the order of their start."""
        self._threads: list[tuple[Callable[[], bool], str]] = []

    def add(self, describe: Callable[[float], str], *, limit: float | None = None) -> Heartbeat:
        """Returns a heartbeat that is not started yet.

        describe: makes the text of a stall from the seconds of silence.
        limit: of this activity, if it differs from the table's.
        """
        return Heartbeat(self, describe, self.limit if limit is None else limit)

    def require_thread(self, alive: Callable[[], bool], message: str) -> None:
        """Counts a thread as stalled as soon as it has ended. It has to run until the process ends."""
        self._threads.append((alive, message))

    def stalled(self) -> list[str]:
        """One text for each stalled activity, the one that started first at the front. Empty if all is well."""
        silent = [text for heartbeat in list(self.running) if (text := heartbeat.stalled())]
        return [*silent, *(message for alive, message in self._threads if not alive())]
