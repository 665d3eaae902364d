"""Tests that the objects and the documentation of metrics agree with the one table."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from syncer.document import Outcome, Rejection
from syncer.telemetry import metrics
from syncer.telemetry.table import TABLE, markdown

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_attributes_and_table_agree(registry: CollectorRegistry) -> None:
    made = metrics.Metrics(registry)
    assert list(metrics.Metrics.__annotations__) == [spec.attribute for spec in TABLE]
    for spec in TABLE:
        assert type(getattr(made, spec.attribute)).__name__.lower() == spec.kind


def test_two_registries_are_independent() -> None:
    one, two = CollectorRegistry(), CollectorRegistry()
    metrics.Metrics(one).for_model("a").dirty(3, skipped=0)
    metrics.Metrics(two).for_model("a")
    assert one.get_sample_value("syncer_dirty_roots_total", {"model": "a"}) == 3
    assert two.get_sample_value("syncer_dirty_roots_total", {"model": "a"}) == 0


def test_every_event_of_a_read_model_is_counted(registry: CollectorRegistry) -> None:
    m = metrics.Metrics(registry).for_model("orders")
    m.batch("changes")
    m.events({"u": 2}, skipped=1)
    m.gate(0.25)
    m.error("reject")
    m.lost("memory:x", "deletes")
    m.lost("memory:x", "documents")
    m.refresh("altered")
    m.lag("changes", 7)
    m.lag_seconds(1.5)
    m.readers_elsewhere("elasticsearch", True)
    m.lag("work", 2)
    m.state("running")
    m.written("memory:x", Outcome(written=2, stale=1, retry=["a"], rejected=[Rejection("b", "bad")]))
    expected = {
        ("syncer_batches_total", "lane", "changes"): 1,
        ("syncer_events_total", "op", "u"): 2,
        ("syncer_events_total", "op", "d"): 0,
        ("syncer_events_skipped_total", "reason", "unused"): 1,
        ("syncer_gate_waits_total", "", ""): 1,
        ("syncer_gate_wait_seconds_sum", "", ""): 0.25,
        ("syncer_errors_total", "kind", "reject"): 1,
        ("syncer_errors_total", "kind", "fatal"): 0,
        ("syncer_full_refreshes_total", "reason", "altered"): 1,
        ("syncer_full_refreshes_total", "reason", "lost documents"): 1,
        ("syncer_full_refreshes_total", "reason", "truncate"): 0,
        ("syncer_lag_records", "lane", "changes"): 7,
        ("syncer_lag_records", "lane", "work"): 2,
        ("syncer_lag_seconds", "", ""): 1.5,
        ("syncer_readers_elsewhere", "sink", "elasticsearch"): 1,
        ("syncer_model_state", "state", "running"): 1,
        ("syncer_model_state", "state", "starting"): 0,
    }
    for (name, label, value), count in expected.items():
        labels = {"model": "orders"} | ({label: value} if label else {})
        assert registry.get_sample_value(name, labels) == count, name
    for outcome, count in (("written", 2), ("deleted", 0), ("stale", 1), ("retried", 1), ("rejected", 1)):
        labels = {"model": "orders", "sink": "memory:x", "outcome": outcome}
        assert registry.get_sample_value("syncer_documents_total", labels) == count


def test_a_stage_is_measured_even_if_it_fails(registry: CollectorRegistry) -> None:
    m = metrics.Metrics(registry).for_model("orders")

    def fail() -> None:
        with m.stage("render"):
            time.sleep(0.01)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    labels = {"model": "orders", "stage": "render"}
    total = registry.get_sample_value("syncer_stage_duration_seconds_sum", labels)
    assert total is not None and 0.01 <= total < 1
    assert registry.get_sample_value("syncer_stage_duration_seconds_bucket", labels | {"le": "0.005"}) == 0


def test_counting_is_cheap(registry: CollectorRegistry) -> None:
    """Counting an event and timing a stage cost much less than the event itself (tens of microseconds)."""
    m = metrics.Metrics(registry).for_model("orders")
    began = time.thread_time()
    for _ in range(10_000):
        with m.stage("decode"):
            m.events({"u": 1}, 0)
    assert (time.thread_time() - began) / 10_000 < 50e-6


def test_every_metric_is_exposed_and_documented(registry: CollectorRegistry) -> None:
    made = metrics.Metrics(registry)
    made.for_model("orders")
    made.slot_retained_bytes.labels("syncer").set(1)
    text = generate_latest(registry).decode()
    for spec in TABLE:
        name = spec.name.removesuffix("_total") if spec.kind == "counter" else spec.name
        assert f"# TYPE {spec.name} {spec.kind}" in text or f"# TYPE {name} {spec.kind}" in text
        assert spec.help and spec.unit
        assert spec.name.endswith("_total") == (spec.kind == "counter")


def test_the_documentation_is_up_to_date() -> None:
    written = (REPOSITORY / "docs" / "metrics.md").read_text("utf-8")
    assert written == markdown(), "run: python -m syncer.telemetry.metrics > docs/metrics.md"
