"""How a repair advances the snapshot clock past the versions in the sinks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from syncer.operations.repair import _MAX_COMMITS, _advance_clock


class Commits:
    """`ports.Rows` of a server on which each flush commits one transaction."""

    def __init__(self) -> None:
        self.clock = 100

    @contextmanager
    def view(self) -> Iterator[Any]:
        yield SimpleNamespace(head=SimpleNamespace(snapshot=SimpleNamespace(clock=self.clock)))

    def flush(self) -> None:
        self.clock += 1


def test_the_clock_passes_all_versions_that_it_can_reach() -> None:
    rows: Any = Commits()
    assert _advance_clock(rows, {"below": 7, "equal": 100, "edited": 350}) == {}
    assert rows.clock == 351


def test_a_version_that_is_too_far_ahead_does_not_hold_back_the_others() -> None:
    rows: Any = Commits()
    assert _advance_clock(rows, {"edited": 350, "far": 10**9}) == {"far": 10**9 - 351}
    assert rows.clock == 351
    assert _advance_clock(rows, {"far": 10**9}) == {"far": 10**9 - 351}
    assert rows.clock == 351, "no commit can help"
    assert _advance_clock(rows, {"last": 351 + _MAX_COMMITS - 1}) == {}
