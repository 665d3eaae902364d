"""Reads how far the long operations of each read model are: backfill, resync, a render of all documents, verify.

Commands and other daemons do this work. So its progress is in Kafka, in the state topic and in the offsets of the work
queues. The daemon reads it in a separate thread, because the page must be served from memory.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from syncer.errors import SyncerError
from syncer.monitors.background import BackgroundThread
from syncer.monitors.rerender import left as rerenders_left
from syncer.monitors.wait_status import alive
from syncer.registry.records import (
    BackfillRun,
    BuildReport,
    Generation,
    Registration,
    Rerender,
    StateSlot,
    Verification,
)
from syncer.registry.registry import Registry
from syncer.registry.state import StateSnapshot

_EVERY = 5.0  # seconds
_PLANNING_MS, _ALIVE_MS = 600_000, 45_000
"""A resync counts as interrupted if it has reported nothing for this time. The first holds before its backfill begins,
the second after that: the process renews its record in the state topic."""
_RATE_OVER = 60.0
"""Seconds over which the speed of a backfill is measured."""
VERIFIED_FOR = 86_400.0
"""Seconds after which a verification counts as old."""


@dataclass(frozen=True, slots=True)
class Resync:
    """Describes a generation that is being built while readers use the current one."""

    generation: int
    percent: int | None
    """Share of documents or partials that are rendered; None while the ranges are planned."""
    running: bool
    """False if the resync was interrupted."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Describes the last `syncer verify` of the active generation."""

    state: str
    """`verified`; `old`, if it is older than a day; `different`, if it found differences."""
    at: float
    """When it began, seconds since the Unix epoch."""
    documents: int
    differences: int


def verified(values: StateSnapshot, generation: Generation, now: float) -> Verified | None:
    """Returns the last verification of a generation. None if there was none. now: seconds since the Unix epoch."""
    found = values.get(Verification.key(generation))
    if found is None:
        return None
    at = found.started_ms / 1000
    state = "different" if found.differences else "old" if now - at > VERIFIED_FOR else "verified"
    return Verified(state, at, found.documents, found.differences)


def items_left(registry: Registry, generation: Generation, run: BackfillRun) -> int:
    """Returns how many ranges of a backfill are not finished. Raises Retry if Kafka is unreachable."""
    names = registry.names(generation.model, (), generation.number)
    return registry.backfill_queue(names).left(run.ends, run.begins)


def percent(run: BackfillRun, left: int) -> int:
    """Returns how much of a backfill is done. left: its ranges that are not finished."""
    return int(100 * (run.records - left) // max(run.records, 1))


def resync(registry: Registry, values: StateSnapshot, model: str, now_ms: int) -> Resync | None:
    """Returns the generation that is being built; None if there is none. Raises Retry if Kafka is unreachable."""
    building = values.registration(model, StateSlot.NEXT)
    if not building:
        return None
    run = values.get(BackfillRun.key(building.id))
    share = percent(run, items_left(registry, building.id, run)) if run else None
    return Resync(building.generation, share, is_built(values, building, now_ms))


def is_built(values: StateSnapshot, building: Registration, now_ms: int) -> bool:
    """Returns whether a process works on a generation that a resync builds. Asks no server."""
    run, said = values.get(BackfillRun.key(building.id)), values.get(BuildReport.key(building.id))
    last = max(run.started_ms, run.finished_ms) if run else building.registered_ms
    return now_ms - max(last, said.at_ms if said else 0) < (_ALIVE_MS if run else _PLANNING_MS)


class ProgressMonitor(BackgroundThread):
    """Reads the progress of all read models of a daemon, on a thread of its own."""

    def __init__(self, registry: Registry, models: Collection[str]) -> None:
        super().__init__("progress-monitor")
        self._registry = registry
        self._found: dict[str, dict[str, Any]] = {model: {} for model in models}
        self._left: dict[tuple[Generation, str], deque[tuple[float, int]]] = {}
        """By run of a backfill: the items that were left during the last minute."""
        self._rerendered: dict[str, Rerender] = {}
        """By read model: the last full render without items left. Kafka need not be asked for it again."""

    def of(self, model: str) -> dict[str, Any]:
        """Returns the progress of one read model as JSON values. Empty until Kafka has answered. From memory."""
        return self._found.get(model, {})

    def _run(self) -> None:
        while not self._stop.is_set():
            for model in self._found:
                with contextlib.suppress(SyncerError):  # Kafka is unreachable: the lanes report it
                    self._found[model] = self._read(model, self._registry.state.load(_EVERY))
            self._stop.wait(_EVERY)

    def _read(self, model: str, values: StateSnapshot) -> dict[str, Any]:
        now = time.time()
        known = values.registration(model)
        found = verified(values, known.id, now) if known else None
        return {
            "generation": known.generation if known else 0,
            "backfill": self._backfill(values, known),
            "resync": self._resync(values, model, int(now * 1000)),
            "refresh": self._refresh(values, known),
            "verification": asdict(found) if found else None,
            "daemons": sum(alive(one, int(now * 1000)) for one in values.reports(model)),
        }

    def _resync(self, values: StateSnapshot, model: str, now_ms: int) -> dict[str, Any] | None:
        built = resync(self._registry, values, model, now_ms)
        if built is None:
            return None
        generation = Generation(model, built.generation)
        run = values.get(BackfillRun.key(generation))
        left = items_left(self._registry, generation, run) if run else 0
        return {**asdict(built), "seconds_left": self._seconds_left(generation, run, left)}

    def _backfill(self, values: StateSnapshot, known: Registration | None) -> dict[str, Any]:
        run = values.get(BackfillRun.key(known.id)) if known else None
        if run is None or known is None:
            return {"state": "never"}
        if run.finished_ms:
            return {"state": "done", f"{run.unit}s": run.roots, "at": run.finished_ms / 1000}
        left = items_left(self._registry, known.id, run)
        return {
            "state": "unfinished",
            f"{run.unit}s": run.roots,
            "at": run.started_ms / 1000,
            "percent": percent(run, left),
            "seconds_left": self._seconds_left(known.id, run, left),
        }

    def _refresh(self, values: StateSnapshot, known: Registration | None) -> dict[str, Any] | None:
        saved = values.get(Rerender.key(known.id)) if known else None
        if known is None or saved is None or self._rerendered.get(known.model) == saved:
            return None
        left = rerenders_left(self._registry, self._registry.names(known.model, (), known.generation), saved)
        if not left:
            self._rerendered[known.model] = saved
        return {"why": saved.why, "at": saved.at_ms / 1000, "items_left": left} if left else None

    def _seconds_left(self, generation: Generation, run: BackfillRun | None, left: int) -> float | None:
        if run is None:
            return None
        values, now = self._left.setdefault((generation, run.run), deque()), time.monotonic()
        values.append((now, left))
        while values[0][0] < now - _RATE_OVER:
            values.popleft()
        return time_left(values)


def time_left(values: Sequence[tuple[float, int]]) -> float | None:
    """Returns the seconds until no items are left; None while nothing moves.

    values: a time in seconds and the number of items left then, oldest first. The last one is now.
    """
    (began, before), (now, left) = values[0], values[-1]
    done = before - left
    return round(left * (now - began) / done, 1) if done > 0 else None
