"""Reads the status of read models from Kafka: whether they run, how far they are behind, and why they stopped.

It contacts no daemon, so it also works while none runs. `GET /status` of a daemon has more details about that daemon.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from syncer.errors import Reject
from syncer.events import TableName, WorkItem
from syncer.monitors.canary_probe import undelivered
from syncer.monitors.model_progress import items_left, percent, resync, verified
from syncer.monitors.rerender import left
from syncer.monitors.wait_status import alive, combine_reports
from syncer.operations.model_status import ModelStatus, PendingWork
from syncer.pipeline import decode
from syncer.ports import PublishedWatermark
from syncer.quantities import counted
from syncer.registry.names import Names
from syncer.registry.records import BackfillRun, Outgrown, ProcessReport, Registration, Rerender
from syncer.registry.registry import Registry
from syncer.registry.state import StateSnapshot

_ITEMS = 200
"""Work items that are read per partition. Further items are counted as the kind of the last one."""
_SILENT_MS = 20_000
"""A daemon renews its state every 15 s. After this time without renewal it counts as killed."""


def status(
    registry: Registry,
    tables: Mapping[str, Collection[TableName]],
    *,
    source: str = "",
    readers: Mapping[str, str] | None = None,
    watermarks: Mapping[str, PublishedWatermark] | None = None,
) -> list[ModelStatus]:
    """Returns the status of each read model in `tables`.

    tables: read model → its tables.
    source: why no changes reach Kafka; empty if they do.
    readers: read model → the problem, if its readers use another index.
    watermarks: read model → the watermark that its sinks publish, if it is known.
    Raises Retry if Kafka is unreachable.
    """
    values = registry.state.load()
    late = undelivered(registry, values)
    return [
        _Reading(registry, model, own, values, (watermarks or {}).get(model)).status(
            source, late, (readers or {}).get(model, "")
        )
        for model, own in tables.items()
    ]


class _Reading:
    """Reads the status of one read model."""

    def __init__(
        self,
        registry: Registry,
        model: str,
        tables: Collection[TableName],
        values: StateSnapshot,
        watermark: PublishedWatermark | None,
    ) -> None:
        self.registry, self.changes, self.watermark = registry, registry.changes, watermark
        self.model, self.tables, self.values = model, tables, values
        self.now_ms = time.time_ns() // 1_000_000
        self.said = values.reports(model)

    def status(self, source: str, late: float, readers: str) -> ModelStatus:
        known = self.values.registration(self.model)
        state, reasons = combine_reports(self.said, self.now_ms)
        processes = [self._process(one) for one in self.said]
        if not known:
            why = [*reasons, source] if state and source else reasons
            error = why[0] if state == "failed" else ""
            reason = next(iter(why), "")
            return ModelStatus(
                self.model, state or "new", last_error=error, reason=reason, reasons=why, processes=processes
            )
        names = self.registry.names(self.model, self.tables, known.generation)
        # A declaration can name a table in several spellings. The registration has the topics of the resolved tables.
        names = replace(names, changes=tuple(known.starts))
        members = self.changes.members(names.group)
        if state == "running" and not members and (killed := self._killed()):
            state, reasons = "stopped", [*killed, *reasons]
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
            self._staleness(),
            self.watermark and _json(self.watermark),
            work_records,
            work,
            _backfill_state(run),
            percent(run, items_left(self.registry, known.id, run)) if run and not run.finished_ms else None,
            resync(self.registry, self.values, self.model, self.now_ms),
            self._open_dead_letters(),
            known.epoch,
            known.generation,
            error,
            next(iter(reasons), ""),
            self._refresh(names, known),
            reasons,
            processes,
            verified(self.values, known.id, self.now_ms / 1000),
        )

    def _refresh(self, names: Names, known: Registration) -> str:
        noted = self.values.get(Rerender.key(known.id))
        if not noted or not (items := left(self.registry, names, noted)):
            return ""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(noted.at_ms / 1000))
        return f"all documents are rendered again since {since}, {counted(items, 'work item')} left: {noted.why}"

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

    def _killed(self) -> list[str]:
        """Returns daemons that reported `running`, but have no consumer in Kafka and no longer renew their state."""
        return [
            f"{one.process} was killed or cannot reach Kafka: it has no consumers"
            for one in self.said
            if alive(one, self.now_ms) and one.state == "running" and self.now_ms - one.at_ms > _SILENT_MS
        ]

    def _lag(self, state: str, records: int, since: list[int], late: float) -> float | None:
        if state in ("new", "stopped"):
            return None
        age = max([late, *((self.now_ms - one) / 1000 for one in since), 0.0])
        # Age 0 means no lag only if the read model runs and no record waits. Otherwise the age is unknown.
        return age if age or (state == "running" and not records) else None

    def _staleness(self) -> float | None:
        """Returns the seconds since the published watermark, by the clock of this host. None without a watermark."""
        return self.watermark and max(0.0, round((self.now_ms - self.watermark.taken_ms) / 1000, 3))

    def _changes(self, names: Names, registered_ms: int) -> tuple[int, int]:
        """Returns the number of waiting records, and the commit time of the oldest one in ms; 0 if it is unknown.

        Changes from before the registration count from then: the backfill includes them.
        """
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

    def _work(self, names: Names) -> tuple[int, tuple[PendingWork, ...], int]:
        """Returns the number of waiting work items, the items by kind, and the commit time of the oldest cause in ms.

        The commit time is 0 if no change caused an item.
        """
        queues = self.registry.queues(names)
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
            if kind and len(partition.first) == _ITEMS:  # further items are usually of the same kind
                kinds[kind] += partition.records - len(partition.first)
        work = tuple(PendingWork(kind, why, count, due) for (kind, why, due), count in sorted(kinds.items()))
        return sum(partition.records for partition in backlog), work, min(caused, default=0)

    def _open_dead_letters(self) -> int:
        letters = self.registry.dead_letters(self.model).open()
        letters.refresh()
        return len(letters)


def _json(watermark: PublishedWatermark) -> dict[str, Any]:
    return {
        "taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(watermark.taken_ms / 1000)),
        "clock": watermark.clock,
        "generation": watermark.generation,
        "lsn": watermark.lsn,
    }


def _item(position: Any, value: bytes | None) -> WorkItem | None:
    try:
        return decode.work(position, value, None)
    except Reject:
        return None


def _backfill_state(run: BackfillRun | None) -> str:
    if not run:
        return "never"
    if not run.finished_ms:
        return "unfinished"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.finished_ms / 1000))
