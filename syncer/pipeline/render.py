"""Stage 6, render: turns dirty roots into documents. All documents of one write batch come from one snapshot.

The size of the documents and the time of the last statement decide how many roots one statement renders: the larger or
slower the documents, the fewer roots. Otherwise slow documents would always be older than `max_age` before they are
written, and the lane would render them again and again. If one row makes the statement fail, `Render` bisects the roots
until that row is alone with its error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from syncer import document
from syncer.document import Row
from syncer.errors import Reject
from syncer.events import Key
from syncer.pacing import Waiter
from syncer.pipeline.limits import Limits
from syncer.pipeline.render_cache import RenderCache
from syncer.pipeline.visibility import VersionedView, VisibilityGate
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import Observer, Overflow, Record

Rejected = list[tuple[str, Reject]]
_TIME_SHARE = 0.25
"""The share of `max_age` that one statement may take. The write needs the rest."""


class Render:
    """Renders at most `chunk_documents` roots and about `chunk_bytes` bytes at a time.

    One document may be larger than `chunk_bytes`.
    """

    def __init__(
        self, limits: Limits, *, gate: VisibilityGate, cache: RenderCache, wait: Waiter, observer: Observer
    ) -> None:
        self._limits, self._gate, self._cache = limits, gate, cache
        self._wait, self._observer = wait, observer
        self._fit = limits.chunk_documents
        """How many roots fit into one write batch, by their size and time. Estimated from the last one."""

    def in_view(
        self,
        view: VersionedView,
        keys: list[Key],
        records: Sequence[Record] = (),
        committed_ms: int = 0,
        *,
        for_all: bool = True,
    ) -> tuple[WriteBatch, list[Key]]:
        """Renders as many of these roots as fit. Returns them and the roots that are left.

        The write batch carries the records only if no root is left.
        for_all: whether every sink gets the documents. Otherwise no later event may rely on this render.
        """
        began = self._now()
        with self._observer.stage("render"):
            while True:
                now, left = keys[: self._fit], keys[self._fit :]
                rejected: Rejected = []
                try:
                    rows = self._rows(view, now, rejected)
                    break
                except Overflow as over:
                    self._fit = max(1, min(over.fits(self._limits.chunk_bytes), len(now) // 2))
        if for_all:
            self._cache.rendered(now, view.view.head.snapshot)
        return self._batch(view, rows, began, () if left else records, committed_ms, rejected), left

    def range_in_view(
        self, view: VersionedView, low: Key | None, high: Key, records: Sequence[Record]
    ) -> tuple[WriteBatch, list[Key]]:
        """Renders every root with low < key <= high, as `in_view` does (low None: no lower bound)."""
        began = self._now()
        try:
            with self._observer.stage("render"):
                rows = view.view.render_range(low, high, self._limits.chunk_bytes)
        except (Reject, Overflow):
            return self.in_view(view, view.view.keys_in_range(low, high), records)
        return self._batch(view, rows, began, records), []

    def keys(
        self, keys: list[Key], records: Sequence[Record] = (), committed_ms: int = 0, *, for_all: bool = True
    ) -> Iterator[WriteBatch]:
        """Renders all of these roots. Opens a new snapshot for each write batch. for_all: see `in_view`."""
        while keys:
            self._wait.tick()
            with self._gate.open_view() as view:
                batch, keys = self.in_view(view, keys, records, committed_ms, for_all=for_all)
            yield batch

    def _rows(self, view: VersionedView, keys: list[Key], rejected: Rejected) -> list[Row]:
        """Renders these roots. Adds those that PostgreSQL cannot render to `rejected`."""
        if not keys:
            return []
        self._wait.tick()
        try:
            return view.view.render(keys, self._limits.chunk_bytes)
        except Reject as error:
            if len(keys) > 1:
                middle = len(keys) // 2
                return self._rows(view, keys[:middle], rejected) + self._rows(view, keys[middle:], rejected)
            id = document.document_id(keys[0])
            error.where += f", document {id}"
            rejected.append((id, error))
            return []

    def _batch(
        self,
        view: VersionedView,
        rows: list[Row],
        began: float,
        records: Sequence[Record],
        committed_ms: int = 0,
        rejected: Rejected | None = None,
    ) -> WriteBatch:
        """began: when the render began, in monotonic seconds."""
        batch = document.batch(rows, view.version, committed_ms)
        if batch.upserts:
            seconds = self._now() - began
            used = max(batch.size / self._limits.chunk_bytes, seconds / (self._limits.max_age * _TIME_SHARE), 1e-9)
            self._fit = max(1, min(self._limits.chunk_documents, int(len(batch.upserts) / used)))
        return WriteBatch(batch, view.snapshot_at, records, committed_ms, rejected or ())

    def _now(self) -> float:
        return self._wait.time.monotonic()
