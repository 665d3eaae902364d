"""A syncer process: the lanes of one read model, and what their errors do to it.

It stands for `syncer/runtime/supervisor.py`, which needs threads and servers: what ends one lane ends its
siblings; after
`Retry` everything is opened again, with the clock that was last written down; `Fatal` leaves the read model
stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from typing import Protocol

from syncer.clock import Clock, Identity
from syncer.document import Outcome
from syncer.errors import Fatal, Reject, Retry
from syncer.monitors.sink_durability import SinkDurabilityMonitor
from syncer.pacing import Stopped, Waiter
from syncer.pipeline.circuit_breaker import Breaker
from syncer.pipeline.lane import Lane, Limits
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import range_items, sweep_items
from syncer.pipeline.writer import LATE
from syncer.ports import DurabilityToken, Record
from tests.simulation.application import Sizes, compiled
from tests.simulation.database import Database
from tests.simulation.history import History
from tests.simulation.operator import ranges_topic
from tests.simulation.refusals import LIMIT, Letters, Refusals
from tests.simulation.rows import SimulatedRows
from tests.simulation.scheduler import Actor, Scheduler, SimulatedTime, Stop
from tests.simulation.sink import SimulatedSink, Store
from tests.simulation.stream import (
    RESUMED,
    Connector,
    Group,
    SimulatedSource,
    SimulatedWork,
    Topics,
)

_NOTHING = nullcontext()


class Noted:
    """What is written down, for processes that begin (`registry/registry.py`, `monitors/connector_resumes.py`)."""

    def __init__(self, identity: Identity, clock: int, reader: int) -> None:
        self.identity, self.clock, self.reader = identity, clock, reader
        self.durability: dict[str, Iterable[str]] = {}


class Surroundings(Protocol):
    """What a process needs of its world."""

    database: Database
    connector: Connector
    scheduler: Scheduler
    history: History
    sizes: Sizes
    limits: Limits
    noted: Noted
    store: Store
    groups: dict[str, Group]
    work: Topics
    range_items: Topics
    members: dict[str, list[SimulatedSource]]
    sinks_fail: bool
    kafka_fails: bool
    forgets: bool
    loses_rows: bool
    change_lanes: int
    lane: type[Lane]
    lanes_ended: bool
    refusals: Refusals | None
    knotted: list[object]

    def rebalance(self) -> None: ...


class Process:
    """running: it has lanes. error: why it stays stopped."""

    def __init__(self, world: Surroundings, number: int) -> None:
        self.world, self.number = world, number
        world.knotted.append(self)
        self.dead = False
        self.lanes: list[Actor] = []
        self.seen: dict[str, DurabilityToken] = {}
        self.looking: Actor | None = None
        self.comparing: Actor | None = None
        self.error: Fatal | None = None
        refusals = world.refusals
        self.breaker = Breaker(str(self), LIMIT, note=refusals.note) if refusals else None
        self._open()

    def __str__(self) -> str:
        return f"worker {self.number}"

    @property
    def zombie(self) -> bool:
        """Others have been given its partitions, and it does not know."""
        return any(source.generation != source.group.generation for source in self.sources)

    def tell_to_stop(self) -> None:
        self.stop.set()

    def note_clock(self) -> None:
        noted = self.world.noted
        noted.clock = max(noted.clock, self.clock.highest)

    def _open(self) -> None:
        world = self.world
        self.stop = Stop()
        self.time = SimulatedTime(world.scheduler, self)
        self.clock = Clock(1, world.noted.identity, world.noted.clock)
        self.ended: list[Retry | Fatal | Stopped] = []
        self.learn_breaker()
        self.sources: list[SimulatedSource] = []
        try:
            now = world.database.snapshot().clock
            self.clock.version(world.database.identity, now, floor=self.clock.highest, model=str(self))
        except Fatal as error:
            self._failed(error)
            return
        self.sink = SimulatedSink(world.store, self, str(self), fails=world.sinks_fail)
        self.memories = self._memories()
        self.look()
        for kind, group in [*world.groups.items(), *self._more()]:
            who = str(self) if kind == "changes" else f"{self}, {kind}"
            lane = self._lane(kind, group, who)
            self.lanes.append(world.scheduler.spawn(who, self, partial(self._run, lane)))
        self.compare_reader()

    def compare_reader(self) -> None:
        """Does what `TableAlterations.render_again` and `Resumes` (`monitors/`) do, concurrently with the lanes."""
        busy = self.comparing is not None and not self.comparing.greenlet.dead
        if self.world.loses_rows and not busy and not self.error:
            self.comparing = self.world.scheduler.spawn(f"{self}, comparing", self, self._compare_reader)

    def _compare_reader(self) -> None:
        noted, reader = self.world.noted, self.world.connector.reader
        if reader != noted.reader:
            self.world.scheduler.pause()
            with suppress(Retry):  # then the next comparison finds it, too
                self.repair()
                noted.reader = reader

    def repair(self) -> None:
        """All roots and a sweep are handed out."""
        world, who = self.world, f"{self}, comparing"
        scheduler, history = world.scheduler, world.history
        self.wait_for_open()
        scheduler.pause()
        work = SimulatedWork(world.work, "work", scheduler, history, fails=world.kafka_fails)
        rows = SimulatedRows(world.database, scheduler, history, world.sizes, who)
        now_ms = self.time.now_ms()
        for item in sweep_items(RESUMED, now_ms, world.limits.max_age, now_ms):
            work.put(item)
        for item in plan_durably(rows, lambda view: range_items(view, 2, RESUMED), self._patience()):
            work.put(item)
        work.flush()

    def wait_for_open(self) -> None:
        """As `wait_for_open_transactions` does (`postgres/publication.py`)."""
        running = self.world.database.running
        still = set(running)
        if still:
            self.world.history.seen["a repair waited for open transactions"] += 1
        self.world.scheduler.until(lambda: still.isdisjoint(running))

    def _more(self) -> Iterator[tuple[str, Group]]:
        """Several lanes of changes, as a process may have."""
        for _ in range(1, self.world.change_lanes):
            yield "changes", self.world.groups["changes"]

    def _patience(self) -> Waiter:
        return Waiter(Stop(), lambda: None, self.time)

    def _memories(self) -> SinkDurabilityMonitor:
        world, who = self.world, f"{self}, looking"
        scheduler, history = world.scheduler, world.history

        def refill() -> None:
            work = ranges_topic(world)
            rows = SimulatedRows(world.database, scheduler, history, world.sizes, who)
            for item in plan_durably(rows, lambda view: range_items(view, 2, "lost documents"), self._patience()):
                work.put(item)
            work.flush()

        def lost(sink: str, what: str) -> None:
            history.seen["a process noticed that a sink forgot"] += 1
            history.tell(who, "the sink lost %s", what)

        return SinkDurabilityMonitor(
            str(self),
            [self.sink],
            seen=self.seen,
            saved=world.noted.durability,
            save=lambda tokens: world.noted.durability.update(tokens),
            work=SimulatedWork(world.work, "work", scheduler, history, fails=world.kafka_fails),
            refill=refill,
            lost=lost,
            max_age=world.limits.max_age,
        )

    def look(self) -> None:
        """Ask the sink what it remembers, beside the lanes."""
        busy = self.looking is not None and not self.looking.greenlet.dead
        if self.world.forgets and not busy and not self.error:
            self.looking = self.world.scheduler.spawn(f"{self}, looking", self, self._look)

    def _look(self) -> None:
        with suppress(Retry):  # what cannot be acted upon now is noticed by the next look, too
            self.memories.check(self.time.now_ms())

    def _lane(self, kind: str, group: Group, who: str) -> Lane:
        world = self.world
        history, scheduler = world.history, world.scheduler
        source = SimulatedSource(group, scheduler, history, self.stop, who, loses=world.kafka_fails)
        self.sources.append(source)
        world.members[kind].append(source)
        lane = world.lane(
            compiled(),
            source,
            SimulatedRows(world.database, scheduler, history, world.sizes, who),
            [SimulatedSink(world.store, self, who, fails=world.sinks_fail)],
            clock=self.clock,
            work=SimulatedWork(world.work, "work", scheduler, history, fails=world.kafka_fails),
            dead_letters=Letters(world.refusals) if world.refusals else NoLetters(),
            observer=Watcher(history, refuses=world.refusals is not None),
            limits=world.limits,
            stop=self.stop,
            items="backfill",
            breaker=self.breaker,
            time=self.time,
        )
        world.knotted.append(lane)
        return lane

    def _run(self, lane: Lane) -> None:
        try:
            lane.run()
        except (Retry, Fatal, Stopped) as error:
            self.ended.append(error)
            self.stop.set()
            self.world.lanes_ended = True

    def supervise(self) -> None:
        """When all lanes have ended: open again, or stay stopped."""
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
                history.tell(str(self), "begins again: %s", error.what)
                break
        else:
            history.seen["a process stopped in order"] += 1
            history.tell(str(self), "has stopped, and is started again")
        self._open()
        self.world.rebalance()

    def learn_breaker(self) -> None:
        """At each opening, and with the looks of the supervision."""
        if self.breaker and self.world.refusals:
            self.breaker.learn(self.world.refusals.noted)

    def retry(self, *, tolerant: bool = False) -> None:
        """After the breaker's failure everything is opened again, as after a minute. tolerant: without a
        limit."""
        if self.breaker and tolerant:
            self.breaker.tolerate()
        if self.error and self.error.hint.startswith("correct the mapping"):
            self.error = None
            self.world.history.tell(str(self), "tries again")
            self._open()
            self.world.rebalance()

    def _failed(self, error: Fatal) -> None:
        self.error = error
        self.world.history.tell(str(self), "stops for good: %s (%s)", error.what, error.why)

    def kill(self) -> None:
        """Nothing of it goes on but the requests that have left it."""
        self.dead = True
        self._leave()
        for actor in [a for a in self.world.scheduler.actors if a.process is self and not a.sent]:
            self.world.scheduler.kill(actor)

    def freeze(self, *, frozen: bool) -> None:
        """As SIGSTOP does, for so long that its partitions are given to others."""
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


class Watcher:
    """`ports.Observer`: counts what the schedules are to exercise."""

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
        """Not looked at."""

    def dirty(self, roots: int, shown: int) -> None:
        if shown:
            self._seen["a root was not rendered again: rendered lately"] += 1
        if self._waited and not roots:
            self._seen["a batch without roots waited at the gate"] += 1

    def written(self, sink: str, outcome: Outcome) -> None:
        """The sink counts."""

    def waiting(self, reason: str) -> None:
        if LATE in reason:
            self._seen["a piece was too old to be sent"] += 1

    def rejected(self, error: Reject) -> None:
        if not self._refuses:
            raise AssertionError(f"nothing is ever refused here: {error}")

    def lag(self, records: int, seconds: float) -> None:
        """Not looked at."""


class NoLetters:
    """`ports.DeadLetters`, which get none."""

    def document(self, id: str, version: int, reason: str) -> None:
        raise AssertionError(f"nothing is ever refused here: {reason}")

    def record(self, record: Record, reason: str) -> None:
        raise AssertionError(f"nothing is ever refused here: {reason}")

    def accepted(self, ids: Iterable[str], version: int) -> None:
        """There are none about them."""

    def flush(self) -> None:
        """Nothing is on its way."""
