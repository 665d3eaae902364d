"""Resync: build a read model anew, under a new epoch, beside what is read meanwhile.

The answer to whatever makes the documents or their versions doubtful: a changed declaration, records that
Kafka no longer has, another PostgreSQL server. The next generation has its own consumer group, starting
offsets and (in Elasticsearch) index. It is filled, brought in step, and only then read.

Until then a daemon goes on with the generation that is read, and moves to the new one within seconds after.
Sinks that write in place (Redis) have no two generations: the daemon is refused there as soon as the new
epoch begins to write, and goes on after the end. An interrupted resync changes nothing; the next one begins
anew.
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
from syncer.runtime.supervisor import ModelSupervisor
from syncer.telemetry.metrics import Metrics

_LOOK_EVERY = 0.1


class ResyncResult(NamedTuple):
    """What a resync made, and what it left."""

    run: BackfillRun
    left: list[str]
    """Of earlier generations: see `ports.WritableSink.activate`."""
    refused: int
    """See `backfill.Filled`."""


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
    """Until the new generation is in step and read. Raises Fatal if it cannot be built, or changes are being
    lost on their way; what was read before is then still read, and the same command begins anew."""
    require_slot(config, model.name)
    loaded = loader.load_checked(config, model)
    known = [one for slot in StateSlot if (one := registry.registered(model.name, slot))]
    epoch = max((one.epoch for one in known), default=0) + 1
    generation = max((one.generation for one in known), default=0) + 1
    names = registry.names(model.name, loaded.compiled.tables, generation)
    registration = registry.register(loaded.compiled, names, epoch=epoch, generation=generation, slot=StateSlot.NEXT)
    # Sinks that write in place may hold documents of rows that are gone: these go in the sweep.
    backfill = Backfill(config, model, registry, rate=rate, sweep=True, slot=StateSlot.NEXT)
    (run, refused), left = backfill.run(metrics, workers, report, again=True), list[str]()
    with _in_step(config, model, registry, metrics, names, report):
        for sink in loader.build_sinks(config, loaded, epoch=epoch, generation=generation, built=True):
            left += sink.activate()
            sink.close()
    registry.adopt(registration)
    _settle_letters(registry, names, registration)
    return ResyncResult(run, left, refused)


def _settle_letters(registry: Registry, names: Names, registration: Registration) -> None:
    """Those of earlier generations: every document was rendered anew, in snapshots that see whatever came
    before the records at which this one began. What it was refused itself stands."""

    def moot(letter: DeadLetter) -> bool:
        if letter.subject.kind == "document":
            return split_version(letter.version)[0] < registration.epoch
        topic, partition, offset = letter.subject.name.rsplit("/", 2)
        if topic in (names.work_topic, names.backfill_topic):
            return False
        return int(offset) < registration.starts.get(topic, {}).get(partition, int(offset) + 1)

    letters = registry.dead_letters(registration.model)
    letters.resolve([one for one in letters.read() if moot(one)])


@contextmanager
def _in_step(
    config: Config,
    model: Model,
    registry: Registry,
    metrics: Metrics,
    names: Names,
    report: Callable[[Progress], None],
) -> Iterator[None]:
    """Take changes. The block runs, while they go on to be taken, once all is settled that was there at the
    beginning, and all that came of it (fan-outs, renders of altered tables): no document is older there.

    Not waited for is a sweep whose time has not come. It looks for what a slow worker may still write to
    this generation, of which nobody can have an older document; the daemon does it after the swap.
    """
    unit = ModelSupervisor(config, model, registry, metrics.for_model(model.name), slot=StateSlot.NEXT)

    def until(waiting: Callable[[], str]) -> None:
        while note := waiting():
            if unit.state == "failed" and (error := unit.failure):
                raise Fatal(f"the resync stopped: {error.what}", where=error.where, why=error.why, hint=error.hint)
            report(Progress("rendering", 0, 0, note))
            time.sleep(_LOOK_EVERY)

    def settled(left: Callable[[], int], what: str) -> None:
        until(lambda: f"{count:,} {what} left to catch up with" if (count := left()) else "")

    changes, queues = registry.changes, (registry.work_queue(names), registry.backfill_queue(names))

    def work_settled() -> None:
        ends = [queue.ends() for queue in queues]
        settled(lambda: sum(queue.left(end) for queue, end in zip(queues, ends, strict=True)), "work items")

    unit.start()
    try:
        ends = changes.ends(names.changes)
        settled(lambda: changes.left(names.group, ends), "changes")
        until(lambda: "" if unit.settled else "checking whether the tables were altered meanwhile")
        for _ in range(2):  # a sweep is settled once it has handed over keys
            work_settled()
        yield
    finally:
        unit.stop()
        unit.join()
