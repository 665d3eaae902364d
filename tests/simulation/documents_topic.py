"""A documents topic instead of a store with versions: `ports.Sink`, and the `ports.DocumentLog` of the order lane.

The model has:

- records that are appended, and readers that see the last record of each id;
- the check of the sink before a write: what other processes append after it, it does not see;
- a broker that rejects records whose stamp is too old;
- the same faults of requests as `sink.py`, the same accidents of a consumer group as `stream.py`.

Nothing is compacted during a schedule. `tests/unit/pipeline/test_log_order.py` has compaction, clocks that differ, and
weaker rules about both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event
from typing import NoReturn

import orjson

from syncer.document import Batch, Outcome
from syncer.pipeline.log_order import RecentVersions
from syncer.ports import LogEntry, LogStart, Partition
from syncer.sinks.kafka.topic import STAMP_TOLERANCE, window
from tests.simulation.history import History
from tests.simulation.scheduler import Scheduler
from tests.simulation.sink import SimulatedSink, Store
from tests.simulation.stream import Group, SimulatedSource, Topics

PARTITION = ("documents", 0)


class TopicStore(Store):
    """The topic. `documents` has the last record of each id."""

    def __init__(self, scheduler: Scheduler, history: History, fail: Callable[[str], NoReturn], *, base: int) -> None:
        super().__init__(scheduler, history, fail, base=base, remembers=0.0)
        self.topics = Topics([PARTITION[0]], 1)
        self.recent = RecentVersions(60.0)

    def fill(self, documents: Mapping[str, tuple[int, bytes]]) -> None:
        for id, (version, body) in documents.items():
            self.append(id, version, body, self.scheduler.now)

    def append(self, id: str, version: int, body: bytes | None, stamp: float) -> None:
        self.apply(id, version, body)
        at_ms = int(stamp * 1000)
        self.recent.add(id, version, at_ms)
        self.topics.add(PARTITION, orjson.dumps([id, version, at_ms]))


class SimulatedTopicSink(SimulatedSink):
    """The sink of one lane. It leaves out the documents of which the topic had a newer version before the write."""

    store: TopicStore
    _useless: frozenset[str] = frozenset()
    _stamp = 0.0

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        self._useless = frozenset(id for id in batch.ids() if self.store.recent.has(id, batch.version_of(id)))
        self._stamp = self.store.scheduler.now
        self._stall()
        return super().write(batch, timeout)

    def _stall(self) -> None:
        """May wait until another process has appended a record: the worst moment to go on."""
        store = self.store
        before, scheduler = store.topics.total, store.scheduler
        if scheduler.choices.likely(80):
            scheduler.until(lambda: store.topics.total > before or scheduler.oversleeps)

    def _item(self, id: str, version: int, body: bytes | None, out: Outcome) -> None:
        store, clock = self.store, self.store.shown(version)
        if id in self._useless:
            self._target.stale(id, version, store.recent.highest(id), out)
        elif store.scheduler.now - self._stamp > STAMP_TOLERANCE:
            store.history.seen["a record was rejected for its age"] += 1
            store.history.log(self.who, "appends order %s at clock %s: rejected, too old", id, clock)
            out.retry.append(id)
        else:
            store.history.log(self.who, "appends order %s at clock %s: %s", id, clock, body or "gone")
            store.append(id, version, body, self._stamp)
            out.written += body is not None
            out.deleted += body is None


class LogGroup(Group):
    """The group of the order lanes. It also keeps the metadata of the committed offsets."""

    def __init__(self, topics: Topics) -> None:
        super().__init__(topics)
        self.begins: dict[Partition, int] = {}


class LogMember(SimulatedSource):
    """A member that begins one window before the committed offset."""

    def __init__(
        self, group: LogGroup, scheduler: Scheduler, history: History, stop: Event, who: str, *, loses: bool
    ) -> None:
        super().__init__(group, scheduler, history, stop, who, loses=loses)
        self.group: LogGroup = group
        self.begun: dict[Partition, LogStart] = {}

    def _learn(self) -> None:
        if self.generation == self.group.generation:
            return
        known = self.begun if self.generation == self.group.generation - 1 else {}
        super()._learn()
        self.begun = {}
        for partition in self.at:
            start = known.get(partition)
            if start is None:
                checked = self.group.committed.get(partition, 0)
                start = LogStart(self.group.begins.get(partition, 0), checked)
                self.at[partition] = start.offset
            self.begun[partition] = start


class SimulatedLog:
    """`ports.DocumentLog` over a member of the group. max_age: see `ports.ReorderingSink`."""

    def __init__(self, member: LogMember, max_age: float) -> None:
        self.member, self.window = member, window(max_age)

    def poll(self, timeout: float, max_entries: int) -> list[LogEntry]:
        records = self.member.poll(timeout, max_entries, 0)
        return [LogEntry(record.position, *orjson.loads(record.value or b"")) for record in records]

    def starts(self) -> Mapping[Partition, LogStart]:
        return self.member.begun

    def commit(self, next_offsets: Mapping[Partition, LogStart], *, wait: bool) -> None:
        self.member.commit({partition: start.checked for partition, start in next_offsets.items()}, wait=wait)
        group = self.member.group
        for partition, start in next_offsets.items():
            if group.committed.get(partition) == start.checked and self.member.generation == group.generation:
                group.begins[partition] = start.offset

    def heartbeat(self) -> None:
        """Takes over an assignment with the next poll only: the lane has to see it together with the records."""

    def progress(self) -> Mapping[Partition, tuple[int, int]]:
        return self.member.progress()

    def close(self) -> None:
        """The process leaves the group."""
