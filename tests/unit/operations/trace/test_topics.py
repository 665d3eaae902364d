"""Reads a bounded stretch of the change topics, then only what is new, and finds work items that wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from syncer.errors import Retry
from syncer.events import Key, Position, TableName, WorkItem
from syncer.operations.trace.pending import pending
from syncer.operations.trace.topics import ChangeTopics
from syncer.pipeline.decode import encode_item
from syncer.ports import Backlog, Partition, Record

NOW_MS = 1_000_000


class Log:
    """A change log in memory: partition → the times of its records."""

    def __init__(self, records: Mapping[Partition, list[int]]) -> None:
        self.records = dict(records)
        self.fails = False

    def begins(self, topics: Any) -> dict[Partition, int]:
        return dict.fromkeys(self.records, 0)

    def ends(self, topics: Any, at_ms: int | None = None) -> dict[Partition, int]:
        if at_ms is None:
            return {p: len(times) for p, times in self.records.items()}
        later = {p: [n for n, time in enumerate(times) if time >= at_ms] for p, times in self.records.items()}
        return {p: found[0] if found else -1 for p, found in later.items()}

    def between(self, start: Mapping[Partition, int], ends: Mapping[Partition, int]) -> Iterator[tuple[Record, int]]:
        for partition, offset in start.items():
            for n in range(offset, ends[partition]):
                yield Record(Position(*partition, n), None, b""), self.records[partition][n]
        if self.fails:
            raise Retry("unreachable")


class Collected:
    """Collects what a `Changes` would get. Table a is at depth 0 and 1, table b at depth 1."""

    depths = 2

    def __init__(self) -> None:
        self.added: list[tuple[int, str, int]] = []

    def tables(self, depth: int) -> set[TableName]:
        return {TableName("", name) for name in ("a" if depth == 0 else "ab")}

    def add(self, depth: int, records: list[tuple[Record, int]]) -> None:
        self.added += [(depth, record.position.topic, record.position.offset) for record, _ in records]


def topics(log: Log, *, since: float = 100, most: int = 1000) -> Any:
    untyped: Any = log
    return ChangeTopics(untyped, ["a", "b"], lambda table: table.name, since=since, most=most)


def test_topics_are_read_by_depth_from_the_same_time_in_all_partitions() -> None:
    log = Log({("a", 0): [899_999, 900_000, 950_000], ("a", 1): [1], ("b", 0): [990_000]})
    reading, found = topics(log), Collected()
    reading.read(found, NOW_MS)
    assert found.added == [(0, "a", 1), (0, "a", 2), (1, "a", 1), (1, "a", 2), (1, "b", 0)]
    assert reading.start == {("a", 0): 1, ("a", 1): 1, ("b", 0): 0} and not reading.shortened


def test_the_next_read_continues_and_a_read_that_failed_is_repeated() -> None:
    log = Log({("a", 0): [950_000], ("b", 0): []})
    reading, found = topics(log), Collected()
    reading.read(found, NOW_MS)
    log.records["b", 0] = [999_000]
    log.records["b", 1] = [999_000]  # a new partition
    log.fails = True
    with pytest.raises(Retry):
        reading.read(found, NOW_MS)
    log.fails, found.added = False, []
    reading.read(found, NOW_MS)
    assert found.added == [(1, "b", 0), (1, "b", 0)]
    found.added = []
    reading.read(found, NOW_MS)
    assert found.added == []


def test_the_time_is_halved_until_it_has_few_enough_records() -> None:
    log = Log({("a", 0): [NOW_MS - 1000 * n for n in range(100, 0, -1)], ("b", 0): [NOW_MS - 90_000]})
    reading = topics(log, most=30)
    reading.read(Collected(), NOW_MS)
    assert reading.shortened and reading.since_ms == NOW_MS - 25_000
    assert reading.start == {("a", 0): 75, ("b", 0): 1}


class Queue:
    """A queue with one partition of waiting items, of which only some were read."""

    def __init__(self, *items: WorkItem, unread: int = 0) -> None:
        records = [Record(Position("work", 0, n), None, encode_item(item)) for n, item in enumerate(items)]
        self.waiting = Backlog(0, len(records) + unread, records)

    def backlog(self, first: int) -> list[Backlog]:
        return [self.waiting]


def waiting(*items: WorkItem, key: Key = ("10",), types: tuple[str, ...] = ("bigint",), unread: int = 0) -> list[str]:
    queue: Any = Queue(*items, unread=unread)
    return list(pending([queue], key, types))


def test_work_items_that_render_the_root_are_named_with_their_reason() -> None:
    assert waiting(WorkItem("keys", "fan-out", keys=(("9",), ("10",)))) == [
        "a work item waits: this document (fan-out)"
    ]
    assert waiting(WorkItem("keys", "fan-out", keys=(("9",),))) == []
    assert "sweep" in waiting(WorkItem("sweep", "truncate"))[0]
    assert waiting(unread=3) == ["3 more work items wait, and may render it"]


@pytest.mark.parametrize(
    ("low", "high", "contains"),
    [
        (None, "9", False),
        (None, "10", True),
        ("9", "100", True),
        ("10", "11", False),  # as numbers, and without the lower bound
    ],
)
def test_ranges_of_integers_are_compared_as_numbers(low: str | None, high: str, contains: bool) -> None:
    item = WorkItem("range", "backfill", low=(low,) if low else None, high=(high,))
    assert bool(waiting(item)) == contains


def test_a_range_of_other_keys_may_contain_the_root() -> None:
    item = WorkItem("range", "backfill", low=("x",), high=("z",))
    assert "may contain it" in waiting(item, key=("a",), types=("text",))[0]
