"""The size of bulk requests halves under load, grows slowly, and stays within its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from syncer.sinks.elasticsearch.adaptive_size import BulkSize

MB = 1 << 20


def test_the_size_falls_fast_and_rises_slowly() -> None:
    size = BulkSize(8 * MB)
    for expected in (4 * MB, 2 * MB, MB):
        size.rejected(size.bytes)
        assert size.bytes == expected
    grown = 0
    while size.bytes < 8 * MB:
        size.accepted(size.bytes)
        grown += 1
    assert 30 < grown < 40


def test_the_size_falls_from_that_of_the_rejected_request() -> None:
    size = BulkSize(8 * MB)
    size.rejected(MB)
    assert size.bytes == MB // 2


def test_small_requests_do_not_raise_the_size() -> None:
    size = BulkSize(8 * MB)
    size.rejected(4 * MB)
    for _ in range(100):
        size.accepted(MB)
    assert size.bytes == 2 * MB


@given(st.integers(1, 64 * MB), st.lists(st.tuples(st.booleans(), st.integers(1, 64 * MB))))
def test_the_size_stays_within_its_bounds(limit: int, answers: list[tuple[bool, int]]) -> None:
    size = BulkSize(limit)
    for accepted, sent in answers:
        before = size.bytes
        (size.accepted if accepted else size.rejected)(sent)
        assert min(64 << 10, limit) <= size.bytes <= limit
        assert size.bytes >= before if accepted else size.bytes <= before
