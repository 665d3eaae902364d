"""Defines the form of a metric, and the values of its labels that are known in advance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGES = ("decode", "route", "snapshot", "resolve", "render", "durable", "write", "commit")
OPERATIONS = ("c", "u", "d", "r", "t")
ERRORS = ("retry", "reject", "fatal")
LOSSES = ("deletes", "documents")
REFRESHES = ("altered", "identity", "lost documents", "resumed", "truncate")
DROPS = ("slow", "gap")
STATES = ("starting", "running", "waiting", "failed", "stopped")
BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Spec:
    """Describes one metric. Its attribute in `Metrics` has the same name without `syncer_` and `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    unit: str
    help: str

    @property
    def attribute(self) -> str:
        return self.name.removeprefix("syncer_").removesuffix("_total")

    def make(self, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
        text = self.help.replace("\n", " ")  # Prometheus shows the help of a metric on one line
        if self.kind == "counter":
            return Counter(self.name, text, self.labels, registry=registry)
        if self.kind == "gauge":
            return Gauge(self.name, text, self.labels, registry=registry)
        return Histogram(self.name, text, self.labels, registry=registry, buckets=BUCKETS)
