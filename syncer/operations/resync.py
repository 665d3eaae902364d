"""Rebuilds a read model under a new epoch, while readers use the current generation.

A resync is needed if the documents or their versions can no longer be trusted: the declaration changed, Kafka deleted
records before they were processed, or PostgreSQL was replaced. The next generation has its own consumer group, starting
offsets and, in Elasticsearch, index. The resync fills it, applies all changes up to then, and then switches readers to
it.

Until then, daemons continue with the current generation. They move to the new one within seconds after the switch.
Sinks that write in place (Redis) cannot hold two generations. They reject the writes of daemons as soon as the new
epoch starts to write. The daemons continue after the resync. An interrupted resync does not switch readers. The next
one starts from the beginning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from syncer.clock import split_version
from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal
from syncer.monitors.delivery import require_slot
from syncer.operations.backfill import Backfill, Progress
from syncer.ports import DeadLetter
from syncer.registry import loader
from syncer.registry.names import Names
from syncer.registry.records import BackfillRun, Registration, StateSlot
from syncer.registry.registry import Registry
from syncer.runtime.role import RESYNC_BUILDER
from syncer.runtime.supervisor import ModelSupervisor
from syncer.telemetry.metrics import Metrics

_POLL_SECONDS = 0.1


class ResyncResult(NamedTuple):
    """Holds the result of a resync."""

    run: BackfillRun
    obsolete: list[str]
    """Indices of earlier generations that are no longer used: see `ports.WritableSink.activate`."""
    rejected: int
    """Number of rejected documents: see `backfill.BackfillResult`."""


def resync(
    config: Config,
    model: Model,
    registry: Registry,
    metrics: Metrics,
    workers: int,
    report: Callable[[Progress], None],
    *,
    rate: float | None = None,
) -> ResyncResult:
    """Returns when the new generation has all changes and readers use it.

    Raises Fatal if the generation cannot be built, or if changes are lost before they reach Kafka. Readers then still
    use the current generation, and the same command starts from the beginning.
    """
    require_slot(config, model.name)
    loaded = loader.load_checked(config, model)
    known = [one for slot in StateSlot if (one := registry.registered(model.name, slot))]
    epoch = max((one.epoch for one in known), default=0) + 1
    generation = max((one.generation for one in known), default=0) + 1
    names = registry.names(model.name, loaded.compiled.tables, generation)
    registration = registry.register(loaded.compiled, names, epoch=epoch, generation=generation, slot=StateSlot.NEXT)
    # Sinks that write in place may hold documents of deleted rows. The sweep deletes them.
    backfill = Backfill(config, model, registry, rate=rate, sweep=True, slot=StateSlot.NEXT)
    (run, rejected), obsolete = backfill.run(metrics, workers, report, restart=True), list[str]()
    with _caught_up(config, model, registry, metrics, names, report):
        for sink in loader.build_sinks(config, loaded, epoch=epoch, generation=generation, built=True):
            obsolete += sink.activate()
            sink.close()
    registry.adopt(registration)
    _resolve_dead_letters(registry, names, registration)
    return ResyncResult(run, obsolete, rejected)


def _resolve_dead_letters(registry: Registry, names: Names, registration: Registration) -> None:
    """Resolves the dead letters of earlier generations.

    Every document was rendered again, in snapshots that include all changes from before the generation's starting
    offsets. Dead letters of the new generation itself stay open.
    """

    def is_obsolete(letter: DeadLetter) -> bool:
        if letter.subject.kind == "document":
            return split_version(letter.version)[0] < registration.epoch
        topic, partition, offset = letter.subject.name.rsplit("/", 2)
        if topic in (names.work_topic, names.backfill_topic):
            return False
        return int(offset) < registration.starts.get(topic, {}).get(partition, int(offset) + 1)

    letters = registry.dead_letters(registration.model)
    letters.resolve([one for one in letters.read() if is_obsolete(one)])


@contextmanager
def _caught_up(
    config: Config,
    model: Model,
    registry: Registry,
    metrics: Metrics,
    names: Names,
    report: Callable[[Progress], None],
) -> Iterator[None]:
    """Processes changes, and runs the block once the generation has caught up. Changes are processed meanwhile.

    Caught up means: all changes that Kafka had at the start are committed, with the fan-outs and the renders of altered
    tables that they caused. Then no document is older than in the current generation.

    A sweep that is not due yet is not waited for. It deletes documents that a slow worker may still write to this
    generation. No reader can have an older document of it. The daemon runs the sweep after the switch.
    """
    supervisor = ModelSupervisor(config, model, registry, metrics.for_model(model.name), role=RESYNC_BUILDER)

    def wait_until_empty(pending: Callable[[], str]) -> None:
        while note := pending():
            if supervisor.state == "failed" and (error := supervisor.failure):
                raise Fatal(f"the resync stopped: {error.what}", where=error.where, why=error.why, hint=error.hint)
            report(Progress("rendering", 0, 0, note))
            time.sleep(_POLL_SECONDS)

    def wait_until_committed(left: Callable[[], int], noun: str) -> None:
        wait_until_empty(lambda: f"catching up, {count:,} {noun} left" if (count := left()) else "")

    changes, queues = registry.changes, (registry.work_queue(names), registry.backfill_queue(names))

    def wait_for_work() -> None:
        work = [(queue, queue.ends()) for queue in queues]
        wait_until_committed(lambda: sum(queue.left(ends) for queue, ends in work), "work items")

    supervisor.start()
    try:
        ends = changes.ends(names.changes)
        wait_until_committed(lambda: changes.left(names.group, ends), "changes")
        wait_until_empty(lambda: "" if supervisor.alterations_scheduled else "checking for altered tables")
        for _ in range(2):  # a sweep commits its own item after it has produced items for keys
            wait_for_work()
        yield
    finally:
        supervisor.stop()
        supervisor.join()
