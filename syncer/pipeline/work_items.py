"""Cuts work that is too large for one batch into work items, and puts them into the work topic.

Each item is committed alone. Any lane of work items, in any process, may take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from syncer.events import Key, WorkItem
from syncer.pacing import Waiter
from syncer.ports import View, WorkTopic


def range_items(
    view: View, size: int, reason: str, run: str = "", *, seconds: float = 0.0, committed_ms: int = 0
) -> Iterator[WorkItem]:
    """Yields ranges of about `size` roots that cover the root table, in key order.

    run, seconds, committed_ms: see `WorkItem`.
    """
    low: Key | None = None
    for high in view.boundaries(size):
        yield WorkItem("range", reason, run, low=low, high=high, seconds=seconds, committed_ms=committed_ms)
        low = high


def key_items(
    keys: Iterable[Key], size: int, reason: str, committed_ms: int = 0, *, not_before_ms: int = 0
) -> Iterator[WorkItem]:
    """Yields items of `size` known roots each. committed_ms, not_before_ms: see `WorkItem`."""
    left = iter(keys)
    while now := tuple(islice(left, size)):
        yield WorkItem("keys", reason, keys=now, committed_ms=committed_ms, not_before_ms=not_before_ms)


def sweep_items(reason: str, now_ms: int, max_age: float, committed_ms: int) -> tuple[WorkItem, WorkItem]:
    """Returns two sweeps: one for now, and one for the time when no process still holds an older render.

    max_age: see `Limits`, seconds. committed_ms: see `WorkItem`. Only the first sweep has it: when the second
    one is due, no document is known to be wrong.
    """
    now = WorkItem("sweep", reason, committed_ms=committed_ms)
    return now, WorkItem("sweep", reason, not_before_ms=now_ms + int(2000 * max_age))


def put_items(work: WorkTopic, items: Iterable[WorkItem], wait: Waiter) -> None:
    """Puts items into the work topic. The caller has to flush it before it commits anything.

    Raises Stopped when the lane is to stop.
    """
    for item in items:
        work.put(item)
        wait.tick()
