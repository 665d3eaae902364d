"""Corrects the order of versions in sinks that cannot refuse a late write.

    1 poll       takes the next entries of the sink's log      ports.DocumentLog
    2 check      finds lower versions after higher ones        log_order.py
    3 hand over  puts their ids into the work topic            work_items.py
    4 commit     commits the entries whose ids are durable there

Then a work lane renders these documents in a new snapshot. So the new version is at least as high as the highest
version in the log, and the sink appends it last.

The lane runs for each `ports.ReorderingSink`, next to the lanes of `lane.py`. It knows the versions of one window only
(`log_order.py`). It stops the read model if entries were removed before it had checked them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from threading import Event

from syncer import document
from syncer.errors import Fatal
from syncer.events import Key
from syncer.pacing import SystemTime, Waiter
from syncer.pipeline.lag import Lag
from syncer.pipeline.limits import Limits
from syncer.pipeline.log_order import PartitionOrder
from syncer.pipeline.offsets import Offsets
from syncer.pipeline.work_items import key_items, put_items
from syncer.ports import DocumentLog, LogEntry, LogStart, Observer, Partition, WorkTopic

REASON = "order"
"""`WorkItem.reason` of its items."""
_POLL = 0.25  # seconds
_MAX_ENTRIES = 5000


class OrderLane:
    """The order of one sink's log, for the partitions that its group assigns. Runs on the thread that calls `run`."""

    def __init__(
        self,
        model: str,
        log: DocumentLog,
        *,
        columns: int,
        work: WorkTopic,
        observer: Observer,
        limits: Limits,
        stop: Event,
        time: SystemTime | None = None,
    ) -> None:
        """columns: the number of columns of the root's key. stop: set by another thread to end `run`."""
        self.model, self.log, self.work, self.observer, self.limits = model, log, work, observer, limits
        self.time = time or SystemTime()
        self.wait = Waiter(stop, self._heartbeat, self.time)
        self.offsets = Offsets(limits.commit_interval)
        self.lag = Lag()
        self._columns = columns
        self._orders: dict[Partition, tuple[LogStart, PartitionOrder]] = {}
        self.checked: dict[Partition, int] = {}
        """The next entry of each assigned partition. The work that follows from the entries before it is durable in
        the work topic. Other threads may copy it."""

    def run(self) -> None:
        """Runs until `Stopped`, or until an error. Commits the checked entries in any case."""
        try:
            while True:
                self.wait.check()
                self.step()
        finally:
            try:
                self._commit(wait=True)
            finally:
                self.log.close()

    def step(self) -> None:
        """Checks the entries that are available."""
        entries = self.log.poll(_POLL, _MAX_ENTRIES)
        self._learn_assignment()
        if entries:
            late = [entry for entry in entries if self._order(entry).check(entry)]
            self._stop_if_missed()
            self._hand_over(late)
            checked = {(e.position.topic, e.position.partition): e.position.offset + 1 for e in entries}
            self.offsets.acknowledged(checked, self.time.monotonic())
            self._note_times(entries)
        else:
            self.lag.idle(self.log.progress())
        self.checked = {partition: position for partition, (position, _) in self.log.progress().items()}
        if self.offsets.due(self.time.monotonic()):
            self._commit(wait=False)
        self._report_lag()

    def _learn_assignment(self) -> None:
        """Begins to check partitions that were assigned since the last poll, also those that were assigned again."""
        known, self._orders = self._orders, {}
        for partition, start in self.log.starts().items():
            before = known.get(partition)
            if before is None or before[0] is not start:
                before = start, PartitionOrder(self.log.window, start.offset, start.checked)
            self._orders[partition] = before

    def _order(self, entry: LogEntry) -> PartitionOrder:
        return self._orders[entry.position.topic, entry.position.partition][1]

    def _stop_if_missed(self) -> None:
        for (topic, number), (_, order) in self._orders.items():
            if order.missed:
                raise Fatal(
                    "records of documents were removed before their order was checked, so documents may be out of date",
                    where=f"{topic}, partition {number}",
                    why="compaction, or an operator, removed them while this read model was stopped or behind",
                    hint=f"syncer resync {self.model}",
                )

    def _hand_over(self, late: Sequence[LogEntry]) -> None:
        """Puts the documents into the work topic. Returns when they are durable there."""
        if not late:
            return
        keys = list(dict.fromkeys(self._keys(late)))
        since_ms = min(entry.at_ms for entry in late)
        put_items(self.work, key_items(keys, self.limits.chunk_documents, REASON, since_ms), self.wait)
        self.work.flush()
        self.observer.reordered(len(keys))

    def _keys(self, entries: Sequence[LogEntry]) -> Iterator[Key]:
        for entry in entries:
            with suppress(ValueError):  # no row has this id, so no lane wrote it; `verify` reports it
                yield document.parse_id(entry.id, self._columns)

    def _note_times(self, entries: Sequence[LogEntry]) -> None:
        last = {(entry.position.topic, entry.position.partition): entry for entry in entries}
        for partition, entry in last.items():
            checked = self._orders[partition][0].checked
            # The entries of the window before the start are old, and no lag.
            self.lag.acknowledged(entry.position, entry.at_ms if entry.position.offset >= checked else 0)

    def _commit(self, *, wait: bool) -> None:
        found = {
            partition: LogStart(self._orders[partition][1].begin, offset)
            for partition, offset in self.offsets.take().items()
            if partition in self._orders and offset >= self._orders[partition][0].checked
        }
        self.log.commit(found, wait=wait)

    def _report_lag(self) -> None:
        now_ms = self.time.now_ms()
        self.lag.update(self.log.progress(), now_ms)
        self.observer.lag(self.lag.records, self.lag.seconds(now_ms))

    def _heartbeat(self) -> None:
        self.log.heartbeat()
        self._report_lag()
