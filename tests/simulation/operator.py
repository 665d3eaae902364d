"""An operator who runs `syncer backfill` while the lanes run.

It replaces `Backfill.plan` (`syncer/operations/backfill.py`), which needs Kafka and PostgreSQL.
"""

from __future__ import annotations

from typing import Any, Protocol

from syncer.errors import Retry
from syncer.events import WorkItem
from syncer.pacing import Waiter
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import range_items
from tests.simulation.database import Database
from tests.simulation.history import History
from tests.simulation.read_models import ReadModel
from tests.simulation.rows import SimulatedRows
from tests.simulation.scheduler import Scheduler, SimulatedTime, Stop
from tests.simulation.stream import Group, SimulatedWork, Topics


class Surroundings(Protocol):
    """The parts of the world that a backfill needs."""

    database: Database
    scheduler: Scheduler
    history: History
    model: ReadModel
    range_items: Topics
    kafka_fails: bool
    watermarks: bool
    groups: dict[str, Group]
    stored: Any


class Operator:
    """sweep: whether to delete documents without a row, too. A command that fails is repeated."""

    dead = zombie = False
    plan_durably = staticmethod(plan_durably)

    def __init__(self, world: Surroundings, *, sweep: bool) -> None:
        self.world, self.sweep = world, sweep
        world.history.seen["a backfill"] += 1
        world.scheduler.spawn("backfill", self, self._run)

    def _run(self) -> None:
        world, again = self.world, True
        while again:
            rows = SimulatedRows(world.database, world.scheduler, world.history, world.model, "backfill")
            try:
                self._plan(rows)
                again = False
            except Retry as error:
                world.history.log("backfill", "failed, and is repeated: %s", error.what)
        if world.watermarks:
            committed = world.groups["backfill"].committed
            ends = {p: len(records) for p, records in world.range_items.records.items()}
            world.scheduler.until(lambda: all(committed.get(p, 0) >= end for p, end in ends.items()))
            world.stored.backfilled = True
            world.history.log("backfill", "is finished")

    def _plan(self, rows: SimulatedRows) -> None:
        work = ranges_topic(self.world)
        if self.sweep:
            work.put(WorkItem("sweep", "backfill"))
        wait = Waiter(Stop(), lambda: None, SimulatedTime(self.world.scheduler, self))
        for item in self.plan_durably(rows, lambda view: range_items(view, 2, "backfill"), wait):
            work.put(item)
        work.flush()


def ranges_topic(world: Surroundings) -> SimulatedWork:
    return SimulatedWork(world.range_items, "backfill", world.scheduler, world.history, fails=world.kafka_fails)
