"""The write stage: nothing is sent that was rendered too long ago, to whichever sink."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

from prometheus_client import CollectorRegistry

from syncer.breaker import Breaker
from syncer.document import Batch, Outcome
from syncer.metrics import Metrics
from syncer.observer import LaneObserver
from syncer.sinks.memory import MemorySink, Store
from syncer.waiting import Patience, Time
from syncer.writer import Piece, Writer
from tests.contracts.sinks import compiled


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


class Fake(Time):
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: Event, seconds: float) -> bool:
        self.now += seconds
        return event.is_set()


def test_what_got_old_at_one_sink_is_not_sent_to_the_next() -> None:
    time, done = Fake(), list[Piece]()
    first, second = Slow(time), MemorySink(model=compiled("things"), store=Store())
    second.prepare()

    def again(ids: list[str]) -> Iterator[Piece]:
        assert second.store.documents == {}
        yield Piece(Batch(2, dict.fromkeys(ids, b'{"n":2}'), []), time.now)

    def unexpected(sink: str, id: str, version: int, reason: str) -> None:
        raise AssertionError(reason)

    writer = Writer(
        "things", [first, second], max_age=30.0, again=again, done=done.append, refused=unexpected,
        newer=lambda version: None, breaker=Breaker("things"), wait=Patience(Event(), lambda: None, time),
        observer=LaneObserver("changes", Metrics(CollectorRegistry()).for_model("things")),
    )  # fmt: skip
    piece = Piece(Batch(1, {"a": b'{"n":1}'}, []), time.now)
    writer.send(piece)
    writer.settle()
    assert done == [piece]
    assert first.store.documents == second.store.documents == {"a": (2, b'{"n":2}')}
