"""Collects the facts of an open read model from which its watermark is computed, and has the watermark published."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from syncer.config.schema import FreshnessSettings
from syncer.freshness.evidence import Evidence
from syncer.freshness.monitor import FreshnessMonitor
from syncer.freshness.outlets import Outlets
from syncer.monitors.wait_status import alive
from syncer.pipeline.lane import Lane
from syncer.ports import GroupSource, Partition
from syncer.runtime.lane_threads import LaneThreads
from syncer.session import ModelSession

_REPORTS_MAX_AGE = 5.0  # seconds

Members = Mapping[str, Sequence[tuple[GroupSource, Lane]]]
"""Kind of lane → all lanes of this kind in this process, each with its source."""


@contextmanager
def measured(
    monitor: FreshnessMonitor | None, settings: FreshnessSettings, session: ModelSession, lanes: LaneThreads
) -> Iterator[None]:
    """Keeps and publishes the watermark of the session within the `with` block. Does nothing without a monitor."""
    if monitor is None:
        yield
        return
    evidence = collect_evidence(session, lanes.members)
    outlets = Outlets(
        settings,
        session.registration,
        session.sinks,
        watermark=lambda: monitor.watermark(session.registration.model),
        is_leader=lanes.is_leader,
        dead_letters=evidence.dead_letters,
    )
    monitor.attach(evidence, outlets)
    try:
        yield
    finally:
        monitor.detach(evidence)
        outlets.close()


def collect_evidence(session: ModelSession, members: Members) -> Evidence:
    """Returns the facts of a session."""
    positions = _Positions(session, members)
    return Evidence(
        session.registry,
        session.registration,
        session.names,
        session.tables,
        session.sinks,
        tokens=lambda: session.durability.tokens,
        reached=positions.reached,
        watch=positions.watch,
        committed=positions.committed,
        dead_letters=lambda: len(session.dead_letters),
        in_place=any(sink.in_place for sink in session.sinks),
        lookup_levels=session.loaded.compiled.lookup_levels,
    )


class _Positions:
    """The offsets that the lanes of this process have reached, and those that other processes have committed."""

    def __init__(self, session: ModelSession, members: Members) -> None:
        names, self._members, self._changes = session.names, members, session.registry.changes
        self._state, self._model = session.registry.state, session.registration.model
        self._look_at, self._others = 0.0, False
        self._kinds = {names.work_topic: "work", names.backfill_topic: "backfill", names.delayed_topic: "delayed"}
        self._groups = {
            "changes": names.group,
            "work": names.work_group,
            "backfill": names.backfill_group,
            "delayed": names.delayed_group,
        }

    def reached(self) -> dict[Partition, int]:
        found: dict[Partition, int] = {}
        for _, lane in (one for lanes in self._members.values() for one in lanes):
            for partition, offset in dict(lane.offsets.reached).items():
                found[partition] = max(offset, found.get(partition, 0))
        return found

    def watch(self, partitions: Collection[Partition]) -> None:
        """Lets lanes commit at once if another process may wait for their commits, else at the interval.

        Another process may have callers, and no partition.
        """
        others = self._has_others()
        for kind, lanes in self._members.items():
            if self._of_kind(kind, partitions):
                shared = others or bool(self._elsewhere(kind, partitions))
                for _, lane in lanes:
                    lane.offsets.shared = shared

    def _has_others(self) -> bool:
        """Returns whether another process runs this read model."""
        if time.monotonic() >= self._look_at:
            now_ms, reports = time.time_ns() // 1_000_000, self._state.load(_REPORTS_MAX_AGE).reports(self._model)
            self._others = sum(alive(report, now_ms) for report in reports) > 1
            self._look_at = time.monotonic() + _REPORTS_MAX_AGE
        return self._others

    def committed(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Returns the offsets that other processes have committed, of those of these partitions that they have."""
        found: dict[Partition, int] = {}
        for kind in self._members:
            if others := self._elsewhere(kind, partitions):
                found |= self._changes.committed(self._groups[kind], others)
        return found

    def _elsewhere(self, kind: str, partitions: Collection[Partition]) -> list[Partition]:
        """Returns those of these partitions that other processes read, or nobody."""
        sources = [source for source, _ in self._members[kind]]
        return [one for one in self._of_kind(kind, partitions) if not any(s.is_assigned(one) for s in sources)]

    def _of_kind(self, kind: str, partitions: Collection[Partition]) -> list[Partition]:
        return [partition for partition in partitions if self._kinds.get(partition[0], "changes") == kind]
