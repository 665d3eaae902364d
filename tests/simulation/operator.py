"""The person who runs `syncer backfill`: ranges of all roots are handed out, beside everything else.

It stands for `Backfill.plan` (`syncer/backfill.py`), which needs Kafka and PostgreSQL.
"""

from __future__ import annotations

from typing import Protocol

from syncer.change import Work
from syncer.errors import Retry
from syncer.gate import lasting
from syncer.planning import ranges
from syncer.waiting import Patience
from tests.simulation.application import Sizes
from tests.simulation.database import Database
from tests.simulation.history import History
from tests.simulation.rows import SimulatedRows
from tests.simulation.scheduler import Scheduler, SimulatedTime, Stop
from tests.simulation.stream import SimulatedWork, Topics


class Surroundings(Protocol):
    """What a backfill needs of the world."""

    database: Database
    scheduler: Scheduler
    history: History
    sizes: Sizes
    ranges: Topics
    kafka_fails: bool


class Operator:
    """sweep: remove what has no row, too. A command that failed is given again."""

    dead = zombie = False
    lasting = staticmethod(lasting)

    def __init__(self, world: Surroundings, *, sweep: bool) -> None:
        self.world, self.sweep = world, sweep
        world.history.seen["a backfill"] += 1
        world.scheduler.spawn("backfill", self, self._run)

    def _run(self) -> None:
        world, again = self.world, True
        while again:
            rows = SimulatedRows(world.database, world.scheduler, world.history, world.sizes, "backfill")
            try:
                self._plan(rows)
                again = False
            except Retry as error:
                world.history.tell("backfill", "failed, and is begun again: %s", error.what)

    def _plan(self, rows: SimulatedRows) -> None:
        work = ranges_topic(self.world)
        if self.sweep:
            work.put(Work("sweep", "backfill"))
        wait = Patience(Stop(), lambda: None, SimulatedTime(self.world.scheduler, self))
        for item in self.lasting(rows, lambda view: ranges(view, 2, "backfill"), wait):
            work.put(item)
        work.flush()


def ranges_topic(world: Surroundings) -> SimulatedWork:
    return SimulatedWork(world.ranges, "backfill", world.scheduler, world.history, fails=world.kafka_fails)
