"""Has every document rendered again: hands out all roots and a sweep as work items, and knows how far it is.

For changes without a change event (`monitors/table_alterations.py`) and for changes that may be lost
(`monitors/connector_resumes.py`). The caller
notes what it compares with only after `hand_out` has returned, so a daemon that is killed begins again.
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
    """Of one generation of a read model."""

    def __init__(self, registry: Registry, registration: Registration, names: Names, max_age: float) -> None:
        self._registry, self._names, self._max_age = registry, names, max_age
        self._key = Rerender.key(registration.id)

    def hand_out(self, rows: Rows, size: int, reason: str, why: str, found_ms: int, wait: Waiter) -> None:
        """Returns when the items are durable.

        size: roots in a range. reason: of the items. found_ms: since when documents may be wrong, for lag.
        Raises Retry when a server is unavailable.
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
        """Items of the last `hand_out` that no worker has settled."""
        return left(self._registry, self._names, self._registry.state.load().get(self._key))


def left(registry: Registry, names: Names, noted: Rerender | None) -> int:
    """As `Refresh.left`; noted: the value of the state topic."""
    if not noted:
        return 0
    queue = registry.work_queue(names)
    begins = queue.begins()  # items that Kafka has deleted wait for nobody
    return queue.left({p: end for p, end in noted.ends.items() if p in begins}, begins)
