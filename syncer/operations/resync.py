"""Rebuilds a read model under a new epoch, while readers use the current generation.

A resync is needed if the documents or their versions can no longer be trusted: the declaration changed, Kafka deleted
records before they were processed, or PostgreSQL was replaced. The next generation has its own consumer group, starting
offsets and, in Elasticsearch, index. The resync fills it, applies all changes up to then, and then switches readers to
it. It announces the switch before, so that `freshness/generations.py` does not report a document as fresh that readers
no longer see.

Until then, daemons continue with the current generation. They move to the new one within seconds after the switch.
Sinks that write in place (Redis) cannot hold two generations. They reject the writes of daemons as soon as the new
epoch starts to write. The daemons continue after the resync. An interrupted resync does not switch readers. The next
one starts from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from syncer.clock import split_version
from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.monitors.delivery import require_slot
from syncer.operations.backfill import Backfill, Progress
from syncer.operations.catch_up import caught_up
from syncer.operations.switch_readers import switch_readers
from syncer.ports import DeadLetter
from syncer.registry import loader
from syncer.registry.names import Names
from syncer.registry.records import BackfillRun, Registration, StateSlot
from syncer.registry.registry import Registry, superseded
from syncer.telemetry.metrics import Metrics


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
    active = registry.registered(model.name)
    with caught_up(config, model, registry, metrics, names, report) as catch_up:
        if active:
            _announce_swap(registry, active, registration, catch_up)
        sinks = loader.build_sinks(config, loaded, epoch=epoch, generation=generation, built=True)
        try:
            obsolete += switch_readers(sinks, report)
        finally:
            for sink in sinks:
                sink.close()
    registry.adopt(registration)
    active = registry.registered(model.name)
    if active and active.generation > registration.generation:
        raise superseded(model.name)
    _resolve_dead_letters(registry, names, registration)
    return ResyncResult(run, obsolete, rejected)


def _announce_swap(
    registry: Registry, active: Registration, registration: Registration, catch_up: Callable[[], None]
) -> None:
    """Announces the switch, then waits until the next generation has everything that a caller may rely on.

    That is: the changes for which a caller of `wait` was released, and the documents that were refreshed
    (`freshness/generations.py`). Both happened before the announcement. So a reader who has seen them in the active
    generation does not lose them in the next one.
    """
    registry.announce_swap(active, registration)
    try:
        catch_up()
    except BaseException:
        registry.withdraw_swap(registration)
        raise


def _resolve_dead_letters(registry: Registry, names: Names, registration: Registration) -> None:
    """Resolves the dead letters of earlier generations.

    Every document was rendered again, in snapshots that include all changes from before the generation's starting
    offsets. Dead letters of the new generation itself stay open.
    """

    def is_obsolete(letter: DeadLetter) -> bool:
        if letter.subject.kind == "document":
            return split_version(letter.version)[0] < registration.epoch
        topic, partition, offset = letter.subject.name.rsplit("/", 2)
        if topic in names.work_topics:
            return False
        return int(offset) < registration.starts.get(topic, {}).get(partition, int(offset) + 1)

    letters = registry.dead_letters(registration.model)
    letters.resolve([one for one in letters.read() if is_obsolete(one)])
