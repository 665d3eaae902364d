"""Tests which lanes each role runs."""

from __future__ import annotations

from syncer.registry.records import StateSlot
from syncer.runtime.role import DAEMON, RESYNC_BUILDER, backfill_worker


def test_a_daemon_and_a_resync_run_all_kinds_of_lanes() -> None:
    for role in (DAEMON, RESYNC_BUILDER):
        lanes = role.lanes(change_lanes=2, work_lanes=3)
        assert lanes == ["changes", "changes", "backfill", "work", "work", "work", "delayed"]
    assert (RESYNC_BUILDER.slot, DAEMON.slot) == (StateSlot.NEXT, StateSlot.ACTIVE)


def test_a_backfill_worker_takes_no_changes() -> None:
    role = backfill_worker(2, StateSlot.NEXT)
    assert role.lanes(change_lanes=2, work_lanes=3) == ["backfill", "backfill", "work"]
    assert role.slot is StateSlot.NEXT and not role.takes_changes
