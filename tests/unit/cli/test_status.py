"""Tests how `syncer status` reports the last verification."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from syncer.cli.status import _notes
from syncer.monitors.model_progress import Verified
from syncer.operations.model_status import ModelStatus


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (Verified("verified", 7205, 50_000, 0), "orders: verified 2 h 0 min ago, 50,000 documents equal"),
        (Verified("old", 187_205, 1, 0), "orders: verification is 2 d 4 h old → syncer verify orders"),
        (
            Verified("different", 5405, 10, 1),
            "orders: 1 document differed 1 h 30 min ago → syncer verify orders --repair",
        ),
    ],
)
def test_the_last_verification_is_shown_with_its_age(found: Verified, line: str) -> None:
    found = replace(found, at=time.time() - found.at)
    assert list(_notes(ModelStatus("orders", "running", backfill="2026-11-28T16:15:00Z", verified=found))) == [line]


def test_without_a_verification_nothing_is_shown() -> None:
    assert list(_notes(ModelStatus("orders", "running", backfill="2026-11-28T16:15:00Z"))) == []
