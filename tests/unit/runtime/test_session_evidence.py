"""Which partitions count as those of other processes, and what follows for the lanes of this one."""

from __future__ import annotations

import time
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest

from syncer.pipeline.offsets import Offsets
from syncer.ports import Partition
from syncer.registry.names import Names
from syncer.registry.records import Generation
from syncer.runtime.session_evidence import collect_evidence

OWN, OTHER, WORK = ("orders", 0), ("orders", 1), ("work", 0)


class Member:
    """A lane and its source."""

    def __init__(self, *assigned: Partition) -> None:
        self.offsets, self.assigned = Offsets(1.0), set(assigned)

    def is_assigned(self, partition: Partition) -> bool:
        return partition in self.assigned


class Reports:
    """The state topic: the reports of this number of daemons."""

    def __init__(self, living: int) -> None:
        self.living = living

    def load(self, max_age: float) -> Any:
        now_ms = time.time_ns() // 1_000_000
        return SimpleNamespace(reports=lambda model: [SimpleNamespace(at_ms=now_ms)] * self.living)


@pytest.mark.parametrize("daemons", [1, 2])
def test_lanes_commit_at_once_only_while_another_process_runs_the_read_model(daemons: int) -> None:
    """A process without any partition also serves callers who wait."""
    asked: list[tuple[str, list[Partition]]] = []

    def committed(group: str, partitions: Collection[Partition]) -> dict[Partition, int]:
        asked.append((group, list(partitions)))
        return dict.fromkeys(partitions, 9)

    changes, work = Member(OWN), Member(WORK)
    names = Names(("orders",), "g", "work", "work", "ranges", "ranges", "delayed", "delayed", "dlq")
    session: Any = SimpleNamespace(
        names=names,
        registration=SimpleNamespace(model="orders", id=Generation("orders", 1)),
        registry=SimpleNamespace(changes=SimpleNamespace(committed=committed), state=Reports(daemons)),
        tables=None,
        sinks=[],
        loaded=SimpleNamespace(compiled=SimpleNamespace(lookup_levels=1)),
    )
    members: Any = {"changes": [(changes, changes)], "work": [(work, work)]}
    evidence = collect_evidence(session, members)

    def shared() -> list[bool]:
        return [changes.offsets.shared, work.offsets.shared]

    assert shared() == [True, True], "as long as nothing is known"
    evidence.acknowledged({WORK: 0})
    assert shared() == [True, daemons > 1]
    evidence.acknowledged({OWN: 0, OTHER: 0})
    assert shared() == [True, daemons > 1], "another process has the other partition"
    changes.assigned.add(OTHER)
    evidence.acknowledged({OWN: 0, OTHER: 0})
    assert shared() == [daemons > 1] * 2
    assert asked == []
