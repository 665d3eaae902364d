"""`syncer explain`: how it describes partials. The whole command runs in `tests/integration/test_cli.py`."""

from __future__ import annotations

import pytest

from syncer.cli.explain import _described, _partials
from tests.unit.declaration.test_partials import TEXT, compiled


@pytest.mark.parametrize(
    ("division", "described", "size", "index"),
    [
        ("by: id, size: 5000", "buckets of 5,000 values of id", 5000, "index: (device_id, id)"),
        ("by: taken_at, size: 60m", "buckets of 1h of taken_at", "1h", "index: (device_id, taken_at)"),
        ("by: local_at, size: 90m", "buckets of 90m of local_at", "90m", "index: (device_id, local_at)"),
        ("by: day, size: 48h", "buckets of 2d of day", "2d", "index: (device_id, day)"),
    ],
)
def test_buckets_are_described(division: str, described: str, size: int | str, index: str) -> None:
    partials = compiled(TEXT.replace("by: id, size: 100", division)).partials
    assert partials is not None
    shown = _partials(partials)
    assert described in shown and index in shown
    assert _described(partials)["size"] == size
