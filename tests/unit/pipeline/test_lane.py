"""How a lane writes: it sends no document that is too old, and the circuit breaker stops it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from syncer.clock import Clock, Identity, Snapshot, version
from syncer.document import Batch, Outcome, Rejection, Row
from syncer.errors import Fatal
from syncer.events import Key, Position, WorkItem
from syncer.pacing import SystemTime
from syncer.pipeline.circuit_breaker import CircuitBreaker
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import Head, Record
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from tests.contracts.sinks import compiled
from tests.harness.memory_sink import MemorySink, Store

SNAPSHOT = Snapshot(9, 9, frozenset())


class FakeTime(SystemTime):
    """Moves only when a lane waits, or when a sink is slow."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: Event, seconds: float) -> bool:
        self.now += seconds
        return event.is_set()


class EveryKey:
    """`ports.Rows` and `ports.View`: each key has the document {"n":2}, in the snapshot with clock 9."""

    head = Head(SNAPSHOT, Identity(1, 1), 0)

    def __init__(self) -> None:
        self.before_render: Callable[[], None] = lambda: None

    @contextmanager
    def view(self, *, root_only: bool = False, wait: Any = None) -> Iterator[Any]:
        yield self

    def render(self, keys: Sequence[Key], max_bytes: int = 0) -> list[Row]:
        self.before_render()
        return [Row(id, id, b'{"n":2}') for (id,) in keys]

    def flushed(self, lsn: int) -> bool:
        return True

    def flush(self) -> None:
        """WAL is flushed already."""

    def statuses(self, xids: Collection[int]) -> dict[int, str]:
        return {}

    def close(self) -> None:
        """Holds no connection."""


class NoRecords:
    """`ports.Source` and `ports.WorkTopic` without records."""

    topic = "work"

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        return []

    def put(self, item: WorkItem) -> None:
        raise AssertionError(item)

    def commit(self, next_offsets: Mapping[tuple[str, int], int], *, wait: bool) -> None:
        """Kafka keeps the offsets."""

    def heartbeat(self) -> None:
        """There is no group."""

    def progress(self) -> dict[tuple[str, int], tuple[int, int]]:
        return {}

    def flush(self) -> None:
        """No item is on its way."""

    def close(self) -> None:
        """Holds no connection."""


class Letters:
    """`ports.DeadLetters` in a list."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    def document(self, id: str, version: int, reason: str) -> None:
        self.written.append((id, reason))

    def record(self, record: Record, reason: str) -> None:
        raise AssertionError(reason)

    def accepted(self, ids: Iterable[str], version: int) -> None:
        list(ids)

    def accepted_partials(self, versions: Iterable[tuple[str, int]]) -> None:
        list(versions)

    def flush(self) -> None:
        """No letter is on its way."""


class RecordingLane(Lane):
    """A lane over these sinks. Keeps the batches that it acknowledges, and its dead letters."""

    def __init__(self, *sinks: MemorySink, breaker: CircuitBreaker | None = None, time: FakeTime | None = None) -> None:
        self.done: list[WriteBatch] = []
        self.letters, self.rows = Letters(), EveryKey()
        self.observed = LaneObserver("changes", Metrics(CollectorRegistry()).for_model("things"))
        super().__init__(
            compiled("things"),
            NoRecords(),
            self.rows,
            sinks,
            clock=Clock(1),
            work=NoRecords(),
            dead_letters=self.letters,
            observer=self.observed,
            limits=Limits(max_age=30.0),
            stop=Event(),
            breaker=breaker,
            time=time or FakeTime(),
        )

    def _acknowledge(self, batch: WriteBatch) -> None:
        self.done.append(batch)
        super()._acknowledge(batch)


def write_batch(ids: Iterable[object], version: int = 1) -> WriteBatch:
    record = Record(Position("t", 0, version), None, None)
    return WriteBatch(Batch(version, {str(id): b'{"n":1}' for id in ids}, []), 0.0, (record,))


class SlowSink(MemorySink):
    """Each write takes longer than a document may be old."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__(model=compiled("things"), store=Store())
        self.name, self.time = "slow", time
        self.prepare()

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        self.time.now += 31.0
        return super().write(batch, timeout)


def test_a_batch_that_became_too_old_at_one_sink_is_rendered_again_for_the_next() -> None:
    time = FakeTime()
    first, second = SlowSink(time), MemorySink(model=compiled("things"), store=Store())
    second.prepare()
    lane = RecordingLane(first, second, time=time)

    def second_is_empty() -> None:
        assert second.store.documents == {}

    lane.rows.before_render = second_is_empty
    batch = write_batch("a")
    lane._write(batch)
    lane._finish_write()
    assert lane.done == [batch]
    assert lane.observed.last_error.startswith(
        "documents were rendered 31 s ago, which is longer than pipeline.max_age (30 s): they are rendered"
        f" again: {first.name} took 31 s for a write\n  → "
    )
    assert first.store.documents == {"a": (1, b'{"n":1}')}, "written again, although it had acknowledged the document"
    assert second.store.documents == {"a": (version(1, 9), b'{"n":2}')}


