"""Stages 3 to 6 for a batch of change events: from the changes to write batches.

`route` is pure. `render` yields write batches, which the lane writes one after the other. The last write batch carries
the records of the batch. Before `render` yields it, all work that is too large for one batch is durable in the work
topic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from syncer.clock import Beginning, Snapshot
from syncer.declaration.compile import Compiled, Lookup
from syncer.declaration.compiled import Partials
from syncer.errors import Fatal, Reject
from syncer.events import ChangeEvent, Key, WorkItem
from syncer.pacing import Waiter
from syncer.pipeline.hot_roots import REASON, HotRoots
from syncer.pipeline.limits import Limits
from syncer.pipeline.render import Render
from syncer.pipeline.render_cache import RenderCache
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.pipeline.route import Route
from syncer.pipeline.visibility import VersionedView, VisibilityGate, plan_durably
from syncer.pipeline.work_items import key_items, put_items, range_items, sweep_items
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import Observer, Record, View, WorkTopic


@dataclass(slots=True)
class Routed:
    """The effect of a batch of changes, before any look-up."""

    dirty: Dirty = field(default_factory=Dirty)
    xids: set[int] = field(default_factory=set)
    """Transactions that the batch's snapshot has to see."""
    skipped: int = 0
    """Changes that touch no document, or that the backfill covers."""
    oldest_ms: int = 0
    """Commit time of the oldest change that touches a document; 0 if there is none."""
    requested: bool = False
    """There are rows of a connector snapshot. An operator requested it, so the render cache skips none."""


