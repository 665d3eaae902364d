"""The daemon: one `ModelSupervisor` per read model, the HTTP server, and an orderly end.

It starts whether or not its servers are up, and waits for them; a read model that has to stop leaves the
others running, and the process: an operator can see in `/status` what is wrong.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from syncer import __version__
from syncer.config.schema import Config
from syncer.declaration.model import Model, spelled_tables
from syncer.errors import Fatal, with_hint
from syncer.monitors.source_monitor import SourceMonitor
from syncer.monitors.wait_status import Reporting
from syncer.registry.backends import open_registry
from syncer.runtime.http import Server
from syncer.runtime.supervisor import ModelSupervisor
from syncer.telemetry.metrics import Metrics

log = structlog.get_logger()


class DaemonProcess:
    """`Health` of the HTTP server, too."""

    def __init__(self, config: Config, models: Sequence[Model], broken: Sequence[Fatal] = ()) -> None:
        """broken: declarations that cannot be read. They are told, and keep nothing else from running."""
        self.config, self.broken = config, broken
        self.metrics = Metrics(CollectorRegistry())
        self.registry = open_registry(config)
        own = [spelled for model in models for spelled in spelled_tables(model)]
        self.watch = SourceMonitor(config, self.registry, self.metrics, own)
        self.units = [
            ModelSupervisor(
                config,
                model,
                self.registry,
                self.metrics.for_model(model.name),
                source=self.watch.reason,
                late=self.watch.late,
                reader=self.watch.reader,
            )
            for model in models
        ]
        self.reporting = Reporting(self.registry, {unit.model.name: unit for unit in self.units})
        self._stop = threading.Event()
        self.unfinished: list[str] = []
        """Read models (or `reports`) whose threads are still there after the end: no answer from a server."""

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises Fatal if every read model has stopped with an error."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        with Server(self.config.http.host, self.config.http.port, self, self.metrics.registry) as server:
            log.info("started", version=__version__, models=[u.model.name for u in self.units], http=server.url)
            for error in self.broken:
                log.error("a read model cannot be read", error=str(error))
            for unit in self.units:
                unit.start()
            self.watch.start()
            self.reporting.start()
            while not self._stop.wait(1.0):
                for unit in self.units:
                    unit.export()
            self._end()
        failed = [unit for unit in self.units if unit.state == "failed"]
        if failed and len(failed) == len(self.units):
            raise Fatal("every read model has stopped with an error", why=failed[0].error)

    def stop(self) -> None:
        self._stop.set()

    def live(self) -> tuple[bool, str]:
        stalled = [reason for unit in self.units if (reason := unit.stalled())]
        if not self.watch.alive:
            stalled.append("the watch over connector and slot has ended; see the log")
        if not self.reporting.alive:
            stalled.append("the reports for `syncer status` have ended; see the log")
        return not stalled, "; ".join(stalled)

    def ready(self) -> tuple[bool, str]:
        """Whether every read model is being kept in step (a failed one is not)."""
        late = [str(error) for error in self.broken]
        for unit in self.units:
            status = unit.status()
            if status["state"] != "running":
                late.append(f"{unit.model.name} is {status['state']}: {status['reason']}".rstrip(": "))
        return not late, "\n".join(late)

    def status(self) -> dict[str, Any]:
        models = {unit.model.name: with_hint(unit.status()) for unit in self.units}
        return {
            "version": __version__,
            "models": models,
            "source": self.watch.status(),
            "broken": [with_hint({"reason": str(error)}) for error in self.broken],
        }

    def _end(self) -> None:
        began = time.monotonic()
        self.watch.stop()
        for unit in self.units:
            unit.stop()
        until = began + self.config.pipeline.stop_timeout
        self.unfinished = [u.model.name for u in self.units if not u.join(max(0.1, until - time.monotonic()))]
        self.reporting.stop(max(0.1, until - time.monotonic()))
        if self.reporting.alive:
            self.unfinished.append("reports")
        log.info("stopped", seconds=round(time.monotonic() - began, 2), unfinished=self.unfinished)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        self._stop.set()
