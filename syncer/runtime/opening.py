"""Opens a read model: waits until every server has answered, and refuses everything that makes documents wrong.

The result is a `session.ModelSession`, which the lanes share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import structlog

from syncer.clock import Clock, version
from syncer.config.schema import Config
from syncer.declaration import model as declaration
from syncer.declaration.model import Model
from syncer.errors import Fatal, Retry, WeakIdentity
from syncer.events import WorkItem
from syncer.monitors.sink_durability import SinkDurabilityMonitor
from syncer.monitors.table_alterations import TableAlterations
from syncer.pacing import SystemTime, Waiter
from syncer.pipeline.circuit_breaker import CircuitBreaker, SavedBreakers
from syncer.pipeline.combine import combining
from syncer.pipeline.hot_roots import HotRoots
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import range_items
from syncer.ports import (
    DurabilityToken,
    Sink,
    View,
)
from syncer.postgres.fingerprint import Fingerprint, Tables
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from syncer.registry.names import Names
from syncer.registry.records import (
    DurabilityTokens,
    Generation,
    OpenBreakers,
    Registration,
    StateSlot,
)
from syncer.registry.registry import RegisteredModel, Registry
from syncer.session import REGISTERED_FOR, ModelSession, open_rows
from syncer.telemetry.metrics import ModelMetrics
from syncer.telemetry.spec import LOSSES

log = structlog.get_logger()


class ModelOpener:
    """Opens one read model, once for each session.

    slot: whether to open the active generation, or the one that a resync builds.
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
        """The generation that was opened last; None before the first session."""
        self._seen: dict[Generation, dict[str, DurabilityToken]] = {}
        """For each generation, the last durability token of each sink. It outlives a session."""
        self._breakers: dict[Generation, CircuitBreaker] = {}
        """The circuit breaker of each generation. It outlives a session."""
        self._backwards: tuple[Registration, Fatal] | None = None
        """Set if the clock ran backwards and Kafka has not acknowledged the record of it yet."""
        self._weak: tuple[int, bool] | None = None
        """Set if a replica identity was too weak in this generation, and Kafka has not acknowledged that yet."""

    def registered(self) -> int | None:
        """Returns the generation to keep in sync; None if the read model is new."""
        known = self.registry.registered(self.model.name, self.slot, max_age=REGISTERED_FOR)
        return known.generation if known else None

    def open(self, closing: contextlib.ExitStack, waiter: Waiter) -> ModelSession:
        """Returns a session. Raises Retry and Fatal.

        closing: closes every opened part at the end, also if a later part could not be opened.
        waiter: checked between the steps. Raises Stopped as soon as the read model is to stop.
        """
        self._save_backwards()
        self._save_weak()
        waiter.check()
        loaded = self._load(waiter)
        waiter.check()
        tables = Tables(loaded.name, loaded.fingerprint, lambda: self._revalidate(loaded))
        rows = open_rows(self.config, loaded, tables)
        closing.callback(rows.close)
        with rows.view(root_only=True, wait=waiter):  # raises Fatal on a standby, before anything is saved
            pass
        waiter.check()
        begun = self.registry.open(loaded.compiled, self.slot)
        registration = begun.registration
        self.generation = registration.generation
        waiter.check()
        clock = self._clock(begun, rows, waiter)
        rows.close()
        sinks = self._sinks(loaded, begun, closing, waiter)
        waiter.check()
        # While a resync builds a generation, the dead letters of the active generation stay open.
        oldest = version(registration.epoch, 0) if self.slot is StateSlot.NEXT else 0
        dead_letters = self.registry.dead_letters(loaded.name).open(oldest=oldest)
        with contextlib.suppress(Retry):  # the periodic checks read them later
            dead_letters.refresh(timeout=5.0)
        waiter.check()
        durability = self._durability(loaded, tables, begun.names, registration, sinks, waiter)
        durability.check(SystemTime().now_ms())
        waiter.check()
        alterations = TableAlterations(self.config, self.registry, registration, begun.names, loaded)
        alterations.save_initial_state(new=not begun.built)
        outgrown = alterations.outgrown(sinks)
        waiter.check()
        return ModelSession(
            self.config,
            self.registry,
            loaded,
            tables,
            begun.names,
            clock,
            sinks,
            combining(sinks, loaded.compiled),
            registration,
            dead_letters,
            durability,
            alterations,
            self._breaker(registration, sinks),
            HotRoots(loaded.compiled.min_interval, len(loaded.compiled.key)),
            outgrown,
        )

    def _load(self, waiter: Waiter) -> loader.LoadedModel:
        """Returns the compiled read model. Reads the declaration again if a resync has built another generation."""
        generation = self.registered()
        if self.generation is not None and generation != self.generation:
            self.model = declaration.load(self.model.file)  # its change may be the reason of the resync
        self.generation = generation
        waiter.check()
        try:
            return loader.load_checked(self.config, self.model, check=waiter.check)
        except WeakIdentity:
            self._record_weak(always=False)
            raise

    def _clock(self, begun: RegisteredModel, rows: SnapshotReader, waiter: Waiter) -> Clock:
        """Returns the clock of this generation. Raises Fatal if PostgreSQL's clock does not continue it."""
        saved = begun.clock
        clock = Clock(
            begun.registration.epoch,
            saved.identity if saved else None,
            saved.clock if saved else 0,
            backwards=lambda error: self._record_backwards(begun.registration, error),
        )
        with rows.view(root_only=True, wait=waiter) as view:
            now = view.head.snapshot.clock
            clock.version(view.head.identity, now, floor=clock.highest, model=self.model.name)
        return clock

    def _sinks(
        self,
        loaded: loader.LoadedModel,
        begun: RegisteredModel,
        closing: contextlib.ExitStack,
        waiter: Waiter,
    ) -> list[Sink]:
        """Returns the prepared sinks. Creates their indexes if this generation is new."""
        registration = begun.registration
        sinks = loader.build_sinks(
            self.config,
            loaded,
            epoch=registration.epoch,
            generation=registration.generation,
            built=begun.built,
        )
        for sink in sinks:
            closing.callback(sink.close)
        for sink in sinks:
            waiter.check()
            sink.prepare(new=not begun.built)
        if not begun.built:
            self.registry.record_built(registration)
        return sinks

    def _record_backwards(self, registration: Registration, error: Fatal) -> None:
        """Remembers that the clock ran backwards, and saves it. If Kafka is unreachable, the next `open` saves it."""
        self._backwards = registration, error
        with contextlib.suppress(Retry):
            self._save_backwards()

    def _save_backwards(self) -> None:
        if found := self._backwards:
            registration, error = found
            self.registry.record_backwards(registration, error.why)
            self._backwards = None

    def _breaker(self, registration: Registration, sinks: list[Sink]) -> CircuitBreaker:
        """Returns the circuit breaker of this generation. It outlives the session, and is saved for other processes."""
        key, names = OpenBreakers.key(registration.id), [sink.name for sink in sinks]

        def save(found: SavedBreakers) -> None:
            for name in names:
                self.metrics.breaker(name, name in found)
            with contextlib.suppress(Retry):  # Kafka is unreachable: this process still knows
                self.registry.state.save(key, OpenBreakers(found))

        saved = self.registry.state.load().get(key)
        limit = self.config.dead_letters.max_consecutive
        breaker = self._breakers.setdefault(registration.id, CircuitBreaker(self.model.name, limit, note=save))
        breaker.learn(saved.sinks if saved else {})
        for name in names:
            self.metrics.breaker(name, name in breaker.open)
        return breaker

    def _record_weak(self, *, always: bool) -> None:
        """Remembers that changes may lack old values from now on, and saves it as `_record_backwards` does."""
        if self.generation is not None:
            self._weak = self.generation, always
            with contextlib.suppress(Retry):
                self._save_weak()

    def _save_weak(self) -> None:
        if found := self._weak:
            generation, always = found
            self.registry.record_weak(Generation(self.model.name, generation), always=always)
            self._weak = None

    def _revalidate(self, loaded: loader.LoadedModel) -> Fingerprint:
        try:
            found = loader.revalidate(self.config, loaded)
        except WeakIdentity:
            self._record_weak(always=True)
            raise
        log.info("tables were altered, the read model still fits them", model=loaded.name)
        return found

    def _durability(
        self,
        loaded: loader.LoadedModel,
        tables: Tables,
        names: Names,
        registration: Registration,
        sinks: list[Sink],
        waiter: Waiter,
    ) -> SinkDurabilityMonitor:
        key = DurabilityTokens.key(registration.id)
        saved = self.registry.state.load().get(key)
        for sink in sinks:
            for loss in LOSSES:
                self.metrics.lost(sink.name, loss, 0)

        def refill() -> None:
            work = self.registry.backfill_queue(names)
            size, found_ms = self.config.pipeline.chunk_documents, SystemTime().now_ms()

            def plan(view: View) -> Iterator[WorkItem]:
                return range_items(view, size, "lost documents", committed_ms=found_ms)

            with contextlib.closing(open_rows(self.config, loaded, tables)) as rows:
                for item in plan_durably(rows, plan, waiter):
                    work.put(item)
            work.flush()

        return SinkDurabilityMonitor(
            self.model.name,
            sinks,
            seen=self._seen.setdefault(registration.id, {}),
            saved=saved.tokens if saved else {},
            save=lambda value: self.registry.state.save(key, DurabilityTokens(value)),
            work=self.registry.work_queue(names),
            refill=refill,
            lost=self.metrics.lost,
            max_age=self.config.pipeline.max_age,
        )
