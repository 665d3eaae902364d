"""Weaker rules about versions, the gate, and the roots that a change makes dirty."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from syncer.clock import Snapshot, version
from syncer.events import ChangeEvent, Key
from syncer.pipeline.change_stages import ChangeStages
from syncer.pipeline.lane import Lane
from syncer.pipeline.render_cache import RenderCache
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.pipeline.visibility import VersionedView
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import Record
from tests.simulation.weaker.rule import Weaker

# -- versions -----------------------------------------------------------------------------------------


class ByPosition(Lane):
    """Uses a WAL position as the version of documents."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        by_clock = self.gate.open_view

        @contextmanager
        def by_position(xids: Collection[int] = ()) -> Iterator[VersionedView]:
            with by_clock(xids) as seen:  # above the versions of earlier documents
                yield seen._replace(version=version(1, (1 << 47) + self._at(seen)))

        self.gate.open_view = by_position  # type: ignore[method-assign]
        self.gate.require = lambda version: None  # type: ignore[method-assign]  # a WAL position is no snapshot clock

    def _at(self, seen: VersionedView) -> int:
        """Returns the WAL position at the time of the snapshot."""
        return seen.view.head.insert_lsn


class EventLsn(ByPosition):
    """Uses the LSN of the newest event that made the documents dirty."""

    lsn = 0

    def _at(self, seen: VersionedView) -> int:
        return self.lsn or super()._at(seen)

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> Iterator[WriteBatch]:
        self.lsn = max([orjson.loads(r.value)["source"]["lsn"] for r in records if r.value], default=0)
        yield from super()._changes(changes, records)


_XMAX: Any = property(lambda snapshot: snapshot.xmax)


# -- the gate -----------------------------------------------------------------------------------------


def _sees_everything(self: Snapshot, xids: Collection[int]) -> list[int]:
    return []


class GateOnRenderOnly(Lane):
    """Makes look-ups in any snapshot, and commits the events whose look-ups find no root."""

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> Iterator[WriteBatch]:
        routed = self.changes.route(changes)
        with self.gate.rows.view() as view:
            keys = self.changes._look_up(view, routed.dirty)
        if not keys:
            yield WriteBatch.empty(self.time.monotonic(), records)
            return
        with self.gate.open_view(routed.xids) as seen:
            batch, left = self.render.in_view(seen, keys, records)
        yield batch
        yield from self.render.keys(left, records)


# -- resolving ----------------------------------------------------------------------------------------

_resolve = Resolve.__call__


def only_after(self: Resolve, change: ChangeEvent, places: Any, dirty: Dirty) -> None:
    _resolve(self, change._replace(before=change.after) if change.op == "u" else change, places, dirty)


def _never_lacks_old_row(self: Resolve, change: ChangeEvent) -> bool:
    return False


_hand_over_all = ChangeStages._hand_over_all


def _only_once(self: ChangeStages, dirty: Dirty, snapshot: Snapshot, oldest_ms: int) -> None:
    """Hands over all roots for the first update that lacks its old row, and for no later one."""
    if self._handed_over is not None:
        dirty.lacking_old_row.clear()
    _hand_over_all(self, dirty, snapshot, oldest_ms)


def _whenever_rendered(self: RenderCache, keys: Collection[Key], xids: Collection[int], now: Snapshot) -> list[Key]:
    return [key for key in keys if key not in self._snapshots]


RULES = {
    "event LSN as version": Weaker(
        "a transaction that logged first and committed last loses against a transaction that it sees",
        lane=EventLsn,
    ),
    "WAL position as version": Weaker(
        "two snapshots with the same position see different rows, and the first one stays",
        lane=ByPosition,
    ),
    "xmax as version": Weaker(
        "a transaction that began early and ends late does not raise the version",
        {(Snapshot, "clock"): _XMAX},
    ),
    "no gate": Weaker(
        "an event is processed before its transaction is visible",
        {(Snapshot, "unseen"): _sees_everything},
    ),
    "a gate on the render only": Weaker(
        "a look-up finds no root yet, and the event is committed",
        lane=GateOnRenderOnly,
    ),
    "no before-images": Weaker(
        "the order that an item leaves still shows the item",
        {(Resolve, "__call__"): only_after},
    ),
    "missing old rows": Weaker(
        "the order that an item leaves under a weak replica identity still shows the item",
        {(Resolve, "lacks_old_row"): _never_lacks_old_row},
    ),
    "missing old rows, handled once": Weaker(
        "roots that were handed over before an update count as rendered after it",
        {(ChangeStages, "_hand_over_all"): _only_once},
        first=16_000,
    ),
    "a render cache without transactions": Weaker(
        "a root that was rendered before the change counts as rendered after it",
        {(RenderCache, "stale"): _whenever_rendered},
    ),
}
