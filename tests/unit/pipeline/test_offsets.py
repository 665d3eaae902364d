"""Stage 8: which offsets are committed, and when."""

from __future__ import annotations

from syncer.events import Position
from syncer.pipeline.offsets import Offsets


def test_offsets_are_due_after_the_interval_and_returned_once() -> None:
    offsets = Offsets(1.0)
    assert not offsets.due(100.0)
    offsets.acknowledged([Position("t", 0, 4), Position("t", 0, 5), Position("t", 1, 0)], 10.0)
    assert not offsets.due(10.9)
    assert offsets.due(11.0)
    assert offsets.take() == {("t", 0): 6, ("t", 1): 1}
    assert offsets.take() == {}
    assert not offsets.due(99.0)
