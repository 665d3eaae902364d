"""What is too large for one batch, as work items: each is settled alone, by whoever takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from syncer.events import Key, WorkItem
from syncer.ports import View


def range_items(
    view: View, size: int, reason: str, run: str = "", *, seconds: float = 0.0, committed_ms: int = 0
) -> Iterator[WorkItem]:
    """The root table cut into ranges of about `size` roots, in key order. run and the others: see `WorkItem`."""
    low: Key | None = None
    for high in view.boundaries(size):
        yield WorkItem("range", reason, run, low=low, high=high, seconds=seconds, committed_ms=committed_ms)
        low = high


def key_items(keys: Iterable[Key], size: int, reason: str, committed_ms: int = 0) -> Iterator[WorkItem]:
    """These roots, `size` at a time. committed_ms: see `WorkItem`."""
    left = iter(keys)
    while now := tuple(islice(left, size)):
        yield WorkItem("keys", reason, keys=now, committed_ms=committed_ms)


def sweep_items(reason: str, now_ms: int, max_age: float, committed_ms: int) -> tuple[WorkItem, WorkItem]:
    """A sweep now, and another when no worker can still hold what it rendered before. committed_ms: see
    `WorkItem`; of the first only, as nothing is known to be wrong when the second is due."""
    now = WorkItem("sweep", reason, committed_ms=committed_ms)
    return now, WorkItem("sweep", reason, not_before_ms=now_ms + int(2000 * max_age))
