"""A syncer process: the lanes of one read model, and the effect of their errors.

It replaces `syncer/runtime/supervisor.py`, which needs threads and servers. An error that ends one lane ends the
others, too. After `Retry`, the process opens everything again, with the last stored clock. After `Fatal`, the read
model stays stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import NoReturn, Protocol

from syncer.checks import Reader
from syncer.clock import Clock, Identity
from syncer.document import Outcome
from syncer.errors import Fatal, Reject, Retry
from syncer.events import WorkItem
from syncer.monitors.connector_resumes import compare
from syncer.monitors.rerender import RESUMED, Unknown, recent_roots
from syncer.monitors.sink_durability import SinkDurabilityMonitor
from syncer.pacing import Stopped, Waiter
from syncer.pipeline.circuit_breaker import CircuitBreaker
from syncer.pipeline.combine import combining
from syncer.pipeline.delayed_items import DelayedItems
from syncer.pipeline.hot_roots import HotRoots
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.pipeline.order_lane import OrderLane
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import key_items, range_items, sweep_items
from syncer.pipeline.writer import LATE
from syncer.ports import DeadLetters, DurabilityToken, Record, Sink, Source
from syncer.registry.records import Proved, SlotReader
from tests.simulation.application import Sizes
from tests.simulation.database import Database
from tests.simulation.documents_topic import LogGroup, LogMember, SimulatedLog, SimulatedTopicSink, TopicStore
from tests.simulation.freshness import Measurement, shape
from tests.simulation.history import History
from tests.simulation.operator import ranges_topic
from tests.simulation.partials import LostPartials, PartialStore, SimulatedPartialSink
from tests.simulation.read_models import ReadModel
from tests.simulation.redis_sink import RedisStore, SimulatedRedisSink
from tests.simulation.refreshes import Refreshes
from tests.simulation.refusals import LIMIT, Letters, Refusals
from tests.simulation.rows import SimulatedRows
from tests.simulation.scheduler import Actor, Scheduler, SimulatedTime, Stop
from tests.simulation.sink import SimulatedSink, Store
from tests.simulation.stream import (
    Connector,
    Group,
    SimulatedSource,
    SimulatedWork,
    Topics,
)

_NOTHING = nullcontext()


class Stored:
    """The stored state, for processes that start (`registry/registry.py`, `monitors/connector_resumes.py`)."""

    def __init__(self, identity: Identity, clock: int, reader: int) -> None:
        self.identity, self.clock, self.reader = identity, clock, reader
        self.durability: dict[str, Iterable[str]] = {}
        self.proved: dict[Reader, Proved] = {}
        self.relied_on: Proved | None = None
        """What the last repair relied on."""
        self.shape = "0"
        """The fingerprint of the tables."""
        self.backfilled = True


class Surroundings(Protocol):
    """The parts of the world that a process needs."""

    database: Database
    connector: Connector
    scheduler: Scheduler
    history: History
    sizes: Sizes
    model: ReadModel
    limits: Limits
    stored: Stored
    store: Store
    stores: list[Store]
    groups: dict[str, Group]
    work: Topics
    range_items: Topics
    members: dict[str, list[SimulatedSource]]
    sinks_fail: bool
    kafka_fails: bool
    forgets: bool
    loses_rows: bool
    change_lanes: int
    interval: float
    delayed: Topics
    lane: type[Lane]
    lanes_ended: bool
    refusals: Refusals | None
    refreshes: bool
    cyclic: list[object]
    watermarks: bool

    def measure(self, process: Process) -> Measurement | None: ...
    def rebalance(self) -> None: ...

    def fail(self, why: str) -> NoReturn: ...


class Process:
    """error: why it stays stopped."""

    def __init__(self, world: Surroundings, number: int) -> None:
        self.world, self.number = world, number
        world.cyclic.append(self)
        self.dead = False
        self.lanes: list[Actor] = []
        self.seen: dict[str, DurabilityToken] = {}
        self.checking: Actor | None = None
        self.comparing: Actor | None = None
        self.error: Fatal | None = None
        refusals = world.refusals
        self.measurement: Measurement | None = None
        self.breaker = CircuitBreaker(str(self), LIMIT, note=refusals.note) if refusals else None
        self.refreshes = self._make_refreshes() if world.refreshes else None
        self._open()

    def __str__(self) -> str:
        return f"worker {self.number}"

    @property
    def zombie(self) -> bool:
        """Whether its partitions were assigned to other processes, and it does not know."""
        return any(source.generation != source.group.generation for source in self.sources)

    def ask_to_stop(self) -> None:
        self.stop.set()

    def store_clock(self) -> None:
        stored = self.world.stored
        stored.clock = max(stored.clock, self.clock.highest)

    def _open(self) -> None:
        world = self.world
        self.stop = Stop()
        self.time = SimulatedTime(world.scheduler, self)
        self.clock = Clock(1, world.stored.identity, world.stored.clock)
        self.ended: list[Retry | Fatal | Stopped] = []
        self.learn_breaker()
        self.sources: list[SimulatedSource] = []
        self.lanes_of: list[Lane] = []
        try:
            now = world.database.snapshot().clock
            self.clock.version(world.database.identity, now, floor=self.clock.highest, model=str(self))
        except Fatal as error:
            self._failed(error)
            return
        self.sink = self._sink(str(self))
        self.hot = HotRoots(world.interval, 1) if world.interval else None
        self.memories = self._memories()
        self.check_sink()
        for kind, group in [*world.groups.items(), *self._more()]:
            who = str(self) if kind == "changes" else f"{self}, {kind}"
            lane = self._lane(kind, group, who)
            self.lanes.append(world.scheduler.spawn(who, self, partial(self._run, lane)))
        self.compare_reader()
        if self.measurement is None:
            self.measurement = world.measure(self)

    def compare_reader(self) -> None:
        """Does the work of `TableAlterations.render_again` and `Resumes` (`monitors/`), concurrently with the lanes."""
        busy = self.comparing is not None and not self.comparing.greenlet.dead
        if (self.world.loses_rows or self.world.watermarks) and not busy and not self.error:
            self.comparing = self.world.scheduler.spawn(f"{self}, comparing", self, self._compare_reader)

    def _compare_reader(self) -> None:
        stored, reader, tables = self.world.stored, self.world.connector.reader, shape(self.world.database.rows)
        resumed, inserts = None, self.world.connector.only_inserts
        if self.world.loses_rows:
            saved = SlotReader(Reader(stored.reader, None), inserts, stored.relied_on)
            resumed = compare("shop", saved, Reader(reader, None), lambda: (inserts, ""), self.proved)
        if resumed or tables != stored.shape:
            self.world.scheduler.pause()
            with suppress(Retry):  # the next comparison detects it again
                self.repair(resumed.proved if resumed and tables == stored.shape else None)
                stored.reader, stored.shape = reader, tables
                stored.relied_on = resumed.reader.proved if resumed else stored.relied_on

    def proved(self) -> Sequence[Proved]:
        return list(self.world.stored.proved.values())

    def repair(self, proved: Proved | None) -> None:
        """Hands over the roots of recent rows, or all roots and a sweep (`monitors/rerender.py`)."""
        world, who = self.world, f"{self}, comparing"
        scheduler, history = world.scheduler, world.history
        self.wait_for_open()
        scheduler.pause()
        work = SimulatedWork(world.work, "work", scheduler, history, fails=world.kafka_fails)
        rows = SimulatedRows(world.database, scheduler, history, world.model, who)
        items = self._recent(rows, proved) if proved else None
        if items is None:
            now_ms = self.time.now_ms()
            items = [*sweep_items(RESUMED, now_ms, world.limits.max_age, now_ms)]
            items += plan_durably(rows, lambda view: range_items(view, 2, RESUMED), self._waiter())
        for item in items:
            work.put(item)
        work.flush()

    def _recent(self, rows: SimulatedRows, proved: Proved) -> list[WorkItem] | None:
        found: list[WorkItem] = []
        try:
            for roots in recent_roots(rows, self.world.model.compiled.rendered, proved, self._waiter()):
                found += key_items(roots, 2, RESUMED)
        except Unknown:
            return None
        self.world.history.seen["the documents of recent rows were rendered again"] += 1
        return found

    def wait_for_open(self) -> None:
        """Waits as `wait_for_open_transactions` does (`postgres/publication.py`)."""
        running = self.world.database.running
        still = set(running)
        if still:
            self.world.history.seen["a repair waited for open transactions"] += 1
        self.world.scheduler.until(lambda: still.isdisjoint(running))

    def _more(self) -> Iterator[tuple[str, Group]]:
        """Yields further lanes of changes, because a process may have several."""
        for _ in range(1, self.world.change_lanes):
            yield "changes", self.world.groups["changes"]

    def _waiter(self) -> Waiter:
        return Waiter(Stop(), lambda: None, self.time)

    def _memories(self) -> SinkDurabilityMonitor:
        world, who = self.world, f"{self}, checking"
        scheduler, history = world.scheduler, world.history

        def refill() -> None:
            work = ranges_topic(world)
            rows = SimulatedRows(world.database, scheduler, history, world.model, who)
            for item in plan_durably(rows, lambda view: range_items(view, 2, "lost documents"), self._waiter()):
                work.put(item)
            work.flush()

        def lost(sink: str, what: str) -> None:
            history.seen["a process detected that a sink forgot"] += 1
            history.log(who, "the sink lost %s", what)

        return SinkDurabilityMonitor(
            str(self),
            [self.sink],
            seen=self.seen,
            saved=world.stored.durability,
            save=lambda tokens: world.stored.durability.update(tokens),
            work=SimulatedWork(world.work, "work", scheduler, history, fails=world.kafka_fails),
            refill=refill,
            lost=lost,
            max_age=world.limits.max_age,
        )

    def check_sink(self) -> None:
        """Reads the sink's durability token, concurrently with the lanes."""
        busy = self.checking is not None and not self.checking.greenlet.dead
        if self.world.forgets and not busy and not self.error:
            self.checking = self.world.scheduler.spawn(f"{self}, checking", self, self._check_sink)

    def _check_sink(self) -> None:
        with suppress(Retry):  # the next check detects it again
            self.memories.check(self.time.now_ms())

    def _order_lane(self, group: LogGroup, who: str) -> OrderLane:
        world = self.world
        history, scheduler = world.history, world.scheduler
        member = LogMember(group, scheduler, history, self.stop, who, loses=world.kafka_fails)
        self._joins("order", member)
        return OrderLane(
            str(self),
            SimulatedLog(member, world.limits.max_age),
            columns=1,
            work=SimulatedWork(world.work, "work", scheduler, history, fails=world.kafka_fails),
            observer=Watcher(history),
            limits=world.limits,
            stop=self.stop,
            time=self.time,
        )

    def _joins(self, kind: str, source: SimulatedSource) -> None:
        self.sources.append(source)
        self.world.members[kind].append(source)

    def _sink(self, who: str) -> Sink:
        store, fails = self.world.store, self.world.sinks_fail
        if isinstance(store, TopicStore):
            return SimulatedTopicSink(store, self, who, fails=fails)
        if isinstance(store, RedisStore):
            return SimulatedRedisSink(store, self, who, fails=fails)
        if isinstance(store, PartialStore):
            return SimulatedPartialSink(store, self, who, fails=fails)
        return SimulatedSink(store, self, who, fails=fails)

    def _sinks(self, who: str) -> list[Sink]:
        more = enumerate(self.world.stores[1:], start=2)
        named = [SimulatedSink(store, self, who, fails=self.world.sinks_fail, name=f"sink {n}") for n, store in more]
        return [self._sink(who), *named]

    def _lane(self, kind: str, group: Group, who: str) -> Lane | OrderLane:
        if isinstance(group, LogGroup):
            return self._order_lane(group, who)
        world = self.world
        history, scheduler = world.history, world.scheduler
        loses = world.kafka_fails and not world.watermarks  # a real consumer reports a lost commit
        source = SimulatedSource(group, scheduler, history, self.stop, who, loses=loses)
        self._joins(kind, source)
        compiled = world.model.compiled
        waiting = DelayedItems(
            source,
            Waiter(self.stop, time=self.time),
            most_delay=world.interval,
            columns=1 if compiled.partials else None,
        )
        lane = world.lane(
            compiled.rendered,
            waiting if kind == "delayed" else source,
            SimulatedRows(world.database, scheduler, history, world.model, who),
            combining(self._sinks(who), compiled),
            clock=self.clock,
            work=SimulatedWork(world.work, "work", scheduler, history, fails=world.kafka_fails),
            dead_letters=self._letters(),
            observer=Watcher(history, refuses=bool(world.refusals) or isinstance(world.store, PartialStore)),
            limits=world.limits,
            stop=self.stop,
            items=("backfill", "delayed"),
            hot=self.hot if kind == "changes" else None,
            delayed=SimulatedWork(world.delayed, "delayed", scheduler, history, fails=world.kafka_fails),
            breaker=self.breaker,
            time=self.time,
            partials=compiled.partials,
        )
        world.cyclic.append(lane)
        self.lanes_of.append(lane)
        if world.watermarks:
            source.repeats_commits = True
            source.due = lambda: _is_idle_work_left(lane, source, scheduler.now)
        return lane

    def _letters(self) -> DeadLetters:
        world = self.world
        if isinstance(world.store, PartialStore):
            return LostPartials(world.store)
        return Letters(world.refusals) if world.refusals else NoLetters()

    def _make_refreshes(self) -> Refreshes:
        world, who = self.world, f"{self}, refresh"

        def make(source: Source, letters: DeadLetters, stop: Stop) -> Lane:
            lane = world.lane(
                world.model.compiled,
                source,
                SimulatedRows(world.database, world.scheduler, world.history, world.model, who),
                self._sinks(who),
                clock=self.clock,
                work=SimulatedWork(world.work, "work", world.scheduler, world.history, fails=world.kafka_fails),
                dead_letters=letters,
                observer=Watcher(world.history),
                limits=replace(world.limits, commit_interval=0.0),
                stop=stop,
                time=self.time,
            )
            world.cyclic.append(lane)
            return lane

        refreshes = Refreshes(world, self, make, NoLetters())
        world.cyclic.append(refreshes)
        return refreshes

    def _run(self, lane: Lane | OrderLane) -> None:
        try:
            lane.run()
        except (Retry, Fatal, Stopped) as error:
            self.ended.append(error)
            self.stop.set()
            self.world.lanes_ended = True

    def supervise(self) -> None:
        """Opens everything again when all lanes have ended, or stays stopped."""
        if self.error or not self.ended or any(not lane.greenlet.dead for lane in self.lanes):
            return
        self.lanes.clear()
        self._leave()
        history = self.world.history
        for error in self.ended:
            if isinstance(error, Fatal):
                self._failed(error)
                self.world.rebalance()
                return
        for error in self.ended:
            if isinstance(error, Retry):
                history.log(str(self), "opens again: %s", error.what)
                break
        else:
            history.seen["a process stopped in order"] += 1
            history.log(str(self), "has stopped, and starts again")
        self._open()
        self.world.rebalance()

    def learn_breaker(self) -> None:
        """Takes over stored breakers, at each opening and with the periodic checks."""
        if self.breaker and self.world.refusals:
            self.breaker.learn(self.world.refusals.stored)

    def retry(self, *, tolerant: bool = False) -> None:
        """Opens everything again after the breaker stopped it, as the supervisor does after a minute.

        tolerant: without a limit.
        """
        if self.breaker and tolerant:
            self.breaker.tolerate()
        if self.error and self.error.hint.startswith("correct the mapping"):
            self.error = None
            self.world.history.log(str(self), "retries")
            self._open()
            self.world.rebalance()

    def _failed(self, error: Fatal) -> None:
        self.error = error
        self.world.history.log(str(self), "stays stopped: %s (%s)", error.what, error.why)

    def kill(self) -> None:
        """Ends the process. Requests that it has sent may still arrive."""
        self.dead = True
        self._leave()
        for actor in [a for a in self.world.scheduler.actors if a.process is self and not a.sent]:
            self.world.scheduler.kill(actor)

    def freeze(self, *, frozen: bool) -> None:
        """Freezes the process as SIGSTOP does, until its partitions are assigned to others."""
        for source in self.sources:
            source.frozen = frozen
        for actor in self.world.scheduler.actors:
            if actor.process is self:
                actor.frozen = frozen

    def _leave(self) -> None:
        for kind, members in self.world.members.items():
            self.world.members[kind] = [m for m in members if m not in self.sources]
        for source in self.sources:
            source.dead |= self.dead


