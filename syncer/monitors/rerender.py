"""Renders documents again although no change event asks for it: puts them into the work topic, and reports progress.

    all documents    After alterations without a change event (`monitors/table_alterations.py`), and after a connector
                     resumed that may have lost any change (`monitors/connector_resumes.py`).
    recent rows      After a connector resumed that may have lost inserted rows: the documents of all rows that were
                     written since.

The caller saves the state that it compared only after the work items are durable. So a daemon that is killed in
between starts over.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from syncer.declaration.compile import Compiled
from syncer.events import Key, WorkItem
from syncer.pacing import Waiter
from syncer.pipeline.visibility import durable_view, plan_durably
from syncer.pipeline.work_items import key_items, range_items, sweep_items
from syncer.ports import Rows, View, WorkQueue
from syncer.quantities import counted
from syncer.registry.names import Names
from syncer.registry.records import Proved, Registration, Rerender
from syncer.registry.registry import Registry

RESUMED = "resumed"
"""The reason of work items that repair a connector's resume."""
_MOST_TRANSACTIONS = 1 << 30
"""Transactions since the proof. PostgreSQL compares the ids of transactions that are less than 2^31 apart."""


class Refresh:
    """Renders documents of one generation of a read model again."""

    def __init__(self, registry: Registry, registration: Registration, names: Names, max_age: float) -> None:
        self._registry, self._names, self._max_age = registry, names, max_age
        self._key = Rerender.key(registration.id)

    def schedule_all(self, rows: Rows, size: int, reason: str, why: str, found_ms: int, wait: Waiter) -> None:
        """Puts all roots and a sweep into the work topic. Returns when they are durable.

        size: roots in a range.
        reason: of the items, one of `telemetry.spec.REFRESHES`. why: the same for people.
        found_ms: the time from which documents may be wrong, for the lag; ms since the epoch.

        Raises Retry when a server is unavailable.
        """

        def plan(view: View) -> Iterator[WorkItem]:
            return range_items(view, size, reason, committed_ms=found_ms)

        sweeps = sweep_items(reason, time.time_ns() // 1_000_000, self._max_age, found_ms)
        self._put([*sweeps, *plan_durably(rows, plan, wait)], why, wait)

    def schedule_recent(
        self, rows: Rows, compiled: Compiled, proved: Proved, size: int, why: str, found_ms: int, wait: Waiter
    ) -> bool:
        """Puts the roots of recent rows into the work topic. Returns when they are durable.

        Returns False if it is not known which rows are recent. Then all documents have to be rendered again.
        compiled: of the documents that lanes render. The other arguments and errors are those of `schedule_all`.
        """
        work, roots = self._registry.work_queue(self._names), 0
        try:
            for found in recent_roots(rows, compiled, proved, wait):
                for item in key_items(found, size, RESUMED, found_ms):
                    work.put(item)
                    roots += len(item.keys)
                    wait.tick()
        except Unknown:
            return False
        self._finish(work, f"{why}: {counted(roots, 'document')} of rows written since")
        return True

    def _put(self, items: Iterable[WorkItem], why: str, wait: Waiter) -> None:
        work = self._registry.work_queue(self._names)
        for item in items:
            work.put(item)
            wait.tick()
        self._finish(work, why)

    def _finish(self, work: WorkQueue, why: str) -> None:
        work.flush()
        self._registry.state.save(self._key, Rerender(why, time.time_ns() // 1_000_000, work.ends()))

    def left(self) -> int:
        """Returns the number of scheduled items that no worker has finished."""
        return left(self._registry, self._names, self._registry.state.load().get(self._key))


class Unknown(Exception):
    """It is not known of which rows changes may be missing."""


def recent_roots(rows: Rows, compiled: Compiled, proved: Proved, wait: Waiter) -> Iterator[Iterator[Key]]:
    """Yields the roots of all rows of which changes may be missing in Kafka, in portions. A root may come repeatedly.

    Each range of pages has a view of its own, so locks are held briefly. The caller has to read a portion to its end
    before it takes the next one. When the last portion was read, WAL is flushed up to all views.

    Raises Unknown if PostgreSQL has another history than the one that was proved, or if it is too far ahead.
    Raises Retry when a server is unavailable.
    """
    for table in sorted(compiled.tables):
        uses = [use for use in compiled.table_uses if use.table == table]
        page, files = 0, ""
        while True:
            with durable_view(rows, wait) as view:
                _check(view, proved)
                pages = view.pages(table)
                if pages.files != files:  # at the beginning, or after the table was rewritten
                    page, files = 0, pages.files
                end = page + pages.step
                for use in uses:
                    values = view.written_since(use, proved.xmin, page, end)
                    wait.tick()
                    yield view.look_up(use.lookup or compiled.root_lookup, values)
            page = end
            if page >= pages.total:
                break


def _check(view: View, proved: Proved) -> None:
    ahead = view.head.snapshot.xmax - proved.xmin
    if view.head.identity != proved.identity or not 0 <= ahead <= _MOST_TRANSACTIONS:
        raise Unknown


def left(registry: Registry, names: Names, saved: Rerender | None) -> int:
    """Returns the same as `Refresh.left`. saved: the record in the state topic; None if there is none."""
    if not saved:
        return 0
    queue = registry.work_queue(names)
    begins = queue.begins()  # items that Kafka has deleted count as done
    return queue.left({p: end for p, end in saved.ends.items() if p in begins}, begins)
