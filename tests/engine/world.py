"""The surroundings of the lanes: a time that passes while a lane waits, topics, and a sink that fails.

All of it runs on one thread, in the order that the test chooses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from threading import Event
from typing import Any, TypeVar

from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Retry
from syncer.events import Position, WorkItem
from syncer.pacing import SystemTime
from syncer.pipeline.decode import encode_item
from syncer.ports import PartialSink, Record, Sink, StoredPartials

T = TypeVar("T")
DOCUMENTS = "documents: "
Partition = tuple[str, int]


class FakeTime(SystemTime):
    """A wait takes no real time, and calls `meanwhile`.

    Background work is held until a lane waits for it, or until `finish`. So a write can be slow, or arrive after its
    lane has ended.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.meanwhile: Callable[[], None] = lambda: None
        self.held: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def wait(self, event: Event, seconds: float) -> bool:
        self.now += seconds
        self.meanwhile()
        return event.is_set()

    def run_in_background(self, name: str, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self.held.append((future, work))
        return future

    def done(self, future: Future[T], seconds: float) -> bool:
        for held in self.held:
            if held[0] is future:
                self.held.remove(held)
                _finish(*held)
                break
        return future.done()

    def pass_by(self, seconds: float) -> None:
        self.now += seconds

    def finish(self, count: int) -> None:
        """Finishes the `count` oldest of the held work."""
        for _ in range(min(count, len(self.held))):
            _finish(*self.held.popleft())


def _finish(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except Exception as error:  # raised to the caller of `result`
        future.set_exception(error)


class Topics:
    """`ports.Source` with several partitions.

    `take` decides which partitions the next poll reads, and how many records of each.
    """

    def __init__(self) -> None:
        self.records: dict[Partition, list[Record]] = {}
        self.at: dict[Partition, int] = {}
        self.committed: dict[Partition, int] = {}
        self.take: Iterable[tuple[int, int]] = ()

    def add(self, partition: Partition, value: bytes) -> None:
        records = self.records.setdefault(partition, [])
        records.append(Record(Position(*partition, len(records)), b"", value))

    def waiting(self) -> list[Partition]:
        return [p for p, records in self.records.items() if self.at.get(p, 0) < len(records)]

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        """Returns records as `take` says: pairs of (index among the waiting partitions, number of records)."""
        found: list[Record] = []
        for which, count in self.take:
            if waiting := self.waiting():
                partition = waiting[which % len(waiting)]
                at = self.at.get(partition, 0)
                found += self.records[partition][at : at + count]
                self.at[partition] = min(at + count, len(self.records[partition]))
        return found

    def commit(self, next_offsets: Mapping[Partition, int], *, wait: bool) -> None:
        self.committed.update(next_offsets)

    def heartbeat(self) -> None:
        """There is no group."""

    def progress(self) -> dict[Partition, tuple[int, int]]:
        return {p: (self.at.get(p, 0), len(records)) for p, records in self.records.items()}

    def close(self) -> None:
        """Goes back to the committed offsets, for the next lane."""
        self.at = dict(self.committed)


class WorkTopics(Topics):
    """`ports.WorkTopic`, and the source of its lane."""

    topic = "work"

    def put(self, item: WorkItem) -> None:
        self.add((self.topic, 0), encode_item(item))

    def flush(self) -> None:
        """All items are durable."""


class FailingSink:
    """Wraps a sink. It fails in the next write, as `fail` chooses."""

    def __init__(self, inner: Sink) -> None:
        self.inner = inner
        self.name, self.in_place = inner.name, inner.in_place
        self.fault = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def fail(self, how: str) -> None:
        self.fault = how

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        fault, self.fault = self.fault, ""
        match fault:
            case "unreachable":
                raise Retry("no answer")
            case "answer lost":
                self.inner.write(batch, timeout)
                raise Retry("no answer")
            case "half":
                return self._half(batch, batch.ids())
            case "refused":
                return Outcome(rejected=[Rejection(id, "refused", "test") for id in batch.ids()])
        return self.inner.write(batch, timeout)

    def _half(self, batch: Batch, ids: Sequence[str]) -> Outcome:
        """Writes every second document."""
        written = set(ids[::2])
        upserts = {id: body for id, body in batch.upserts.items() if id in written}
        deletes = [id for id in batch.deletes if id in written]
        outcome = self.inner.write(replace(batch, upserts=upserts, deletes=deletes))
        outcome.retry += [id for id in ids if id not in written]
        return outcome


class FailingPartialSink(FailingSink):
    """A sink that stores partials. A fault with the prefix `documents: ` comes after the partials are written."""

    inner: Any

    def write_partials(
        self, version: int, partials: Mapping[str, Mapping[str, bytes | None]], timeout: float
    ) -> StoredPartials:
        fault = self.fault
        if fault.startswith(DOCUMENTS):
            self.fault = fault.removeprefix(DOCUMENTS)
        else:
            self.fault = ""
        store: PartialSink = self.inner
        match fault:
            case "unreachable":
                raise Retry("no answer")
            case "answer lost":
                store.write_partials(version, partials, timeout)
                raise Retry("no answer")
            case "half":
                return store.write_partials(version, dict(list(partials.items())[::2]), timeout)
        return store.write_partials(version, partials, timeout)

    def read_partials(self, ids: Sequence[str]) -> StoredPartials:
        found: StoredPartials = self.inner.read_partials(ids)
        return found

    def partial_ids(self) -> Iterator[tuple[str, str]]:
        yield from self.inner.partial_ids()
