"""The world of a schedule: all simulated parts together, and the accidents.

The first decisions of a schedule choose the sizes of its world and the kinds of accidents that are possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from syncer.checks import Reader
from syncer.clock import version
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.pipeline.work_items import key_items
from syncer.registry.records import Proved
from tests.simulation.application import TABLES, Application, Sizes
from tests.simulation.boards import Boards
from tests.simulation.choices import Choices
from tests.simulation.database import Database, Rows
from tests.simulation.divided_groups import DividedGroups
from tests.simulation.documents_topic import LogGroup, TopicStore
from tests.simulation.freshness import Measurement
from tests.simulation.history import History
from tests.simulation.odds import OF_BOARDS, OF_GROUPS, THEMES
from tests.simulation.operator import Operator
from tests.simulation.partials import PartialStore
from tests.simulation.process import Process, Stored
from tests.simulation.read_models import READ_MODELS
from tests.simulation.redis_sink import RedisStore, Verifier
from tests.simulation.refusals import Refusals
from tests.simulation.scheduler import Scheduler
from tests.simulation.sink import Store
from tests.simulation.slow_kafka import SlowConnector, SlowTopics
from tests.simulation.stream import Connector, Group, SimulatedSource, SimulatedWork, Topics

ALL_MODELS = {**READ_MODELS, "divided": DividedGroups, "boards": Boards}
_FIRST_XIDS = (800, (1 << 32) - 3, (3 << 32) - 2, 1 << 40)


class Broken(BaseException):
    """The promise is broken. It is not an Exception, so that the pipeline cannot catch it."""


class World:
    """lane: the class of the lanes. remembers: seconds for which the sink keeps the version of a delete.
    refuses: whether the sink refuses documents now and then. watermarks: whether the processes compute watermarks.
    refreshes: whether callers refresh documents. topic: whether the sink is a documents topic.
    hot: whether roots that change often are delayed. model: see `ALL_MODELS`.
    lookup_levels: of the read model, as the watermark knows them. None: as they are.
    resumes: whether the connector resumes now and then, and loses inserted rows. It implies `watermarks`."""

    def __init__(
        self,
        choices: Choices,
        *,
        lane: type[Lane] = Lane,
        remembers: float = 3600.0,
        refuses: bool = False,
        watermarks: bool = False,
        refreshes: bool = False,
        topic: bool = False,
        hot: bool = False,
        model: str = "orders",
        lookup_levels: int | None = None,
        sinks: int = 1,
        resumes: bool = False,
    ) -> None:
        watermarks |= resumes
        self.interval = 3.0 if hot else 0.0
        self.watermarks, self.slot_lost = watermarks, False
        self.taken: dict[int, Rows] = {}
        """The rows of each candidate's snapshot."""
        self.choices, self.lane, self.refreshes = choices, lane, refreshes
        self.cyclic: list[object] = [self]
        """Objects that are part of reference cycles."""
        self.scheduler = Scheduler(choices)
        self.history = History(lambda: self.scheduler.now)
        self.refusals = Refusals(self.history) if refuses else None
        self.frozen: Process | None = None
        self.broken, self.lanes_ended = "", False
        self.sizes = Sizes(2 + choices.of(2), 2 if model == "orders" else 4, 1 + choices.likely(190))
        self.model = ALL_MODELS[model](self.sizes)
        self.lookup_levels = self.model.compiled.lookup_levels if lookup_levels is None else lookup_levels
        themes = THEMES if model == "orders" else OF_BOARDS if model == "boards" else OF_GROUPS
        odds = tuple(themes.values())[choices.of(len(themes))]
        small, self.backfills = choices.likely(odds.small), choices.likely(odds.backfills)
        in_redis = model in ("combined", "divided", "boards")
        self.restarts_primary = choices.likely(odds.restarts_primary) and not topic and not in_redis
        self.loses_writes = choices.likely(max(odds.loses_writes, 40 if watermarks else 0)) and not topic
        self.change_lanes = 1 + (choices.likely(128 if model in ("combined", "divided", "groups") else 40) or topic)
        self.forgets = self.restarts_primary or self.loses_writes
        self.loses_rows, self.resumes = choices.likely(odds.loses_rows) or resumes, resumes
        self.crashes, self.restores = choices.likely(odds.crashes), choices.likely(odds.restores) and not watermarks
        self.moves, self.kills = choices.likely(odds.moves), choices.likely(odds.kills)
        self.waits, self.slow_writes = choices.likely(odds.waits), choices.likely(odds.slow_writes)
        self.sinks_fail, self.kafka_fails = choices.likely(odds.sinks_fail), choices.likely(odds.kafka_fails)
        if topic:  # a fault of the order lane needs several accidents at once
            self.moves = self.waits = self.kafka_fails = True
        self.limits = Limits(
            chunk_documents=1 if small else 100,
            fan_out=1 if small else 100,
            commit_interval=0.0 if choices.likely(128) else 1.0,
            gate_timeout=0.5,
        )
        rows, xid = self._rows(), _FIRST_XIDS[choices.of(4)]
        self.database = Database(self.history, xid, rows)
        self.database.keeps_states = refreshes
        left = 3 + choices.of(4) + 4 * resumes
        self.application = Application(self.database, choices, self.history, self.sizes, odds, left=left)
        self.application.changes_keys = model != "orders"
        truncates = self.application.truncates or self.application.lacks_old_row
        count = 1 + choices.of(2)
        slow = SlowTopics(TABLES, count, exactly_once=choices.likely(80)) if watermarks else None
        self.topics = slow or Topics(TABLES, count)
        self.work, self.range_items = Topics(["work"], 1), Topics(["backfill"], 1)
        self.delayed = Topics(["delayed"], 1)
        self.connector: Connector
        repeats = choices.likely(odds.repeats)
        if slow:
            self.connector = SlowConnector(
                self.database, slow, choices, self.history, repeats=repeats, loses=self.loses_rows
            )
        else:
            self.connector = Connector(
                self.database, self.topics, choices, self.history, repeats=repeats, loses=self.loses_rows
            )
        self.connector.only_inserts = resumes
        self.stored = Stored(self.database.identity, 0, self.connector.reader)
        self.stored.backfilled = not self.backfills
        if resumes and choices.likely(128):  # nothing happened before
            reader = Reader(self.connector.reader, None)
            self.stored.proved[reader] = Proved(reader, *self.database.identity, self.database.snapshot().xmin)
        self.groups = {"changes": Group(self.topics)}
        sweeps = small or truncates or self.backfills or self.forgets or self.loses_rows
        if sweeps or watermarks or refuses or topic or model == "boards":
            self.groups["work"] = Group(self.work)
        if self.backfills or self.loses_writes:
            self.groups["backfill"] = Group(self.range_items)
        if hot:
            self.groups["delayed"] = Group(self.delayed)
        self.store = self._store(remembers, topic=topic)
        if isinstance(self.store, TopicStore):
            self.scheduler.request_lives = 5000.0  # the broker rejects what arrives later than it should
            self.groups["order"] = LogGroup(self.store.topics)
        self.members: dict[str, list[SimulatedSource]] = {kind: [] for kind in self.groups}
        self.stores = [self.store]
        """Of all sinks. Only the first one has accidents of the server."""
        for _ in range(1, sinks):
            self.stores.append(
                Store(self.scheduler, self.history, self.fail, base=self.database.base, remembers=remembers)
            )
        if not self.backfills:
            first = version(1, self.database.snapshot().clock)
            for store in self.stores:
                store.begin(self.model, rows, first)
        self.processes = [Process(self, number) for number in range(1, 3 if choices.likely(200) else 2)]
        self.rebalance()

    def _store(self, remembers: float, *, topic: bool) -> Store:
        base = self.database.base
        if topic:
            return TopicStore(self.scheduler, self.history, self.fail, base=base)
        if self.model.compiled.partials:
            return PartialStore(self.scheduler, self.history, self.fail, base=base, remembers=remembers)
        if isinstance(self.model, Boards):
            return RedisStore(self.scheduler, self.history, self.fail, base=base, remembers=remembers)
        return Store(self.scheduler, self.history, self.fail, base=base, remembers=remembers, refusals=self.refusals)

    def _rows(self) -> Rows:
        rows: Rows = {}
        for id in range(1, 2 if self.resumes else self.sizes.orders + 1):
            rows["orders", id] = {"id": id, "note": id, "hidden": False}
        for id in range(1, 1 if self.resumes else 3):
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

    def measure(self, process: Process) -> Measurement | None:
        """Begins to compute the watermark in a process."""
        if isinstance(self.topics, SlowTopics) and isinstance(self.connector, SlowConnector):
            return Measurement(self, process, self.topics, self.connector)
        return None

    @property
    def measurements(self) -> list[Measurement]:
        return [one.measurement for one in self.processes if one.measurement and not one.error]

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
        if isinstance(self.store, PartialStore):
            possible += [self._forget_partials] * 2
        if isinstance(self.store, RedisStore):
            possible += [self._verify, *[self.store.add_by_hand] * self.store.has_strays]
        if self.refusals:
            possible += [self._break_mapping, self.retry, self._learn]
        if self.loses_rows:
            possible += [self._compare_reader] * 3
        if self.watermarks:
            possible += [self._take_candidate] * (8 if self.resumes else 4)
            possible += [self.application.detach, self._compare_reader]
            possible += [self._create_slot_again] * (not self.resumes)
        if self.refreshes:
            possible += [self._request_refresh] * max(3, len(possible))
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
        if self.frozen or self.slot_lost or len(able) < 2:
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
        if self.slot_lost:
            return
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

    def _forget_partials(self) -> None:
        """Lets the time pass after which deleted documents lose their partials, if no work waits."""
        committed = (group.committed.get(p, 0) for group in self.groups.values() for p in group.topics.records)
        ends = (len(records) for group in self.groups.values() for records in group.topics.records.values())
        waits = self.connector.behind or self.database.running or any(a.writes for a in self.scheduler.actors)
        if isinstance(self.store, PartialStore) and not waits and all(map(int.__ge__, committed, ends)):
            self.store.forget()

    def _verify(self) -> None:
        """Lets an operator verify the documents, while the lanes run."""
        if isinstance(self.store, RedisStore):
            Verifier(self.store)

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
            self.render(sorted(refusals.letters), "replay")

    def render(self, ids: Sequence[str], reason: str) -> None:
        """Hands over documents to be rendered, as a command of the operator does."""
        work = SimulatedWork(self.work, "work", self.scheduler, self.history, fails=False)
        for item in key_items([(id,) for id in ids], 10, reason):
            work.put(item)
        work.flush()

    def _compare_reader(self) -> None:
        """Does one of the checks that a process does every few seconds."""
        process = self._any_process()
        if process is not self.frozen:
            process.compare_reader()

    def _take_candidate(self) -> None:
        """Lets a process take a candidate, as each one does every second."""
        if (measurement := self._any_process().measurement) and not measurement.lost:
            measurement.wanted = True

    def _create_slot_again(self) -> None:
        """Creates the slot again. Each process has a message in the part of the log that is skipped.

        A part without a message is a known limit: nothing detects that it was skipped. Nor does a process that starts
        afterwards, if the process that expects a message has died. So no process ends or freezes any more.
        """
        if self.slot_lost or self.frozen:
            return
        if isinstance(self.connector, SlowConnector) and self.choices.likely(64):
            unsent = self.connector.unsent
            if self.measurements and all(any(map(one.canary.expects, unsent)) for one in self.measurements):
                self.slot_lost = True
                self.connector.skip()

    def _request_refresh(self) -> None:
        """Lets a caller ask for any order, with the token of a transaction that is in progress or not visible yet."""
        process, running = self._any_process(), list(self.database.running.values())
        if process.refreshes and running and process is not self.frozen and not process.error:
            transaction = running[self.choices.of(len(running))]
            id, sub = 1 + self.choices.of(self.sizes.orders), self.choices.likely(128)
            process.refreshes.request(transaction, id, sub=sub)

    def _restore(self) -> None:
        if self.restores and self.database.commits:
            self.restores = False
            self.history.seen["another timeline"] += 1
            self.database.restore(self.choices.of(len(self.database.commits)))
            self.connector.restart_here()

    def begin_backfill(self) -> None:
        self.backfills = False
        Operator(self, sweep=self.choices.likely(64))
