"""Values between rendering and committing: documents on their way to the sinks, and the records behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from syncer.document import NOTHING, Batch
from syncer.errors import Reject
from syncer.ports import Record


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Documents of one snapshot, and the records that are committed once every sink has acknowledged them.

    A batch of records may become several write batches. The last one carries the records, because a lane
    writes its batches in order.
    """

    documents: Batch
    snapshot_at: float
    """When the snapshot was taken, in monotonic seconds."""
    records: Sequence[Record] = ()
    committed_ms: int = 0
    """Commit time of the newest change among the records, in milliseconds since the Unix epoch."""
    rejected: Sequence[tuple[str, Reject]] = ()
    """Ids of documents that PostgreSQL could not render, each with its error."""

    @classmethod
    def empty(cls, at: float, records: Sequence[Record], committed_ms: int = 0) -> WriteBatch:
        """Records without documents. They are committed after all earlier batches."""
        return cls(NOTHING, at, records, committed_ms)

    def split(self, id: str) -> tuple[WriteBatch, WriteBatch]:
        """Returns one upsert alone, and the rest of the batch with the records."""
        alone, rest = self.documents.split(id)
        return replace(self, documents=alone, records=(), rejected=()), replace(self, documents=rest, rejected=())
