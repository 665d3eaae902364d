"""The values of a page from chosen states, without any server: a real `Overview` over simple objects."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from syncer.document import Outcome
from syncer.registry.records import Process
from syncer.runtime.overview import Overview
from syncer.telemetry.metrics import Metrics

DAY = 86_400.0
RUNNING = {
    "state": "running",
    "lag_seconds": 0.25,
    "lag_records": 12,
    "work_records": 3,
    "reason": "",
    "last_error": "",
}
FAILED = {
    **RUNNING,
    "state": "failed",
    "reason": "the read model was changed since its documents were rendered\n  → syncer resync summaries",
}


class Model:
    """A read model. A test may change its status."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self.values = dict(status)

    def status(self) -> dict[str, Any]:
        return dict(self.values)


class Source:
    """The connector and its slot."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {
            "connector": "running",
            "late_seconds": 0.0,
            "findings": [],
            "slot": {
                "name": "syncer_shop",
                "retained_bytes": 3 << 20,
                "limit_bytes": 1 << 30,
                "remaining_bytes": 1 << 29,
                "lost_in_seconds": None,
            },
        }

    def status(self) -> dict[str, Any]:
        return dict(self.values)


class Progress:
    """The long operations. Empty for a read model that a test has not set."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}

    def of(self, model: str) -> dict[str, Any]:
        return self.values.get(model, {})


class ExampleOverview:
    """An `Overview` of the read models `orders` (running) and `summaries` (failed). Its clock is `now`."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now
        self.models = {"orders": Model(RUNNING), "summaries": Model(FAILED)}
        self.source, self.progress, self.metrics = Source(), Progress(), Metrics(CollectorRegistry())
        self.orders = self.metrics.for_model("orders")
        self.metrics.for_model("summaries").dead_letters(2)
        self.orders.dead_letters(0)
        self.progress.values["orders"] = {
            "generation": 1,
            "backfill": {"state": "done", "documents": 50_000, "at": self.now - 3 * DAY},
            "resync": {"generation": 2, "percent": 64, "running": True, "seconds_left": 95.0},
            "refresh": None,
            "verification": {"state": "verified", "at": self.now - 7200, "documents": 42_268, "differences": 0},
            "daemons": 2,
        }
        self.overview = Overview(
            Process("a1b2", "shop-1.example", 4711, 0),
            "1.2.3",
            self.models,
            {"orders": ["elasticsearch"], "summaries": ["redis"]},
            self.source,
            self.progress,
            self.metrics,
            clock=lambda: self.now,
        )

    def work(self, records: int, documents: int) -> None:
        """Lets 2 s pass in which `orders` receives records and writes documents. Takes a sample."""
        self.orders.events({"u": records}, 0)
        self.orders.written("elasticsearch:orders", Outcome(written=documents))
        self.now += 2
        self.overview.sample()

    def read(self, since: float = 0.0) -> dict[str, Any]:
        """Returns the values as `DaemonProcess.overview` does."""
        return {**self.overview.read(since), "broken": []}
