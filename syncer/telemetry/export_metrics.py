"""Counts what `syncer export` does."""

from __future__ import annotations

from syncer.telemetry.metrics import Metrics


class ExportMetrics:
    """Holds the metrics of one export, with its label bound."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._rows = metrics.export_rows.labels(model)
        self._commits = metrics.export_commits.labels(model)
        self._conflicts = metrics.export_conflicts.labels(model)
        self._lag_records = metrics.export_lag_records.labels(model)
        self._lag_seconds = metrics.export_lag_seconds.labels(model)
        self._shown = (0, 0, 0)

    def show(self, rows: int, commits: int, conflicts: int, lag_records: int, lag_seconds: float) -> None:
        """Shows the totals of this run, and the lag."""
        counters = (self._rows, self._commits, self._conflicts)
        now = (rows, commits, conflicts)
        for counter, total, before in zip(counters, now, self._shown, strict=True):
            counter.inc(total - before)
        self._shown = now
        self._lag_records.set(lag_records)
        self._lag_seconds.set(lag_seconds)
