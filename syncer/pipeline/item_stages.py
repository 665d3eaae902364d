"""Stages 4 to 6 for a work item: from an item to write batches, which the lane writes one after the other.

An item names its roots, so nothing has to be routed or looked up. The last write batch carries the item's record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from syncer import document
from syncer.declaration.compiled import Partials
from syncer.errors import Reject
from syncer.events import Key, WorkItem
from syncer.pacing import Waiter
from syncer.pipeline.combine import every_partial
from syncer.pipeline.limits import Limits
from syncer.pipeline.rejections import Rejections
from syncer.pipeline.render import Render
from syncer.pipeline.visibility import VisibilityGate
from syncer.pipeline.work_items import key_items, put_items
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import InspectableSink, Record, Source, WorkTopic


class ItemStages:
    """The stages of one lane. columns: the number of columns of the root's key."""

    def __init__(
        self,
        columns: int,
        render: Render,
        *,
        gate: VisibilityGate,
        source: Source,
        sinks: Sequence[InspectableSink],
        work: WorkTopic,
        rejections: Rejections,
        limits: Limits,
        wait: Waiter,
        partials: Partials | None = None,
    ) -> None:
        self._partials = partials
        self._columns, self._render, self._gate = columns, render, gate
        self._source, self._sinks, self._work = source, sinks, work
        self._rejections, self._limits, self._wait = rejections, limits, wait
        self._due = 0.0
        """When the next item may begin, in monotonic seconds."""

    def __call__(self, item: WorkItem, record: Record) -> Iterator[WriteBatch]:
        """Waits until the item may begin, then renders it or hands over smaller items."""
        time, records = self._wait.time, (record,)
        self._wait(self._due - time.monotonic())
        if item.not_before_ms > time.now_ms():
            self._postpone(item)
            yield WriteBatch.empty(time.monotonic(), records)
            return
        self._due = time.monotonic() + item.seconds / max(1, len(self._source.progress()))
        if item.kind == "keys":
            yield from self._render.keys(self._known(list(dict.fromkeys(item.keys))), records)
        elif item.kind == "range" and item.high is not None:
            with self._gate.open_view() as view:
                batch, left = self._render.range_in_view(view, item.low, item.high, records)
            yield batch
            yield from self._render.keys(left, records)
        else:
            self._sweep(item)
            yield WriteBatch.empty(time.monotonic(), records)

    def _known(self, keys: list[Key]) -> list[Key]:
        """Returns the keys to render. A root of partials becomes the keys of all its partials."""
        roots = [key for key in keys if len(key) < self._columns]
        if not roots or self._partials is None:
            return keys
        return [*(key for key in keys if len(key) == self._columns), *self._every_partial(self._partials, roots)]

    def _every_partial(self, partials: Partials, roots: list[Key]) -> list[Key]:
        """Returns the keys of all partials of these roots. A root that no row can have becomes a dead letter."""
        try:
            with self._gate.open_view() as view:
                return every_partial(partials, view.view, self._sinks, roots)
        except Reject as error:
            if len(roots) == 1:
                self._rejections.document(document.document_id(roots[0]), 0, error)
                return []
        middle = len(roots) // 2
        return self._every_partial(partials, roots[:middle]) + self._every_partial(partials, roots[middle:])

    def _postpone(self, item: WorkItem) -> None:
        """Puts an item that is not due to the end of the queue, so that other items need not wait for it."""
        self._wait(min((item.not_before_ms - self._wait.time.now_ms()) / 1000, 0.5))
        self._work.put(item)
        self._work.flush()

    def _sweep(self, item: WorkItem) -> None:
        """Hands over the documents of the sinks as items of known keys.

        Later items wait behind these items, so their lag counts from the moment when the sweep begins.
        """
        since_ms = item.committed_ms or self._wait.time.now_ms()
        for sink in self._sinks:
            if item.sink in ("", sink.name):
                keys = self._keys_of(sink, item.since)
                items = key_items(keys, self._limits.chunk_documents, item.reason, since_ms)
                put_items(self._work, items, self._wait)
        self._work.flush()

    def _keys_of(self, sink: InspectableSink, since: str) -> Iterator[Key]:
        """Yields the keys of all documents that a sink holds, or of those written since the marker `since`."""
        for id in sink.ids(since):
            try:
                yield document.parse_id(id, self._columns)
            except ValueError as error:
                foreign = Reject(
                    "the id of a document is not a key of this read model", where=sink.name, why=str(error)
                )
                self._rejections.document(id, 0, foreign)
