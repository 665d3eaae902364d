"""Debezium and Kafka: records from WAL, and the consumer groups that share them.

The model has:

- a connector that reads commits from the flushed WAL, in order. It may resume from an earlier commit. It may also lose
  rows when it resumes, of a transaction that it was sending or of one in progress. A later version loses only inserted
  rows of the transaction that it was sending;
- one topic per table, with partitions by key. So no order exists between the records of two rows;
- groups whose partitions move at any moment. A member learns of it with its next poll. Until then it continues with
  its old partitions, and its commits are refused;
- commits that are lost;
- work items that are not acknowledged, although some of them arrived.

It has no retention, missing offsets, Kafka transactions or broker failures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from threading import Event

import orjson

from syncer.errors import Retry
from syncer.events import Position, WorkItem
from syncer.monitors.rerender import RESUMED
from syncer.pipeline.decode import encode_item
from syncer.ports import Record
from tests.simulation.choices import Choices
from tests.simulation.database import Database, Logged, Transaction
from tests.simulation.history import History
from tests.simulation.scheduler import Scheduler

Partition = tuple[str, int]
_WORK = {
    "keys": "roots went to the work topic",
    "range": "a truncate of a child made ranges",
    "sweep": "a truncate of the root made sweeps",
}


class Topics:
    """Records by partition."""

    def __init__(self, names: Sequence[str], partitions: int) -> None:
        self.count, self.total = partitions, 0
        self.records: dict[Partition, list[Record]] = {
            (name, number): [] for name in names for number in range(partitions)
        }

    def add(self, partition: Partition, value: bytes) -> None:
        records = self.records[partition]
        records.append(Record(Position(*partition, len(records)), None, value))
        self.total += 1


class Connector:
    """Publishes the committed transactions, one after the other."""

    def __init__(
        self,
        database: Database,
        topics: Topics,
        choices: Choices,
        history: History,
        *,
        repeats: bool,
        loses: bool,
    ) -> None:
        self.database, self.topics, self.choices, self.history = database, topics, choices, history
        self._repeats, self._loses = repeats, loses
        self.only_inserts = False
        """Whether it loses inserted rows only, of the transaction that it was sending: Debezium since 3.7."""
        self.reader = 1
        """Identifies the reader of the slot. It changes with each resume."""
        self._lost: dict[Transaction, int] = {}
        """By transaction that was in progress: how many of its first changes are lost."""
        self._next = self._saved = self._event = 0
        self._wide = choices.likely(128)
        """Whether transaction ids in events have 64 bits. Otherwise they have 32."""

    @property
    def behind(self) -> bool:
        commits = self.database.commits
        return self._next < len(commits) and commits[self._next].commit_lsn <= self.database.flushed

    def restart_here(self) -> None:
        """Continues from the present end of WAL, because another server has no slot, or an older one."""
        self._next = self._saved = len(self.database.commits)
        self._event = 0
        self.reader += 1

    def step(self) -> None:
        """Publishes the next transaction, or its next event. Or resumes from the saved offset."""
        if self._loses and self.choices.likely(120 if self.behind else 10 if self.database.running else 0):
            self._lose()
        elif self._repeats and self._next > self._saved and self.choices.likely(20):
            self.history.seen["the connector repeated itself"] += 1
            self.history.log("connector", "resumes at %s", self.database.commits[self._saved])
            self._next, self._event = self._saved, 0
            self.reader += 1
        elif self.behind:
            transaction = self.database.commits[self._next]
            last = len(transaction.changes)
            self._event = max(self._event, self._lost.get(transaction, 0))
            until = last if not self.choices.likely(64) else min(self._event + 1, last)
            for change in transaction.changes[self._event : until]:
                self._publish(transaction, change)
            self._event = until
            if until == last:
                self._next, self._event = self._next + 1, 0
                if self.choices.likely(64):
                    self._saved = self._next

    def _lose(self) -> None:
        """Loses rows at a resume, in one of two ways.

        Several events share the position after which it resumes, and not all of them were sent (debezium/dbz#1554).
        Or events of a transaction in progress are before that position (dbz#76).
        """
        self.reader += 1
        if not self.behind and self.only_inserts:
            self.history.log("connector", "resumes")
            return
        if not self.behind:
            running = list(self.database.running.values())
            transaction = running[self.choices.of(len(running))]
            self._log_lost(transaction, len(transaction.changes))
            self._lost[transaction] = len(transaction.changes)
            return
        transaction = self.database.commits[self._next]
        left = len(transaction.changes) - self._event
        lost = min(left, 1 + self.choices.of(3))
        if self.only_inserts:
            changes = transaction.changes[self._event : self._event + lost]
            lost = len(list(takewhile(lambda change: change.op == "c", changes)))
        self._log_lost(transaction, lost)
        self._event += lost
        if lost == left:
            self._next, self._event = self._next + 1, 0

    def _log_lost(self, transaction: Transaction, rows: int) -> None:
        if rows:
            self.history.seen["the connector lost rows when it resumed"] += 1
            self.history.log("connector", "resumes, and loses %s rows of %s", rows, transaction)

    def _publish(self, transaction: Transaction, change: Logged) -> None:
        row = change.after or change.before
        number = row["id"] % self.topics.count if row else 0
        txid = transaction.xid if self._wide else transaction.xid % (1 << 32)
        source = {"schema": "public", "table": change.table, "txId": txid, "lsn": change.lsn, "ts_ms": 1}
        value = {"op": change.op, "before": change.before, "after": change.after, "source": source}
        self.topics.add((change.table, number), orjson.dumps(value))
        self.history.log("connector", "publishes %s: %s is %s", transaction, change.table[:-1], change.after or "gone")


class Group:
    """A consumer group: the owner of each partition, and the committed offsets."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self.generation = 0
        self.owners: dict[Partition, SimulatedSource] = {}
        self.committed: dict[Partition, int] = {}
        self.delivered: dict[Partition, int] = {}

    def assign(self, members: list[SimulatedSource], choices: Choices) -> None:
        """Assigns each partition to one of the members."""
        self.generation += 1
        count = len(members)
        self.owners = (
            {partition: members[(at + choices.of(count)) % count] for at, partition in enumerate(self.topics.records)}
            if members
            else {}
        )


class SimulatedSource:
    """`ports.Source`: a member of a group."""

    def __init__(
        self, group: Group, scheduler: Scheduler, history: History, stop: Event, who: str, *, loses: bool
    ) -> None:
        self.group, self.scheduler, self.choices, self.history = group, scheduler, scheduler.choices, history
        self.stop, self.who, self._loses = stop, who, loses
        self.generation = -1
        self.at: dict[Partition, int] = {}
        self.dead = self.frozen = False
        self.repeats_commits = False
        """Whether commits that a rebalance refused are repeated, if the partition stays here (`kafka/consumer.py`)."""
        self._refused: dict[Partition, int] = {}
        self.due: Callable[[], bool] = lambda: False
        """Whether the lane has offsets to commit. A poll returns then without records, as it does after a while."""
        self._empty_at = -1
        """The total number of records when the last poll found none. Saves a search."""

    def ready(self) -> bool:
        """Whether a poll would return: there are records, partitions have moved, or the lane is to stop."""
        if self.generation != self.group.generation or self.stop.is_set() or self.due():
            return True
        topics = self.group.topics
        if self._empty_at == topics.total:
            return False
        for partition, at in self.at.items():
            if at < len(topics.records[partition]):
                return True
        self._empty_at = topics.total
        return False

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        self.scheduler.pause()
        while True:
            if timeout:
                self.scheduler.until(self.ready)
            self._learn()
            found = self._take(max_records)
            if found or not timeout or self.stop.is_set() or self.due() or self.choices.likely(32):
                return found

    def _take(self, most: int) -> list[Record]:
        if self.choices.likely(128):
            most = 1 + self.choices.of(2)
        found: list[Record] = []
        for partition, at in self.at.items():
            some = self.group.topics.records[partition][at : at + most - len(found)]
            if some:
                self.at[partition] = at + len(some)
                found += some
        if found:
            self._delivered(found)
        else:
            self._empty_at = self.group.topics.total
        return found

    def _delivered(self, found: list[Record]) -> None:
        self.history.log(self.who, "polls %s", ", ".join([f"{topic}-{p}@{o}" for (topic, p, o), _, _ in found]))
        delivered = self.group.delivered
        for (topic, number, offset), _, _ in found:
            if offset < delivered.get((topic, number), 0):
                self.history.seen["a record was delivered again"] += 1
            else:
                delivered[topic, number] = offset + 1

    def _learn(self) -> None:
        group = self.group
        if self.generation == group.generation:
            return
        kept = (
            self.at if self.generation == group.generation - 1 else {}
        )  # otherwise the group had excluded it meanwhile
        self.generation = group.generation
        mine = [partition for partition, owner in group.owners.items() if owner is self]
        self._empty_at = -1
        self.at = {p: kept.get(p, group.committed.get(p, 0)) for p in mine}
        if self.repeats_commits:
            refused, self._refused = self._refused, {}
            group.committed |= {p: o for p, o in refused.items() if p in kept and p in self.at}

    def commit(self, next_offsets: Mapping[Partition, int], *, wait: bool) -> None:
        self.scheduler.pause()
        ours = {p: offset for p, offset in next_offsets.items() if p in self.at}
        if not ours or self.dead:
            return
        if self.generation != self.group.generation:
            self.history.seen["a zombie's commit was refused"] += 1
            self.history.log(self.who, "commits %s: refused, the partitions were given to others", ours)
            self._refused |= ours
        elif self._loses and self.choices.likely(40):
            self.history.seen["a commit was lost"] += 1
            self.history.log(self.who, "commits %s: lost", ours)
        else:
            self.history.log(self.who, "commits %s", ours)
            self.group.committed |= ours

    def heartbeat(self) -> None:
        self._learn()

    def progress(self) -> dict[Partition, tuple[int, int]]:
        records = self.group.topics.records
        return {partition: (at, len(records[partition])) for partition, at in self.at.items()}

    def is_assigned(self, partition: Partition) -> bool:
        return partition in self.at

    def close(self) -> None:
        """The process leaves the group."""


class SimulatedWork:
    """`ports.WorkTopic`. Items may arrive although `flush` fails."""

    def __init__(self, topics: Topics, topic: str, scheduler: Scheduler, history: History, *, fails: bool) -> None:
        self.topics, self.topic, self.scheduler, self.history = topics, topic, scheduler, history
        self._fails = fails
        self._waiting: list[WorkItem] = []

    def put(self, item: WorkItem) -> None:
        self._waiting.append(item)

    def flush(self) -> None:
        self.scheduler.pause()
        waiting, self._waiting = self._waiting, []
        failed = self._fails and self.scheduler.choices.likely(40)
        if failed:
            waiting = waiting[: self.scheduler.choices.of(len(waiting) + 1)]
        for item in waiting:
            resumed = item.reason == RESUMED
            if self.topic != "delayed":
                self.history.seen["a resume was repaired" if resumed else _WORK[item.kind]] += 1
            what = item.keys or item.high or ""
            self.history.log(f"{self.topic} topic", "gets %s %s (%s)", item.kind, what, item.reason)
            number = sum(map(len, self.topics.records.values())) % self.topics.count
            self.topics.add((self.topic, number), encode_item(item))
        if failed:
            self.history.seen["Kafka did not acknowledge work items"] += 1
            raise Retry("Kafka did not acknowledge records")
