"""Writes dead letters and reports each rejected document once per batch.

A lane has one `Rejections`. All stages pass it the records that cannot be read and the documents that cannot be
rendered or that a sink rejected.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncer.document import Batch
from syncer.errors import Reject
from syncer.ports import DeadLetters, Observer, Record


class Rejections:
    """Remembers the ids that were rejected since the last batch was acknowledged."""

    def __init__(self, dead_letters: DeadLetters, observer: Observer) -> None:
        self._dead_letters, self._observer = dead_letters, observer
        self._ids: set[str] = set()

    def record(self, record: Record, error: Reject) -> None:
        """Writes a record that cannot be read to the dead letters, unchanged."""
        self._dead_letters.record(record, error.detail)
        self._observer.rejected(error)

    def document(self, id: str, version: int, error: Reject) -> None:
        """Writes a dead letter about a document, as the snapshot of this version shows it.

        A batch may be rendered several times because one of its sinks is busy. Its rejected documents are
        reported once.
        """
        self._dead_letters.document(id, version, error.detail)
        if id not in self._ids:
            self._ids.add(id)
            self._observer.rejected(error)

    def acknowledged(self, batch: Batch, partials: Iterable[tuple[str, int]] = ()) -> None:
        """Closes the dead letters about the documents that every sink accepted.

        A document that was rejected, the first time or when it was rendered again, is not one of them.
        partials: the partials that the accepted documents show, with their versions.
        """
        self._dead_letters.accepted((id for id in batch.ids() if id not in self._ids), batch.version)
        self._dead_letters.accepted_partials(one for one in partials if one[0] not in self._ids)
        self._ids.clear()

    def flush(self) -> None:
        """Returns when all dead letters are durable. Raises Retry otherwise."""
        self._dead_letters.flush()
