"""Re-renders every document of a read model: writes all roots and a sweep to the work topic, and reports progress.

Used for alterations without a change event (`monitors/table_alterations.py`) and for changes that a resumed connector
may have lost (`monitors/connector_resumes.py`). The caller saves the state that it compared only after `schedule` has
returned. So a daemon that is killed in between starts over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from syncer.events import WorkItem
from syncer.pacing import Waiter
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import range_items, sweep_items
from syncer.ports import Rows, View
from syncer.registry.names import Names
from syncer.registry.records import Registration, Rerender
from syncer.registry.registry import Registry


class Refresh:
    """Re-renders all documents of one generation of a read model."""

    def __init__(self, registry: Registry, registration: Registration, names: Names, max_age: float) -> None:
        self._registry, self._names, self._max_age = registry, names, max_age
        self._key = Rerender.key(registration.id)

    def schedule(self, rows: Rows, size: int, reason: str, why: str, found_ms: int, wait: Waiter) -> None:
        """Writes all work items. Returns when they are durable. Raises Retry when a server is unavailable.

        size: roots in a range.
        reason: of the items, one of `telemetry.table.REFRESHES`. why: the same for people.
        found_ms: the time from which documents may be wrong, for the lag; ms since the epoch.
        """

        def plan(view: View) -> Iterator[WorkItem]:
            return range_items(view, size, reason, committed_ms=found_ms)

        work = self._registry.work_queue(self._names)
        now_ms = time.time_ns() // 1_000_000
        for item in sweep_items(reason, now_ms, self._max_age, found_ms):
            work.put(item)
        for item in plan_durably(rows, plan, wait):
            work.put(item)
            wait.tick()
        work.flush()
        self._registry.state.save(self._key, Rerender(why, now_ms, work.ends()))

    def left(self) -> int:
        """Returns the number of items of the last `schedule` that no worker has finished."""
        return left(self._registry, self._names, self._registry.state.load().get(self._key))


def left(registry: Registry, names: Names, saved: Rerender | None) -> int:
    """Returns the same as `Refresh.left`. saved: the record in the state topic; None if there is none."""
    if not saved:
        return 0
    queue = registry.work_queue(names)
    begins = queue.begins()  # items that Kafka has deleted count as done
    return queue.left({p: end for p, end in saved.ends.items() if p in begins}, begins)
