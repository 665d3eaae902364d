"""Tests the judgement of a verification, and the time that a backfill has left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from syncer.monitors.model_progress import (
    VERIFIED_FOR,
    ProgressMonitor,
    Verified,
    is_built,
    percent,
    time_left,
    verified,
)
from syncer.registry.records import BackfillRun, BuildReport, Generation, Registration, Verification
from syncer.registry.state import StateSnapshot

ORDERS = Generation("orders", 2)


@pytest.mark.parametrize(
    ("age", "differences", "state"),
    [
        (60, 0, "verified"),
        (VERIFIED_FOR - 1, 0, "verified"),
        (VERIFIED_FOR + 1, 0, "old"),
        (60, 3, "different"),
        (VERIFIED_FOR + 1, 3, "different"),
    ],
)
def test_a_verification_is_judged_by_age_and_differences(age: float, differences: int, state: str) -> None:
    record = Verification(1_000_000_000, 500, differences)
    values = StateSnapshot({"orders/2/verified": record.encode()})
    assert verified(values, ORDERS, 1_000_000 + age) == Verified(state, 1_000_000, 500, differences)


def test_a_verification_of_another_generation_does_not_count() -> None:
    values = StateSnapshot({"orders/1/verified": Verification(1, 500, 0).encode()})
    assert verified(values, ORDERS, 2) is None


def test_the_share_of_a_backfill() -> None:
    run = BackfillRun("r", True, 10, 1000, 1, {0: 5, 1: 0}, {0: 10, 1: 5})
    assert [percent(run, left) for left in (10, 4, 1, 0)] == [0, 60, 90, 100]
    assert percent(BackfillRun("r", True, 0, 0, 1), 0) == 0


@pytest.mark.parametrize(("unit", "finished_ms"), [("document", 9), ("partial", 9), ("document", 0), ("partial", 0)])
def test_a_backfill_names_what_it_counts(monkeypatch: pytest.MonkeyPatch, unit: str, finished_ms: int) -> None:
    registration = Registration("orders", "hash", 2, 2, {}, registered_ms=0)
    run = BackfillRun("r", True, 1, 1000, 1, {0: 5}, {0: 10}, finished_ms=finished_ms, unit=unit)
    values = StateSnapshot(
        {
            "orders/2/registration": registration.encode(),
            "orders/2/active": {"at_ms": 1},
            "orders/2/backfill": run.encode(),
        }
    )
    registry: Any = SimpleNamespace(
        names=lambda model, tables, generation: None,
        backfill_queue=lambda names: SimpleNamespace(left=lambda ends, begins: 3),
    )
    progress = ProgressMonitor(registry, ["orders"])._read("orders", values)
    assert progress["backfill"][f"{unit}s"] == 1000
    assert len({"documents", "partials"} & progress["backfill"].keys()) == 1


def test_the_time_left_follows_the_speed_of_the_last_minute() -> None:
    assert time_left([(0, 100)]) is None, "the speed is not known yet"
    assert time_left([(0, 100), (10, 100)]) is None, "nothing moves"
    assert time_left([(0, 100), (10, 80)]) == 40
    assert time_left([(0, 100), (30, 80), (60, 0)]) == 0
    assert time_left([(0, 0), (10, 100)]) is None, "new items have been added"


@pytest.mark.parametrize(
    ("run", "reported_ms", "built_until_ms"),
    [
        pytest.param(None, None, 600_000, id="it plans its backfill"),
        pytest.param(BackfillRun("r", True, 1, 1, 50_000), None, 95_000, id="its backfill has begun"),
        pytest.param(BackfillRun("r", True, 1, 1, 50_000), 200_000, 245_000, id="it reports"),
        pytest.param(BackfillRun("r", True, 1, 1, 50_000, finished_ms=300_000), 200_000, 345_000, id="it catches up"),
    ],
)
def test_a_resync_that_reports_nothing_is_interrupted(
    run: BackfillRun | None, reported_ms: int | None, built_until_ms: int
) -> None:
    registration = Registration("orders", "hash", 2, 2, {}, registered_ms=0)
    records = {"orders/2/backfill": run, "orders/2/building": BuildReport(reported_ms) if reported_ms else None}
    values = StateSnapshot({key: record.encode() for key, record in records.items() if record})
    assert is_built(values, registration, built_until_ms - 1)
    assert not is_built(values, registration, built_until_ms)
