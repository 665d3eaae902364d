"""Everything together, and the accidents.

What a schedule's world is like (sizes, and which accidents are possible at all) is decided first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from syncer.clock import version
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.pipeline.work_items import key_items
from tests.simulation.application import TABLES, Application, Sizes, documents
from tests.simulation.choices import Choices
from tests.simulation.database import Database, Rows
from tests.simulation.history import History
from tests.simulation.odds import THEMES
from tests.simulation.operator import Operator
from tests.simulation.process import Noted, Process
from tests.simulation.refusals import Refusals
from tests.simulation.scheduler import Scheduler
from tests.simulation.sink import Store
from tests.simulation.stream import Connector, Group, SimulatedSource, SimulatedWork, Topics

_FIRST_XIDS = (800, (1 << 32) - 3, (3 << 32) - 2, 1 << 40)


class Broken(BaseException):
    """The promise was. Not an Exception: nothing in the engine may take it for an error of its own."""


class World:
    """lane: the class of the lanes. remembers: seconds for which the sink keeps a delete's version.
    refuses: the sink refuses documents now and then."""

    def __init__(
        self, choices: Choices, *, lane: type[Lane] = Lane, remembers: float = 3600.0, refuses: bool = False
    ) -> None:
        self.choices, self.lane = choices, lane
        self.knotted: list[object] = [self]
        """What refers to itself in the end."""
        self.scheduler = Scheduler(choices)
        self.history = History(lambda: self.scheduler.now)
        self.refusals = Refusals(self.history) if refuses else None
        self.frozen: Process | None = None
        self.broken, self.lanes_ended = "", False
        self.sizes = Sizes(2 + choices.of(2), 2, 1 + choices.likely(190))
        odds = tuple(THEMES.values())[choices.of(len(THEMES))]
        small, self.backfills = choices.likely(odds.small), choices.likely(odds.backfills)
        self.restarts_primary = choices.likely(odds.restarts_primary)
        self.loses_writes = choices.likely(odds.loses_writes)
        self.change_lanes = 1 + choices.likely(40)
        self.forgets = self.restarts_primary or self.loses_writes
        self.loses_rows = choices.likely(odds.loses_rows)
        self.crashes, self.restores = choices.likely(odds.crashes), choices.likely(odds.restores)
        self.moves, self.kills = choices.likely(odds.moves), choices.likely(odds.kills)
        self.waits, self.slow_writes = choices.likely(odds.waits), choices.likely(odds.slow_writes)
        self.sinks_fail, self.kafka_fails = choices.likely(odds.sinks_fail), choices.likely(odds.kafka_fails)
        self.limits = Limits(
            chunk_documents=1 if small else 100,
            fan_out=1 if small else 100,
            commit_interval=0.0 if choices.likely(128) else 1.0,
            gate_timeout=0.5,
        )
        rows, xid = self._rows(), _FIRST_XIDS[choices.of(4)]
        self.database = Database(self.history, xid, rows)
        self.application = Application(self.database, choices, self.history, self.sizes, odds, left=3 + choices.of(4))
        truncates = self.application.truncates or self.application.untold
        self.topics = Topics(TABLES, 1 + choices.of(2))
        self.work, self.range_items = Topics(["work"], 1), Topics(["backfill"], 1)
        self.connector = Connector(
            self.database,
            self.topics,
            choices,
            self.history,
            repeats=choices.likely(odds.repeats),
            loses=self.loses_rows,
        )
        self.noted = Noted(self.database.identity, 0, self.connector.reader)
        self.groups = {"changes": Group(self.topics)}
        if small or truncates or self.backfills or self.forgets or self.loses_rows or refuses:
            self.groups["work"] = Group(self.work)
        if self.backfills or self.loses_writes:
            self.groups["backfill"] = Group(self.range_items)
        self.members: dict[str, list[SimulatedSource]] = {kind: [] for kind in self.groups}
        self.store = Store(
            self.scheduler,
            self.history,
            self.fail,
            base=self.database.base,
            remembers=remembers,
            refusals=self.refusals,
        )
        if not self.backfills:
            first = version(1, self.database.snapshot().clock)
            self.store.documents = {id: (first, body) for id, body in documents(rows, self.sizes).items()}
        self.processes = [Process(self, number) for number in range(1, 3 if choices.likely(200) else 2)]
        self.rebalance()

    def _rows(self) -> Rows:
        rows: Rows = {}
        for id in range(1, self.sizes.orders + 1):
            rows["orders", id] = {"id": id, "note": id, "hidden": False}
        for id in range(1, self.sizes.items + 1):
            rows["items", id] = {"id": id, "order_id": 1, "product_id": 1, "n": id}
        rows["products", 1] = {"id": 1, "name": 1}
        return rows

    def fail(self, why: str) -> NoReturn:
        self.broken = self.broken or why
        raise Broken(why)

    def untie(self) -> None:
        """After the end: nothing refers to itself any more, so that all of it goes at once. Left to the
        garbage collector, a schedule takes about half as long again."""
        for group in self.groups.values():
            group.owners.clear()
        for thing in (self.scheduler, *self.knotted):
            vars(thing).clear()

    def rebalance(self) -> None:
        """Every group's partitions are dealt out anew, among those that are there."""
        for kind, group in self.groups.items():
            group.assign([m for m in self.members[kind] if not m.frozen], self.choices)

    # -- accidents ----------------------------------------------------------------------------------

    def accidents(self) -> list[Callable[[], None]]:
        possible: list[Callable[[], None]] = []
        if self.moves:
            possible += [self._move, self.freeze]
        if self.kills:
            possible += [self._kill, self._deploy]
        if self.waits:
            possible.append(self._wait)
        if self.crashes:
            possible += [self.database.crash, self._note]
        if self.restores:
            possible.append(self._restore)
        if self.restarts_primary:
            possible += [self.store.restart_primary, self._look]
        if self.loses_writes:
            possible += [self.store.lose_writes, self._look]
        if self.refusals:
            possible += [self._break_mapping, self.retry, self._learn]
        if self.loses_rows:
            possible += [self._compare_reader] * 3
        return possible

    def _any_process(self) -> Process:
        return self.processes[self.choices.of(len(self.processes))]

    def _move(self) -> None:
        self.history.seen["a rebalance"] += 1
        self.history.tell("Kafka", "rebalances the groups")
        self.rebalance()

    def _note(self) -> None:
        process = self._any_process()
        process.note_clock()
        self.history.tell(str(process), "notes its highest clock")

    def freeze(self) -> None:
        """SIGSTOP, one process, until the calm: so its partitions are given to others. Best while it
        writes."""
        able = [p for p in self.processes if not p.error]
        if self.frozen or len(able) < 2:
            return
        writing = [a.process for a in self.scheduler.actors if a.writes]
        self.frozen = ([p for p in able if p in writing] or able)[self.choices.of(2) - 1]
        self.frozen.freeze(frozen=True)
        self.history.seen["a process froze until the end"] += 1
        self.history.tell(str(self.frozen), "is frozen")
        self.rebalance()

    def thaw(self, slept: float) -> None:
        """It goes on, so many seconds later."""
        if self.frozen:
            self.history.tell(str(self.frozen), "goes on")
            self.scheduler.advance(self.scheduler.now + slept)
            self.frozen.freeze(frozen=False)
            self.frozen = None
            self.rebalance()

    def _kill(self) -> None:
        process = self._any_process()
        self.history.seen["a process was killed"] += 1
        self.history.tell(str(process), "is killed")
        process.kill()
        self.processes.remove(process)
        self.frozen = None if process is self.frozen else self.frozen
        self.processes.append(Process(self, process.number + 2))
        self.rebalance()

    def _deploy(self) -> None:
        process = self._any_process()
        self.history.tell(str(process), "is told to stop")
        process.tell_to_stop()

    def _wait(self) -> None:
        """Nothing moves for a while: shorter or longer than a piece may be old, or than deletes are
        remembered."""
        seconds = (20.0, 40.0, 4000.0)[self.choices.of(3)]
        self.history.tell("everybody", "is still for %s s", seconds)
        self.scheduler.advance(self.scheduler.now + seconds)

    def _look(self) -> None:
        """As a process does every few seconds."""
        process = self._any_process()
        if process is not self.frozen:
            process.look()

    def _break_mapping(self) -> None:
        """Nothing fits it; or all does again."""
        if refusals := self.refusals:
            refusals.broken = not refusals.broken
            self.history.tell("sink", "its mapping is %s", "broken" if refusals.broken else "fixed")

    def _learn(self) -> None:
        self._any_process().learn_breaker()

    def retry(self, *, tolerant: bool = False) -> None:
        """What the supervisors do a minute after a failure. tolerant: without a limit."""
        for process in self.processes:
            if process is not self.frozen:
                process.retry(tolerant=tolerant)

    def replay(self) -> None:
        """The operator has every letter's document rendered again."""
        if refusals := self.refusals:
            self.history.tell("operator", "replays the letters of %s", sorted(refusals.letters))
            work = SimulatedWork(self.work, "work", self.scheduler, self.history, fails=False)
            for item in key_items([(id,) for id in sorted(refusals.letters)], 10, "replay"):
                work.put(item)
            work.flush()

    def _compare_reader(self) -> None:
        """As a process does every few seconds."""
        process = self._any_process()
        if process is not self.frozen:
            process.compare_reader()

    def _restore(self) -> None:
        if self.restores and self.database.commits:
            self.restores = False
            self.history.seen["another timeline"] += 1
            self.database.restore(self.choices.of(len(self.database.commits)))
            self.connector.begin_anew()

    def begin_backfill(self) -> None:
        self.backfills = False
        Operator(self, sweep=self.choices.likely(64))
