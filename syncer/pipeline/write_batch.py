"""Values between rendering and committing: documents on their way to the sinks, and the records behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from syncer.document import NOTHING, Batch
from syncer.errors import Reject
from syncer.pipeline.offsets import Partition
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
    positions: Mapping[Partition, int] = field(default_factory=dict)
    """The offsets that are reached with this batch, where they are not those after its records."""

    @classmethod
    def empty(cls, at: float, records: Sequence[Record], committed_ms: int = 0) -> WriteBatch:
        """Records without documents. They are committed after all earlier batches."""
        return cls(NOTHING, at, records, committed_ms)

    def reached(self) -> dict[Partition, int]:
        """Returns the next offset of each partition, once this batch and all earlier ones are acknowledged."""
        found = dict(self.positions)
        for topic, partition, offset in (record.position for record in self.records):
            found[topic, partition] = max(offset + 1, found.get((topic, partition), 0))
        return found

    def split(self, id: str) -> tuple[WriteBatch, WriteBatch]:
        """Returns one upsert alone, and the rest of the batch with the records and the positions."""
        alone, rest = self.documents.split(id)
        return replace(self, documents=alone, records=(), rejected=(), positions={}), replace(
            self, documents=rest, rejected=()
        )
