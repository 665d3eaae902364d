"""Records the events of a schedule, one line each, and counts each kind of event.

Lines are formatted only when they are read, because nearly all schedules succeed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

KINDS = (
    "a batch waited at the gate",
    "a batch without roots waited at the gate",
    "a snapshot waited for the WAL flush",
    "roots that a look-up found",
    "a render was skipped: the last one shows the change",
    "roots went to the work topic",
    "a truncate of a child made ranges",
    "a truncate of the root made sweeps",
    "a write was refused: the sink had a newer version",
    "a write of a dead process arrived",
    "a zombie's write was refused",
    "a batch was too old to be sent",
    "a bulk failed before it was applied",
    "a bulk was applied in part",
    "a bulk was applied and not answered",
    "a sink was busy with some documents",
    "the sink forgot a delete after its time",
    "the sink's primary restarted",
    "the sink lost acknowledged writes",
    "a process detected that a sink forgot",
    "a rebalance",
    "a zombie's commit was refused",
    "a commit was lost",
    "a record was delivered again",
    "the connector repeated itself",
    "the connector lost rows when it resumed",
    "a resume was repaired",
    "a repair waited for open transactions",
    "a process was killed",
    "a process stopped in order",
    "a process froze until the end",
    "Kafka did not acknowledge work items",
    "an asynchronous commit",
    "an aborted transaction",
    "a transaction committed and not visible",
    "PostgreSQL crashed",
    "a crash took back visible transactions",
    "a transaction id was assigned twice",
    "another timeline",
    "stopped for another history",
    "a truncate",
    "an update without its old row",
    "a rewritten table",
    "a backfill",
)
"""The kinds of events that must happen in a round of schedules. Each counts once per schedule."""


class History:
    """clock: returns the time of a line, in seconds."""

    __slots__ = ("_clock", "_lines", "seen")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lines: list[tuple[float, str, str, tuple[object, ...]]] = []
        self.seen: Counter[str] = Counter()

    def log(self, who: str, text: str, *values: object) -> None:
        """Adds a line. text: has `%s` for each value. The values must not change afterwards."""
        self._lines.append((self._clock(), who, text, values))

    def lines(self) -> list[str]:
        return [f"t={at:<7.3f} {who:<18} {text % values}" for at, who, text, values in self._lines]
