"""Supervises one read model in this process: runs its lanes, handles their errors, reports its state.

    Retry    The supervisor closes the lanes. After a back-off it opens everything again: catalog, compile, checks.
    Fatal    The read model stays stopped with its error. Other read models and the HTTP server continue.
    Stopped  The lanes finish and commit the work in progress. An opening ends after its current step.

So an unreachable server, an altered table and a lost connection all take the same short path.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import structlog

from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import ARROW, Fatal, LaterEpoch, Retry, SyncerError
from syncer.freshness.monitor import FreshnessMonitor
from syncer.freshness.switching import find_switch
from syncer.monitors.source_monitor import SourceHealth, Unmonitored
from syncer.pacing import BackOff, Stopped, Waiter
from syncer.registry.records import StateSlot
from syncer.registry.registry import Registry
from syncer.runtime.heartbeats import STALLED_AFTER, Heartbeats
from syncer.runtime.lane_observer import LaneObserver
from syncer.runtime.lane_threads import LaneThreads
from syncer.runtime.opening import ModelOpener
from syncer.runtime.ordered_logs import OrderedLogs
from syncer.runtime.periodic_checks import CHECK_EVERY, PeriodicChecks
from syncer.runtime.refreshing import RefreshService
from syncer.runtime.role import DAEMON, Role
from syncer.runtime.session_evidence import measured
from syncer.session import ModelSession
from syncer.telemetry.metrics import ModelMetrics

_RETRY_FAILED_AFTER = 60.0  # seconds
_BACK_OFF = (0.2, 10.0)
_STABLE_AFTER = 60.0  # seconds: an error after that starts with the shortest back-off again

log = structlog.get_logger()


def stall_limit(config: Config) -> float:
    """Seconds without progress after which a thread of the daemon counts as stalled. Longer than any statement."""
    return max(STALLED_AFTER, 2 * config.postgres.statement_timeout)


class ModelSupervisor:
    """Supervises one read model on a thread of its own.

    role: the part of the work that this process does.
    source: the health of the connector.
    freshness: the monitor of the process. Without one, the freshness is not measured.
    heartbeats: the table of the process. Without one, the supervisor has a table of its own.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        registry: Registry,
        metrics: ModelMetrics,
        *,
        role: Role = DAEMON,
        source: SourceHealth | None = None,
        freshness: FreshnessMonitor | None = None,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self.config, self.model, self.registry, self.metrics, self.role = config, model, registry, metrics, role
        self.opener = ModelOpener(config, model, registry, metrics, slot=role.slot)
        self.source: SourceHealth = source or Unmonitored()
        self.freshness = freshness
        self.heartbeats = heartbeats or Heartbeats(stall_limit(config))
        self.state, self.error, self.last_error = "starting", "", ""
        self.failure: SyncerError | None = None
        """The last error that made the read model wait or fail."""
        self.outgrown = ""
        """Why a resync is due although the read model runs; empty if none is due."""
        self.observers: list[LaneObserver] = []
        self.ordered_logs: OrderedLogs | None = None
        """Of the open session; None while there is none."""
        self.refreshes = RefreshService(config.refresh, metrics, self._unavailable)
        self._since = time.monotonic()
        self._checks: PeriodicChecks | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name=f"{model.name}-supervisor", daemon=True)
        self._heartbeat = self.heartbeats.add(self._describe_stall)

    # -- from outside -------------------------------------------------------------------------------

    def start(self) -> None:
        self._heartbeat.start()
        self._thread.start()

    def stop(self) -> None:
        """Asks the supervisor to stop. `join` waits until it has."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> bool:
        """Returns whether the supervisor has ended within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alterations_scheduled(self) -> bool:
        """Whether the read model runs, and all work that follows from altered tables was scheduled."""
        return self.state == "running" and self._checks is not None and self._checks.alterations_scheduled

    def status(self) -> dict[str, Any]:
        """Returns the fields of `/status` for this read model."""
        elsewhere = self._checks.readers_elsewhere if self._checks else ""
        all_reasons = (*(observer.wait_reason for observer in self.observers), self.source.reason(), elsewhere)
        reasons = [reason for reason in all_reasons if reason]
        changes = [o for o in self.observers if o.lane == "changes"]
        errors = [o.last_error for o in self.observers if o.last_error]
        return {
            "state": "waiting" if self.state == "running" and reasons else self.state,
            "lag_seconds": round(self._lag_seconds(), 3),
            "lag_records": sum(o.records for o in changes),
            "work_records": sum(o.records for o in self.observers if o.lane in ("work", "backfill")),
            "reason": self.error or next(iter(reasons), self.outgrown),
            "last_error": self.error or next(iter(errors), self.last_error),
            **(self.freshness.freshness(self.model.name).status() if self.freshness else {}),
        }

    def export(self) -> None:
        """Sets the metrics of state and lag."""
        status = self.status()
        self.metrics.state(status["state"])
        if self.role.takes_changes:
            self.metrics.lag_seconds(status["lag_seconds"])
        if self.freshness:
            self.metrics.staleness(status["staleness_seconds"])

    def _lag_seconds(self) -> float:
        """Returns the largest lag of all lanes and of the connector.

        While the read model waits or has failed, no lane measures its lag. The time since then counts instead.
        """
        if self.state == "stopped":
            return 0.0
        idle = time.monotonic() - self._since if self.state in ("waiting", "failed") else 0.0
        return max(idle, self.source.late(), *(observer.seconds for observer in self.observers))

    def _unavailable(self) -> SyncerError:
        """Returns the error of a request that needs an open read model."""
        failure = self.failure if self.state in ("waiting", "failed") else None
        return Retry(
            f"the read model is {self.state}",
            where=self.model.name,
            why=failure.detail.split(ARROW)[0] if failure else "",
            hint=(failure.hint if failure else "") or f"syncer status {self.model.name}",
        )

    def _describe_stall(self, seconds: float) -> str:
        if self.state == "running":
            return f"{self.model.name}: the supervisor has made no progress for {seconds:.0f} s"
        return f"{self.model.name}: {self.state}, but no server has answered or failed for {seconds:.0f} s"

    # -- on its thread ------------------------------------------------------------------------------

    def _supervise(self) -> None:
        try:
            self._open_and_run()
        finally:
            self._heartbeat.end()

    def _open_and_run(self) -> None:
        back_off = BackOff(*_BACK_OFF)
        while not self._stop.is_set():
            began = time.monotonic()
            self._heartbeat.beat()
            try:
                with contextlib.ExitStack() as closing:
                    self._run(self.opener.open(closing, Waiter(self._stop)), closing)
            except Stopped:
                break
            except Retry as error:
                if time.monotonic() - began > _STABLE_AFTER:
                    back_off.reset()
                self._report("waiting", error)
                self._stop.wait(back_off.pause())
            except Exception as error:
                # A defect of the syncer must not stop the other read models. It is reported as a defect.
                if not isinstance(error, SyncerError):
                    log.exception("unexpected error", model=self.model.name)
                    hint = "a defect of the syncer: its log has the traceback"
                    error = Fatal("unexpected error", where=self.model.name, why=repr(error), hint=hint)
                rebuilt = self._rebuilt_in_place(error)
                if rebuilt:
                    log.info("a resync has begun to write", model=self.model.name, error=error)
                    error = rebuilt
                self._report("waiting" if rebuilt else "failed", error)
                if self.freshness:
                    self.freshness.end_waits(self.model.name, error)
                if not self._wait_after_failure():
                    return
        self._set("stopped")

    def _rebuilt_in_place(self, error: Exception) -> Retry | None:
        """Returns why the lanes have failed if a resync is the cause: it writes to the same keys, in a later epoch."""
        if not isinstance(error, LaterEpoch):
            return None
        with contextlib.suppress(SyncerError):
            state = self.registry.state.load()
            if active := state.registration(self.model.name, StateSlot.ACTIVE):
                return find_switch(state, active, in_place=True)
        return None

    def _wait_after_failure(self) -> bool:
        """Waits for one minute, or until a resync has built another generation.

        An operator may have fixed the cause by then. To retry is safe, because no offset has moved.
        Returns False if the supervisor was asked to stop.
        """
        failed, opener = time.monotonic(), self.opener
        while not self._stop.wait(CHECK_EVERY):
            self._heartbeat.beat()
            with contextlib.suppress(Retry):
                if opener.registered() != opener.generation or time.monotonic() - failed > _RETRY_FAILED_AFTER:
                    return True
        return False

    def _run(self, session: ModelSession, closing: contextlib.ExitStack) -> None:
        """Runs the lanes until the first of them ends. Raises the error of that lane, or Stopped."""
        settings = self.config.pipeline
        kinds = self.role.lanes(change_lanes=settings.change_lanes, work_lanes=settings.work_lanes)
        kinds += ["order"] * len(session.reordering())
        self.observers = [LaneObserver(kind, self.metrics, self.heartbeats) for kind in kinds]
        for observer in self.observers:
            closing.callback(observer.close)
            observer.siblings = [other for other in self.observers if other.lane == observer.lane]
        lanes = LaneThreads(session, self.observers)
        self._checks = PeriodicChecks(
            session,
            self.opener,
            self.metrics,
            self.heartbeats,
            beat=self._heartbeat.beat,
            stop=self._stop,
            ended=lanes.ended,
            is_leader=lanes.is_leader,
            reader=self.freshness.reader if self.freshness else lambda: None,
        )
        lanes.start()
        self.error, self.outgrown = "", session.outgrown
        self._heartbeat.beat()  # to open the read model may have taken almost the whole limit
        self.refreshes.open(session)
        self.ordered_logs = OrderedLogs(lanes.order_lanes)
        self._set("running")
        try:
            with measured(self.freshness, self.config.freshness, session, lanes):
                self._checks.run()
        finally:
            lanes.stop()
            self.ordered_logs = None
            self.refreshes.close()
            lanes.join()
            self._checks.close()
        lanes.raise_error()
        with contextlib.suppress(Retry):
            session.save_clock()
        raise Stopped

    def _set(self, state: str) -> None:
        if state != self.state:
            self._since = time.monotonic()
            if state == "running":
                log.info("read model running", model=self.model.name, after=self.state)
        self.state = state
        self.export()

    def _report(self, state: str, error: SyncerError) -> None:
        """Logs an error that is new, counts it, and changes the state to `waiting` or `failed`."""
        if state == "failed":
            log.error("read model failed", model=self.model.name, error=error, retry_after_seconds=_RETRY_FAILED_AFTER)
        elif str(error) != self.error:
            log.warning("read model waiting", model=self.model.name, error=error)
        self.failure = error
        self.error = self.last_error = str(error)
        self.metrics.error("fatal" if state == "failed" else "retry")
        self._set(state)
