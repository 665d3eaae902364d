"""Status, as told from Kafka: whether a read model runs, how far behind it is, what stopped it.

It asks no daemon, so it answers also when that is gone. `GET /status` of a daemon tells more of that one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from syncer.errors import Reject
from syncer.events import TableName, WorkItem
from syncer.monitors.canary_probe import undelivered
from syncer.monitors.rerender import left
from syncer.monitors.wait_status import alive, tell
from syncer.pipeline import decode
from syncer.registry.names import Names
from syncer.registry.records import BackfillRun, Outgrown, ProcessReport, Registration, Rerender, StateSlot
from syncer.registry.registry import Registry
from syncer.registry.state import StateSnapshot

_ITEMS = 200  # work items that are read of a partition
_SILENT_MS = 20_000
_PLANS_WITHIN_MS = 600_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work items that wait."""

    kind: str
    """`keys`, `range` or `sweep`."""
    reason: str
    items: int
    due_in_seconds: int = 0
    """Of a sweep whose time has not come."""


@dataclass(frozen=True, slots=True)
class Resync:
    """A generation that is being built beside the one that is read."""

    generation: int
    percent: int | None
    """Of its documents; None while it is planned."""
    running: bool
    """False: it was interrupted."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One read model. Lags are of what no sink has acknowledged yet (as of the last commit of offsets)."""

    model: str
    state: str = "new"
    """`new` (never run), `starting`, `running`, `waiting` (it goes on by itself once its reason is mended),
    `stopped`, `failed`. `running` if one daemon delivers, whatever the others do."""
    members: int = 0
    """Consumers that take changes now."""
    lag_records: int = 0
    lag_seconds: float | None = None
    """Age of the oldest change that is not in every sink: of a change event, of a work item's cause, or of a
    message that the connector did not deliver. None if it is not known, and for a new or stopped one."""
    work_records: int = 0
    """Work items waiting: backfill ranges, large fan-outs, sweeps."""
    work: tuple[Waiting, ...] = ()
    """The same by kind and reason."""
    backfill: str = "never"
    """`never`, `unfinished`, or when it was finished (UTC)."""
    backfill_percent: int | None = None
    """Of an unfinished one."""
    resync: Resync | None = None
    dead_letters: int = 0
    """Documents and records that are refused."""
    epoch: int = 0
    generation: int = 0
    last_error: str = ""
    """What stopped it; empty once it runs again."""
    reason: str = ""
    """Why it waits, failed, or is not told of changes; of one that runs, why a resync is due."""
    refresh: str = ""
    """Why all its documents are being rendered again, and how far that is; empty when they are not."""
    reasons: list[str] = field(default_factory=list)
    """The same, and what else is wrong: other daemons that fail or were killed, readers of another index."""
    processes: list[dict[str, Any]] = field(default_factory=list)
    """The daemons that have it, as each says."""

    @property
    def well(self) -> bool:
        """Whether documents are whole and kept in sync, as far as is known."""
        done = self.backfill not in ("never", "unfinished")
        return self.state == "running" and done and not self.reasons and not self.dead_letters


def status(
    registry: Registry,
    tables: Mapping[str, Collection[TableName]],
    *,
    source: str = "",
    readers: Mapping[str, str] | None = None,
) -> list[ModelStatus]:
    """tables: read model → its tables, for those to be told of. source: why changes do not come at all; empty
    when they do. readers: read model → which other index its readers see. Raises Retry when Kafka is away."""
    values = registry.state.load()
    late = undelivered(registry, values)
    return [
        _Reading(registry, model, own, values).status(source, late, (readers or {}).get(model, ""))
        for model, own in tables.items()
    ]


