"""Runs the daemon: one `ModelSupervisor` per read model, the source monitor, the HTTP server, and an orderly end.

The daemon starts even if its servers are unreachable, and waits for them. A read model that has to stop leaves the
other read models and the process running. `/status` shows an operator what is wrong.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from http import HTTPStatus
from types import FrameType
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from syncer import __version__
from syncer.config.schema import Config
from syncer.declaration.model import Model, possible_tables
from syncer.errors import Fatal, with_hint
from syncer.freshness.monitor import FreshnessMonitor
from syncer.freshness.refused import Refused
from syncer.monitors.model_progress import ProgressMonitor
from syncer.monitors.source_monitor import SourceMonitor
from syncer.monitors.wait_status import StatusReporter
from syncer.registry.backends import open_registry
from syncer.runtime.heartbeats import Heartbeats
from syncer.runtime.model_waits import ModelWaits
from syncer.runtime.overview import Overview
from syncer.runtime.published import PublishedDocuments
from syncer.runtime.supervisor import ModelSupervisor, stall_limit
from syncer.serving.server import Server
from syncer.serving.services import Services
from syncer.telemetry.metrics import Metrics

log = structlog.get_logger()


class DaemonProcess:
    """The parts of one `syncer run` process. Implements `Health` and `Refreshes` for the HTTP server."""

    def __init__(self, config: Config, models: Sequence[Model], broken: Sequence[Fatal] = ()) -> None:
        """broken: the errors of invalid declarations. They are reported, and stop nothing else."""
        self.config, self.broken = config, broken
        self.metrics = Metrics(CollectorRegistry())
        self.registry = open_registry(config)
        self.heartbeats = Heartbeats(stall_limit(config))
        tables = [spellings for model in models for spellings in possible_tables(model)]
        self.freshness = FreshnessMonitor(self.registry)
        self.source_monitor = SourceMonitor(config, self.registry, self.metrics, tables, self.freshness.probe)
        self.supervisors = [
            ModelSupervisor(
                config,
                model,
                self.registry,
                self.metrics.for_model(model.name),
                source=self.source_monitor,
                freshness=self.freshness,
                heartbeats=self.heartbeats,
            )
            for model in models
        ]
        self.reporter = StatusReporter(self.registry, {one.model.name: one for one in self.supervisors})
        self.heartbeats.require_thread(
            lambda: self.source_monitor.alive, "the monitor of connector and slot has ended; see the log"
        )
        self.heartbeats.require_thread(
            lambda: self.freshness.alive, "the monitor of the freshness has ended; see the log"
        )
        self.heartbeats.require_thread(
            lambda: self.reporter.alive, "the reports for `syncer status` have ended; see the log"
        )
        self.progress = ProgressMonitor(self.registry, [model.name for model in models])
        self.heartbeats.require_thread(
            lambda: self.progress.alive, "the monitor of backfills and resyncs has ended; see the log"
        )
        self._overview = Overview(
            self.reporter.process,
            __version__,
            {one.model.name: one for one in self.supervisors},
            {model.name: list(model.declaration.sink) for model in models},
            self.source_monitor,
            self.progress,
            self.metrics,
        )
        self._stop = threading.Event()
        self.unfinished: list[str] = []
        """Read models (or `reports`, `freshness`) whose threads have not ended, because a server does not answer."""

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT. Raises Fatal if every read model has stopped with an error."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        services = Services(
            self,
            self.metrics.registry,
            waiting=ModelWaits(self.freshness),
            refreshes=self,
            documents=PublishedDocuments(self.config, [one.model for one in self.supervisors], self.metrics),
            overview=self.overview,
        )
        with Server(self.config.http, services) as server:
            models = [one.model.name for one in self.supervisors]
            log.info("daemon started", version=__version__, models=models, http=server.url)
            for error in self.broken:
                log.error("invalid declaration", error=str(error))
            for supervisor in self.supervisors:
                supervisor.start()
            self.freshness.start()
            self.source_monitor.start()
            self.reporter.start()
            self.progress.start()
            while not self._stop.wait(1.0):
                for supervisor in self.supervisors:
                    supervisor.export()
                self._overview.sample()
            server.end_long_responses()
            self._end()
        failed = [one for one in self.supervisors if one.state == "failed"]
        if failed and len(failed) == len(self.supervisors):
            raise Fatal("every read model has stopped with an error", why=failed[0].error)

    def stop(self) -> None:
        self._stop.set()

    def live(self) -> tuple[bool, str]:
        """Returns whether every thread makes progress, and the reasons if not."""
        stalled = self.heartbeats.stalled()
        return not stalled, "; ".join(stalled)

    def ready(self) -> tuple[bool, str]:
        """Returns whether every read model is kept in sync, and one line for each that is not."""
        reasons = [str(error) for error in self.broken]
        for supervisor in self.supervisors:
            status = supervisor.status()
            if status["state"] != "running":
                reasons.append(f"{supervisor.model.name} is {status['state']}: {status['reason']}".rstrip(": "))
        return not reasons, "\n".join(reasons)

    def status(self) -> dict[str, Any]:
        models = {one.model.name: with_hint(one.status()) for one in self.supervisors}
        return {
            "version": __version__,
            "models": models,
            "source": self.source_monitor.status(),
            "broken": [with_hint({"reason": str(error)}) for error in self.broken],
        }

    def refresh(self, model: str, body: Any, client: str) -> dict[str, Any]:
        """Implements `serving.services.Refreshes`. Raises Refused (404) for an unknown read model."""
        found = next((one for one in self.supervisors if one.model.name == model), None)
        if found is None:
            known = ", ".join(one.model.name for one in self.supervisors)
            raise Refused(HTTPStatus.NOT_FOUND, f"read model {model!r} does not exist", hint=f"one of: {known}")
        return asdict(found.refreshes.refresh(body, client))

    def overview(self, since: float = 0.0) -> dict[str, Any]:
        """Returns the value of `/overview`. since: see `Overview.read`."""
        return {**self._overview.read(since), "broken": [with_hint({"reason": str(error)}) for error in self.broken]}

    def _end(self) -> None:
        began = time.monotonic()
        self.progress.stop()
        self.source_monitor.stop()
        self.freshness.stop()
        for supervisor in self.supervisors:
            supervisor.stop()
        deadline = began + self.config.pipeline.stop_timeout
        self.unfinished = [one.model.name for one in self.supervisors if not one.join(_left(deadline))]
        self.reporter.stop()
        if not self.reporter.join(_left(deadline)):
            self.unfinished.append("reports")
        if not self.freshness.join(_left(deadline)):
            self.unfinished.append("freshness")
        log.info("daemon stopped", seconds=round(time.monotonic() - began, 2), unfinished=self.unfinished)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        log.info("daemon is stopping", signal=signal.Signals(number).name)
        self._stop.set()


def _left(deadline: float) -> float:
    """Seconds until the deadline, at least 0.1."""
    return max(0.1, deadline - time.monotonic())
