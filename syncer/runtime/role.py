"""The roles of a `ModelSupervisor`: the daemon, a worker of `syncer backfill`, the builder of a resync."""

from __future__ import annotations

from dataclasses import dataclass

from syncer.registry.records import StateSlot


@dataclass(frozen=True, slots=True)
class Role:
    """The part of a read model's work that one supervisor does.

    takes_changes: whether it consumes change events. Without them it takes work items only.
    slot: whether it works on the active generation, or on the one that a resync builds.
    backfill_lanes: number of lanes that render backfill ranges.
    """

    takes_changes: bool = True
    slot: StateSlot = StateSlot.ACTIVE
    backfill_lanes: int = 1

    def lanes(self, *, change_lanes: int, work_lanes: int) -> list[str]:
        """Returns the kind of each lane to run: `changes`, `backfill`, `work` or `delayed`.

        change_lanes, work_lanes: number of lanes in a daemon. A role without changes needs one work lane: it
        renders the few items that its own ranges cause.
        """
        if self.takes_changes:
            return ["changes"] * change_lanes + ["backfill"] * self.backfill_lanes + ["work"] * work_lanes + ["delayed"]
        return ["backfill"] * self.backfill_lanes + ["work"]


DAEMON = Role()
RESYNC_BUILDER = Role(slot=StateSlot.NEXT)
"""Applies changes to the generation that a resync builds, until readers can switch to it."""


def backfill_worker(lanes: int, slot: StateSlot) -> Role:
    """Returns the role of `syncer backfill`, which may run alongside a daemon."""
    return Role(takes_changes=False, slot=slot, backfill_lanes=lanes)
