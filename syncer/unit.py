"""One read model in this process: its lanes, what happens to their errors, and what can be told of it.

    Retry    the lanes are closed; after a back-off everything is opened again: catalog, compile, checks
    Fatal    the read model stays stopped with its error; other read models and the HTTP server go on
    Stopped  the lanes finish and commit what is under way

So a server that is not up yet, an altered table and a lost connection all take the same short path.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from typing import Any

import structlog

from syncer import load
from syncer.altered import Alterations
from syncer.clock import Clock, Identity, version
from syncer.config import Config
from syncer.declaration import model as declaration
from syncer.declaration.model import Model
from syncer.errors import Fatal, Retry, SyncerError
from syncer.gate import lasting
from syncer.memories import Memories
from syncer.metrics import LOSSES, ModelMetrics
from syncer.observer import LaneObserver
from syncer.pipeline import Lane, Limits, ranges
from syncer.ports import Memory, Sink, Source
from syncer.registry import Names, Registry
from syncer.rows.fingerprint import fingerprint
from syncer.rows.postgres import Postgres
from syncer.sources.kafka import KafkaSource
from syncer.sources.letters import KafkaDeadLetters, Standing
from syncer.sources.state import Registration
from syncer.sources.writing import KafkaWork, Outbox
from syncer.waiting import Stopped, Time

_WORK_RECORDS = 8  # work items are large: take few at a time, so that other processes get theirs
_LOOK_EVERY = 5.0
_TRY_AGAIN = 60.0
_STALLED_AFTER = 300.0
_BACK_OFF = (0.2, 10.0)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opened:
    """A read model whose servers have all answered: what its lanes share."""

    loaded: load.Loaded
    names: Names
    clock: Clock
    sinks: list[Sink]
    registration: Registration
    letters: Standing
    memories: Memories
    alterations: Alterations


class Unit:
    """Supervises one read model on a thread of its own.

    work_only: take work items but no changes (`syncer backfill`, which may run beside a daemon), with so many
    workers on the backfill's ranges.
    building: the generation that a resync is building, not the one in force.
    source: tells why changes may not come at all; empty when they do.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        registry: Registry,
        metrics: ModelMetrics,
        *,
        work_only: bool = False,
        workers: int = 1,
        building: bool = False,
        source: Callable[[], str] = str,
    ) -> None:
        self.config, self.model, self.registry, self.metrics = config, model, registry, metrics
        self.source = source
        self.workers = workers
        self.work_only, self.building = work_only, building
        self.state, self.error, self.last_error = "starting", "", ""
        self._since = self._progress = time.monotonic()
        self._time = Time()
        self._generation: int | None = None
        self._seen: dict[str, dict[str, Memory]] = {}
        self.observers: list[LaneObserver] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name=f"{model.name}-unit", daemon=True)

    # -- from outside -------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to stop; `join` waits."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> bool:
        """Whether it has ended within so many seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stalled(self) -> str:
        """Why this is not alive: neither it nor a lane may be silent for minutes. Empty when all is well."""
        after = max(_STALLED_AFTER, 2 * self.config.postgres.statement_timeout)
        if self.state == "running":
            reasons = [reason for observer in self.observers if (reason := observer.stalled(after))]
            return f"{self.model.name}: {reasons[0]}" if reasons else ""
        silent = time.monotonic() - self._progress
        if self._thread.is_alive() and silent > after:
            return f"{self.model.name}: {self.state}, but nobody has answered or refused for {silent:.0f} s"
        return ""

    def status(self) -> dict[str, Any]:
        reasons = [reason for reason in (*(o.reason for o in self.observers), self.source()) if reason]
        changes = [o for o in self.observers if o.lane == "changes"]
        errors = [o.last_error for o in self.observers if o.last_error]
        idle = time.monotonic() - self._since if self.state in ("waiting", "failed") else 0.0
        return {
            "state": "waiting" if self.state == "running" and reasons else self.state,
            "lag_seconds": round(max((o.seconds for o in changes), default=0.0) + idle, 3),
            "lag_records": sum(o.records for o in changes),
            "work_records": sum(o.records for o in self.observers if o.lane != "changes"),
            "reason": self.error or next(iter(reasons), ""),
            "last_error": self.error or next(iter(errors), self.last_error),
        }

    # -- on its thread ------------------------------------------------------------------------------

    def _supervise(self) -> None:
        pause = _BACK_OFF[0]
        while not self._stop.is_set():
            began = self._progress = time.monotonic()
            try:
                self._attempt()
            except Stopped:
                break
            except Retry as error:
                if time.monotonic() - began > 60:
                    pause = _BACK_OFF[0]
                self._tell("waiting", error)
                self.registry.topics.renew()
                self._stop.wait(pause)
                pause = min(pause * 2, _BACK_OFF[1])
            except Exception as error:
                # A defect of ours must not take the other read models along; it is told as what it is.
                if not isinstance(error, SyncerError):
                    log.exception("unexpected error", model=self.model.name)
                    error = Fatal("unexpected error", where=self.model.name, why=repr(error))
                self._tell("failed", error)
                self._remember_error(str(error))
                if not self._another_try():
                    return
        self._set("stopped")

    def _another_try(self) -> bool:
        """After a failure: wait until a resync has built another generation, or a minute: someone may have
        mended the cause. To try again is safe: offsets have not moved. False when told to stop."""
        failed = time.monotonic()
        while not self._stop.wait(_LOOK_EVERY):
            self._progress = time.monotonic()
            with contextlib.suppress(Retry):
                if self._registered() != self._generation or time.monotonic() - failed > _TRY_AGAIN:
                    return True
        return False

    def _attempt(self) -> None:
        with contextlib.ExitStack() as closing:
            self._run(self._open(closing))

    def _run(self, opened: Opened) -> None:
        """Run the lanes until the first of them ends."""
        ended: list[BaseException] = []
        stop = threading.Event()
        if self.work_only:
            kinds = ["backfill"] * self.workers + ["work"]
        else:
            pipeline = self.config.pipeline
            kinds = ["changes"] * pipeline.change_lanes + ["backfill"] + ["work"] * pipeline.work_lanes
        self.observers = [LaneObserver(kind, self.metrics) for kind in kinds]
        for observer in self.observers:
            observer.kin = [other for other in self.observers if other.lane == observer.lane]
        threads = []
        for observer in self.observers:
            lane = self._lane(opened, observer, stop)
            name = f"{self.model.name}-{observer.lane}"
            threads.append(threading.Thread(target=_run_lane, args=(lane, ended, stop), name=name))
        for thread in threads:
            thread.start()
        self.error = ""
        self._set("running")
        self._remember_error("")
        try:
            self._watch(opened, stop)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        errors = [error for error in ended if not isinstance(error, Stopped)]
        errors.sort(key=lambda error: not isinstance(error, Fatal))
        if errors:
            raise errors[0]
        with contextlib.suppress(Retry):
            self._note(opened)
        raise Stopped

    def _open(self, closing: contextlib.ExitStack) -> Opened:
        """Every server has answered, and nothing is there that would make documents wrong. closing: of what
        was opened until then, too."""
        generation = self._registered()
        if self._generation is not None and generation != self._generation:
            self.model = declaration.load(self.model.file)  # it may be why there was a resync
        self._generation = generation
        loaded = load.ready(self.config, self.model)
        rows = self._rows(loaded)
        closing.callback(rows.close)
        with rows.view():  # a standby is refused before anything is recorded
            pass
        begun = self.registry.open(loaded.compiled, building=self.building)
        registration, noted = begun.registration, begun.clock
        self._generation = registration.generation
        identity = Identity(noted["system"], noted["timeline"]) if noted else None
        clock = Clock(registration.epoch, identity, noted.get("clock", 0))
        with rows.view() as view:
            now = view.head.snapshot.clock
            clock.version(view.head.identity, now, floor=clock.highest, model=self.model.name)
        rows.close()
        built = load.build_sinks(
            self.config, loaded, epoch=registration.epoch, generation=registration.generation
        )
        for sink in built:
            closing.callback(sink.close)
        for sink in built:
            sink.prepare(new=not begun.built)
        if not begun.built:
            self.registry.note_built(registration)
        # While a generation is built, the letters about those that are read are not its own to settle.
        oldest = version(registration.epoch, 0) if self.building else 0
        letters = Standing(self.registry.topics, begun.names.dead_letters, oldest=oldest)
        self._learn(letters, timeout=5.0)
        memories = self._memories(loaded, begun.names, registration, built)
        memories.look(self._time.now_ms())
        alterations = Alterations(self.config, self.registry, registration, loaded)
        alterations.note_first()
        return Opened(loaded, begun.names, clock, built, registration, letters, memories, alterations)

    def _learn(self, letters: Standing, timeout: float) -> None:
        """Of the letters that others have written. What is not known yet can be learned later."""
        with contextlib.suppress(Retry):
            letters.refresh(timeout)
        self.metrics.dead_letters(len(letters))

    def _memories(
        self, loaded: load.Loaded, names: Names, registration: Registration, built: list[Sink]
    ) -> Memories:
        key = registration.key("memory")
        for sink in built:
            for what in LOSSES:
                self.metrics.lost(sink.name, what, 0)

        def refill() -> None:
            work = KafkaWork(self.registry.writing, names.backfill_topic)
            with contextlib.closing(self._rows(loaded)) as rows, lasting(rows) as view:
                for item in ranges(view, self.config.pipeline.chunk_documents, "lost documents"):
                    work.put(item)
            work.flush()

        return Memories(
            self.model.name,
            built,
            seen=self._seen.setdefault(key, {}),
            noted=self.registry.state.load().get(key, {}),
            note=lambda value: self.registry.state.save(key, value),
            work=KafkaWork(self.registry.writing, names.work_topic),
            refill=refill,
            lost=self.metrics.lost,
            max_age=self.config.pipeline.max_age,
        )

    def _registered(self) -> int | None:
        """The generation that is to be kept in step; None if the read model is new."""
        known = self.registry.registered(self.model.name, building=self.building, max_age=_LOOK_EVERY - 1)
        generation: int | None = known.get("generation")
        return generation

    def _rows(self, loaded: load.Loaded) -> Postgres:
        return Postgres(
            self.config.postgres.arguments(),
            loaded.compiled,
            fingerprint=fingerprint(loaded.catalog, publication=loaded.publication),
            expected=loaded.fingerprint,
            statement_timeout=self.config.postgres.statement_timeout,
        )

    def _lane(self, opened: Opened, observer: LaneObserver, stop: threading.Event) -> Lane:
        limits = Limits(**{f.name: getattr(self.config.pipeline, f.name) for f in fields(Limits)})
        if observer.lane != "changes":
            limits = replace(limits, max_records=_WORK_RECORDS)
        names = opened.names
        return Lane(
            opened.loaded.compiled,
            self._source(names, observer.lane),
            self._rows(opened.loaded),
            opened.sinks,
            clock=opened.clock,
            work=KafkaWork(self.registry.writing, names.work_topic),
            dead_letters=KafkaDeadLetters(Outbox(self.registry.writing), names.dead_letters, opened.letters),
            observer=observer,
            limits=limits,
            stop=stop,
            items=names.backfill_topic,
        )

    def _source(self, names: Names, lane: str) -> Source:
        group, topics = {
            "changes": (names.group, names.changes),
            "work": (names.work_group, (names.work_topic,)),
            "backfill": (names.backfill_group, (names.backfill_topic,)),
        }[lane]
        return KafkaSource(self.registry.settings, group, topics, name=self.model.name)

    def _watch(self, opened: Opened, ended: threading.Event) -> None:
        """Until told to stop or a lane ends. Now and then, look whether the tables were altered or a resync
        has begun another generation (the lanes look only when there is work), and whether a sink has lost its
        memory (beside: it may not answer for a minute). And write down the highest clock, so that a restart
        notices one that ran backwards."""
        rows = self._rows(opened.loaded)
        looking: Future[None] | None = None
        seeing: Future[None] | None = None

        def look_at_sinks() -> None:
            with contextlib.suppress(Retry):  # one is away: the lanes tell it, if it lasts
                opened.memories.look(self._time.now_ms())

        def look_at_tables() -> None:
            with rows.view():  # Retry if they were altered
                pass

        try:
            if not self.work_only:
                self._render_again(opened, rows, ended)
            noted = opened.clock.highest
            while not self._over(ended, _LOOK_EVERY):
                looking = self._beside("memories", look_at_sinks, looking)
                seeing = self._beside("tables", look_at_tables, seeing)
                try:
                    generation = self._registered()
                    self.registry.check_unbroken(opened.registration, _LOOK_EVERY - 1)
                    self.registry.check_topics(opened.registration)
                    if opened.clock.highest > noted:
                        self._note(opened)
                        noted = opened.clock.highest
                except Retry:  # Kafka is away: the lanes tell it, if it lasts
                    continue
                self._learn(opened.letters, timeout=1.0)
                if generation != opened.registration.generation:
                    raise Retry(
                        "the read model was resynced: its new generation is opened", where=self.model.name
                    )
        finally:
            if seeing is None or seeing.done():
                rows.close()

    def _beside(self, what: str, look: Callable[[], None], last: Future[None] | None) -> Future[None]:
        """Look beside, once there was an answer the last time: a server may be silent for a minute. Raises
        what the last look raised."""
        if last is not None:
            if not last.done():
                return last
            last.result()
        return self._time.beside(f"{self.model.name}-{what}", look)

    def _render_again(self, opened: Opened, rows: Postgres, ended: threading.Event) -> None:
        """If the tables were altered so that documents may be wrong, also while nothing ran."""

        def breathe() -> None:
            if self._over(ended):
                raise Stopped

        work = KafkaWork(self.registry.writing, opened.names.work_topic)
        with contextlib.suppress(Stopped):
            opened.alterations.render_again(rows, work, self.config.backfill.range_documents, breathe)

    def _over(self, ended: threading.Event, seconds: float = 0.0) -> bool:
        """Whether it is told to stop, or a lane has ended, within so many seconds."""
        until = time.monotonic() + seconds
        while not self._stop.is_set() and not ended.is_set():
            if time.monotonic() >= until:
                return False
            ended.wait(0.05)
        return True

    def _note(self, opened: Opened) -> None:
        if opened.clock.identity:
            value = {**opened.clock.identity._asdict(), "clock": opened.clock.highest}
            self.registry.state.save(opened.registration.key("clock"), value)

    def _remember_error(self, error: str) -> None:
        """For `syncer status`, which may be asked when this process is gone. Kafka may be what is away."""
        if self.work_only or self.building:
            return
        with contextlib.suppress(Retry):
            value = {"error": error, "at_ms": time.time_ns() // 1_000_000} if error else {}
            self.registry.state.save(f"{self.model.name}/error", value)

    def _set(self, state: str) -> None:
        if state != self.state:
            self._since = time.monotonic()
        self.state = state
        self.export()

    def export(self) -> None:
        """State and lag as metrics. While no lane is there to tell its lag, it grows with time."""
        told = self.status()
        self.metrics.state(told["state"])
        if told["state"] != "running" and not self.work_only:
            self.metrics.lag("changes", told["lag_records"], told["lag_seconds"])

    def _tell(self, state: str, error: SyncerError) -> None:
        if str(error) != self.error or state == "failed":
            say = log.error if state == "failed" else log.warning
            say(state, model=self.model.name, error=error)
        self.error = self.last_error = str(error)
        self.metrics.error("fatal" if state == "failed" else "retry")
        self._set(state)


def _run_lane(lane: Lane, ended: list[BaseException], stop: threading.Event) -> None:
    """A lane's thread. What ends one lane ends its siblings: they share sinks and clock."""
    try:
        lane.run()
    except BaseException as error:
        ended.append(error)
    finally:
        stop.set()
