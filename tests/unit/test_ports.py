"""How many records are left to commit: one count for backfill, resync, rerender and status."""

from __future__ import annotations

import pytest

from syncer.ports import not_committed, records_left


@pytest.mark.parametrize(
    ("ends", "committed", "begins", "left"),
    [
        ({}, {}, None, {}),
        ({0: 5}, {}, None, {0: (0, 5)}),  # the group has committed nothing
        ({0: 5, 1: 3}, {0: 2, 1: 3}, None, {0: (2, 5)}),
        ({0: 5}, {0: 9}, None, {}),  # the ends are those of an earlier moment
        ({0: 5}, {0: 2, 1: 7}, None, {0: (2, 5)}),  # another partition does not count
        ({0: 5}, {}, {0: 4}, {0: (4, 5)}),  # earlier records were deleted, or belong to another backfill
        ({0: 5}, {0: 2}, {0: 4}, {0: (4, 5)}),
        ({0: 5}, {0: 5}, {0: 4}, {}),
    ],
)
def test_only_records_between_begin_and_end_that_are_not_committed_are_left(
    ends: dict[int, int],
    committed: dict[int, int],
    begins: dict[int, int] | None,
    left: dict[int, tuple[int, int]],
) -> None:
    assert not_committed(ends, committed, begins) == left
    assert records_left(ends, committed, begins) == sum(end - first for first, end in left.values())