def _is_idle_work_left(lane: Lane, source: SimulatedSource, now: float) -> bool:
    """Returns whether a poll without records has an effect: offsets to commit, or a position to take over."""
    reached = lane.offsets.reached
    return lane.offsets.due(now, idle=True) or any(reached.get(p, 0) < at for p, at in source.at.items())


class Watcher:
    """`ports.Observer`: counts events that the schedules must have."""

    def __init__(self, history: History, *, refuses: bool = False) -> None:
        self._seen, self._refuses = history.seen, refuses
        self._waited = False

    def stage(self, name: str) -> nullcontext[None]:
        return _NOTHING

    def events(self, by_op: Mapping[str, int], skipped: int) -> None:
        self._waited = False

    def gate(self, seconds: float) -> None:
        self._seen["a batch waited at the gate"] += 1
        self._waited = True

    def refresh(self, reason: str) -> None:
        """Ignored."""

    def dirty(self, roots: int, skipped: int) -> None:
        if skipped:
            self._seen["a render was skipped: the last one shows the change"] += 1
        if self._waited and not roots:
            self._seen["a batch without roots waited at the gate"] += 1

    def writing(self, sink: str) -> nullcontext[None]:
        return _NOTHING

    def written(self, sink: str, outcome: Outcome) -> None:
        """The sink counts writes."""

    def waiting(self, reason: str) -> None:
        if LATE in reason:
            self._seen["a batch was too old to be sent"] += 1

    def rejected(self, error: Reject) -> None:
        if not self._refuses:
            raise AssertionError(f"unexpected: {error}")

    def delayed(self, roots: int) -> None:
        self._seen["a root was delayed"] += 1

    def reordered(self, documents: int) -> None:
        self._seen["the order lane found an older version last"] += 1

    def cycles(self, relation: str, found: Sequence[str]) -> None:
        raise AssertionError("the simulation has no trees")

    def lag(self, records: int, seconds: float) -> None:
        """Ignored."""


class NoLetters:
    """`ports.DeadLetters` for a world without refusals."""

    def document(self, id: str, version: int, reason: str) -> None:
        raise AssertionError(f"unexpected: {reason}")

    def record(self, record: Record, reason: str) -> None:
        raise AssertionError(f"unexpected: {reason}")

    def accepted(self, ids: Iterable[str], version: int) -> None:
        """There are no letters."""

    def accepted_partials(self, versions: Iterable[tuple[str, int]]) -> None:
        """There are no letters."""

    def flush(self) -> None:
        """There are no letters."""