class ChangeStages:
    """The stages of one lane.

    hot, delayed: the hot roots of the read model, and the topic of their items; None if no root is delayed.
    beginning: of the read model. Its backfill covers all transactions that ended before.
    """

    def __init__(
        self,
        compiled: Compiled,
        route: Route,
        render: Render,
        *,
        cache: RenderCache,
        gate: VisibilityGate,
        work: WorkTopic,
        hot: HotRoots | None,
        delayed: WorkTopic | None,
        limits: Limits,
        beginning: Beginning | None,
        wait: Waiter,
        observer: Observer,
        partials: Partials | None = None,
    ) -> None:
        self._hot, self._delayed = hot, delayed
        self._has_partials = partials is not None
        self._model, self._beginning, self._limits = compiled.name, beginning, limits
        self._grouped = bool(compiled.group)
        self._trees = {use.lookup: use for use in compiled.table_uses if use.lookup and use.ancestors}
        self._route, self._resolve, self._render = route, Resolve(compiled), render
        self._cache, self._gate, self._work = cache, gate, work
        self._wait, self._observer = wait, observer
        self._handed_over: Snapshot | None = None
        """All roots were handed over after this snapshot, because of updates without their old rows."""

    def route(self, changes: Sequence[ChangeEvent]) -> Routed:
        """Stage 3, and the part of stage 4 that needs no look-up."""
        routed = Routed(requested=any(change.op == "r" for change in changes))
        with self._observer.stage("route"):
            for change in changes:
                if not self._add(change, routed):
                    routed.skipped += 1
        return routed

    def _add(self, change: ChangeEvent, routed: Routed) -> bool:
        """Adds the effect of one change. Returns whether it may touch a document."""
        uses = self._route(change)
        if not uses:
            return False
        try:
            self._resolve(change, uses, routed.dirty)
        except Fatal:  # for example, a column had another name then
            if not self._covered(change):
                raise
            return False
        if change.txid is not None:
            routed.xids.add(change.txid)
        if not routed.oldest_ms or change.committed_ms < routed.oldest_ms:
            routed.oldest_ms = change.committed_ms
        if self._resolve.lacks_old_row(change) and not self._covered(change):
            routed.dirty.lacking_old_row.add(change.txid)
        return True

    def _covered(self, change: ChangeEvent) -> bool:
        """Whether the backfill covers a change, because it was committed before the read model began."""
        if self._beginning is None or change.txid is None or change.op == "r":
            return False
        return self._beginning.covers(change.txid, change.committed_ms)

    def render(self, routed: Routed, records: Sequence[Record], committed_ms: int) -> Iterator[WriteBatch]:
        """Stages 4 to 6. committed_ms: commit time of the batch's last change."""
        with self._open_view(routed.xids) as view:
            snapshot = view.view.head.snapshot
            with self._observer.stage("resolve"):
                keys = self._look_up(view.view, routed.dirty, routed.oldest_ms)
                self._report_cycles(view.view, routed.dirty)
            stale = keys if routed.requested else self._cache.stale(keys, routed.xids, snapshot)
            self._observer.dirty(len(keys), len(keys) - len(stale))
            due = self._delay(stale, routed.oldest_ms)
            batch, left = self._render.in_view(view, due, records, committed_ms)
        self._hand_over_all(routed.dirty, snapshot, routed.oldest_ms)
        yield batch
        yield from self._render.keys(left, records, committed_ms)

    @contextmanager
    def _open_view(self, xids: Collection[int]) -> Iterator[VersionedView]:
        """Opens a view for look-ups. Turns a Reject of a look-up into a Fatal.

        A document that cannot be rendered becomes a dead letter. A look-up that fails names no root, so it
        concerns more than one document.
        """
        try:
            with self._gate.open_view(xids) as view:
                yield view
        except Reject as error:
            raise Fatal(
                "a value of a change event does not fit the type of its column",
                where=error.where,
                why=error.why,
                hint=f"if the type was altered: syncer resync {self._model}; otherwise: syncer check",
            ) from error

    def _look_up(self, view: View, dirty: Dirty, oldest_ms: int = 0) -> list[Key]:
        """Stage 4. Returns the dirty roots.

        More than `fan_out` of them go to the work topic, with the commit time of the batch's oldest change.
        """
        keys: dict[Key, None] = {}
        handed_over = False
        for lookup, values in dirty.lookups.items():
            for key in view.look_up(lookup, values):
                keys[key] = None
                if len(keys) >= self._limits.fan_out:
                    items = key_items(self._delay(keys, oldest_ms), self._limits.chunk_documents, "fan-out", oldest_ms)
                    put_items(self._work, items, self._wait)
                    keys, handed_over = {}, True
        if handed_over:
            self._work.flush()
        return list(dirty.keys | keys)

    def _delay(self, keys: Collection[Key], oldest_ms: int) -> list[Key]:
        """Hands over the roots that were rendered or delayed within the interval. Returns the others.

        Their items are durable when it returns. The view is open by then, so a later snapshot shows the changes, too.
        """
        if self._hot is None or self._delayed is None:
            return list(keys)
        time = self._wait.time
        due, later = self._hot.split(keys, time.monotonic())
        if later:
            at_ms = time.now_ms() + round(self._hot.interval * 1000)
            items = key_items(later, self._limits.chunk_documents, REASON, oldest_ms, not_before_ms=at_ms)
            put_items(self._delayed, items, self._wait)
            self._delayed.flush()
            self._observer.delayed(len(later))
        return due

    def _report_cycles(self, view: View, dirty: Dirty) -> None:
        """Reports changed rows of a tree that are on a cycle. A change that closes a cycle changes a row on it."""
        for lookup, values in dirty.lookups.items():
            if (use := self._trees.get(lookup)) is None or use.ancestors is None:
                continue
            cycles = Lookup(lookup.columns, lookup.types, use.ancestors.cycles)
            if found := [text for (text,) in view.look_up(cycles, values)]:
                self._observer.cycles(use.path, found)

    def _hand_over_all(self, dirty: Dirty, snapshot: Snapshot, oldest_ms: int) -> None:
        """Hands over all roots or all documents to the work topic, if the batch does not name the roots it dirties.

        A truncate names no keys. An update without its old row does not name the root that the row left. The
        work items are rendered in snapshots that are later than `snapshot`. So an update that `snapshot` sees
        need not hand over the roots again. A row may have been the last one of the group that it left. Such a group
        is not among the roots any more, only among the documents.
        """
        known = self._handed_over
        lacking = any(
            xid is None or known is None or not known.sees(snapshot.widen(xid)) for xid in dirty.lacking_old_row
        )
        reason = "identity" if lacking else "truncate"
        if dirty.all_roots or lacking:
            size = self._limits.chunk_documents

            def plan(view: View) -> Iterator[WorkItem]:
                return range_items(view, size, reason, committed_ms=oldest_ms)

            put_items(self._work, plan_durably(self._gate.rows, plan, self._wait), self._wait)
            self._observer.refresh(reason)
        # The groups and the buckets that have no rows any more are in the sinks only.
        sweeps = dirty.root_gone or (lacking and self._grouped) or (self._has_partials and (dirty.all_roots or lacking))
        if sweeps:
            now_ms = self._wait.time.now_ms()
            put_items(self._work, sweep_items(reason, now_ms, self._limits.max_age, oldest_ms), self._wait)
        if dirty.all_roots or sweeps or lacking:
            self._work.flush()
        if lacking:
            self._handed_over = snapshot
