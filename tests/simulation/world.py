"""The world of a schedule: all simulated parts together, and the accidents.

The first decisions of a schedule choose the sizes of its world and the kinds of accidents that are possible.
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
from tests.simulation.process import Process, Stored
from tests.simulation.refusals import Refusals
from tests.simulation.scheduler import Scheduler
from tests.simulation.sink import Store
from tests.simulation.stream import Connector, Group, SimulatedSource, SimulatedWork, Topics

_FIRST_XIDS = (800, (1 << 32) - 3, (3 << 32) - 2, 1 << 40)


class Broken(BaseException):
    """The promise is broken. It is not an Exception, so that the pipeline cannot catch it."""


class World:
    """lane: the class of the lanes. remembers: seconds for which the sink keeps the version of a delete.
    refuses: whether the sink refuses documents now and then."""

    def __init__(
        self, choices: Choices, *, lane: type[Lane] = Lane, remembers: float = 3600.0, refuses: bool = False
    ) -> None:
        self.choices, self.lane = choices, lane
        self.cyclic: list[object] = [self]
        """Objects that are part of reference cycles."""
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
        truncates = self.application.truncates or self.application.lacks_old_row
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
        self.stored = Stored(self.database.identity, 0, self.connector.reader)
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
        """Breaks all reference cycles after the end, so that the memory is freed at once.

        With the garbage collector, a schedule takes about half as long again.
        """
        for group in self.groups.values():
            group.owners.clear()
        for thing in (self.scheduler, *self.cyclic):
            vars(thing).clear()

    def rebalance(self) -> None:
        """Assigns the partitions of every group to its live members again."""
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
            possible += [self.database.crash, self._store_clock]
        if self.restores:
            possible.append(self._restore)
        if self.restarts_primary:
            possible += [self.store.restart_primary, self._check_sink]
        if self.loses_writes:
            possible += [self.store.lose_writes, self._check_sink]
        if self.refusals:
            possible += [self._break_mapping, self.retry, self._learn]
        if self.loses_rows:
            possible += [self._compare_reader] * 3
        return possible

    def _any_process(self) -> Process:
        return self.processes[self.choices.of(len(self.processes))]

    def _move(self) -> None:
        self.history.seen["a rebalance"] += 1
        self.history.log("Kafka", "rebalances the groups")
        self.rebalance()

    def _store_clock(self) -> None:
        process = self._any_process()
        process.store_clock()
        self.history.log(str(process), "stores its highest clock")

    def freeze(self) -> None:
        """Freezes one process until the calm end, as SIGSTOP does. Prefers a process that writes.

        Its partitions are assigned to others.
        """
        able = [p for p in self.processes if not p.error]
        if self.frozen or len(able) < 2:
            return
        writing = [a.process for a in self.scheduler.actors if a.writes]
        self.frozen = ([p for p in able if p in writing] or able)[self.choices.of(2) - 1]
        self.frozen.freeze(frozen=True)
        self.history.seen["a process froze until the end"] += 1
        self.history.log(str(self.frozen), "is frozen")
        self.rebalance()

    def thaw(self, slept: float) -> None:
        """Lets the frozen process continue after `slept` seconds."""
        if self.frozen:
            self.history.log(str(self.frozen), "continues")
            self.scheduler.advance(self.scheduler.now + slept)
            self.frozen.freeze(frozen=False)
            self.frozen = None
            self.rebalance()

    def _kill(self) -> None:
        process = self._any_process()
        self.history.seen["a process was killed"] += 1
        self.history.log(str(process), "is killed")
        process.kill()
        self.processes.remove(process)
        self.frozen = None if process is self.frozen else self.frozen
        self.processes.append(Process(self, process.number + 2))
        self.rebalance()

    def _deploy(self) -> None:
        process = self._any_process()
        self.history.log(str(process), "is asked to stop")
        process.ask_to_stop()

    def _wait(self) -> None:
        """Lets time pass: less or more than the maximum age of a batch, or than the sink remembers deletes."""
        seconds = (20.0, 40.0, 4000.0)[self.choices.of(3)]
        self.history.log("all actors", "pause for %s s", seconds)
        self.scheduler.advance(self.scheduler.now + seconds)

    def _check_sink(self) -> None:
        """Does one of the checks that a process does every few seconds."""
        process = self._any_process()
        if process is not self.frozen:
            process.check_sink()

    def _break_mapping(self) -> None:
        """Breaks the sink's mapping, so that it fits no document, or fixes it."""
        if refusals := self.refusals:
            refusals.broken = not refusals.broken
            self.history.log("sink", "its mapping is %s", "broken" if refusals.broken else "fixed")

    def _learn(self) -> None:
        self._any_process().learn_breaker()

    def retry(self, *, tolerant: bool = False) -> None:
        """Retries as the supervisors do a minute after a failure. tolerant: without a limit."""
        for process in self.processes:
            if process is not self.frozen:
                process.retry(tolerant=tolerant)

    def replay(self) -> None:
        """Hands over the documents of all letters, as an operator's replay does."""
        if refusals := self.refusals:
            self.history.log("operator", "replays the letters of %s", sorted(refusals.letters))
            work = SimulatedWork(self.work, "work", self.scheduler, self.history, fails=False)
            for item in key_items([(id,) for id in sorted(refusals.letters)], 10, "replay"):
                work.put(item)
            work.flush()

    def _compare_reader(self) -> None:
        """Does one of the checks that a process does every few seconds."""
        process = self._any_process()
        if process is not self.frozen:
            process.compare_reader()

    def _restore(self) -> None:
        if self.restores and self.database.commits:
            self.restores = False
            self.history.seen["another timeline"] += 1
            self.database.restore(self.choices.of(len(self.database.commits)))
            self.connector.restart_here()

    def begin_backfill(self) -> None:
        self.backfills = False
        Operator(self, sweep=self.choices.likely(64))
