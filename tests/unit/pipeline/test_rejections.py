"""Dead letters of a lane: each rejected document is reported once per batch, and accepted documents close letters."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from syncer.document import Batch
from syncer.errors import Reject
from syncer.pipeline.rejections import Rejections
from syncer.ports import Record
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from tests.unit.pipeline.examples import AT


class Letters:
    """`ports.DeadLetters` in lists."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int, str]] = []
        self.closed: list[tuple[str, int]] = []

    def document(self, id: str, version: int, reason: str) -> None:
        self.written.append((id, version, reason))

    def record(self, record: Record, reason: str) -> None:
        self.written.append((str(record.position), 0, reason))

    def accepted(self, ids: Iterable[str], version: int) -> None:
        self.closed += [(id, version) for id in ids]

    def accepted_partials(self, versions: Iterable[tuple[str, int]]) -> None:
        self.closed += versions

    def flush(self) -> None:
        """All letters are durable."""


class CountingObserver(LaneObserver):
    """Keeps the rejections that it receives."""

    def __init__(self) -> None:
        super().__init__("changes", Metrics(CollectorRegistry()).for_model("orders"))
        self.errors: list[Reject] = []

    def rejected(self, error: Reject) -> None:
        self.errors.append(error)


def batch(*ids: str, version: int = 7) -> Batch:
    return Batch(version, dict.fromkeys(ids, b"{}"), [])


def test_a_document_that_is_rejected_again_for_the_same_batch_is_reported_once() -> None:
    letters, observer = Letters(), CountingObserver()
    rejections = Rejections(letters, observer)
    for version in (7, 8):
        rejections.document("1", version, Reject("es refused the document", why="no"))
    assert letters.written == [("1", 7, "es refused the document: no"), ("1", 8, "es refused the document: no")]
    assert len(observer.errors) == 1
    rejections.acknowledged(batch("1"))
    rejections.document("1", 9, Reject("es refused the document", why="no"))
    assert len(observer.errors) == 2, "it belongs to another batch"


def test_only_documents_that_every_sink_accepted_close_their_letters() -> None:
    letters = Letters()
    rejections = Rejections(letters, CountingObserver())
    rejections.document("2", 7, Reject("es refused the document"))
    rejections.acknowledged(batch("1", "2", "3"))
    assert letters.closed == [("1", 7), ("3", 7)]
    rejections.acknowledged(batch("2", version=9))
    assert letters.closed[2:] == [("2", 9)]


def test_the_reason_of_a_record_does_not_repeat_its_position() -> None:
    letters, observer = Letters(), CountingObserver()
    error = Reject("cannot read a change event", where=str(AT), why="no JSON")
    Rejections(letters, observer).record(Record(AT, None, b"x"), error)
    assert letters.written == [(str(AT), 0, "cannot read a change event: no JSON")]
    assert observer.errors == [error]
