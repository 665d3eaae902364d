"""Stage 6: dirty roots become documents, as many in one piece as fit, all of one snapshot.

How many that is follows from the documents: pieces of large ones hold fewer. Where one row makes the
statement fail, it is found by halving, and is alone with its error.
"""

from __future__ import annotations

from collections.abc import Callable

from syncer import document
from syncer.document import Batch, Row
from syncer.errors import Reject
from syncer.events import Key
from syncer.pacing import Waiter
from syncer.pipeline.render_cache import RenderCache
from syncer.pipeline.visibility import VersionedView
from syncer.ports import Observer, Overflow


class Render:
    """documents, size: how many, and how many bytes, a piece has at most (one document may be larger).
    spoilt: told of a document that cannot be made: its id, the snapshot's version, the error."""

    def __init__(
        self,
        documents: int,
        size: int,
        *,
        recent: RenderCache,
        wait: Waiter,
        observer: Observer,
        spoilt: Callable[[str, int, Reject], None],
    ) -> None:
        self._most, self._size, self._recent = documents, size, recent
        self._wait, self._observer, self._spoilt = wait, observer, spoilt
        self._fit = documents
        """Roots a piece, as the last ones were."""

    def __call__(self, seen: VersionedView, keys: list[Key]) -> tuple[Batch, list[Key]]:
        """The documents of as many of these roots as fit, and the roots that are left."""
        with self._observer.stage("render"):
            while True:
                now, left = keys[: self._fit], keys[self._fit :]
                try:
                    rows = self._rows(seen, now)
                    break
                except Overflow as over:
                    self._fit = max(1, min(over.fits(self._size), len(now) // 2))
        self._recent.rendered(now, seen.view.head.snapshot)
        return self._batch(seen, rows), left

    def between(self, seen: VersionedView, low: Key | None, high: Key) -> tuple[Batch, list[Key]]:
        """The same for every root with low < key <= high (low None: no lower bound)."""
        try:
            with self._observer.stage("render"):
                rows = seen.view.render_range(low, high, self._size)
        except (Reject, Overflow):
            return self(seen, seen.view.keys_in_range(low, high))
        return self._batch(seen, rows), []

    def _rows(self, seen: VersionedView, keys: list[Key]) -> list[Row]:
        if not keys:
            return []
        self._wait.tick()
        try:
            return seen.view.render(keys, self._size)
        except Reject as error:
            if len(keys) > 1:
                middle = len(keys) // 2
                return self._rows(seen, keys[:middle]) + self._rows(seen, keys[middle:])
            id = document.document_id(keys[0])
            error.where += f", document {id}"
            self._spoilt(id, seen.version, error)
            return []

    def _batch(self, seen: VersionedView, rows: list[Row]) -> Batch:
        batch = document.batch(rows, seen.version)
        if batch.upserts:
            fits = int(self._size * len(batch.upserts) / max(batch.size, 1))
            self._fit = max(1, min(self._most, fits))
        return batch
