"""What is too large for one batch, as work items: each is settled alone, by whoever takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from syncer.change import Key, Work
from syncer.ports import View


def ranges(view: View, size: int, reason: str, run: str = "", seconds: float = 0.0) -> Iterator[Work]:
    """The root table cut into ranges of about `size` roots, in key order. run, seconds: see `Work`."""
    low: Key | None = None
    for high in view.boundaries(size):
        yield Work("range", reason, run, low=low, high=high, seconds=seconds)
        low = high


def some(keys: Iterable[Key], size: int, reason: str) -> Iterator[Work]:
    """These roots, `size` at a time."""
    left = iter(keys)
    while now := tuple(islice(left, size)):
        yield Work("keys", reason, keys=now)


def sweeps(reason: str, now_ms: int, max_age: float) -> tuple[Work, Work]:
    """A sweep now, and another when no worker can still hold what it rendered before."""
    return Work("sweep", reason), Work("sweep", reason, not_before_ms=now_ms + int(2000 * max_age))
