"""Token buckets, per client and per document."""

from __future__ import annotations

from syncer.freshness.rate_limit import RateLimit


def test_a_burst_passes_and_then_the_rate_applies() -> None:
    limit = RateLimit(2, 4)
    assert limit.take(["a"], 0.0, 4) == 0
    assert limit.take(["a"], 0.0) == 0.5
    assert limit.take(["b"], 0.0) == 0
    assert limit.take(["a"], 0.5) == 0
    assert limit.take(["a"], 0.5, 4) == 2.0
    assert limit.take(["a"], 60.0, 4) == 0  # the bucket is full, not fuller


def test_units_are_taken_from_all_names_or_from_none() -> None:
    limit = RateLimit(1, 1)
    assert limit.take(["a"], 0.0) == 0
    assert limit.take(["a", "b"], 0.0) == 1.0
    assert limit.take(["b"], 0.0) == 0


def test_without_a_rate_there_is_no_limit() -> None:
    assert RateLimit(0, 0).take(["a"], 0.0, 1e9) == 0


def test_the_name_that_was_used_least_recently_is_forgotten() -> None:
    limit = RateLimit(0.001, 1)
    for number in range(10_001):
        assert limit.take([str(number)], 0.0) == 0
    assert limit.take(["0"], 0.0) == 0
    assert limit.take(["10000"], 0.0) > 0
