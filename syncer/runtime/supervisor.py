"""Supervises one read model in this process: its lanes, what happens to their errors, what is told of it.

    Retry    the lanes are closed; after a back-off everything is opened again: catalog, compile, checks
    Fatal    the read model stays stopped with its error; other read models and the HTTP server go on
    Stopped  the lanes finish and commit what is under way

So a server that is not up yet, a table that is another and a lost connection all take the same short path.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal, Retry, SyncerError
from syncer.pacing import Stopped
from syncer.pipeline.lane import Lane
from syncer.ports import GroupSource
from syncer.registry.records import StateSlot
from syncer.registry.registry import Registry
from syncer.runtime.lane_observer import LaneObserver
from syncer.runtime.opening import ModelOpener, ModelSession
from syncer.runtime.periodic_checks import LOOK_EVERY, PeriodicChecks
from syncer.telemetry.metrics import ModelMetrics

_TRY_AGAIN = 60.0
_STALLED_AFTER = 300.0
_BACK_OFF = (0.2, 10.0)

log = structlog.get_logger()


class ModelSupervisor:
    """Supervises one read model on a thread of its own.

    work_only: take work items but no changes (`syncer backfill`, which may run beside a daemon), with so many
    workers on the backfill's ranges.
    slot: the generation in force, or the one that a resync builds.
    source: why changes may not come at all; empty when they do.
    late: seconds for which the connector has not delivered what was committed; 0 while it does.
    reader: of the connector's slot.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        registry: Registry,
        metrics: ModelMetrics,
        *,
        work_only: bool = False,
        workers: int = 1,
        slot: StateSlot = StateSlot.ACTIVE,
        source: Callable[[], str] = str,
        late: Callable[[], float] = float,
        reader: Callable[[], object] = lambda: None,
    ) -> None:
        self.config, self.model, self.registry, self.metrics = config, model, registry, metrics
        self.opening = ModelOpener(config, model, registry, metrics, slot=slot)
        self.source, self.late, self.reader, self.workers = source, late, reader, workers
        self.work_only = work_only
        self.state, self.error, self.last_error = "starting", "", ""
        self.failure: SyncerError | None = None
        """What made it wait or fail last."""
        self.outgrown = ""
        self._since = self._progress = time.monotonic()
        self._supervision: PeriodicChecks | None = None
        self.observers: list[LaneObserver] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name=f"{model.name}-unit", daemon=True)

    # -- from outside -------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to stop; `join` waits."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> bool:
        """Whether it has ended within so many seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stalled(self) -> str:
        """Why this is not alive: neither it nor a lane may be silent for minutes. Empty when all is well."""
        after = max(_STALLED_AFTER, 2 * self.config.postgres.statement_timeout)
        if self.state == "running" and self._supervision:
            reasons = [*(observer.stalled(after) for observer in self.observers)]
            reasons.append(self._supervision.stalled(after))
            return next((f"{self.model.name}: {reason}" for reason in reasons if reason), "")
        silent = time.monotonic() - self._progress
        if self._thread.is_alive() and silent > after:
            return f"{self.model.name}: {self.state}, but nobody has answered or refused for {silent:.0f} s"
        return ""

    @property
    def settled(self) -> bool:
        """Whether it runs, and all that follows from altered tables was handed out."""
        return self.state == "running" and self._supervision is not None and self._supervision.settled

    def status(self) -> dict[str, Any]:
        misread = self._supervision.misread if self._supervision else ""
        told = (*(observer.reason for observer in self.observers), self.source(), misread)
        reasons = [reason for reason in told if reason]
        changes = [o for o in self.observers if o.lane == "changes"]
        errors = [o.last_error for o in self.observers if o.last_error]
        return {
            "state": "waiting" if self.state == "running" and reasons else self.state,
            "lag_seconds": round(self._lag_seconds(), 3),
            "lag_records": sum(o.records for o in changes),
            "work_records": sum(o.records for o in self.observers if o.lane != "changes"),
            "reason": self.error or next(iter(reasons), self.outgrown),
            "last_error": self.error or next(iter(errors), self.last_error),
        }

    def _lag_seconds(self) -> float:
        """Of all lanes, of the connector, and the time since it waits or has failed: no lane looks then."""
        if self.state == "stopped":
            return 0.0
        idle = time.monotonic() - self._since if self.state in ("waiting", "failed") else 0.0
        return max(idle, self.late(), *(observer.seconds for observer in self.observers))

    # -- on its thread ------------------------------------------------------------------------------

    def _supervise(self) -> None:
        pause = _BACK_OFF[0]
        while not self._stop.is_set():
            began = self._progress = time.monotonic()
            try:
                with contextlib.ExitStack() as closing:
                    self._run(self.opening.open(closing))
            except Stopped:
                break
            except Retry as error:
                if time.monotonic() - began > 60:
                    pause = _BACK_OFF[0]
                self._tell("waiting", error)
                self._stop.wait(pause)
                pause = min(pause * 2, _BACK_OFF[1])
            except Exception as error:
                # A defect of ours must not take the other read models along; it is told as what it is.
                if not isinstance(error, SyncerError):
                    log.exception("unexpected error", model=self.model.name)
                    hint = "a defect of the syncer: its log has the traceback"
                    error = Fatal("unexpected error", where=self.model.name, why=repr(error), hint=hint)
                self._tell("failed", error)
                if not self._another_try():
                    return
        self._set("stopped")

    def _another_try(self) -> bool:
        """After a failure: wait until a resync has built another generation, or a minute: someone may have
        mended the cause. To try again is safe: offsets have not moved. False when told to stop."""
        failed, opening = time.monotonic(), self.opening
        while not self._stop.wait(LOOK_EVERY):
            self._progress = time.monotonic()
            with contextlib.suppress(Retry):
                if opening.registered() != opening.generation or time.monotonic() - failed > _TRY_AGAIN:
                    return True
        return False

    def _run(self, opened: ModelSession) -> None:
        """Run the lanes until the first of them ends."""
        ended: list[BaseException] = []
        stop = threading.Event()
        settings = self.config.pipeline
        kinds = ["changes"] * settings.change_lanes + ["backfill"] + ["work"] * settings.work_lanes
        if self.work_only:
            kinds = ["backfill"] * self.workers + ["work"]
        self.observers = [LaneObserver(kind, self.metrics) for kind in kinds]
        for observer in self.observers:
            observer.siblings = [other for other in self.observers if other.lane == observer.lane]
        threads, changes = [], list[GroupSource]()
        for observer in self.observers:
            source = opened.source(observer.lane)
            if observer.lane == "changes":
                changes.append(source)
            lane = opened.lane(source, observer, stop, items=observer.lane != "changes")
            name = f"{self.model.name}-{observer.lane}"
            threads.append(threading.Thread(target=_run_lane, args=(lane, ended, stop), name=name))
        # One process is enough to have all rendered again: Kafka chooses it, and another one if it dies.
        first = opened.names.changes[0], 0
        self._supervision = PeriodicChecks(
            opened,
            self.opening,
            self.metrics,
            stop=self._stop,
            ended=stop,
            is_leader=lambda: any(source.is_assigned(first) for source in changes),
            reader=self.reader,
        )
        for thread in threads:
            thread.start()
        self.error, self.outgrown = "", opened.outgrown
        self._set("running")
        try:
            self._supervision.run()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            self._supervision.close()
        errors = [error for error in ended if not isinstance(error, Stopped)]
        errors.sort(key=lambda error: not isinstance(error, Fatal))
        if errors:
            raise errors[0]
        with contextlib.suppress(Retry):
            opened.note_clock()
        raise Stopped

    def _set(self, state: str) -> None:
        if state != self.state:
            self._since = time.monotonic()
            if state == "running":
                log.info("running", model=self.model.name, after=self.state)
        self.state = state
        self.export()

    def export(self) -> None:
        """State and lag as metrics."""
        told = self.status()
        self.metrics.state(told["state"])
        if not self.work_only:
            self.metrics.lag_seconds(told["lag_seconds"])

    def _tell(self, state: str, error: SyncerError) -> None:
        if str(error) != self.error or state == "failed":
            say = log.error if state == "failed" else log.warning
            more = {"tried_again_after_s": _TRY_AGAIN} if state == "failed" else {}
            say(state, model=self.model.name, error=error, **more)
        self.failure = error
        self.error = self.last_error = str(error)
        self.metrics.error("fatal" if state == "failed" else "retry")
        self._set(state)


def _run_lane(lane: Lane, ended: list[BaseException], stop: threading.Event) -> None:
    """A lane's thread. What ends one lane ends its siblings: they share sinks and clock."""
    try:
        lane.run()
    except BaseException as error:
        ended.append(error)
    finally:
        stop.set()
