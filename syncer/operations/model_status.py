"""Defines the status of a read model as values. `operations/status.py` reads them from Kafka."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from syncer.monitors.model_progress import Resync, Verified


@dataclass(frozen=True, slots=True)
class PendingWork:
    """Counts waiting work items of one kind and reason."""

    kind: str
    """`keys`, `range` or `sweep`."""
    reason: str
    items: int
    due_in_seconds: int = 0
    """Seconds until a sweep may run; 0 for items that are due."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Describes one read model. Lags count changes until all sinks acknowledged them and the offsets are committed."""

    model: str
    state: str = "new"
    """`new` (never run), `starting`, `running`, `waiting` (continues by itself once its reason is fixed), `stopped` or
    `failed`. It is `running` if at least one daemon delivers."""
    members: int = 0
    """Number of consumers in the group for changes."""
    lag_records: int = 0
    lag_seconds: float | None = None
    """Age of the oldest change that is not in every sink: a change event, the cause of a work item, or a message that
    the connector has not delivered. None if it is unknown, and for a new or stopped read model."""
    staleness_seconds: float | None = None
    """The greatest age that a document can have: the time since the published watermark. None if there is none."""
    watermark: dict[str, Any] | None = None
    """The published watermark: taken_at, clock, generation, lsn. The lowest one of the sinks."""
    work_records: int = 0
    """Number of waiting work items: backfill ranges, large fan-outs, sweeps."""
    work: tuple[PendingWork, ...] = ()
    """The work items by kind and reason."""
    backfill: str = "never"
    """`never`, `unfinished`, or the time at which it finished (UTC)."""
    backfill_percent: int | None = None
    """Progress of an unfinished backfill."""
    resync: Resync | None = None
    dead_letters: int = 0
    """Number of rejected documents and records."""
    epoch: int = 0
    generation: int = 0
    last_error: str = ""
    """The error that stopped it; empty once it runs again."""
    reason: str = ""
    """Why it waits, failed or receives no changes. For a running read model: why it needs a resync."""
    refresh: str = ""
    """Why all documents are being re-rendered, with the progress; empty if they are not."""
    reasons: list[str] = field(default_factory=list)
    """`reason` and further problems: other daemons that fail or were killed, readers that use another index."""
    processes: list[dict[str, Any]] = field(default_factory=list)
    """The state that each daemon reported."""
    verified: Verified | None = None
    """The last `syncer verify` of this generation; None if there was none."""

    @property
    def healthy(self) -> bool:
        """Whether all documents are written and kept in sync, as far as is known."""
        done = self.backfill not in ("never", "unfinished")
        return self.state == "running" and done and not self.reasons and not self.dead_letters