class BusySink(MemorySink):
    """Writes the given number of documents at a time. got: the ids of each write."""

    def __init__(self, name: str, documents: int) -> None:
        super().__init__(model=compiled("things"), store=Store())
        self.name, self.documents, self.got = name, documents, list[list[str]]()
        self.prepare()

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        self.got.append(batch.ids())
        now = dict(list(batch.upserts.items())[: self.documents])
        out = super().write(Batch(batch.version, now, []), timeout)
        out.add(Outcome(retry=[id for id in batch.ids() if id not in now], retry_reason="busy"))
        return out


def test_a_document_is_written_again_only_to_the_sink_that_did_not_write_it() -> None:
    busy, ready = BusySink("busy", 2), BusySink("ready", 9)
    lane = RecordingLane(busy, ready)
    lane._write(write_batch("abcde"))
    lane._finish_write()
    assert busy.got == [["a", "b", "c", "d", "e"], ["c", "d", "e"], ["e"]]
    assert ready.got == [["a", "b", "c", "d", "e"]]
    assert set(busy.store.documents) == set(ready.store.documents) == set("abcde")


class SelectiveSink(MemorySink):
    """Rejects the documents that `rejects` selects. Keeps the ids of each write."""

    def __init__(self, name: str, rejects: Callable[[str], bool]) -> None:
        super().__init__(model=compiled("things"), store=Store())
        self.name, self.rejects = name, rejects
        self.sent: list[list[str]] = []
        self.prepare()

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        self.sent.append(batch.ids())
        bad = {id for id in batch.upserts if self.rejects(id)}
        good = {id: body for id, body in batch.upserts.items() if id not in bad}
        out = super().write(Batch(batch.version, good, batch.deletes), timeout)
        out.rejected += [Rejection(id, "no", "bad") for id in batch.upserts if id in bad]
        return out


def refused(id: str) -> tuple[str, str]:
    return id, "bad refused the document: no"


def test_the_batch_that_opens_the_breaker_gets_no_dead_letters_and_is_not_acknowledged() -> None:
    good, bad = SelectiveSink("good", lambda id: False), SelectiveSink("bad", lambda id: True)
    lane = RecordingLane(good, bad, breaker=CircuitBreaker("things", 3))
    lane._write(write_batch(["a", "b"]))
    lane._write(write_batch(["c", "d"], version=2))
    with pytest.raises(Fatal, match="bad refused 3 documents in a row"):
        lane._finish_write()
    assert lane.letters.written == [refused("a"), refused("b")]
    assert lane.done == [write_batch(["a", "b"])]
    lane._close_write()
    assert lane.done == [write_batch(["a", "b"])]
    assert lane.offsets.take() == {("t", 0): 2}


def test_a_lane_that_stops_after_another_lane_opened_the_breaker_leaves_its_rejections_to_the_next_lane() -> None:
    breaker = CircuitBreaker("things", 3)
    lane = RecordingLane(SelectiveSink("bad", lambda id: True), breaker=breaker)
    lane._write(write_batch(["a"]))
    with pytest.raises(Fatal):
        breaker.judge(
            "bad", write_batch("xyz").documents, Outcome(rejected=[Rejection(id, "no", "bad") for id in "xyz"])
        )
    lane._close_write()
    assert (lane.done, lane.letters.written) == ([], [])


def test_a_lane_that_stops_acknowledges_the_write_under_way_if_no_document_is_left() -> None:
    lane = RecordingLane(SelectiveSink("good", lambda id: False))
    lane._write(write_batch(["a"]))
    lane._close_write()
    assert lane.done == [write_batch(["a"])]


def test_a_retry_sends_one_document_and_stops_if_the_sink_rejects_it() -> None:
    sink = SelectiveSink("bad", lambda id: True)
    lane = RecordingLane(sink, breaker=CircuitBreaker("things", 3, noted={"bad": {"limit": 3, "trips": 1}}))
    with pytest.raises(Fatal, match="bad still refuses documents"):
        lane._write(write_batch("abcdef"))
    assert (sink.sent, lane.done, lane.letters.written) == ([["b"]], [], [])


def test_a_retry_goes_on_when_the_sink_accepts_one_document() -> None:
    sink = SelectiveSink("bad", lambda id: id == "d")
    lane = RecordingLane(sink, breaker=CircuitBreaker("things", 3, noted={"bad": {"limit": 3, "trips": 1}}))
    lane._write(write_batch("abcdef"))
    lane._finish_write()
    assert sink.sent == [["b"], ["a", "c", "d", "e", "f"]]
    assert lane.letters.written == [refused("d")]
    assert [batch.records for batch in lane.done] == [(), write_batch("").records]
