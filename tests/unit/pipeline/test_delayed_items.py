"""Delayed items are released when they are due, and a root is rendered once for all its items that were read before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event

from syncer.events import Position, WorkItem
from syncer.pacing import SystemTime, Waiter
from syncer.pipeline import decode
from syncer.pipeline.delayed_items import DelayedItems
from syncer.ports import Partition, Record

TOPIC = "delayed"


class Time(SystemTime):
    """Passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return round(self.now * 1000)

    def wait(self, event: Event, seconds: float) -> bool:
        self.now += seconds
        return False


class Source:
    """`ports.GroupSource` over lists of records."""

    def __init__(self, partitions: int = 1) -> None:
        self.records: dict[Partition, list[Record]] = {(TOPIC, number): [] for number in range(partitions)}
        self.at = dict.fromkeys(self.records, 0)
        self.committed: dict[Partition, int] = {}

    def put(self, keys: Sequence[str], at: float, partition: int = 0, committed_ms: int = 0) -> None:
        item = WorkItem(
            "keys",
            "min_interval",
            keys=tuple(map(tuple, keys)),
            not_before_ms=round(at * 1000),
            committed_ms=committed_ms,
        )
        self.append(decode.encode_item(item), partition)

    def append(self, value: bytes, partition: int = 0) -> None:
        records = self.records[TOPIC, partition]
        records.append(Record(Position(TOPIC, partition, len(records)), None, value))

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        found = [record for partition, at in self.at.items() for record in self.records[partition][at:]]
        self.at = {partition: len(self.records[partition]) for partition in self.at}
        return found

    def progress(self) -> Mapping[Partition, tuple[int, int]]:
        return {partition: (at, len(self.records[partition])) for partition, at in self.at.items()}

    def commit(self, next_offsets: Mapping[Partition, int], *, wait: bool) -> None:
        self.committed |= next_offsets

    def is_assigned(self, partition: Partition) -> bool:
        return partition in self.at

    def heartbeat(self) -> None:
        """Nobody would notice that this member is gone."""

    def close(self) -> None:
        """Nothing is open."""


class Delayed:
    def __init__(self, partitions: int = 1, most_delay: float = 10.0, columns: int | None = None) -> None:
        self.time, self.source = Time(), Source(partitions)
        wait = Waiter(time=self.time)
        self.items = DelayedItems(self.source, wait, most_delay=most_delay, columns=columns)

    def poll(self) -> list[tuple[str, int, int]]:
        """Returns the roots, the partition and the offset of each released record."""
        found = []
        for record in self.items.poll(0.25, 8, 1 << 20):
            item = decode.work(record.position, record.value, 1)
            keys = "".join(key for (key,) in item.keys) if item else ""
            found.append((keys, record.position.partition, record.position.offset))
        return found


def test_an_item_is_released_when_it_is_due() -> None:
    one = Delayed()
    one.source.put("a", 100.4)
    assert one.poll() == [] and one.time.now == 100.25
    assert one.items.progress() == {(TOPIC, 0): (0, 1)}, "it is not polled yet"
    assert one.poll() == [("a", 0, 0)] and one.time.now == 100.4
    assert one.items.progress() == {(TOPIC, 0): (1, 1)}


def test_a_render_covers_the_items_that_were_read_before_it() -> None:
    one = Delayed()
    one.source.put("ab", 100.1)
    one.source.put("ac", 100.2)
    assert one.poll() == [("ab", 0, 0)]
    one.source.put("a", 100.3)
    assert one.poll() == [("c", 0, 1)]
    assert one.poll() == [("a", 0, 2)], "this item was read after the render of a had begun"


def test_due_items_of_several_partitions_are_one_render() -> None:
    one = Delayed(partitions=2)
    one.source.put("ab", 99.0, 0, committed_ms=5)
    one.source.put("bc", 99.0, 1, committed_ms=3)
    one.source.put("d", 99.0, 1)
    [first, second] = one.items.poll(0.25, 8, 1 << 20)
    item = decode.work(first.position, first.value, 1)
    assert item and ["".join(key) for key in item.keys] == ["a", "b", "c", "d"] and item.committed_ms == 3
    assert (first.position, second) == (Position(TOPIC, 0, 0), Record(Position(TOPIC, 1, 1), None, None))


def partials(released: Sequence[Record]) -> list[str]:
    """Returns the partials that the first record names."""
    item = decode.work(released[0].position, released[0].value, 2)
    return ["".join(key) for key in item.keys] if item else []


def test_all_partials_of_a_root_are_released_with_the_first_one() -> None:
    one = Delayed(columns=1)
    one.source.put(["a1", "b1"], 99.0, committed_ms=9)
    one.source.put(["a2", "c1"], 100.2, committed_ms=7)
    one.source.put(["a1", "a3"], 100.4, committed_ms=8)
    released = one.items.poll(0.25, 8, 1 << 20)
    assert partials(released) == ["a1", "a2", "a3", "b1"]
    item = decode.work(released[0].position, released[0].value, 2)
    assert item and item.committed_ms == 7
    assert one.items.progress() == {(TOPIC, 0): (1, 3)}, "the other items are not done"
    assert partials(one.items.poll(0.25, 8, 1 << 20)) == ["c1"]
    one.source.put(["a2"], 100.6)
    assert partials(one.items.poll(0.25, 8, 1 << 20)) == [], "all partials of this item were rendered"
    assert partials(one.items.poll(9.0, 8, 1 << 20)) == ["a2"], "this one was read after the render had begun"


def test_partials_of_a_partition_that_moved_are_not_released() -> None:
    one = Delayed(partitions=2, columns=1)
    one.source.put(["a1"], 100.2, 0)
    one.source.put(["a2"], 100.3, 1)
    one.items.poll(0.0, 8, 1 << 20)
    del one.source.at[TOPIC, 1]
    assert partials(one.items.poll(0.25, 8, 1 << 20)) == ["a1"]


def test_an_item_is_held_for_the_interval_at_most() -> None:
    one = Delayed(most_delay=0.2)
    one.source.put("a", 9999.0)
    assert one.poll() == [("a", 0, 0)] and one.time.now == 100.2


def test_a_record_that_cannot_be_read_is_passed_on_unchanged() -> None:
    one = Delayed()
    one.source.append(b"{")
    one.source.put("a", 99.0)
    first, second = one.items.poll(0.25, 8, 1 << 20)
    assert (first.value, first.position.offset, second.position.offset) == (b"{", 0, 1)


def test_items_of_a_partition_that_moved_are_dropped_and_those_that_come_again_count_once() -> None:
    one = Delayed(partitions=2)
    one.source.put("a", 100.2, 0)
    one.source.put("b", 100.2, 1)
    one.items.poll(0.0, 8, 1 << 20)
    del one.source.at[TOPIC, 1]
    one.source.at[TOPIC, 0] = 0
    assert one.poll() == [("a", 0, 0)]
    assert one.items.progress() == {(TOPIC, 0): (1, 1)} and not one.items.is_assigned((TOPIC, 1))
