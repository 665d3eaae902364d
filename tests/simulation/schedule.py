"""Runs one schedule: accidents for a while, then a calm end. Then every document has to equal the database.

If PostgreSQL continued with another history, the promise differs: every process has stopped with Fatal, and no document
was written from that history.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from syncer.document import parse_id
from syncer.errors import Fatal
from syncer.pipeline.lane import Lane
from tests.simulation.choices import Choices
from tests.simulation.partials import PartialStore
from tests.simulation.redis_sink import RedisStore
from tests.simulation.refusals import Refusals
from tests.simulation.scheduler import Actor
from tests.simulation.slow_kafka import SlowConnector
from tests.simulation.world import Broken, World

TURNS = 50
"""Turns of actors in the first half, with accidents."""
_RETRIES = 4
"""Retries of a process that the breaker stopped. Each of them sends another document first."""
_ENOUGH = 2000
"""Rounds of turns in which every calm end must come to rest."""


class Result(NamedTuple):
    """failure: empty if the schedule succeeded. used: the number of decisions used."""

    failure: str
    seen: Counter[str]
    used: int
    lines: list[str]


def run(
    decisions: bytes,
    *,
    lines: bool = False,
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
) -> Result:
    """Runs the schedule of these decisions. lines: whether to return the history. For the rest see `World`."""
    choices = Choices(decisions)
    world = World(
        choices,
        lane=lane,
        remembers=remembers,
        refuses=refuses,
        watermarks=watermarks,
        refreshes=refreshes,
        topic=topic,
        hot=hot,
        model=model,
        lookup_levels=lookup_levels,
        sinks=sinks,
        resumes=resumes,
    )
    failure, used = "", 0
    try:
        schedule = Schedule(world)
        schedule.accidents()
        used = choices.at
        schedule.calm()
    except Broken as error:
        failure = str(error)
        used = used or choices.at
    except Exception as error:
        failure = repr(error)
        used = used or choices.at
    finally:
        for actor in list(world.scheduler.actors):
            world.scheduler.kill(actor)
    result = Result(failure, world.history.seen, used, world.history.lines() if lines else [])
    world.untie()
    return result


class Schedule:
    """The two halves of a schedule, over a world."""

    def __init__(self, world: World) -> None:
        self.world, self.choices, self.scheduler = world, world.choices, world.scheduler

    # -- the first half -----------------------------------------------------------------------------

    def accidents(self) -> None:
        world, choices = self.world, self.choices
        possible = world.accidents()
        for _ in range(TURNS * (1 + world.resumes)):
            if choices.used_up:
                return
            what = choices.of(16)
            if what < 9:
                self._run_an_actor()
            elif what < 12:
                world.application.step()
            elif what < 14:
                world.connector.step()
            elif world.backfills:
                world.begin_backfill()
            elif possible:
                possible[choices.of(len(possible))]()
            self._supervise()

    def _run_an_actor(self) -> None:
        able = [a for a in self.scheduler.actors if not a.frozen and (a.ready is None or a.ready())]
        actor = able[self.choices.of(len(able))] if able else None
        if actor and not (actor.writes and self.world.slow_writes and self.choices.likely(170)):
            self._turn(actor)
        elif self.world.connector.behind:
            self.world.connector.step()
        else:
            self.world.application.step()

    def _turn(self, actor: Actor) -> None:
        self.scheduler.run(actor)
        if self.world.broken:
            raise Broken(self.world.broken)

    def _supervise(self) -> None:
        if self.world.lanes_ended:
            self.world.lanes_ended = False
            for process in self.world.processes:
                process.supervise()

    # -- the second half ----------------------------------------------------------------------------

    def calm(self) -> None:
        """Stops writes and faults, waits until all work is done, and compares the documents.

        One process may be frozen until the others are done. Requests of dead processes may arrive even later.
        """
        world, choices = self.world, self.choices
        if choices.likely(60):
            world.freeze()
        late = [a for a in self.scheduler.actors if a.sent and a.process.dead and choices.likely(128)]
        for actor in late:
            actor.frozen = True
        slept = (0.0, 20.0, 40.0, 4000.0)[choices.of(4)]
        choices.calm()
        self.scheduler.oversleeps = True
        if world.backfills:
            world.begin_backfill()
        if world.database.identity.timeline > 1:
            world.application.touch()
        world.application.finish()
        self._deliver()
        world.rebalance()
        self._run_until_idle()
        world.thaw(slept)
        self._run_until_idle()
        for actor in late:
            self.scheduler.finish(actor)
        if world.refusals:
            self._fix(world.refusals)
        if isinstance(world.store, PartialStore):
            self._check()  # before documents that should be deleted are brought back
            self._bring_back(world.store)
        if isinstance(world.store, RedisStore) and world.database.identity.timeline == 1:
            self._verify(world.store)
        if world.watermarks:
            self._measure()
        self._check()

    def _deliver(self) -> None:
        """The connector delivers all changes."""
        connector = self.world.connector
        while connector.behind:
            connector.step()
        if isinstance(connector, SlowConnector):
            connector.arrive()

    def _bring_back(self, store: PartialStore) -> None:
        """Brings back the documents that are deleted, after the sink has forgotten their partials."""
        store.forget()
        self.world.application.bring_back()
        if self.world.model.compiled.group:
            self.world.application.fill_orders()
        self._deliver()
        self._run_until_idle()

    def _verify(self, store: RedisStore) -> None:
        """Does the work of `syncer verify --repair`, if members were added by hand. Otherwise it finds no strays."""
        found = store.sink.find_strays()
        if not store.strays and found:
            self.world.fail(f"{found} members are in no pointer")
        if store.strays:
            self.world.application.touch()  # the clock has to exceed the versions (`operations/repair.py`)
            self.world.application.finish()
            self._deliver()
            self.world.render([str(id) for id in range(1, 4)], "repair")
            self._run_until_idle()

    def _measure(self) -> None:
        """Takes two more candidates in each process. The last becomes the watermark, because all work is done."""
        measurements = [one for one in self.world.measurements if not one.lost]
        for _ in range(2):
            for one in measurements:
                one.wanted = True
            self.scheduler.advance(self.scheduler.now + 1.0)  # lanes commit after a while
            self._rest()
            self._deliver()
            self._rest()
        for one in measurements:
            found = one.tracker.watermark
            if not self.world.slot_lost and (found is None or found.clock < one.last_clock):
                self.world.fail(f"{one.process} does not advance its watermark: {one.tracker.reason}")

    def _fix(self, refusals: Refusals) -> None:
        """Fixes the mapping, retries the stopped processes, and replays the letters.

        The last retry has no limit: only bad documents may be left, and none of them closes the breaker.
        """
        refusals.broken = False
        for attempt in range(_RETRIES + 1):
            self.world.retry(tolerant=attempt == _RETRIES)
            self._run_until_idle()
        self.world.replay()
        self._run_until_idle()

    def _run_until_idle(self) -> None:
        """Runs until no actor has work. Then checks the slot's reader and the sink, and runs again."""
        self._rest()
        if self.world.loses_rows or self.world.watermarks:
            for process in self.world.processes:
                if process is not self.world.frozen:
                    process.compare_reader()
            self._rest()
        if self.world.forgets:
            for process in self.world.processes:
                if process is not self.world.frozen:
                    process.check_sink()
            self._rest()

    def _rest(self) -> None:
        for _ in range(_ENOUGH):
            able = [actor for actor in self.scheduler.actors if actor.runnable()]
            for actor in able:
                if not actor.greenlet.dead:
                    self._turn(actor)
            self._supervise()
            if not able:
                return
        self.world.fail("it never comes to rest")

    def _check(self) -> None:
        world = self.world
        if world.slot_lost:
            return  # rows were lost, and the read models wait for a resync
        stopped = [process.error for process in world.processes if process.error]
        if world.database.identity.timeline > 1:
            self._check_stopped(stopped)
            return
        if stopped:
            world.fail(f"a process stopped without a reason: {stopped[0]}")
        letters = world.store.letters if isinstance(world.store, PartialStore) else {}
        ahead = {parse_id(id, 2)[0] for id in letters}
        for store in world.stores:
            expected, found = store.expected(world.model, world.database.rows), store.found()
            for id in sorted(expected.keys() | found.keys()):
                if world.refusals and (kind := world.refusals.kind(expected.get(id))):
                    if id not in world.refusals.letters:
                        world.fail(f"order {id} is refused ({kind}), and has no letter")
                elif expected.get(id) != found.get(id) and id not in ahead:
                    world.fail(f"order {id} is {_shown(found.get(id))}, the database says {_shown(expected.get(id))}")

    def _check_stopped(self, stopped: list[Fatal]) -> None:
        for process in self.world.processes:
            if process.error is None:
                self.world.fail(f"{process} continues with another history")
        self.world.history.seen["stopped for another history"] += 1


def _shown(body: bytes | None) -> str:
    return body.decode() if body is not None else "not there"
