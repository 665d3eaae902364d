"""Tests what a lane reports to `/status`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from syncer.errors import Reject
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics


def test_a_cycle_in_a_tree_is_counted_and_logged() -> None:
    registry = CollectorRegistry()
    observer = LaneObserver("changes", Metrics(registry).for_model("categories"))
    with capture_logs() as logs:
        observer.cycles("ancestors", ["3 → 7 → 3", "7 → 3 → 7"])
    assert registry.get_sample_value("syncer_tree_cycles_total", {"model": "categories"}) == 2
    [entry] = logs
    assert (entry["log_level"], entry["cycle"], entry["changed_rows_on_cycles"]) == ("warning", "3 → 7 → 3", 2)


def test_the_status_does_not_quote_a_rejected_document() -> None:
    observer = LaneObserver("changes", Metrics(CollectorRegistry()).for_model("orders"))
    why = "failed to parse field [email]. Preview of field's value: 'ann@example.com'"
    observer.rejected(Reject("the sink refused the document", where="document ann@example.com", why=why))
    assert observer.last_error == "the sink refused the document\n  → syncer dlq list orders"
