"""Supervises one read model in this process: runs its lanes, handles their errors, reports its state.

    Retry    The supervisor closes the lanes. After a back-off it opens everything again: catalog, compile, checks.
    Fatal    The read model stays stopped with its error. Other read models and the HTTP server continue.
    Stopped  The lanes finish and commit the work in progress.

So an unreachable server, an altered table and a lost connection all take the same short path.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Protocol

import structlog

from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal, Retry, SyncerError
from syncer.pacing import Stopped
from syncer.pipeline.lane import Lane
from syncer.ports import GroupSource
from syncer.registry.registry import Registry
from syncer.runtime.heartbeats import STALLED_AFTER, Heartbeats
from syncer.runtime.lane_observer import LaneObserver
from syncer.runtime.opening import ModelOpener, ModelSession
from syncer.runtime.periodic_checks import CHECK_EVERY, PeriodicChecks
from syncer.runtime.role import DAEMON, Role
from syncer.telemetry.metrics import ModelMetrics

_RETRY_FAILED_AFTER = 60.0  # seconds
_BACK_OFF = (0.2, 10.0)
_STABLE_AFTER = 60.0  # seconds: an error after that starts with the shortest back-off again

log = structlog.get_logger()


class SourceHealth(Protocol):
    """The state of the connector that all read models share. `monitors.source_monitor.SourceMonitor` is one."""

    def reason(self) -> str:
        """Why changes may not arrive; empty while they do."""
        ...

    def late(self) -> float:
        """Seconds for which the connector has not delivered committed changes; 0 while it delivers."""
        ...

    def reader(self) -> object:
        """The process that reads the connector's slot, as last seen; None if it is unknown."""
        ...


class _Unmonitored:
    """The health of a source that nothing monitors: commands report the connector themselves."""

    def reason(self) -> str:
        return ""

    def late(self) -> float:
        return 0.0

    def reader(self) -> object:
        return None


def stall_limit(config: Config) -> float:
    """Seconds without progress after which a thread of the daemon counts as stalled. Longer than any statement."""
    return max(STALLED_AFTER, 2 * config.postgres.statement_timeout)


class ModelSupervisor:
    """Supervises one read model on a thread of its own.

    role: the part of the work that this process does.
    source: the health of the connector.
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
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self.config, self.model, self.registry, self.metrics, self.role = config, model, registry, metrics, role
        self.opener = ModelOpener(config, model, registry, metrics, slot=role.slot)
        self.source: SourceHealth = source or _Unmonitored()
        self.heartbeats = heartbeats or Heartbeats(stall_limit(config))
        self.state, self.error, self.last_error = "starting", "", ""
        self.failure: SyncerError | None = None
        """The last error that made the read model wait or fail."""
        self.outgrown = ""
        """Why a resync is due although the read model runs; empty if none is due."""
        self.observers: list[LaneObserver] = []
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
        all_reasons = (*(observer.reason for observer in self.observers), self.source.reason(), elsewhere)
        reasons = [reason for reason in all_reasons if reason]
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

    def export(self) -> None:
        """Sets the metrics of state and lag."""
        status = self.status()
        self.metrics.state(status["state"])
        if self.role.takes_changes:
            self.metrics.lag_seconds(status["lag_seconds"])

    def _lag_seconds(self) -> float:
        """Returns the largest lag of all lanes and of the connector.

        While the read model waits or has failed, no lane measures its lag. The time since then counts instead.
        """
        if self.state == "stopped":
            return 0.0
        idle = time.monotonic() - self._since if self.state in ("waiting", "failed") else 0.0
        return max(idle, self.source.late(), *(observer.seconds for observer in self.observers))

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
        pause = _BACK_OFF[0]
        while not self._stop.is_set():
            began = time.monotonic()
            self._heartbeat.beat()
            try:
                with contextlib.ExitStack() as closing:
                    self._run(self.opener.open(closing), closing)
            except Stopped:
                break
            except Retry as error:
                if time.monotonic() - began > _STABLE_AFTER:
                    pause = _BACK_OFF[0]
                self._report("waiting", error)
                self._stop.wait(pause)
                pause = min(pause * 2, _BACK_OFF[1])
            except Exception as error:
                # A defect of the syncer must not stop the other read models. It is reported as a defect.
                if not isinstance(error, SyncerError):
                    log.exception("unexpected error", model=self.model.name)
                    hint = "a defect of the syncer: its log has the traceback"
                    error = Fatal("unexpected error", where=self.model.name, why=repr(error), hint=hint)
                self._report("failed", error)
                if not self._wait_after_failure():
                    return
        self._set("stopped")

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
        ended: list[BaseException] = []
        stop = threading.Event()
        settings = self.config.pipeline
        kinds = self.role.lanes(change_lanes=settings.change_lanes, work_lanes=settings.work_lanes)
        self.observers = [LaneObserver(kind, self.metrics, self.heartbeats) for kind in kinds]
        for observer in self.observers:
            closing.callback(observer.close)
            observer.siblings = [other for other in self.observers if other.lane == observer.lane]
        threads, changes = [], list[GroupSource]()
        for observer in self.observers:
            source = session.source(observer.lane)
            if observer.lane == "changes":
                changes.append(source)
            lane = session.lane(source, observer, stop, items=observer.lane != "changes")
            name = f"{self.model.name}-{observer.lane}"
            threads.append(threading.Thread(target=_run_lane, args=(lane, ended, stop), name=name))
        # One process is enough to re-render all documents. Kafka chooses it, and chooses another one if it dies.
        first = session.names.changes[0], 0
        self._checks = PeriodicChecks(
            session,
            self.opener,
            self.metrics,
            self.heartbeats,
            beat=self._heartbeat.beat,
            stop=self._stop,
            ended=stop,
            is_leader=lambda: any(source.is_assigned(first) for source in changes),
            reader=self.source.reader,
        )
        for thread in threads:
            thread.start()
        self.error, self.outgrown = "", session.outgrown
        self._heartbeat.beat()  # to open the read model may have taken almost the whole limit
        self._set("running")
        try:
            self._checks.run()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            self._checks.close()
        errors = [error for error in ended if not isinstance(error, Stopped)]
        errors.sort(key=lambda error: not isinstance(error, Fatal))
        if errors:
            raise errors[0]
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


def _run_lane(lane: Lane, ended: list[BaseException], stop: threading.Event) -> None:
    """Runs on a lane's thread. When one lane ends, the others end too: they share sinks and clock."""
    try:
        lane.run()
    except BaseException as error:
        ended.append(error)
    finally:
        stop.set()
