"""Part of stage 4: roots that were rendered lately need no render for a change which that render saw.

Behind a backlog, or a transaction that touched a million rows, most events tell what their root's last
render has shown already: its snapshot sees their transaction. A later change has an event of its own. So a
root is rendered once for a whole backlog, not once a batch.

It holds within one lane, which settles its pieces in order: what a later event relies on is acknowledged
before that event's offset is committed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from syncer.clock import Snapshot
from syncer.events import Key


class RenderCache:
    """capacity: how many roots are remembered (about 200 bytes each); the oldest go first."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._snapshots: dict[Key, Snapshot] = {}

    def stale(self, keys: Collection[Key], xids: Collection[int], now: Snapshot) -> list[Key]:
        """Those of the keys whose last render may not show all of these transactions.

        xids: of the events that made the keys dirty; all visible to `now`, which widens them.
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
        """These are on their way to the sinks as this snapshot shows them."""
        known = self._snapshots
        for key in keys:
            known.pop(key, None)
            known[key] = snapshot
        while len(known) > self._capacity:
            del known[next(iter(known))]
