"""Comparison of the flush LSN with the insert LSN."""

from __future__ import annotations

import pytest

from syncer.postgres.snapshot_reader import reached

PAGE = 5 * 8192


@pytest.mark.parametrize("header", [24, 40])
def test_an_insert_lsn_after_a_page_header_is_reached_at_the_start_of_the_page(header: int) -> None:
    assert reached(PAGE, PAGE + header)
    assert not reached(PAGE - 1, PAGE + header)


def test_an_insert_lsn_within_a_page_is_reached_only_by_an_equal_or_later_flush_lsn() -> None:
    assert reached(PAGE + 100, PAGE + 100)
    assert not reached(PAGE + 99, PAGE + 100)
