"""A write batch: the offsets that are reached when it is acknowledged."""

from __future__ import annotations

from syncer.document import Batch
from syncer.events import Position
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import Record


def test_a_document_that_goes_alone_first_reaches_no_offset() -> None:
    """The rest of the batch is not written yet. Its records must not be committed."""
    documents = Batch(1, {"1": b"{}", "2": b"{}"}, [])
    batch = WriteBatch(documents, 0.0, (Record(Position("t", 0, 4), None, None),), positions={("t", 1): 9})
    alone, rest = batch.split("1")
    assert alone.reached() == {}
    assert rest.reached() == {("t", 0): 5, ("t", 1): 9}
