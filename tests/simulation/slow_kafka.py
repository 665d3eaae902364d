"""Kafka and Kafka Connect as the watermark sees them: brokers acknowledge partitions independently of each other.

The model adds to `stream.py`:

- records that the connector has sent and a broker has not acknowledged yet;
- source offsets, which Kafka Connect commits for the longest prefix of acknowledged records;
- exactly-once delivery: records that are in the log, but not readable until their transaction's marker is written.
  The source offset is committed with the transaction, and the markers follow partition by partition;
- the topic of the canary's messages, whose broker may be faster than the others;
- a connector that dies: requests in flight may be lost, and it resumes from the committed offset;
- a slot that is created again under the same name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import orjson

from syncer.monitors.canary import CanaryMessage
from tests.simulation.choices import Choices
from tests.simulation.database import Database, Logged, Transaction
from tests.simulation.history import History
from tests.simulation.stream import Connector, Partition, Topics

MESSAGES: Partition = ("message", 0)


class SlowTopics(Topics):
    """Records that are sent first, and arrive later. exactly_once: whether Kafka Connect uses transactions."""

    def __init__(self, names: Sequence[str], partitions: int, *, exactly_once: bool) -> None:
        super().__init__(names, partitions)
        self.exactly_once = exactly_once
        self.messages: list[CanaryMessage] = []
        self.offset = 0
        """The LSN of the last source offset that Kafka Connect has committed."""
        self.flushes = 0
        self._pipes: dict[Partition, deque[tuple[int, bytes]]] = {p: deque() for p in (*self.records, MESSAGES)}
        self._in_log: dict[Partition, int] = dict.fromkeys(self._pipes, 0)
        """Records in a pipe that belong to a committed transaction: they are in the log, and not readable yet."""
        self._sent: list[int] = []
        """The LSN of every record, in the order in which the connector sent them."""
        self._unacknowledged: set[int] = set()
        """Indexes into `_sent`."""
        self._since = 0
        """How many records were sent before the connector started last. Their offsets are not committed any more."""

    @property
    def in_flight(self) -> list[Partition]:
        """The partitions whose next record can arrive."""
        ready = self._in_log if self.exactly_once else self._pipes
        return [partition for partition, waiting in ready.items() if waiting]

    def add(self, partition: Partition, value: bytes) -> None:
        """Sends a record."""
        self._unacknowledged.add(len(self._sent))
        self._pipes[partition].append((len(self._sent), value))
        lsn = 0 if partition == MESSAGES else orjson.loads(value)["source"]["lsn"]
        self._sent.append(lsn)

    def send_message(self, message: CanaryMessage, lsn: int) -> None:
        self.add(MESSAGES, str(message).encode())
        self._sent[-1] = lsn

    def deliver(self, partition: Partition) -> None:
        """The broker acknowledges the next record of a partition. Under transactions, it becomes readable."""
        index, value = self._pipes[partition].popleft()
        self._in_log[partition] = max(0, self._in_log[partition] - 1)
        self._unacknowledged.discard(index)
        if partition == MESSAGES:
            series, _, number = value.decode().rpartition(":")
            self.messages.append(CanaryMessage(series, int(number)))
        else:
            super().add(partition, value)

    def flush_offsets(self) -> int:
        """Kafka Connect commits the source offset. Returns the number of records that it covers."""
        if self.exactly_once:
            self._in_log = {partition: len(pipe) for partition, pipe in self._pipes.items()}
            covered = len(self._sent)
        else:
            covered = min(self._unacknowledged, default=len(self._sent))
        if covered > self._since:
            self.offset = self._sent[covered - 1]
            self.flushes += 1
        return covered

    def lose_requests(self) -> None:
        """The connector dies. Records in flight are lost, unless a committed transaction has them."""
        self._since = len(self._sent)
        for partition, pipe in self._pipes.items():
            while len(pipe) > self._in_log[partition]:
                index, _ = pipe.pop()
                self._unacknowledged.discard(index)

    def ends(self) -> dict[Partition, int]:
        """Returns the high watermarks of the partitions with changes."""
        return {p: len(records) + self._in_log[p] for p, records in self.records.items()}

    def stable_ends(self) -> dict[Partition, int]:
        """Returns the last stable offsets."""
        return {p: len(records) for p, records in self.records.items()}


class SlowConnector(Connector):
    """A connector whose records arrive later, and which resumes only from committed offsets."""

    topics: SlowTopics

    def __init__(
        self,
        database: Database,
        topics: SlowTopics,
        choices: Choices,
        history: History,
        *,
        repeats: bool,
        loses: bool,
    ) -> None:
        super().__init__(database, topics, choices, history, repeats=repeats, loses=loses)
        self._ends: list[tuple[int, int]] = []
        """For each transaction that was sent: its index among the commits plus one, and the records sent up to it."""

    def step(self) -> None:
        """A broker acknowledges a record, Kafka Connect commits an offset, or the connector goes on."""
        what = self.choices.of(8)
        if (full := self.topics.in_flight) and what < 3:
            self.topics.deliver(full[self.choices.of(len(full))])
        elif what == 3:
            self.flush()
        elif self._repeats and self.choices.likely(12):
            self.die()
        else:
            self._send()

    def _send(self) -> None:
        if self._loses and not self._sends_message and self.choices.likely(self._loss):
            self.arrive()
            self._lose()
            self._ends.clear()
            self._saved = self._next
        elif self.behind:
            transaction = self.database.commits[self._next]
            lost = self._lost.get(transaction, 0)
            for change in transaction.changes[max(self._event, lost) :]:
                self._publish(transaction, change)
            self._next, self._event = self._next + 1, 0
            self._ends.append((self._next, len(self.topics._sent)))

    @property
    def _loss(self) -> int:
        """The probability that it resumes now and loses rows, out of 256."""
        if self.only_inserts:
            return 20 * self.behind
        return 60 if self.behind else 10 if self.database.running else 0

    @property
    def _sends_message(self) -> bool:
        """Whether the next transaction is a message. A loss of rows does not concern it."""
        return (
            self.behind
            and self.database.commits[self._next].changes[:1] != []
            and (self.database.commits[self._next].changes[0].table == MESSAGES[0])
        )

    @property
    def unsent(self) -> set[CanaryMessage]:
        """Returns the committed messages that were not sent, or are in flight."""
        waiting = [change for one in self.database.commits[self._saved :] for change in one.changes]
        return {
            CanaryMessage(change.after["series"], change.after["number"])
            for change in waiting
            if change.table == MESSAGES[0] and change.after
        } - set(self.topics.messages)

    def flush(self) -> None:
        covered = self.topics.flush_offsets()
        self._saved = max([next for next, sent in self._ends if sent <= covered], default=self._saved)

    def die(self) -> None:
        """Dies, and resumes from the committed offset."""
        self.history.seen["the connector repeated itself"] += 1
        self.history.log("connector", "dies, and resumes from its committed offset")
        self.topics.lose_requests()
        self._ends.clear()
        self._next, self._event = self._saved, 0
        self.reader += 1

    def skip(self) -> None:
        """The slot is dropped and created again under the same name: all that was not sent is skipped."""
        self.history.seen["a slot was created again"] += 1
        self.history.log("operator", "drops the slot and creates it again")
        self.topics.lose_requests()
        self._ends.clear()
        self.restart_here()

    def arrive(self) -> None:
        """Everything that was sent arrives."""
        self.flush()
        while full := self.topics.in_flight:
            self.topics.deliver(full[0])
        self.flush()

    def _publish(self, transaction: Transaction, change: Logged) -> None:
        if change.table != MESSAGES[0]:
            super()._publish(transaction, change)
        elif change.after:
            self.topics.send_message(CanaryMessage(change.after["series"], change.after["number"]), change.lsn)
            self.history.log("connector", "sends message %s:%s", change.after["series"], change.after["number"])
