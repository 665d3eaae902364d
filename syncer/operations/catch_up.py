"""Applies changes to the generation that a resync builds, until it has everything that the current one has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal, Retry
from syncer.operations.backfill import Progress
from syncer.pacing import poll_until
from syncer.ports import Partition, WorkQueue, ends_of
from syncer.quantities import counted
from syncer.registry.names import Names
from syncer.registry.registry import Registry
from syncer.runtime.ordered_logs import OrderedLogs
from syncer.runtime.role import RESYNC_BUILDER
from syncer.runtime.supervisor import ModelSupervisor
from syncer.telemetry.metrics import Metrics

_POLL_SECONDS = 0.1
T = TypeVar("T")


@contextmanager
def caught_up(
    config: Config,
    model: Model,
    registry: Registry,
    metrics: Metrics,
    names: Names,
    report: Callable[[Progress], None],
) -> Iterator[Callable[[], None]]:
    """Processes changes, and runs the block once the generation has caught up. Changes are processed meanwhile.

    Yields a function that waits until the generation has caught up with this moment.

    Caught up means: all changes that Kafka has now are committed, with the fan-outs and the renders of altered
    tables that they caused. Then no document is older than in the current generation. In a sink with an order lane, the
    order of all writes up to now is checked, and documents of which an older version came last are written again.

    A sweep that is not due yet is not waited for. It deletes documents that a slow worker may still write to this
    generation. No reader can have an older document of it. The daemon runs the sweep after the switch.
    """
    supervisor = ModelSupervisor(config, model, registry, metrics.for_model(model.name), role=RESYNC_BUILDER)
    waiting = _CatchUp(supervisor, registry, names, report)
    supervisor.start()
    try:
        waiting()
        yield waiting
    finally:
        supervisor.stop()
        supervisor.join()


class _CatchUp:
    """Waits until the generation of a supervisor has caught up. Each wait ends with Fatal if the supervisor fails."""

    def __init__(
        self, supervisor: ModelSupervisor, registry: Registry, names: Names, report: Callable[[Progress], None]
    ) -> None:
        self._supervisor, self._changes, self._names, self._report = supervisor, registry.changes, names, report
        self._queues = registry.queues(names)

    def __call__(self) -> None:
        changes, names, supervisor = self._changes, self._names, self._supervisor
        ends = self._read(lambda: ends_of(names.changes, changes.ends(names.changes)))
        self._until_done(lambda: changes.left(names.group, ends), "change", "changes")
        self._until_empty(lambda: "" if supervisor.alterations_scheduled else "checking for altered tables")
        self._work_off()
        if written := self._read(lambda: self._logs().ends()):
            self._until_checked(written)
            self._work_off()  # documents of which an older version came last

    def _work_off(self) -> None:
        for _ in range(2):  # a sweep commits its own item after it has produced items for keys
            work = [(queue, self._read(queue.ends)) for queue in self._queues]
            self._until_done(partial(_left, work), "work item", "work items")

    def _until_checked(self, ends: Mapping[Partition, int]) -> None:
        self._until_done(lambda: self._read(lambda: self._logs().left(ends)), "document to check", "documents to check")

    def _logs(self) -> OrderedLogs:
        if self._supervisor.ordered_logs is None:
            raise Retry("the read model is being opened")
        return self._supervisor.ordered_logs

    def _read(self, ends: Callable[[], T]) -> T:
        """Returns ends. Waits while a broker that just started does not list a topic: its records would be missed."""
        found: list[T] = []

        def reason() -> str:
            try:
                found.append(ends())
            except Retry as error:
                return f"catching up, {error.what}"
            return ""

        self._until_empty(reason)
        return found[-1]

    def _until_done(self, left: Callable[[], int], one: str, many: str) -> None:
        self._until_empty(lambda: f"catching up, {counted(count, one, many)} left" if (count := left()) else "")

    def _until_empty(self, pending: Callable[[], str]) -> None:
        def is_empty() -> bool:
            if note := pending():
                if self._supervisor.state == "failed" and (error := self._supervisor.failure):
                    raise Fatal(f"the resync stopped: {error.what}", where=error.where, why=error.why, hint=error.hint)
                self._report(Progress("rendering", 0, 0, note))
            return not note

        poll_until(is_empty, timeout=math.inf, interval=_POLL_SECONDS)


def _left(work: Sequence[tuple[WorkQueue, Mapping[int, int]]]) -> int:
    """Returns how many items before these ends no worker has committed."""
    return sum(queue.left(ends) for queue, ends in work)
