"""Part of stage 4: skips the render of a root whose last render already shows the change.

Suppose that a backlog waits, or that one transaction touched a million rows. Then the snapshot in which a root was
rendered often sees the transactions of later events. The rendered document already shows their changes. Changes that it
does not show have events of their own. So the lane renders a root once for a whole backlog, not once per batch.

The cache belongs to one lane, which writes its batches in order. So the render that a skipped event relies on is
acknowledged before the event's offset is committed. A document that is rendered again for some of the sinks does not
count: the other sinks do not get it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from syncer.clock import Snapshot
from syncer.events import Key


class RenderCache:
    """capacity: the number of roots to remember, about 200 bytes each. The oldest are evicted first."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._snapshots: dict[Key, Snapshot] = {}

    def stale(self, keys: Collection[Key], xids: Collection[int], now: Snapshot) -> list[Key]:
        """Returns the keys whose last render may not show all of these transactions.

        xids: the transactions of the events that made the keys dirty. `now` sees all of them, and widens them.
        """
        if not self._snapshots:
            return list(keys)
        wide = [now.widen(xid) for xid in xids]
        shows_all: dict[int, bool] = {}
        stale = []
        for key in keys:
            snapshot = self._snapshots.get(key)
            if snapshot is not None:
                shown = shows_all.get(snapshot.clock)
                if shown is None:
                    shown = shows_all[snapshot.clock] = all(map(snapshot.sees, wide))
                if shown:
                    continue
            stale.append(key)
        return stale

    def rendered(self, keys: Iterable[Key], snapshot: Snapshot) -> None:
        """Remembers that these roots are being written as this snapshot shows them."""
        known = self._snapshots
        for key in keys:
            known.pop(key, None)
            known[key] = snapshot
        while len(known) > self._capacity:
            del known[next(iter(known))]
