"""The order lane's rules, in a model of a log with late writers, clocks that differ, compaction and restarts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest

from syncer.events import Position
from syncer.pipeline.log_order import PartitionOrder, RecentVersions
from syncer.ports import LogEntry
from syncer.sinks.kafka.topic import STAMP_TOLERANCE, window

MAX_AGE = 30.0
WINDOW = window(MAX_AGE)
LANES, IDS = (0, 1, 2), ("a", "b")


def entry(offset: int, id: str, version: int, at: float = 0.0) -> LogEntry:
    return LogEntry(Position("t", 0, offset), id, version, int(at * 1000))


def checked(order: PartitionOrder, entries: Sequence[LogEntry]) -> list[str]:
    """Returns the ids that have to be written again."""
    return [one.id for one in entries if order.check(one)]


class Log:
    """One schedule. Lanes take snapshots, stamp records and deliver them late. A version is a number of commits.

    The broker rejects a record whose stamp differs too much from its clock. Compaction removes a record if a later
    one of its id is older than the compaction lag.
    """

    window = WINDOW
    rewinds = detects_gaps = hands_over = rejects_old_stamps = True

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        tolerance = self.random.choice((0.0, STAMP_TOLERANCE))
        self.skews = [self.random.uniform(-tolerance, tolerance) for _ in LANES]
        self.compaction_lag = self.random.choice((0.0, 60.0, 2000.0))
        self.waits = self.random.choice(((0.0, 1.0, 10.0, 14.0, 29.0), (14.0, 200.0)))
        self.now, self.commits, self.end = 1000.0, 1, 0
        self.log: list[LogEntry] = []
        self.highest: dict[str, int] = {}
        self.under_way: dict[int, tuple[str, int, float, float | None]] = {}
        """By lane: id, version, time of the snapshot, stamp."""
        self.items: list[str] = []
        self.committed = (0, 0)
        self.missed = False
        self.next, self.order = 0, PartitionOrder(self.window, 0, 0)

    def run(self) -> bool:
        """Returns whether the last record of each id has the highest version at the end, or a gap was reported."""
        lanes = [*[self.take_snapshot, self.stamp] * 3, *[self.deliver] * self.random.choice((1, 3))]
        actions = [*lanes, self.wait, self.commit, self.compact, self.poll, self.work, self.save, self.restart]
        for _ in range(150):
            self.random.choice(actions)()
        self.now += 1000
        while (self.log and self.next <= self.log[-1].position.offset) or self.items:
            self.poll()
            self.work()
        return self.missed or {one.id: one.version for one in self.log} == self.highest

    def wait(self) -> None:
        self.now += self.random.choice(self.waits)

    def commit(self) -> None:
        self.commits += 1

    def take_snapshot(self) -> None:
        lane = self.random.choice(LANES)
        if lane not in self.under_way:
            self.under_way[lane] = self.random.choice(IDS), self.commits, self.now, None

    def stamp(self) -> None:
        lane = self.random.choice(LANES)
        id, version, taken, stamp = self.under_way.get(lane, ("", 0, 0.0, None))
        if id and stamp is None and self.now - taken <= MAX_AGE:
            self.under_way[lane] = id, version, taken, self.now + self.skews[lane]

    def deliver(self) -> None:
        lane = self.random.choice(LANES)
        id, version, _, stamp = self.under_way.get(lane, ("", 0, 0.0, None))
        if stamp is not None:
            del self.under_way[lane]
            if abs(self.now - stamp) <= STAMP_TOLERANCE or not self.rejects_old_stamps:
                self._append(id, version, stamp)

    def _append(self, id: str, version: int, at: float) -> None:
        self.log.append(entry(self.end, id, version, at))
        self.end += 1
        self.highest[id] = max(version, self.highest.get(id, 0))

    def compact(self) -> None:
        """Removes a record only because of a later one that may be cleaned, too."""
        cleaned = [one for one in self.log if one.at_ms < (self.now - self.compaction_lag) * 1000]
        last = {one.id: one.position.offset for one in cleaned}
        self.log = [one for one in self.log if one not in cleaned or last[one.id] == one.position.offset]

    def poll(self) -> None:
        entries = [one for one in self.log if one.position.offset >= self.next][: self.random.choice((1, 5))]
        if entries:
            self.next = entries[-1].position.offset + 1
        late = checked(self.order, entries)
        self.missed |= self.detects_gaps and self.order.missed
        if self.hands_over:
            self.items += late

    def save(self) -> None:
        """Commits the offsets."""
        self.committed = self.order.begin, max(self.next, self.committed[1])

    def restart(self) -> None:
        begin, at = self.committed
        self.next = begin if self.rewinds else at
        self.order = PartitionOrder(self.window, self.next, at)

    def work(self) -> None:
        """A work lane renders a document again, perhaps with the same version."""
        if self.items:
            self._append(self.items.pop(0), self.commits, self.now)


class NoOrderLane(Log):
    hands_over = False


class ShortWindow(Log):
    window = STAMP_TOLERANCE / 3


class NoRewind(Log):
    rewinds = False


class AnyStamp(Log):
    rejects_old_stamps = False


class IgnoresGaps(Log):
    detects_gaps = False


def failed(schedule: type[Log], seeds: Iterable[int]) -> int | None:
    """Returns the first seed whose schedule ends with an older version."""
    return next((seed for seed in seeds if not schedule(seed).run()), None)


def test_the_last_record_has_the_highest_version() -> None:
    first = random.SystemRandom().randrange(1 << 40)
    found = failed(Log, range(first, first + 3000))
    assert found is None, f"seed {found}"


@pytest.mark.parametrize("weaker", [NoOrderLane, ShortWindow, NoRewind, AnyStamp, IgnoresGaps])
def test_a_weaker_rule_leaves_an_older_version(weaker: type[Log]) -> None:
    found = failed(weaker, range(100_000))
    assert found is not None, f"{weaker.__name__} is not detected"
    assert Log(found).run(), "the schedule fails without the weaker rule, too"


def test_most_schedules_have_no_gap() -> None:
    """Otherwise the schedules above would prove little."""
    logs = [Log(seed) for seed in range(500)]
    assert all(log.run() for log in logs)
    assert 5 < sum(log.missed for log in logs) < 250


def test_a_lower_version_is_late() -> None:
    order = PartitionOrder(10, 0, 0)
    log = [entry(0, "a", 10), entry(1, "b", 1), entry(2, "a", 9), entry(3, "a", 10), entry(4, "a", 9), entry(5, "b", 1)]
    assert checked(order, log) == ["a", "a"]


def test_a_version_is_written_again_if_a_lower_one_follows_it() -> None:
    recent = RecentVersions(10)
    recent.add("a", 10, 1000)
    assert recent.has("a", 10) and recent.has("a", 9) and not recent.has("a", 11) and not recent.has("b", 1)
    recent.add("a", 9, 1000)
    assert recent.has("a", 9) and not recent.has("a", 10)
    recent.add("a", 10, 1000)
    assert recent.has("a", 10)


def test_versions_are_remembered_for_one_window_and_forgotten_after_two() -> None:
    recent = RecentVersions(10)
    recent.add("a", 10, 0)
    recent.add("b", 1, 9_999)
    assert recent.highest("a") == 10
    recent.add("b", 2, 10_000)
    recent.add("b", 3, 19_999)
    assert recent.highest("a") == 10
    recent.add("b", 4, 20_000)
    assert (recent.highest("a"), recent.highest("b"), len(recent)) == (-1, 4, 2)


def test_the_time_of_the_log_does_not_run_backwards() -> None:
    recent = RecentVersions(10)
    recent.add("a", 10, 50_000)
    recent.add("b", 1, 1000)
    recent.add("c", 1, 59_999)
    assert recent.highest("a") == 10


def test_the_entries_of_the_window_before_the_start_are_not_late_again() -> None:
    order = PartitionOrder(10, 0, 2)
    assert checked(order, [entry(0, "a", 10), entry(1, "a", 9), entry(2, "a", 8)]) == ["a"]


def test_a_successor_reads_at_least_one_window() -> None:
    order = PartitionOrder(10, 0, 0)
    assert order.begin == 0
    for second in range(100):
        order.check(entry(second, "a", second, second))
        assert order.begin <= max(0, second - 10)
    assert order.begin >= 100 - 20 - 1


@pytest.mark.parametrize(
    ("offsets", "checked_before", "seconds", "missed"),
    [
        pytest.param([0, 1, 2], 0, 0, False, id="no gap"),
        pytest.param([0, 2], 0, 0, True, id="a gap among new entries"),
        pytest.param([1], 0, 0, True, id="a gap before the first entry"),
        pytest.param([0, 2, 5], 5, 0, True, id="a gap in the window of a new entry"),
        pytest.param([0, 2, 5, 6], 5, 60, True, id="a gap at the first new entry"),
        pytest.param([0, 2, 3, 4, 5], 5, 60, False, id="a gap longer ago than the window"),
        pytest.param([0, 2, 3, 4], 5, 0, False, id="no new entry"),
    ],
)
def test_removed_entries_are_missed_only_if_they_matter(
    offsets: list[int], checked_before: int, seconds: float, missed: bool
) -> None:
    order = PartitionOrder(10, 0, checked_before)
    for offset in offsets:
        order.check(entry(offset, f"k{offset}", 1, seconds if offset >= checked_before else 0))
    assert order.missed is missed
