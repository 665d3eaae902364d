"""A process that computes the watermark of the read model, and the check that no reader sees an older document.

`syncer.freshness.watermark.Tracker`, `syncer.freshness.proof.Proof` and `syncer.monitors.canary.Canary` run unchanged.
This module replaces `probe.py` and `evidence.py`, which need servers.

The check: when the watermark advances to a snapshot S, each document in the sink was rendered from S or later, or it
equals the document in S, or the present one. One exception is documented: a sink that forgot a delete can get the
deleted document back from a request that is under way. A delayed sweep deletes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import product
from typing import Any, Protocol

from syncer.checks import Reader
from syncer.clock import Snapshot, split_version
from syncer.errors import Retry
from syncer.freshness.advancing import advance
from syncer.freshness.candidates import ANY_READER, Basis, Candidate, Confirmation
from syncer.freshness.proof import Proof, SourceOffset
from syncer.freshness.watermark import Tracker, Watermark
from syncer.monitors.canary import Canary
from syncer.pipeline.lane import Lane
from syncer.ports import DurabilityToken, Partition
from syncer.postgres.fingerprint import Fingerprint
from syncer.registry.records import Proved
from tests.simulation.application import CATALOG, Sizes, document
from tests.simulation.database import Database, Logged, Rows
from tests.simulation.history import History
from tests.simulation.scheduler import Owner, Scheduler
from tests.simulation.sink import Store
from tests.simulation.slow_kafka import MESSAGES, SlowConnector, SlowTopics
from tests.simulation.stream import Group, Topics

MODEL = "orders"


def shape(rows: Rows) -> str:
    """Returns the fingerprint of the tables."""
    row = rows.get(CATALOG)
    return str(row["shape"]) if row else "0"


class World(Protocol):
    """The parts of the world that a measurement needs."""

    database: Database
    scheduler: Scheduler
    history: History
    sizes: Sizes
    stores: list[Store]
    groups: dict[str, Group]
    work: Topics
    range_items: Topics
    delayed: Topics
    loses_rows: bool
    forgets: bool
    lookup_levels: int
    stored: Any
    taken: dict[int, Rows]

    def fail(self, why: str) -> Any: ...


class Measured(Owner, Protocol):
    """The process that measures."""

    lanes_of: list[Lane]
    memories: Any
    sink: Any
    sources: list[Any]


class Evidence:
    """Implements `freshness.advancing.ModelEvidence` for one process."""

    model = MODEL
    change_topics: tuple[str, ...] = ()
    work_topics: tuple[str, ...] = ()
    fingerprint: Fingerprint

    def __init__(self, world: World, process: Measured) -> None:
        self.world, self.process = world, process

    def basis(self) -> Basis:
        world = self.world
        reader = world.stored.reader if world.loses_rows else ANY_READER
        tokens = self.process.memories.tokens if world.forgets else self._tokens()
        return Basis(1, 0, world.stored.shape, reader, world.stored.backfilled, tokens, world.lookup_levels)

    def acknowledged(self, ends: Mapping[Partition, int]) -> Mapping[Partition, int]:
        found = {p: offset for group in self.world.groups.values() for p, offset in group.committed.items()}
        for lane in self.process.lanes_of:
            for partition, offset in lane.offsets.reached.items():
                found[partition] = max(offset, found.get(partition, 0))
        return found

    def confirmation(self, read_tables: Callable[[Fingerprint], str]) -> Confirmation | None:
        self.world.scheduler.pause()
        tokens = self._tokens()
        self.world.scheduler.pause()
        return Confirmation(1, None, self.tables_now(), tokens)

    def tables_now(self) -> str:
        return shape(self.world.database.rows)

    def _tokens(self) -> dict[str, DurabilityToken]:
        return {self.process.sink.name: self.process.sink.durability()}


class Measurement:
    """Computes the watermark in one process, as `freshness.monitor.FreshnessMonitor` does."""

    def __init__(self, world: World, process: Measured, topics: SlowTopics, connector: SlowConnector) -> None:
        self.world, self.process, self.topics, self.connector = world, process, topics, connector
        self.evidence = Evidence(world, process)
        self.tracker, self.proof = Tracker(MODEL), Proof()
        self.canary = Canary(f"{process}")
        self.wanted = self.lost = False
        self.last_clock = 0
        """The clock of the last candidate."""
        self._at = len(topics.messages)
        self._flushes = topics.flushes
        self._seen = -1
        world.scheduler.spawn(f"{process}, measuring", process, self._run)

    def _run(self) -> None:
        while not self.lost:
            self.world.scheduler.until(self.ready)
            with suppress(Retry):
                self._step()

    def ready(self) -> bool:
        """Returns whether there is anything to do."""
        tracker = self.tracker
        return (
            self.wanted
            or self._at < len(self.topics.messages)
            or self._flushes < self.topics.flushes
            or self.proof.ready
            or tracker.needs_work_ends
            or tracker.needs_confirmation
            or (tracker.needs_positions and self._progress() != self._seen)
        )

    def _progress(self) -> int:
        lanes = sum(sum(lane.offsets.reached.values()) for lane in self.process.lanes_of)
        return lanes + sum(sum(group.committed.values()) for group in self.world.groups.values())

    def _step(self) -> None:
        if self.wanted:
            self.wanted = False
            self.take()
        self._read()
        if self.proof.ready:
            self._begin()
        if self.tracker.needs_work_ends:
            self.world.scheduler.pause()
            self.tracker.work_ends(self._ends(self.world.work, self.world.range_items, self.world.delayed))
        self._seen = self._progress()
        if watermark := advance(self.evidence, self.tracker, lambda _: ""):
            self._check(watermark)

    def take(self) -> None:
        """Takes a candidate and commits its message."""
        world, database = self.world, self.world.database
        pause, acknowledged = world.scheduler.pause, self.tracker.taken()
        incarnation, floor = database.incarnation, database.inserted
        pause()
        snapshot, rows, identity = database.snapshot(), dict(database.rows), database.identity
        pause()
        lsn, reader = database.inserted, self.connector.reader
        pause()
        if incarnation != database.incarnation:
            raise Retry("the connection was lost")
        message = self.canary.next()
        transaction = database.begin(0, asynchronous=False)
        image = {"id": 0, "series": message.series, "number": message.number}
        transaction.changes.append(Logged(MESSAGES[0], "c", None, image, database._log(transaction.last)))
        database.commit(transaction)
        database.show(transaction)
        self.canary.committed(message, world.scheduler.now + 1)
        number = len(world.taken) + 1
        world.taken[number] = rows
        found = Candidate(
            identity, snapshot, floor, lsn, number, reader, 0, {MODEL: shape(rows)}, {MODEL: acknowledged}
        )
        world.history.log(f"{self.process}, measuring", "takes a candidate at clock %s", self._shown(snapshot))
        self.proof.add(message.number, found)
        self.last_clock = snapshot.clock
        self.before_proof = self._change_ends()

    def _read(self) -> None:
        self.world.scheduler.pause()
        messages, self._at = self.topics.messages[self._at :], len(self.topics.messages)
        for message in messages:
            expected = self.canary.expects(message)
            if self.canary.arrived(message):
                self.broken()
                return
            if expected:
                self.proof.arrived(message.number)
        if self._flushes < self.topics.flushes:
            self._flushes = self.topics.flushes
            self.proof.committed(SourceOffset("", self.topics.offset))

    def broken(self) -> None:
        """A message is missing: the stream is broken, and the read model stops."""
        self.world.history.seen["a measurement detected a loss"] += 1
        self.lost = True
        self.tracker.clear("changes were lost")

    def _begin(self) -> None:
        candidate = self.proof.proved(self.connector.reader)
        if candidate:
            self.remember(candidate)
        self.world.scheduler.pause()
        basis = self.evidence.basis()
        self.world.scheduler.pause()
        if candidate:
            self.tracker.add(candidate, basis, self.ends_after_proof())

    def remember(self, candidate: Candidate) -> None:
        """Stores what was proved while this reader read the slot (`freshness/probe.py`)."""
        reader, stored = Reader(self.connector.reader, None), self.world.stored
        stored.proved[reader] = Proved(reader, *candidate.identity, candidate.snapshot.xmin)

    def ends_after_proof(self) -> dict[Partition, int]:
        return self._change_ends()

    def _change_ends(self) -> dict[Partition, int]:
        return self.topics.ends()

    def _ends(self, *topics: Topics) -> dict[Partition, int]:
        return {p: len(records) for one in topics for p, records in one.records.items()}

    def _check(self, watermark: Watermark) -> None:
        world, rows = self.world, self.world.taken[watermark.taken_ms]
        world.history.seen["the watermark advanced"] += 1
        world.history.log(f"{self.process}, measuring", "watermark: clock %s", self._shown(watermark.snapshot))
        for store, number in product(world.stores, range(1, world.sizes.orders + 1)):
            id = str(number)
            if split_version(store.applied.get(id, 0))[1] >= watermark.clock or id in store.resurrected:
                continue
            found = store.documents.get(id)
            if found is None and world.database.absent.get(id, 0) >= watermark.clock:
                continue  # nothing was written, because a later snapshot does not have the order
            expected = document(rows, number, world.sizes)
            allowed = (expected, document(world.database.rows, number, world.sizes))
            if (found[1] if found else None) not in allowed:
                shown = found[1] if found else None
                world.fail(f"a reader sees order {id} as {shown!r}, the watermark says {expected!r}")

    def _shown(self, snapshot: Snapshot) -> int:
        return snapshot.clock - self.world.database.base
