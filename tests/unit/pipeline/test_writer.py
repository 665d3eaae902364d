"""The write stage: nothing is sent that was rendered too long ago, and the circuit breaker stops the lane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import Event

import pytest
from prometheus_client import CollectorRegistry

from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal
from syncer.events import Position
from syncer.pacing import SystemTime, Waiter
from syncer.pipeline.circuit_breaker import Breaker
from syncer.pipeline.writer import WriteBatch, Writer
from syncer.ports import Record
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from tests.contracts.sinks import compiled
from tests.harness.memory_sink import MemorySink, Store


class Slow(MemorySink):
    """The first write takes longer than a document may be old."""

    takes = 31.0

    def __init__(self, time: Fake) -> None:
        super().__init__(model=compiled("things"))
        self.time = time
        self.prepare()

    def write(self, batch: Batch, within: float = 30.0) -> Outcome:
        self.time.now += self.takes
        self.takes = 0.0
        return super().write(batch, within)


class Fake(SystemTime):
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: Event, seconds: float) -> bool:
        self.now += seconds
        return event.is_set()


def test_what_got_old_at_one_sink_is_not_sent_to_the_next() -> None:
    time, done = Fake(), list[WriteBatch]()
    first, second = Slow(time), MemorySink(model=compiled("things"), store=Store())
    second.prepare()

    def again(ids: list[str]) -> Iterator[WriteBatch]:
        assert second.store.documents == {}
        yield WriteBatch(Batch(2, dict.fromkeys(ids, b'{"n":2}'), []), time.now)

    def unexpected(sink: str, id: str, version: int, reason: str) -> None:
        raise AssertionError(reason)

    observer = LaneObserver("changes", Metrics(CollectorRegistry()).for_model("things"))
    writer = Writer(
        "things",
        [first, second],
        max_age=30.0,
        again=again,
        done=done.append,
        refused=unexpected,
        newer=lambda version: None,
        breaker=Breaker("things"),
        wait=Waiter(Event(), lambda: None, time),
        observer=observer,
    )
    piece = WriteBatch(Batch(1, {"a": b'{"n":1}'}, []), time.now)
    writer.send(piece)
    writer.settle()
    assert done == [piece]
    assert observer.last_error.startswith(
        "documents were rendered 31 s ago, which is longer than pipeline.max_age (30 s): they are rendered"
        f" again: {first.name} took 31 s for a write\n  → "
    )
    assert first.store.documents == second.store.documents == {"a": (2, b'{"n":2}')}


class Fussy(MemorySink):
    """Refuses what the rule names, and notes what it was sent."""

    def __init__(self, name: str, rule: Callable[[str], bool]) -> None:
        super().__init__(model=compiled("things"), store=Store())
        self.name, self.rule = name, rule
        self.sent: list[list[str]] = []
        self.prepare()

    def write(self, batch: Batch, within: float = 30.0) -> Outcome:
        self.sent.append(batch.ids())
        bad = {id for id in batch.upserts if self.rule(id)}
        good = {id: body for id, body in batch.upserts.items() if id not in bad}
        out = super().write(Batch(batch.version, good, batch.deletes), within)
        out.rejected += [Rejection(id, "no", "bad") for id in batch.upserts if id in bad]
        return out


class Trail:
    """A writer over these sinks, and what it reported."""

    def __init__(self, *sinks: MemorySink, breaker: Breaker) -> None:
        self.done: list[WriteBatch] = []
        self.rejected: list[tuple[str, str]] = []
        self.writer = Writer(
            "things",
            sinks,
            max_age=30.0,
            again=lambda ids: [piece(ids, version=9)],
            done=self.done.append,
            refused=lambda sink, id, version, reason: self.rejected.append((sink, id)),
            newer=lambda version: None,
            breaker=breaker,
            wait=Waiter(Event(), lambda: None, Fake()),
            observer=LaneObserver("changes", Metrics(CollectorRegistry()).for_model("things")),
        )


def piece(ids: Iterable[object], version: int = 1) -> WriteBatch:
    record = Record(Position("t", 0, version), None, None)
    return WriteBatch(Batch(version, {str(id): b'{"n":1}' for id in ids}, []), 0.0, (record,))


def test_the_piece_that_opens_the_breaker_has_no_letters_and_is_not_done() -> None:
    good, bad = Fussy("good", lambda id: False), Fussy("bad", lambda id: True)
    trail = Trail(good, bad, breaker=Breaker("things", 3))
    trail.writer.send(piece(["a", "b"]))
    trail.writer.send(piece(["c", "d"], version=2))
    with pytest.raises(Fatal, match="bad refused 3 documents in a row"):
        trail.writer.settle()
    assert trail.rejected == [("bad", "a"), ("bad", "b")]
    assert trail.done == [piece(["a", "b"])]
    trail.writer.close()
    assert trail.done == [piece(["a", "b"])]


def test_a_lane_that_is_stopped_meanwhile_leaves_its_refusals_to_be_done_again() -> None:
    """Another lane of the read model has opened the breaker."""
    breaker = Breaker("things", 3)
    trail = Trail(Fussy("bad", lambda id: True), breaker=breaker)
    trail.writer.send(piece(["a"]))
    with pytest.raises(Fatal):
        breaker.judge("bad", piece("xyz").batch, Outcome(rejected=[Rejection(id, "no", "bad") for id in "xyz"]))
    trail.writer.close()
    assert (trail.done, trail.rejected) == ([], [])


def test_a_retry_sends_one_document_and_stops_if_that_is_refused() -> None:
    sink = Fussy("bad", lambda id: True)
    trail = Trail(sink, breaker=Breaker("things", 3, noted={"bad": {"limit": 3, "trips": 1}}))
    with pytest.raises(Fatal, match="bad still refuses documents"):
        trail.writer.send(piece("abcdef"))
    assert (sink.sent, trail.done, trail.rejected) == ([["b"]], [], [])


def test_a_retry_goes_on_when_one_document_is_accepted() -> None:
    sink = Fussy("bad", lambda id: id == "d")
    trail = Trail(sink, breaker=Breaker("things", 3, noted={"bad": {"limit": 3, "trips": 1}}))
    trail.writer.send(piece("abcdef"))
    trail.writer.settle()
    assert sink.sent == [["b"], ["a", "c", "d", "e", "f"]]
    assert trail.rejected == [("bad", "d")]
    assert [one.records for one in trail.done] == [(), piece("").records]
