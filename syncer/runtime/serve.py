"""Runs `syncer serve`: the HTTP server without lanes. It needs Kafka, and neither PostgreSQL nor the other sinks.

Thousands of clients then share an interpreter with each other, and not with the lanes. `/wait` and
`/models/MODEL/refresh` do not exist here: they need the lanes of a daemon.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

from syncer import __version__
from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal, with_hint
from syncer.registry.loader import document_topic
from syncer.runtime.published import PublishedDocuments
from syncer.serving.server import Server
from syncer.serving.services import Services
from syncer.telemetry.metrics import Metrics

log = structlog.get_logger()


class ServeProcess:
    """The parts of one `syncer serve` process. Implements `Health` for the HTTP server."""

    def __init__(self, config: Config, models: Sequence[Model], broken: Sequence[Fatal] = ()) -> None:
        """broken: the errors of invalid declarations. Raises Fatal if there is nothing to push."""
        self._config, self._models, self._broken = config, models, broken
        self._topics = {model.name: document_topic(config, model) for model in models}
        if not any(self._topics.values()):
            raise Fatal(
                "no read model has changes that can be pushed",
                where=str(config.models),
                why="none of them has a Kafka sink",
                hint="add kafka: {topic: …} under sink: in a read model",
            )
        self._stop = threading.Event()

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        documents = PublishedDocuments(self._config, self._models, Metrics(registry))
        services = Services(self, registry, documents=documents)
        with Server(self._config.http, services) as server:
            log.info("server started", version=__version__, models=list(self._topics), http=server.url)
            for error in self._broken:
                log.error("invalid declaration", error=str(error))
            self._stop.wait()
        log.info("server stopped")

    def live(self) -> tuple[bool, str]:
        return True, ""

    def ready(self) -> tuple[bool, str]:
        """Returns whether all declarations are valid, and their errors if not."""
        return not self._broken, "\n".join(map(str, self._broken))

    def status(self) -> dict[str, Any]:
        topics = {name: topic.name if topic else None for name, topic in self._topics.items()}
        return {
            "version": __version__,
            "models": {
                name: {"state": "served" if topic else "not served", "topic": topic} for name, topic in topics.items()
            },
            "broken": [with_hint({"reason": str(error)}) for error in self._broken],
        }

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        log.info("server is stopping", signal=signal.Signals(number).name)
        self._stop.set()