class _Reading:
    """Of one read model."""

    def __init__(
        self,
        registry: Registry,
        model: str,
        tables: Collection[TableName],
        values: StateSnapshot,
    ) -> None:
        self.registry, self.changes = registry, registry.changes
        self.model, self.tables, self.values = model, tables, values
        self.now_ms = time.time_ns() // 1_000_000
        self.said = values.reports(model)

    def status(self, source: str, late: float, readers: str) -> ModelStatus:
        known = self.values.registration(self.model)
        state, reasons = tell(self.said, self.now_ms)
        processes = [self._process(one) for one in self.said]
        if not known:
            why = [*reasons, source] if state and source else reasons
            error = why[0] if state == "failed" else ""
            reason = next(iter(why), "")
            return ModelStatus(
                self.model, state or "new", last_error=error, reason=reason, reasons=why, processes=processes
            )
        names = self.registry.names(self.model, self.tables, known.generation)
        # `tables` has every spelling that could be meant; the registration has the topics of those that were.
        names = replace(names, changes=tuple(known.starts))
        members = self.changes.members(names.group)
        if state == "running" and not members and (gone := self._gone()):
            state, reasons = "stopped", [*gone, *reasons]
        state = state or ("running" if members else "stopped")
        error = reasons[0] if state == "failed" else ""
        if state == "running" and source:
            state, reasons = "waiting", [source, *reasons]
        elif source:
            reasons = [*reasons, source]
        if readers:
            reasons = [*reasons, readers]
            state = "waiting" if state == "running" else state
        outgrown = self.values.get(Outgrown.key(known.id))
        if outgrown and (due := outgrown.describe(self.model)) not in reasons:
            reasons = [*reasons, due]
        records, changed = self._changes(names, known.registered_ms)
        work_records, work, caused = self._work(names)
        run = self.values.get(BackfillRun.key(known.id))
        return ModelStatus(
            self.model,
            state,
            members,
            records,
            self._lag(state, records, [since for since in (changed, caused) if since], late),
            work_records,
            work,
            _told(run),
            self._percent(names, run) if run and not run.finished_ms else None,
            self._resync(),
            self._open_letters(),
            known.epoch,
            known.generation,
            error,
            next(iter(reasons), ""),
            self._refresh(names, known),
            reasons,
            processes,
        )

    def _refresh(self, names: Names, known: Registration) -> str:
        noted = self.values.get(Rerender.key(known.id))
        if not noted or not (items := left(self.registry, names, noted)):
            return ""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(noted.at_ms / 1000))
        return f"all documents are rendered again since {since}, {items} work items left: {noted.why}"

    def _process(self, one: ProcessReport) -> dict[str, Any]:
        return {
            "host": one.process.host,
            "pid": one.process.pid,
            "id": one.process.id,
            "state": one.state,
            "alive": alive(one, self.now_ms),
            "reason": one.reason,
            "seconds_ago": round((self.now_ms - one.at_ms) / 1000, 1),
        }

    def _gone(self) -> list[str]:
        """Daemons that said to run, though Kafka has no consumer of theirs, and that have not renewed that
        since: one that lives does so every 15 s."""
        return [
            f"{one.process} was killed, or cannot reach Kafka: its consumers are gone"
            for one in self.said
            if alive(one, self.now_ms) and one.state == "running" and self.now_ms - one.at_ms > _SILENT_MS
        ]

    def _lag(self, state: str, records: int, since: list[int], late: float) -> float | None:
        if state in ("new", "stopped"):
            return None
        age = max([late, *((self.now_ms - one) / 1000 for one in since), 0.0])
        # None waits, and none comes, or what waits has no age: that is not to be in sync.
        return age if age or (state == "running" and not records) else None

    def _changes(self, names: Names, registered_ms: int) -> tuple[int, int]:
        """Records waiting, and when the oldest of them was committed; 0 if that is not known. What was
        committed before the read model began is its backfill's."""
        backlog = self.changes.backlog(names.group, names.changes)
        committed = []
        for record in (partition.first[0] for partition in backlog if partition.first):
            try:
                change = decode.change(record.position, record.value)
            except Reject:
                continue
            if change and change.committed_ms:
                committed.append(max(change.committed_ms, registered_ms))
        return sum(partition.records for partition in backlog), min(committed, default=0)

    def _work(self, names: Names) -> tuple[int, tuple[Waiting, ...], int]:
        """Items waiting, all and by kind; and the commit time of the oldest change that caused one, 0 if no
        change did."""
        queues = self.registry.work_queue(names), self.registry.backfill_queue(names)
        backlog = [partition for queue in queues for partition in queue.backlog(_ITEMS)]
        kinds, caused = Counter[tuple[str, str, int]](), list[int]()
        for partition in backlog:
            kind: tuple[str, str, int] | None = None
            for record in partition.first:
                item = _item(record.position, record.value)
                if item is None:
                    continue
                wait_s = max(0, round((item.not_before_ms - self.now_ms) / 1000))
                kind = item.kind, item.reason, wait_s
                kinds[kind] += 1
                if item.committed_ms and not wait_s:
                    caused.append(item.committed_ms)
            if kind and len(partition.first) == _ITEMS:  # the rest is most often of the same
                kinds[kind] += partition.records - len(partition.first)
        work = tuple(Waiting(kind, why, count, due) for (kind, why, due), count in sorted(kinds.items()))
        return sum(partition.records for partition in backlog), work, min(caused, default=0)

    def _percent(self, names: Names, run: BackfillRun) -> int:
        """How much of a backfill is done."""
        left = self.registry.backfill_queue(names).left(run.ends, run.begins)
        return int(100 * (run.records - left) // max(run.records, 1))

    def _resync(self) -> Resync | None:
        building = self.values.registration(self.model, StateSlot.NEXT)
        if not building:
            return None
        names = self.registry.names(self.model, self.tables, building.generation)
        run = self.values.get(BackfillRun.key(building.id))
        planning = run is None and self.now_ms - building.registered_ms < _PLANS_WITHIN_MS
        workers = self.registry.backfill_queue(names).members
        running = planning or bool(workers() or self.changes.members(names.group))
        return Resync(building.generation, self._percent(names, run) if run else None, running)

    def _open_letters(self) -> int:
        letters = self.registry.dead_letters(self.model).open()
        letters.refresh()
        return len(letters)


def _item(position: Any, value: bytes | None) -> WorkItem | None:
    try:
        return decode.work(position, value, None)
    except Reject:
        return None


def _told(run: BackfillRun | None) -> str:
    if not run:
        return "never"
    if not run.finished_ms:
        return "unfinished"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.finished_ms / 1000))
