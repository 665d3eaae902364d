"""Stage 6: how many roots fit into one write batch, and the search for a row that cannot be rendered."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from prometheus_client import CollectorRegistry

from syncer.clock import Clock, Identity, Snapshot
from syncer.document import Row
from syncer.errors import Reject
from syncer.events import Key
from syncer.pacing import SystemTime, Waiter
from syncer.pipeline.limits import Limits
from syncer.pipeline.render import Render
from syncer.pipeline.render_cache import RenderCache
from syncer.pipeline.visibility import VisibilityGate
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import Head, Overflow, Record, Rows
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from tests.unit.pipeline.examples import AT

RECORDS = (Record(AT, None, None),)


class Time(SystemTime):
    """A time that only a render moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Database:
    """`ports.Rows` and `ports.View`. Documents have `size` bytes; those of `bad` cannot be rendered.

    seconds: per document, one for each statement. After the last one, documents take no time.
    """

    head = Head(Snapshot(9, 9, frozenset()), Identity(1, 1), 0)

    def __init__(
        self, *, size: int = 10, bad: Collection[str] = (), overflows_at: int = 1 << 20, seconds: Sequence[float] = ()
    ) -> None:
        self.size, self.bad, self.overflows_at = size, bad, overflows_at
        self.seconds, self.time = list(seconds), Time()
        self.views = 0
        self.statements: list[int] = []
        """The number of roots of each statement."""

    @contextmanager
    def view(self, *, root_only: bool = False, wait: Any = None) -> Iterator[Any]:
        self.views += 1
        yield self

    def render(self, keys: Sequence[Key], max_bytes: int = 0) -> list[Row]:
        self.statements.append(len(keys))
        self.time.now += len(keys) * (self.seconds.pop(0) if self.seconds else 0.0)
        if any(id in self.bad for (id,) in keys):
            raise Reject("PostgreSQL cannot render the document", where="orders")
        if len(keys) > 1 and len(keys) * self.size > self.overflows_at:
            raise Overflow(self.overflows_at // self.size, self.overflows_at)
        return [Row(id, id, b"x" * self.size) for (id,) in keys]

    def flushed(self, lsn: int) -> bool:
        return True


def rendered(database: Database, count: int, **limits: Any) -> list[WriteBatch]:
    observer = LaneObserver("changes", Metrics(CollectorRegistry()).for_model("orders"))
    own, waiter = Limits(**limits), Waiter(time=database.time)
    gate = VisibilityGate("orders", cast(Rows, database), Clock(1), limits=own, wait=waiter, observer=observer)
    render = Render(own, gate=gate, cache=RenderCache(), wait=waiter, observer=observer)
    return list(render.keys([(str(number),) for number in range(count)], RECORDS, 5))


def test_only_the_last_write_batch_carries_the_records() -> None:
    database = Database()
    batches = rendered(database, 5, chunk_documents=2)
    assert [len(batch.documents) for batch in batches] == [2, 2, 1]
    assert [batch.records for batch in batches] == [(), (), RECORDS]
    assert database.views == 3, "each write batch has its own snapshot"


def test_a_row_that_cannot_be_rendered_is_rejected_alone() -> None:
    [batch] = rendered(Database(bad=["5"]), 8)
    assert sorted(batch.documents.upserts) == ["0", "1", "2", "3", "4", "6", "7"]
    assert batch.documents.deletes == [], "the document of the row stays as it is"
    [(id, error)] = batch.rejected
    assert (id, error.where) == ("5", "orders, document 5")


def test_several_rows_that_cannot_be_rendered_are_all_rejected() -> None:
    [batch] = rendered(Database(bad=["0", "3", "7"]), 8)
    assert [id for id, _ in batch.rejected] == ["0", "3", "7"]
    assert len(batch.documents) == 5


def test_large_documents_reduce_the_number_of_roots_of_later_statements() -> None:
    database = Database(size=100)
    batches = rendered(database, 20, chunk_documents=8, chunk_bytes=400)
    assert [len(batch.documents) for batch in batches] == [8, 4, 4, 4]


def test_slow_documents_reduce_the_number_of_roots_of_later_statements() -> None:
    """A statement may take a quarter of `max_age`. Otherwise its documents would be too old before they are written."""
    batches = rendered(Database(seconds=[0.5, 0.5, 2.0, 2.0]), 23, chunk_documents=8, max_age=8.0)
    assert [len(batch.documents) for batch in batches] == [8, 4, 4, 1, 1, 5]


def test_one_document_may_take_longer_than_a_statement_should() -> None:
    batches = rendered(Database(seconds=[9.0, 9.0]), 3, chunk_documents=1, max_age=8.0)
    assert [len(batch.documents) for batch in batches] == [1, 1, 1]


def test_an_overflow_renders_fewer_roots_in_the_same_snapshot() -> None:
    database = Database(size=100, overflows_at=300)
    batches = rendered(database, 8, chunk_documents=8, chunk_bytes=300)
    assert database.statements[:2] == [8, 3]
    assert len(batches[0].documents) == 3 and database.views == len(batches)
    assert sum(len(batch.documents) for batch in batches) == 8


def test_one_document_may_be_larger_than_a_write_batch() -> None:
    batches = rendered(Database(size=900, overflows_at=300), 2, chunk_bytes=300)
    assert [len(batch.documents) for batch in batches] == [1, 1]
