"""The parts of an open read model. `runtime/opening.py` opens it.

The lanes share a session. An error that may have changed any part of it closes the session, and the supervisor opens a
new one. Tables are the exception: they may be altered while a session is open, as long as the compiled read model still
fits them (`Tables`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial

from syncer.clock import Clock
from syncer.config.schema import Config
from syncer.kafka.names import topic_of
from syncer.monitors.sink_durability import SinkDurabilityMonitor
from syncer.monitors.table_alterations import TableAlterations
from syncer.pacing import Waiter
from syncer.pipeline.circuit_breaker import CircuitBreaker
from syncer.pipeline.delayed_items import DelayedItems
from syncer.pipeline.hot_roots import HotRoots
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.pipeline.order_lane import OrderLane
from syncer.ports import (
    DeadLetters,
    GroupSource,
    Observer,
    OpenDeadLetters,
    ReorderingSink,
    Sink,
    Source,
    WorkQueue,
)
from syncer.postgres.fingerprint import Tables
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry.loader import LoadedModel
from syncer.registry.names import Names
from syncer.registry.records import HighestClock, OpenBreakers, Registration
from syncer.registry.registry import Registry

REGISTERED_FOR = 4.0
"""Seconds for which values of the state topic are reused before it is read again."""
_WORK_RECORDS = 8  # work items are large: take few at a time, so that other processes get the rest


@dataclass(frozen=True, slots=True)
class ModelSession:
    """The parts of an open read model that its lanes share. All of its servers have answered."""

    config: Config
    registry: Registry
    loaded: LoadedModel
    tables: Tables
    names: Names
    clock: Clock
    sinks: list[Sink]
    lane_sinks: list[Sink]
    """The sinks as the lanes use them (`pipeline.combine.combining`)."""
    registration: Registration
    dead_letters: OpenDeadLetters
    durability: SinkDurabilityMonitor
    alterations: TableAlterations
    breaker: CircuitBreaker
    hot: HotRoots
    outgrown: str
    """Why a resync is due although the read model runs; empty if none is due."""

    def rows(self) -> SnapshotReader:
        """Returns a connection for one thread. The caller closes it."""
        return open_rows(self.config, self.loaded, self.tables)

    def source(self, lane: str, stop: threading.Event) -> GroupSource:
        """Returns a consumer for a lane of this kind: `changes`, `work`, `backfill` or `delayed`."""
        names, name = self.names, self.loaded.name
        if lane == "changes":
            return self.registry.changes.source(names.group, names.changes, name=name)
        if lane == "delayed":
            delayed = self.registry.delayed_queue(names).source(name=name)
            compiled = self.loaded.compiled
            columns = len(compiled.key) if compiled.partials else None
            return DelayedItems(delayed, Waiter(stop), most_delay=self.hot.interval, columns=columns)
        queue = self.registry.work_queue(names) if lane == "work" else self.registry.backfill_queue(names)
        return queue.source(name=name)

    def work(self) -> WorkQueue:
        """Returns the queue for work that is too large for a batch."""
        return self.registry.work_queue(self.names)

    def lane(
        self,
        source: Source,
        observer: Observer,
        stop: threading.Event,
        *,
        items: bool,
        dead_letters: DeadLetters | None = None,
        breaker: CircuitBreaker | None = None,
        commit_interval: float | None = None,
    ) -> Lane:
        """Returns a lane that is not running yet.

        items: whether the source delivers work items instead of changes.
        dead_letters, breaker, commit_interval: instead of those of the session and of the configuration.
        """
        compiled = self.loaded.compiled
        return Lane(
            compiled.rendered,
            source,
            self.rows(),
            self.lane_sinks,
            clock=self.clock,
            work=self.work(),
            dead_letters=dead_letters or self.dead_letters.writer(),
            observer=observer,
            limits=self._limits(items=items, commit_interval=commit_interval),
            stop=stop,
            items=self.names.work_topics,
            hot=None if items or not self.hot.interval else self.hot,
            delayed=self.registry.delayed_queue(self.names),
            beginning=self.registration.beginning,
            breaker=breaker or self.breaker,
            topic_of=partial(topic_of, self.config.kafka.topic_prefix),
            partials=compiled.partials,
        )

    def reordering(self) -> list[ReorderingSink]:
        """Returns the sinks that need an order lane."""
        return [sink for sink in self.sinks if isinstance(sink, ReorderingSink)]

    def order_lane(self, sink: ReorderingSink, observer: Observer, stop: threading.Event) -> OrderLane:
        """Returns the order lane of a sink, not running yet."""
        limits = self._limits(items=False)
        return OrderLane(
            self.loaded.name,
            sink.document_log(
                self.names.order_group(sink.name), max_age=limits.max_age, since_ms=self.registration.registered_ms
            ),
            columns=len(self.loaded.compiled.key),
            work=self.work(),
            observer=observer,
            limits=limits,
            stop=stop,
        )

    def _limits(self, *, items: bool, commit_interval: float | None = None) -> Limits:
        settings = self.config.pipeline
        return Limits(
            max_records=_WORK_RECORDS if items else settings.max_records,
            max_bytes=settings.max_bytes,
            chunk_documents=settings.chunk_documents,
            chunk_bytes=settings.chunk_bytes,
            fan_out=settings.fan_out,
            commit_interval=settings.commit_interval if commit_interval is None else commit_interval,
            gate_timeout=settings.gate_timeout,
            max_age=settings.max_age,
        )

    def learn_breaker(self) -> None:
        """Takes over the state of the circuit breaker that other processes saved."""
        saved = self.registry.state.load(REGISTERED_FOR).get(OpenBreakers.key(self.registration.id))
        self.breaker.learn(saved.sinks if saved else {})

    def save_clock(self) -> None:
        """Saves the highest clock, so that a restart detects a clock that ran backwards."""
        key = HighestClock.key(self.registration.id)
        saved = self.registry.state.load(REGISTERED_FOR).get(key)
        if self.clock.identity and self.clock.highest > (saved.clock if saved else 0):
            self.registry.state.save(key, HighestClock(*self.clock.identity, self.clock.highest))


def open_rows(config: Config, loaded: LoadedModel, tables: Tables) -> SnapshotReader:
    return SnapshotReader(
        config.postgres.arguments(),
        loaded.compiled.rendered,
        tables=tables,
        statement_timeout=config.postgres.statement_timeout,
    )
