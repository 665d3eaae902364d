"""Opening a read model: every server has answered, nothing is there that would make documents wrong.

What is opened is what the lanes share (`ModelSession`). It is closed and opened anew after whatever may have
changed any of it; only tables may be altered meanwhile, as long as what was compiled fits them (`Tables`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import structlog

from syncer.clock import Clock, version
from syncer.config.schema import Config
from syncer.declaration import model as declaration
from syncer.declaration.model import Model
from syncer.errors import Fatal, Retry, WeakIdentity
from syncer.events import WorkItem
from syncer.kafka.names import topic_of
from syncer.monitors.sink_durability import SinkDurabilityMonitor
from syncer.monitors.table_alterations import TableAlterations
from syncer.pacing import SystemTime, Waiter
from syncer.pipeline.circuit_breaker import Breaker, Noted
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import range_items
from syncer.ports import DurabilityToken, GroupSource, Observer, OpenDeadLetters, Sink, Source, View, WorkQueue
from syncer.postgres.fingerprint import Fingerprint, Tables
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from syncer.registry.names import Names
from syncer.registry.records import (
    DurabilityTokens,
    Generation,
    HighestClock,
    OpenBreakers,
    Registration,
    StateSlot,
)
from syncer.registry.registry import Registry
from syncer.telemetry.metrics import LOSSES, ModelMetrics

REGISTERED_FOR = 4.0
"""Seconds for which the state topic is not read again."""
_WORK_RECORDS = 8  # work items are large: take few at a time, so that other processes get theirs

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ModelSession:
    """A read model whose servers have all answered: what its lanes share."""

    config: Config
    registry: Registry
    loaded: loader.LoadedModel
    tables: Tables
    names: Names
    clock: Clock
    sinks: list[Sink]
    registration: Registration
    letters: OpenDeadLetters
    memories: SinkDurabilityMonitor
    alterations: TableAlterations
    breaker: Breaker
    outgrown: str
    """Why a resync is due although it runs; empty if none is."""

    def rows(self) -> SnapshotReader:
        """A connection for one thread, to be closed by whoever asked."""
        return _rows(self.config, self.loaded, self.tables)

    def source(self, lane: str) -> GroupSource:
        """What a lane of this kind takes from: `changes`, `work` or `backfill`."""
        names, name = self.names, self.loaded.name
        if lane == "changes":
            return self.registry.changes.source(names.group, names.changes, name=name)
        queue = self.registry.work_queue(names) if lane == "work" else self.registry.backfill_queue(names)
        return queue.source(name=name)

    def work(self) -> WorkQueue:
        """Where work is put that is too large for a batch."""
        return self.registry.work_queue(self.names)

    def lane(self, source: Source, observer: Observer, stop: threading.Event, *, items: bool) -> Lane:
        """items: whether the source gives work items, not changes."""
        settings = self.config.pipeline
        limits = Limits(
            max_records=_WORK_RECORDS if items else settings.max_records,
            max_bytes=settings.max_bytes,
            chunk_documents=settings.chunk_documents,
            chunk_bytes=settings.chunk_bytes,
            fan_out=settings.fan_out,
            commit_interval=settings.commit_interval,
            gate_timeout=settings.gate_timeout,
            max_age=settings.max_age,
        )
        return Lane(
            self.loaded.compiled,
            source,
            self.rows(),
            self.sinks,
            clock=self.clock,
            work=self.work(),
            dead_letters=self.letters.writer(),
            observer=observer,
            limits=limits,
            stop=stop,
            items=self.names.backfill_topic,
            beginning=self.registration.beginning,
            breaker=self.breaker,
            topic_of=partial(topic_of, self.config.kafka.topic_prefix),
        )

    def learn_breaker(self) -> None:
        """Takes over what other processes noted of sinks that refuse document after document."""
        noted = self.registry.state.load(REGISTERED_FOR).get(OpenBreakers.key(self.registration.id))
        self.breaker.learn(noted.sinks if noted else {})

    def note_clock(self) -> None:
        """So that a restart notices a clock that ran backwards."""
        key = HighestClock.key(self.registration.id)
        noted = self.registry.state.load(REGISTERED_FOR).get(key)
        if self.clock.identity and self.clock.highest > (noted.clock if noted else 0):
            self.registry.state.save(key, HighestClock(*self.clock.identity, self.clock.highest))


class ModelOpener:
    """One read model, however often it is opened.

    slot: the generation in force, or the one that a resync builds.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        registry: Registry,
        metrics: ModelMetrics,
        *,
        slot: StateSlot = StateSlot.ACTIVE,
    ) -> None:
        self.config, self.model, self.registry, self.metrics = config, model, registry, metrics
        self.slot = slot
        self.generation: int | None = None
        """That was opened last."""
        self._seen: dict[Generation, dict[str, DurabilityToken]] = {}
        self._breakers: dict[Generation, Breaker] = {}
        self._backwards: tuple[Registration, Fatal] | None = None
        """The clock ran backwards, and that could not be written down yet."""
        self._weak: tuple[int, bool] | None = None
        """A replica identity was too weak in this generation, and that could not be written down yet."""

    def registered(self) -> int | None:
        """The generation that is to be kept in step; None if the read model is new."""
        known = self.registry.registered(self.model.name, self.slot, max_age=REGISTERED_FOR)
        return known.generation if known else None

    def open(self, closing: contextlib.ExitStack) -> ModelSession:
        """closing: of what was opened, also if the rest could not be. Raises Retry and Fatal."""
        self._note_backwards()
        self._note_weak()
        generation = self.registered()
        if self.generation is not None and generation != self.generation:
            self.model = declaration.load(self.model.file)  # it may be why there was a resync
        self.generation = generation
        try:
            loaded = loader.load_checked(self.config, self.model)
        except WeakIdentity:
            self._was_weak(always=False)
            raise
        tables = Tables(loaded.name, loaded.fingerprint, lambda: self._revalidate(loaded))
        rows = _rows(self.config, loaded, tables)
        closing.callback(rows.close)
        with rows.view(root_only=True):  # a standby is refused before anything is recorded
            pass
        begun = self.registry.open(loaded.compiled, self.slot)
        registration, noted = begun.registration, begun.clock
        self.generation = registration.generation
        clock = Clock(
            registration.epoch,
            noted.identity if noted else None,
            noted.clock if noted else 0,
            backwards=lambda error: self._ran_backwards(registration, error),
        )
        with rows.view(root_only=True) as view:
            now = view.head.snapshot.clock
            clock.version(view.head.identity, now, floor=clock.highest, model=self.model.name)
        rows.close()
        built = loader.build_sinks(
            self.config,
            loaded,
            epoch=registration.epoch,
            generation=registration.generation,
            built=begun.built,
        )
        for sink in built:
            closing.callback(sink.close)
        for sink in built:
            sink.prepare(new=not begun.built)
        if not begun.built:
            self.registry.note_built(registration)
        # While a generation is built, the letters about those that are read are not its own to settle.
        oldest = version(registration.epoch, 0) if self.slot is StateSlot.NEXT else 0
        letters = self.registry.dead_letters(loaded.name).open(oldest=oldest)
        with contextlib.suppress(Retry):  # what is not known yet can be learned later
            letters.refresh(timeout=5.0)
        memories = self._memories(loaded, tables, begun.names, registration, built)
        memories.look(SystemTime().now_ms())
        alterations = TableAlterations(self.config, self.registry, registration, begun.names, loaded)
        alterations.note_first(new=not begun.built)
        return ModelSession(
            self.config,
            self.registry,
            loaded,
            tables,
            begun.names,
            clock,
            built,
            registration,
            letters,
            memories,
            alterations,
            self._breaker(registration, built),
            alterations.outgrown(built),
        )

    def _ran_backwards(self, registration: Registration, error: Fatal) -> None:
        """Kafka may be away: then it is written down before anything is opened again."""
        self._backwards = registration, error
        with contextlib.suppress(Retry):
            self._note_backwards()

    def _note_backwards(self) -> None:
        if found := self._backwards:
            registration, error = found
            self.registry.note_backwards(registration, error.why)
            self._backwards = None

    def _breaker(self, registration: Registration, built: list[Sink]) -> Breaker:
        """It lives on when the read model is opened again, and is noted for other processes."""
        key, names = OpenBreakers.key(registration.id), [sink.name for sink in built]

        def note(found: Noted) -> None:
            for name in names:
                self.metrics.breaker(name, name in found)
            with contextlib.suppress(Retry):  # Kafka is unavailable: this process knows
                self.registry.state.save(key, OpenBreakers(found))

        noted = self.registry.state.load().get(key)
        limit = self.config.dead_letters.max_consecutive
        breaker = self._breakers.setdefault(registration.id, Breaker(self.model.name, limit, note=note))
        breaker.learn(noted.sinks if noted else {})
        for name in names:
            self.metrics.breaker(name, name in breaker.open)
        return breaker

    def _was_weak(self, *, always: bool) -> None:
        """Changes may lack old values from now on. Kafka may be away: see `_ran_backwards`."""
        if self.generation is not None:
            self._weak = self.generation, always
            with contextlib.suppress(Retry):
                self._note_weak()

    def _note_weak(self) -> None:
        if found := self._weak:
            generation, always = found
            self.registry.note_weak(Generation(self.model.name, generation), always=always)
            self._weak = None

    def _revalidate(self, loaded: loader.LoadedModel) -> Fingerprint:
        try:
            found = loader.revalidate(self.config, loaded)
        except WeakIdentity:
            self._was_weak(always=True)
            raise
        log.info("the tables were altered, and the read model fits them as it is", model=loaded.name)
        return found

    def _memories(
        self,
        loaded: loader.LoadedModel,
        tables: Tables,
        names: Names,
        registration: Registration,
        built: list[Sink],
    ) -> SinkDurabilityMonitor:
        key = DurabilityTokens.key(registration.id)
        noted = self.registry.state.load().get(key)
        for sink in built:
            for what in LOSSES:
                self.metrics.lost(sink.name, what, 0)

        def refill() -> None:
            work = self.registry.backfill_queue(names)
            size, found_ms = self.config.pipeline.chunk_documents, SystemTime().now_ms()

            def plan(view: View) -> Iterator[WorkItem]:
                return range_items(view, size, "lost documents", committed_ms=found_ms)

            with contextlib.closing(_rows(self.config, loaded, tables)) as rows:
                for item in plan_durably(rows, plan, Waiter()):
                    work.put(item)
            work.flush()

        return SinkDurabilityMonitor(
            self.model.name,
            built,
            seen=self._seen.setdefault(registration.id, {}),
            noted=noted.tokens if noted else {},
            note=lambda value: self.registry.state.save(key, DurabilityTokens(value)),
            work=self.registry.work_queue(names),
            refill=refill,
            lost=self.metrics.lost,
            max_age=self.config.pipeline.max_age,
        )


def _rows(config: Config, loaded: loader.LoadedModel, tables: Tables) -> SnapshotReader:
    return SnapshotReader(
        config.postgres.arguments(),
        loaded.compiled,
        tables=tables,
        statement_timeout=config.postgres.statement_timeout,
    )
